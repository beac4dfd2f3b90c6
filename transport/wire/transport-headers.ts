/**
 * The bytes of a packet that are the same on every kind of network: BTH, extension headers, payload
 * and pad (IBTA volume 1, chapter 9). What is in front of them and the ICRC behind them belong to
 * the network (`infiniband.ts`, `roce.ts`).
 *
 * Every bit is kept: a packet that was read and is written again has the same bytes. An opcode that
 * is not in the table has a BTH, and everything behind it is payload.
 */
import { get16, get24, get32, put16, put32 } from './big-endian.ts';
import { BURST, BURST_OFFSET, FRAME_WORDS, type FramePool, PAYLOAD_BYTES } from './frame-pool.ts';
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
  OP_KNOWN,
  opFlags,
  opHeaderBytes,
  opHeaders,
} from './opcodes.ts';
import {
  BTH_ACK_REQUEST,
  BTH_BECN,
  BTH_FECN,
  BTH_NOT_MIGRATED,
  BTH_RESERVED6_SHIFT,
  BTH_RESERVED7_SHIFT,
  BTH_SOLICITED,
  BTH_TVER_SHIFT,
  BTH_WITH_GRH,
  GRH_BYTES,
  HEADERS_MAX_BYTES,
  PACKET_BAD_LENGTH,
  PACKET_TRUNCATED,
  PAYLOAD_MAX_BYTES,
  W_AETH,
  W_BTH_FLAGS,
  W_CNP,
  W_COMPARE_HIGH,
  W_COMPARE_LOW,
  W_DEST_QPN,
  W_DETH_RESERVED,
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_OPCODE,
  W_ORIGINAL_HIGH,
  W_ORIGINAL_LOW,
  W_PKEY,
  W_PSN,
  W_QKEY,
  W_RKEY,
  W_SOURCE_QPN,
  W_SWAP_HIGH,
  W_SWAP_LOW,
} from './packet.ts';

export const BTH_BYTES = 12;
/** Headers with a 64-bit address, and those whose one word is W_IMMEDIATE. */
const ADDRESSED = (1 << HDR_RETH) | (1 << HDR_ATOMICETH);
const ONE_WORD = (1 << HDR_IMMDT) | (1 << HDR_IETH) | (1 << HDR_FETH);
const RARE = (1 << HDR_ATOMICETH) | (1 << HDR_ATOMICACKETH) | (1 << HDR_DETH) | (1 << HDR_CNP);
/** The most payload behind a BTH: what an unknown opcode calls payload may be headers. */
const UNKNOWN_MAX_BYTES = PAYLOAD_MAX_BYTES + HEADERS_MAX_BYTES - BTH_BYTES;
/** A GRH area and a payload, put together before they become a burst. */
const datagram = new Uint8Array(GRH_BYTES + UNKNOWN_MAX_BYTES);

/** Bytes of packet `frame` from its BTH to its pad. */
export function transportBytes(pool: FramePool, frame: number): number {
  const base = frame * FRAME_WORDS;
  const grh = pool.words[base + W_BTH_FLAGS] & BTH_WITH_GRH ? GRH_BYTES : 0;
  const payload = pool.words[base + PAYLOAD_BYTES] - grh;
  return opHeaderBytes[pool.words[base + W_OPCODE]] + ((payload + 3) & ~3);
}

/** Writes packet `index` of wire frame `frame` (0 unless it is a train) at `at`; returns the end of its pad. */
export function encodeTransport(
  pool: FramePool,
  frame: number,
  index: number,
  out: Uint8Array,
  at: number,
): number {
  const words = pool.words;
  const base = frame * FRAME_WORDS;
  const opcode = words[base + W_OPCODE];
  const flags = words[base + W_BTH_FLAGS];
  const grh = flags & BTH_WITH_GRH ? GRH_BYTES : 0;
  const payload = words[base + PAYLOAD_BYTES] - grh;
  const pad = -payload & 3;
  out[at] = opcode;
  out[at + 1] =
    (flags & BTH_SOLICITED ? 0x80 : 0) |
    (flags & BTH_NOT_MIGRATED ? 0 : 0x40) |
    (pad << 4) |
    ((flags >>> BTH_TVER_SHIFT) & 0xf);
  put16(out, at + 2, words[base + W_PKEY]);
  put32(out, at + 4, words[base + W_DEST_QPN] & 0xffffff);
  out[at + 4] =
    (flags & BTH_FECN ? 0x80 : 0) |
    (flags & BTH_BECN ? 0x40 : 0) |
    ((flags >>> BTH_RESERVED6_SHIFT) & 0x3f);
  put32(out, at + 8, (words[base + W_PSN] + index) & 0xffffff);
  out[at + 8] = (flags & BTH_ACK_REQUEST ? 0x80 : 0) | ((flags >>> BTH_RESERVED7_SHIFT) & 0x7f);

  const headers = opHeaders[opcode];
  if (headers !== 0) {
    if ((headers & ADDRESSED) !== 0) putAddress(pool, frame, opcode, headers, out, at);
    if ((headers & (1 << HDR_AETH)) !== 0) {
      put32(out, at + headerOffset(opcode, HDR_AETH), words[base + W_AETH]);
    }
    if ((headers & ONE_WORD) !== 0) {
      put32(out, at + wordOffset(opcode, headers), words[base + W_IMMEDIATE]);
    }
    if ((headers & RARE) !== 0) putRare(words, base, opcode, headers, out, at);
  }

  const data = at + opHeaderBytes[opcode];
  const end = data + payload + pad;
  if (payload > 0) {
    const offset = words[base + BURST_OFFSET] + index * payload + grh;
    pool.burstToBytes(words[base + BURST], offset, payload, out, data);
    for (let i = data + payload; i < end; i++) out[i] = 0;
  }
  return end;
}

/**
 * Reads the packet whose BTH stands in `bytes` at `at` and whose pad ends at `end` into a fresh
 * frame, or returns a PACKET_* problem. With `grh`, 40 bytes, they go in front of its payload. The
 * pad bytes are the caller's.
 */
export function decodeTransport(
  pool: FramePool,
  bytes: Uint8Array,
  at: number,
  end: number,
  grh?: Uint8Array,
): number {
  if (end - at < BTH_BYTES) return PACKET_TRUNCATED;
  const opcode = bytes[at];
  const data = at + opHeaderBytes[opcode];
  const pad = (bytes[at + 1] >>> 4) & 3;
  const payload = end - pad - data;
  if (payload < 0) return PACKET_TRUNCATED;
  const most = opFlags[opcode] & OP_KNOWN ? PAYLOAD_MAX_BYTES : UNKNOWN_MAX_BYTES;
  if (((end - at) & 3) !== 0 || payload > most) return PACKET_BAD_LENGTH;

  const frame = pool.allocate();
  const words = pool.words;
  const base = frame * FRAME_WORDS;
  const second = bytes[at + 1];
  const fifth = bytes[at + 4];
  const ninth = bytes[at + 8];
  words[base + W_OPCODE] = opcode;
  words[base + W_PKEY] = get16(bytes, at + 2);
  words[base + W_DEST_QPN] = get24(bytes, at + 5);
  words[base + W_PSN] = get24(bytes, at + 9);
  words[base + W_BTH_FLAGS] =
    (second & 0x80 ? BTH_SOLICITED : 0) |
    (second & 0x40 ? 0 : BTH_NOT_MIGRATED) |
    ((second & 0xf) << BTH_TVER_SHIFT) |
    (fifth & 0x80 ? BTH_FECN : 0) |
    (fifth & 0x40 ? BTH_BECN : 0) |
    ((fifth & 0x3f) << BTH_RESERVED6_SHIFT) |
    (ninth & 0x80 ? BTH_ACK_REQUEST : 0) |
    ((ninth & 0x7f) << BTH_RESERVED7_SHIFT);

  const headers = opHeaders[opcode];
  if (headers !== 0) {
    if ((headers & ADDRESSED) !== 0) takeAddress(pool, frame, opcode, headers, bytes, at);
    if ((headers & (1 << HDR_AETH)) !== 0) {
      words[base + W_AETH] = get32(bytes, at + headerOffset(opcode, HDR_AETH));
    }
    if ((headers & ONE_WORD) !== 0) {
      words[base + W_IMMEDIATE] = get32(bytes, at + wordOffset(opcode, headers));
    }
    if ((headers & RARE) !== 0) takeRare(words, base, opcode, headers, bytes, at);
  }

  if (grh !== undefined) {
    datagram.set(grh.subarray(0, GRH_BYTES));
    datagram.set(bytes.subarray(data, data + payload), GRH_BYTES);
    words[base + W_BTH_FLAGS] |= BTH_WITH_GRH;
    words[base + PAYLOAD_BYTES] = GRH_BYTES + payload;
    words[base + BURST] = pool.burstFromBytes(datagram, 0, GRH_BYTES + payload);
  } else if (payload > 0) {
    words[base + PAYLOAD_BYTES] = payload;
    words[base + BURST] = pool.burstFromBytes(bytes, data, payload);
  }
  return frame;
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
