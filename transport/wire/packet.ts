/**
 * Packets on the wire: the fields of a frame, and their bytes as IBTA volume 1 lays them out.
 *
 * Inside a process a packet is the words of a pool frame. Bytes and ICRC are made when it leaves the
 * process and are checked when one arrives. The packet is a local one (IBTA chapters 7 and 9): LRH,
 * BTH, extension headers, payload, pad, ICRC. The VCRC belongs to a physical link and is not carried.
 */
import { BURST, BURST_OFFSET, FRAME_WORDS, type FramePool, PAYLOAD_BYTES } from './frame-pool.ts';
import { icrcOfLocalPacket } from './icrc.ts';
import {
  HDR_AETH,
  HDR_IMMDT,
  HDR_RETH,
  headerOffset,
  OP_KNOWN,
  OP_PAYLOAD,
  opFlags,
  opHeaderBytes,
} from './opcodes.ts';

// Content words of a wire frame. Double 0 is the virtual address of RETH or AtomicETH; where it is
// 2^53 or more, double 1 holds its low 32 bits, so that it is exact.
export const W_OPCODE = 0;
export const W_DEST_QPN = 1;
export const W_PSN = 2;
/** BTH_* bits. */
export const W_BTH_FLAGS = 3;
/** The rkey of RETH or AtomicETH; of a UD packet its Q_Key. */
export const W_RKEY = 4;
export const W_QKEY = 4;
/** Bytes of a WRITE, READ or FLUSH (RETH); of a UD packet its source QP. */
export const W_DMA_BYTES = 5;
export const W_SOURCE_QPN = 5;
/** Syndrome in the high byte, MSN below. */
export const W_AETH = 6;
/** Immediate data (ImmDt), the rkey to invalidate (IETH), or the FETH. */
export const W_IMMEDIATE = 7;
/** Source LID in the high half, destination LID in the low half. */
export const W_LIDS = 8;
export const W_PKEY = 9;
// AtomicETH: what to add or to swap in, and what to compare with. AtomicAckETH: the original value.
export const W_SWAP_HIGH = 5;
export const W_SWAP_LOW = 6;
export const W_COMPARE_HIGH = 7;
export const W_COMPARE_LOW = 10;
export const W_ORIGINAL_HIGH = 5;
export const W_ORIGINAL_LOW = 7;

/** Bits of W_BTH_FLAGS. A packet with none has MigReq set and is otherwise all zeros. */
export const BTH_SOLICITED = 1;
export const BTH_ACK_REQUEST = 2;
/** MigReq is clear: the sender's path is not in the migrated state, or it does not know of paths. */
export const BTH_NOT_MIGRATED = 4;
export const BTH_FECN = 8;
export const BTH_BECN = 16;
/** The payload starts with the 40 bytes of the packet's GRH, or of its IP header (UD). */
export const BTH_WITH_GRH = 32;
// What adapters do not look at, kept so that a captured packet can be written again byte for byte.
export const BTH_TVER_SHIFT = 8; // 4 bits: transport header version
export const BTH_RESERVED6_SHIFT = 12; // 6 bits beside FECN and BECN
export const BTH_RESERVED7_SHIFT = 18; // 7 bits beside AckReq

export const PKEY_DEFAULT = 0xffff;

const LRH_BYTES = 8;
const ICRC_BYTES = 4;
const VCRC_BYTES = 2;
/** LRH "next header" 2: BTH follows, no GRH. */
const LNH_IBA_LOCAL = 2;

/** Why bytes are not a packet; negative so that they never look like a frame. */
export const PACKET_TRUNCATED = -1;
export const PACKET_BAD_LENGTH = -2;
export const PACKET_UNKNOWN_OPCODE = -3;
export const PACKET_BAD_ICRC = -4;
export const PACKET_BAD_ADDRESS = -5;
export const packetProblem: Readonly<Record<number, string>> = {
  [PACKET_TRUNCATED]: 'the packet ends inside its headers',
  [PACKET_BAD_LENGTH]: 'the LRH packet length is not the number of bytes that came',
  [PACKET_UNKNOWN_OPCODE]: 'the opcode is not in the table',
  [PACKET_BAD_ICRC]: 'the ICRC does not match',
  [PACKET_BAD_ADDRESS]: 'the virtual address does not fit 53 bits',
};

/** Bytes a packet takes on the link, from the first byte of the LRH to the VCRC. */
export function packetWireBytes(opcode: number, payloadBytes: number): number {
  const padded = (payloadBytes + 3) & ~3;
  return LRH_BYTES + opHeaderBytes[opcode] + padded + ICRC_BYTES + VCRC_BYTES;
}

/**
 * The same in four-octet words, as port counters count them: from the LRH to the ICRC, without the
 * VCRC (IBTA 16.1.3.5, PortXmitData).
 */
export function packetDataWords(opcode: number, payloadBytes: number): number {
  return (packetWireBytes(opcode, payloadBytes) - VCRC_BYTES) / 4;
}

/** The most bytes `encodePacket` writes for any packet of this MTU. */
export const PACKET_MAX_BYTES = LRH_BYTES + 64 + 4096 + ICRC_BYTES;

/** Writes packet `index` of wire frame `frame` (0 unless it is a train) at `at`; returns its end. */
export function encodePacket(
  pool: FramePool,
  frame: number,
  index: number,
  out: Uint8Array,
  at: number,
): number {
  const words = pool.words;
  const base = frame * FRAME_WORDS;
  const opcode = words[base + W_OPCODE];
  const payload = words[base + PAYLOAD_BYTES];
  const pad = -payload & 3;
  const bth = at + LRH_BYTES;
  const data = bth + opHeaderBytes[opcode];
  const end = data + payload + pad;
  const flags = words[base + W_BTH_FLAGS];

  out[at] = 0;
  out[at + 1] = LNH_IBA_LOCAL;
  put16(out, at + 2, words[base + W_LIDS] & 0xffff);
  put16(out, at + 4, (end + ICRC_BYTES - at) >>> 2);
  put16(out, at + 6, words[base + W_LIDS] >>> 16);

  out[bth] = opcode;
  out[bth + 1] = (flags & BTH_SOLICITED ? 0x80 : 0) | 0x40 | (pad << 4);
  put16(out, bth + 2, words[base + W_PKEY]);
  put32(out, bth + 4, words[base + W_DEST_QPN] & 0xffffff);
  const psn = (words[base + W_PSN] + index) & 0xffffff;
  put32(out, bth + 8, (flags & BTH_ACK_REQUEST ? 0x80000000 : 0) | psn);

  const reth = headerOffset(opcode, HDR_RETH);
  if (reth >= 0) {
    const va = pool.doubles[frame * 2];
    put32(out, bth + reth, (va / 4294967296) | 0);
    put32(out, bth + reth + 4, va | 0);
    put32(out, bth + reth + 8, words[base + W_RKEY]);
    put32(out, bth + reth + 12, words[base + W_DMA_BYTES]);
  }
  const aeth = headerOffset(opcode, HDR_AETH);
  if (aeth >= 0) put32(out, bth + aeth, words[base + W_AETH]);
  const immdt = headerOffset(opcode, HDR_IMMDT);
  if (immdt >= 0) put32(out, bth + immdt, words[base + W_IMMEDIATE]);

  if (payload > 0) {
    const offset = words[base + BURST_OFFSET] + index * payload;
    pool.burstToBytes(words[base + BURST], offset, payload, out, data);
    for (let i = data + payload; i < end; i++) out[i] = 0;
  }
  const icrc = icrcOfLocalPacket(out, at, end);
  out[end] = icrc;
  out[end + 1] = icrc >>> 8;
  out[end + 2] = icrc >>> 16;
  out[end + 3] = icrc >>> 24;
  return end + ICRC_BYTES;
}

/** Reads the packet in `bytes` from `at` to `end` into a fresh frame, or returns a PACKET_* problem. */
export function decodePacket(pool: FramePool, bytes: Uint8Array, at: number, end: number): number {
  const bth = at + LRH_BYTES;
  if (end - at < LRH_BYTES + 12 + ICRC_BYTES) return PACKET_TRUNCATED;
  if (get16(bytes, at + 4) * 4 !== end - at) return PACKET_BAD_LENGTH;
  const opcode = bytes[bth];
  const flags = opFlags[opcode];
  if ((flags & OP_KNOWN) === 0) return PACKET_UNKNOWN_OPCODE;
  const data = bth + opHeaderBytes[opcode];
  const pad = (bytes[bth + 1] >>> 4) & 3;
  const payload = end - ICRC_BYTES - pad - data;
  if (payload < 0) return PACKET_TRUNCATED;
  if (payload > 4096 || ((flags & OP_PAYLOAD) === 0 && payload + pad > 0)) return PACKET_BAD_LENGTH;
  const carried =
    (bytes[end - 4] | (bytes[end - 3] << 8) | (bytes[end - 2] << 16) | (bytes[end - 1] << 24)) >>>
    0;
  if (icrcOfLocalPacket(bytes, at, end - ICRC_BYTES) !== carried) return PACKET_BAD_ICRC;

  const reth = headerOffset(opcode, HDR_RETH);
  // An address above 2^53 cannot be any host's: hosts have 47-bit user addresses.
  if (reth >= 0 && get32(bytes, bth + reth) >= 0x200000) return PACKET_BAD_ADDRESS;

  const frame = pool.allocate();
  const words = pool.words;
  const base = frame * FRAME_WORDS;
  words[base + W_OPCODE] = opcode;
  words[base + W_LIDS] = (get16(bytes, at + 6) << 16) | get16(bytes, at + 2);
  words[base + W_PKEY] = get16(bytes, bth + 2);
  words[base + W_DEST_QPN] = get32(bytes, bth + 4) & 0xffffff;
  words[base + W_PSN] = get32(bytes, bth + 8) & 0xffffff;
  words[base + W_BTH_FLAGS] =
    (bytes[bth + 1] & 0x80 ? BTH_SOLICITED : 0) | (bytes[bth + 8] & 0x80 ? BTH_ACK_REQUEST : 0);
  if (reth >= 0) {
    pool.doubles[frame * 2] = get32(bytes, bth + reth) * 4294967296 + get32(bytes, bth + reth + 4);
    words[base + W_RKEY] = get32(bytes, bth + reth + 8);
    words[base + W_DMA_BYTES] = get32(bytes, bth + reth + 12);
  }
  const aeth = headerOffset(opcode, HDR_AETH);
  if (aeth >= 0) words[base + W_AETH] = get32(bytes, bth + aeth);
  const immdt = headerOffset(opcode, HDR_IMMDT);
  if (immdt >= 0) words[base + W_IMMEDIATE] = get32(bytes, bth + immdt);
  words[base + PAYLOAD_BYTES] = payload;
  if (payload > 0) words[base + BURST] = pool.burstFromBytes(bytes, data, payload);
  return frame;
}

function put16(out: Uint8Array, at: number, value: number): void {
  out[at] = value >>> 8;
  out[at + 1] = value;
}

function put32(out: Uint8Array, at: number, value: number): void {
  out[at] = value >>> 24;
  out[at + 1] = value >>> 16;
  out[at + 2] = value >>> 8;
  out[at + 3] = value;
}

function get16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

function get32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}
