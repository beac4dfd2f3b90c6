/**
 * The bytes of extension headers: RETH, AETH, AtomicETH and the others of IBTA volume 1, chapter 9,
 * between the words of a frame and the wire. Which of them an opcode has stands in `opcodes.ts`.
 */
import { get24, get32, put32 } from './big-endian.ts';
import { FRAME_WORDS, type FramePool } from './frame-pool.ts';
import {
  HDR_AETH,
  HDR_ATOMICACKETH,
  HDR_ATOMICETH,
  HDR_CNP,
  HDR_DETH,
  HDR_FETH,
  HDR_IETH,
  HDR_IMMDT,
  HDR_RETH,
  headerOffset,
  opHeaders,
} from './opcodes.ts';
import {
  W_AETH,
  W_CNP,
  W_COMPARE_HIGH,
  W_COMPARE_LOW,
  W_DETH_RESERVED,
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_ORIGINAL_HIGH,
  W_ORIGINAL_LOW,
  W_QKEY,
  W_RKEY,
  W_SOURCE_QPN,
  W_SWAP_HIGH,
  W_SWAP_LOW,
} from './packet.ts';

/** Headers with a 64-bit address, those whose one word is W_IMMEDIATE, and those that are not common. */
const ADDRESSED = (1 << HDR_RETH) | (1 << HDR_ATOMICETH);
const ONE_WORD = (1 << HDR_IMMDT) | (1 << HDR_IETH) | (1 << HDR_FETH);
const RARE = (1 << HDR_ATOMICETH) | (1 << HDR_ATOMICACKETH) | (1 << HDR_DETH) | (1 << HDR_CNP);

/** Writes the extension headers of a wire frame into the packet whose BTH stands at `at`. */
export function putExtensions(
  pool: FramePool,
  frame: number,
  opcode: number,
  out: Uint8Array,
  at: number,
): void {
  const words = pool.words;
  const base = frame * FRAME_WORDS;
  const headers = opHeaders[opcode];
  if ((headers & ADDRESSED) !== 0) putAddress(pool, frame, opcode, headers, out, at);
  if ((headers & (1 << HDR_AETH)) !== 0) {
    put32(out, at + headerOffset(opcode, HDR_AETH), words[base + W_AETH]);
  }
  if ((headers & ONE_WORD) !== 0) {
    put32(out, at + wordOffset(opcode, headers), words[base + W_IMMEDIATE]);
  }
  if ((headers & RARE) !== 0) putRare(words, base, opcode, headers, out, at);
}

/** Reads the extension headers of the packet whose BTH stands at `at` into a wire frame. */
export function takeExtensions(
  pool: FramePool,
  frame: number,
  opcode: number,
  bytes: Uint8Array,
  at: number,
): void {
  const words = pool.words;
  const base = frame * FRAME_WORDS;
  const headers = opHeaders[opcode];
  if ((headers & ADDRESSED) !== 0) takeAddress(pool, frame, opcode, headers, bytes, at);
  if ((headers & (1 << HDR_AETH)) !== 0) {
    words[base + W_AETH] = get32(bytes, at + headerOffset(opcode, HDR_AETH));
  }
  if ((headers & ONE_WORD) !== 0) {
    words[base + W_IMMEDIATE] = get32(bytes, at + wordOffset(opcode, headers));
  }
  if ((headers & RARE) !== 0) takeRare(words, base, opcode, headers, bytes, at);
}

/** Sets the virtual address of a wire frame from its two halves. */
export function setAddress(pool: FramePool, frame: number, high: number, low: number): void {
  const isExact = high < 0x200000;
  pool.doubles[frame * 2] = high * 4294967296 + (isExact ? low : 0);
  pool.doubles[frame * 2 + 1] = isExact ? 0 : low;
}

function putAddress(
  pool: FramePool,
  frame: number,
  opcode: number,
  headers: number,
  out: Uint8Array,
  at: number,
): void {
  const isAtomic = (headers & (1 << HDR_ATOMICETH)) !== 0;
  const to = at + headerOffset(opcode, isAtomic ? HDR_ATOMICETH : HDR_RETH);
  const address = pool.doubles[frame * 2];
  const high = Math.floor(address / 4294967296);
  put32(out, to, high);
  // `| 0` takes a double modulo 2^32.
  put32(out, to + 4, high < 0x200000 ? address | 0 : pool.doubles[frame * 2 + 1] | 0);
  put32(out, to + 8, pool.words[frame * FRAME_WORDS + W_RKEY]);
  if (!isAtomic) put32(out, to + 12, pool.words[frame * FRAME_WORDS + W_DMA_BYTES]);
}

function takeAddress(
  pool: FramePool,
  frame: number,
  opcode: number,
  headers: number,
  bytes: Uint8Array,
  at: number,
): void {
  const isAtomic = (headers & (1 << HDR_ATOMICETH)) !== 0;
  const from = at + headerOffset(opcode, isAtomic ? HDR_ATOMICETH : HDR_RETH);
  setAddress(pool, frame, get32(bytes, from), get32(bytes, from + 4));
  pool.words[frame * FRAME_WORDS + W_RKEY] = get32(bytes, from + 8);
  if (!isAtomic) pool.words[frame * FRAME_WORDS + W_DMA_BYTES] = get32(bytes, from + 12);
}

function wordOffset(opcode: number, headers: number): number {
  if ((headers & (1 << HDR_IMMDT)) !== 0) return headerOffset(opcode, HDR_IMMDT);
  return headerOffset(opcode, (headers & (1 << HDR_IETH)) !== 0 ? HDR_IETH : HDR_FETH);
}

function putRare(
  words: Int32Array,
  base: number,
  opcode: number,
  headers: number,
  out: Uint8Array,
  at: number,
): void {
  if ((headers & (1 << HDR_ATOMICETH)) !== 0) {
    const to = at + headerOffset(opcode, HDR_ATOMICETH);
    put32(out, to + 12, words[base + W_SWAP_HIGH]);
    put32(out, to + 16, words[base + W_SWAP_LOW]);
    put32(out, to + 20, words[base + W_COMPARE_HIGH]);
    put32(out, to + 24, words[base + W_COMPARE_LOW]);
  } else if ((headers & (1 << HDR_ATOMICACKETH)) !== 0) {
    const to = at + headerOffset(opcode, HDR_ATOMICACKETH);
    put32(out, to, words[base + W_ORIGINAL_HIGH]);
    put32(out, to + 4, words[base + W_ORIGINAL_LOW]);
  } else if ((headers & (1 << HDR_DETH)) !== 0) {
    const to = at + headerOffset(opcode, HDR_DETH);
    put32(out, to, words[base + W_QKEY]);
    put32(out, to + 4, words[base + W_SOURCE_QPN]);
    out[to + 4] = words[base + W_DETH_RESERVED];
  } else {
    const to = at + headerOffset(opcode, HDR_CNP);
    for (let i = 0; i < 4; i++) put32(out, to + 4 * i, words[base + W_CNP + i]);
  }
}

function takeRare(
  words: Int32Array,
  base: number,
  opcode: number,
  headers: number,
  bytes: Uint8Array,
  at: number,
): void {
  if ((headers & (1 << HDR_ATOMICETH)) !== 0) {
    const from = at + headerOffset(opcode, HDR_ATOMICETH);
    words[base + W_SWAP_HIGH] = get32(bytes, from + 12);
    words[base + W_SWAP_LOW] = get32(bytes, from + 16);
    words[base + W_COMPARE_HIGH] = get32(bytes, from + 20);
    words[base + W_COMPARE_LOW] = get32(bytes, from + 24);
  } else if ((headers & (1 << HDR_ATOMICACKETH)) !== 0) {
    const from = at + headerOffset(opcode, HDR_ATOMICACKETH);
    words[base + W_ORIGINAL_HIGH] = get32(bytes, from);
    words[base + W_ORIGINAL_LOW] = get32(bytes, from + 4);
  } else if ((headers & (1 << HDR_DETH)) !== 0) {
    const from = at + headerOffset(opcode, HDR_DETH);
    words[base + W_QKEY] = get32(bytes, from);
    words[base + W_SOURCE_QPN] = get24(bytes, from + 5);
    words[base + W_DETH_RESERVED] = bytes[from + 4];
  } else {
    const from = at + headerOffset(opcode, HDR_CNP);
    for (let i = 0; i < 4; i++) words[base + W_CNP + i] = get32(bytes, from + 4 * i);
  }
}
