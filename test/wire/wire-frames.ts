/** Wire frames for tests of their bytes: every field set that an opcode carries, and nothing else. */
import fc from 'fast-check';
import {
  BURST,
  BURST_OFFSET,
  FRAME_WORDS,
  type FramePool,
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
  PAYLOAD_BYTES,
  setAddress,
  W_AETH,
  W_BTH_FLAGS,
  W_CNP,
  W_COMPARE_HIGH,
  W_COMPARE_LOW,
  W_DEST_QPN,
  W_DETH_RESERVED,
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_LIDS,
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
} from '../../transport/index.ts';

export const allOpcodes = Array.from({ length: 256 }, (_, op) => op);
export const knownOpcodes = allOpcodes.filter((op) => (opFlags[op] & OP_KNOWN) !== 0);

/** Every bit of W_BTH_FLAGS that a BTH carries. */
const BTH_BITS = 0b1_1111 | (0xf << 8) | (0x3f << 12) | (0x7f << 18);

export interface PlainPacket {
  readonly opcode: number;
  readonly flags: number;
  readonly qpn: number;
  readonly psn: number;
  readonly lids: number;
  readonly pkey: number;
  readonly addressHigh: number;
  readonly addressLow: number;
  /** Whatever the extension headers hold. */
  readonly words: readonly number[];
  readonly payload: Uint8Array;
}

const u24 = fc.integer({ min: 0, max: 0xffffff });
const u32 = fc.integer({ min: 0, max: 0xffffffff });

/** Any packet with one of `opcodes`; opcodes without payload get some as well: adapters refuse it, not the codec. */
export const anyPacket = (opcodes: readonly number[]): fc.Arbitrary<PlainPacket> =>
  fc.record({
    opcode: fc.constantFrom(...opcodes),
    flags: fc.integer().map((bits) => bits & BTH_BITS),
    qpn: u24,
    psn: u24,
    lids: fc.integer(),
    pkey: fc.integer({ min: 0, max: 0xffff }),
    addressHigh: fc.oneof(fc.integer({ min: 0, max: 0x1fffff }), u32),
    addressLow: u32,
    words: fc.array(fc.integer(), { minLength: 8, maxLength: 8 }),
    payload: fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ maxLength: 4096 })),
  });

/** The pool frame of a packet. */
export function frameOf(pool: FramePool, packet: PlainPacket): number {
  const { opcode, payload, words } = packet;
  const frame = pool.allocate();
  const w = pool.words.subarray(frame * FRAME_WORDS, (frame + 1) * FRAME_WORDS);
  const has = (header: number): boolean => headerOffset(opcode, header) >= 0;
  w[W_OPCODE] = opcode;
  w[W_BTH_FLAGS] = packet.flags;
  w[W_DEST_QPN] = packet.qpn;
  w[W_PSN] = packet.psn;
  w[W_LIDS] = packet.lids;
  w[W_PKEY] = packet.pkey;
  if (has(HDR_RETH) || has(HDR_ATOMICETH)) {
    setAddress(pool, frame, packet.addressHigh, packet.addressLow);
    w[W_RKEY] = words[0];
  }
  if (has(HDR_RETH)) w[W_DMA_BYTES] = words[1];
  if (has(HDR_AETH)) w[W_AETH] = words[2];
  if (has(HDR_IMMDT) || has(HDR_IETH) || has(HDR_FETH)) w[W_IMMEDIATE] = words[3];
  if (has(HDR_ATOMICETH)) {
    [w[W_SWAP_HIGH], w[W_SWAP_LOW], w[W_COMPARE_HIGH], w[W_COMPARE_LOW]] = words.slice(4);
  }
  if (has(HDR_ATOMICACKETH)) [w[W_ORIGINAL_HIGH], w[W_ORIGINAL_LOW]] = words.slice(4);
  if (has(HDR_DETH)) {
    w[W_QKEY] = words[4];
    w[W_SOURCE_QPN] = words[5] & 0xffffff;
    w[W_DETH_RESERVED] = words[6] & 0xff;
  }
  if (has(HDR_CNP)) for (let i = 0; i < 4; i++) w[W_CNP + i] = words[4 + i];
  w[PAYLOAD_BYTES] = payload.length;
  if (payload.length > 0) w[BURST] = pool.burstFromBytes(payload, 0, payload.length);
  return frame;
}

/** Everything of a frame that means something, for comparison. */
export function contentOf(pool: FramePool, frame: number): unknown {
  const base = frame * FRAME_WORDS;
  const words = [...pool.words.subarray(base, base + BURST)];
  return [words, ...pool.doubles.subarray(frame * 2, frame * 2 + 2), ...payloadOf(pool, frame)];
}

export function payloadOf(pool: FramePool, frame: number): Uint8Array {
  const base = frame * FRAME_WORDS;
  const bytes = new Uint8Array(pool.words[base + PAYLOAD_BYTES]);
  if (bytes.length > 0) {
    const offset = pool.words[base + BURST_OFFSET];
    pool.burstToBytes(pool.words[base + BURST], offset, bytes.length, bytes, 0);
  }
  return bytes;
}

/** What is in use in a pool; all zero when nothing leaked. */
export function inUse(pool: FramePool): number[] {
  return [pool.framesInUse, pool.burstsInUse, pool.blocks.blocksInUse];
}

/** The bytes written in hexadecimal, blanks allowed. */
export function hex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'));
}
