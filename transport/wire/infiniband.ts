/**
 * Native InfiniBand packets: LRH, a GRH where the LRH says so, and the ICRC (IBTA volume 1, chapters
 * 7 and 8).
 *
 * `encodePacket` and `decodePacket` make and read what passes between our processes: local packets,
 * or, for a datagram whose payload starts with a GRH, global ones. The VCRC belongs to a physical
 * link; only captures have it.
 */
import { get16, put16 } from './big-endian.ts';
import { BURST, BURST_OFFSET, FRAME_WORDS, type FramePool } from './frame-pool.ts';
import { icrcOfGlobalPacket, icrcOfLocalPacket, vcrc } from './icrc.ts';
import { SERVICE_MASK, SERVICE_UD } from './opcodes.ts';
import {
  BTH_DAMAGED,
  BTH_WITH_GRH,
  GRH_BYTES,
  HEADERS_MAX_BYTES,
  ICRC_BYTES,
  PACKET_BAD_ICRC,
  PACKET_BAD_LENGTH,
  PACKET_BAD_PAD,
  PACKET_FOREIGN,
  PACKET_TRUNCATED,
  PAYLOAD_MAX_BYTES,
  W_BTH_FLAGS,
  W_LIDS,
} from './packet.ts';
import { BTH_BYTES, decodeTransport, encodeTransport } from './transport-headers.ts';

const LRH_BYTES = 8;
const VCRC_BYTES = 2;
/** LRH "next header": BTH follows, or GRH and then BTH. */
export const LNH_LOCAL = 2;
export const LNH_GLOBAL = 3;

/** The most bytes `encodePacket` writes for any packet. */
export const PACKET_MAX_BYTES =
  LRH_BYTES + GRH_BYTES + HEADERS_MAX_BYTES + PAYLOAD_MAX_BYTES + ICRC_BYTES;

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
  const flags = words[base + W_BTH_FLAGS];
  const isGlobal = (flags & BTH_WITH_GRH) !== 0;
  const bth = at + LRH_BYTES + (isGlobal ? GRH_BYTES : 0);
  if (isGlobal) {
    const offset = words[base + BURST_OFFSET];
    pool.burstToBytes(words[base + BURST], offset, GRH_BYTES, out, at + LRH_BYTES);
  }
  const end = encodeTransport(pool, frame, index, out, bth);
  out[at] = 0;
  out[at + 1] = isGlobal ? LNH_GLOBAL : LNH_LOCAL;
  put16(out, at + 2, words[base + W_LIDS] & 0xffff);
  put16(out, at + 4, (end + ICRC_BYTES - at) >>> 2);
  put16(out, at + 6, words[base + W_LIDS] >>> 16);
  const icrc = isGlobal ? icrcOfGlobalPacket(out, at, end) : icrcOfLocalPacket(out, at, end);
  putIcrc(out, end, flags & BTH_DAMAGED ? ~icrc : icrc);
  return end + ICRC_BYTES;
}

/** Reads the packet in `bytes` from `at` to `end` into a fresh frame, or returns a PACKET_* problem. */
export function decodePacket(pool: FramePool, bytes: Uint8Array, at: number, end: number): number {
  if (end - at < LRH_BYTES + BTH_BYTES + ICRC_BYTES) return PACKET_TRUNCATED;
  if ((get16(bytes, at + 4) & 0x7ff) * 4 !== end - at) return PACKET_BAD_LENGTH;
  const lnh = bytes[at + 1] & 3;
  if (lnh !== LNH_LOCAL && lnh !== LNH_GLOBAL) return PACKET_FOREIGN;
  const isGlobal = lnh === LNH_GLOBAL;
  const bth = at + LRH_BYTES + (isGlobal ? GRH_BYTES : 0);
  const data = end - ICRC_BYTES;
  if (data - bth < BTH_BYTES) return PACKET_TRUNCATED;
  if (padOf(bytes, bth, data) !== 0) return PACKET_BAD_PAD;
  const icrc = isGlobal ? icrcOfGlobalPacket(bytes, at, data) : icrcOfLocalPacket(bytes, at, data);
  const difference = icrc ^ getIcrc(bytes, data);
  if (difference !== 0 && difference !== -1) return PACKET_BAD_ICRC;
  // Of a connected service the GRH says nothing that the LIDs do not.
  const isDatagram = isGlobal && (bytes[bth] & SERVICE_MASK) === SERVICE_UD;
  const grh = isDatagram ? bytes.subarray(at + LRH_BYTES, bth) : undefined;
  const frame = decodeTransport(pool, bytes, bth, data, grh);
  if (frame < 0) return frame;
  const base = frame * FRAME_WORDS;
  pool.words[base + W_LIDS] = (get16(bytes, at + 6) << 16) | get16(bytes, at + 2);
  if (difference !== 0) pool.words[base + W_BTH_FLAGS] |= BTH_DAMAGED;
  return frame;
}

/** What a native packet of a capture has in front of its BTH and behind its ICRC. */
export class NativeHeader {
  /** As it stands; its length field is made right when it is written. */
  readonly lrh = new Uint8Array(LRH_BYTES);
  /** Of a global packet (LNH_GLOBAL). */
  readonly grh = new Uint8Array(GRH_BYTES);
  padBytes = 0;
  /** The ICRC that came, exclusive or the right one; 0: right. The same of the VCRC. */
  icrcError = 0;
  vcrcError = 0;
  /** Whether the packet ends with a VCRC. */
  hasVcrc = true;

  get isGlobal(): boolean {
    return (this.lrh[1] & 3) === LNH_GLOBAL;
  }

  get destLid(): number {
    return get16(this.lrh, 2);
  }

  get sourceLid(): number {
    return get16(this.lrh, 6);
  }
}

/**
 * Reads a captured native packet, with or without VCRC, into `header` and a fresh frame, or returns
 * a PACKET_* problem. A wrong ICRC is no problem here: `header` has it, and the frame is BTH_DAMAGED.
 */
export function decodeNative(
  pool: FramePool,
  bytes: Uint8Array,
  at: number,
  end: number,
  header: NativeHeader,
): number {
  if (end - at < LRH_BYTES) return PACKET_TRUNCATED;
  header.lrh.set(bytes.subarray(at, at + LRH_BYTES));
  const lnh = bytes[at + 1] & 3;
  if (lnh !== LNH_LOCAL && lnh !== LNH_GLOBAL) return PACKET_FOREIGN;
  const bth = at + LRH_BYTES + (header.isGlobal ? GRH_BYTES : 0);
  const packetEnd = at + (get16(bytes, at + 4) & 0x7ff) * 4;
  const icrc = packetEnd - ICRC_BYTES;
  if (packetEnd > end || icrc - bth < BTH_BYTES) return PACKET_TRUNCATED;
  header.hasVcrc = end - packetEnd === VCRC_BYTES;
  if (!header.hasVcrc && end !== packetEnd) return PACKET_BAD_LENGTH;
  if (header.isGlobal) header.grh.set(bytes.subarray(at + LRH_BYTES, bth));
  const frame = decodeTransport(pool, bytes, bth, icrc);
  if (frame < 0) return frame;
  const base = frame * FRAME_WORDS;
  pool.words[base + W_LIDS] = (header.sourceLid << 16) | header.destLid;
  header.padBytes = padOf(bytes, bth, icrc);
  const right = header.isGlobal
    ? icrcOfGlobalPacket(bytes, at, icrc)
    : icrcOfLocalPacket(bytes, at, icrc);
  header.icrcError = getIcrc(bytes, icrc) ^ right;
  if (header.icrcError !== 0) pool.words[base + W_BTH_FLAGS] |= BTH_DAMAGED;
  const carried = header.hasVcrc ? bytes[packetEnd] | (bytes[packetEnd + 1] << 8) : 0;
  header.vcrcError = header.hasVcrc ? carried ^ vcrc(bytes, at, packetEnd) : 0;
  return frame;
}

/** Writes packet `index` of wire frame `frame` with `header` in front and a VCRC behind; returns its end. */
export function encodeNative(
  pool: FramePool,
  frame: number,
  index: number,
  header: NativeHeader,
  out: Uint8Array,
  at: number,
): number {
  const bth = at + LRH_BYTES + (header.isGlobal ? GRH_BYTES : 0);
  out.set(header.lrh, at);
  if (header.isGlobal) out.set(header.grh, at + LRH_BYTES);
  const end = encodeTransport(pool, frame, index, out, bth);
  const words = (end + ICRC_BYTES - at) >>> 2;
  out[at + 4] = (header.lrh[4] & 0xf8) | (words >>> 8);
  out[at + 5] = words;
  for (let pad = header.padBytes, i = end - 1; pad !== 0; pad >>>= 8, i--) out[i] = pad;
  const icrc = header.isGlobal ? icrcOfGlobalPacket(out, at, end) : icrcOfLocalPacket(out, at, end);
  const isDamaged = (pool.words[frame * FRAME_WORDS + W_BTH_FLAGS] & BTH_DAMAGED) !== 0;
  putIcrc(out, end, icrc ^ (isDamaged && header.icrcError === 0 ? -1 : header.icrcError));
  if (!header.hasVcrc) return end + ICRC_BYTES;
  const variant = vcrc(out, at, end + ICRC_BYTES) ^ header.vcrcError;
  out[end + ICRC_BYTES] = variant;
  out[end + ICRC_BYTES + 1] = variant >>> 8;
  return end + ICRC_BYTES + VCRC_BYTES;
}

/** Writes an ICRC, least significant byte first. */
export function putIcrc(out: Uint8Array, at: number, icrc: number): void {
  out[at] = icrc;
  out[at + 1] = icrc >>> 8;
  out[at + 2] = icrc >>> 16;
  out[at + 3] = icrc >>> 24;
}

/** The ICRC that stands at `at`, as a signed number. */
export function getIcrc(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
}

/** The pad bytes (up to three) of a packet with its BTH at `bth` and its pad ending at `end`, as one number. */
export function padOf(bytes: Uint8Array, bth: number, end: number): number {
  let pad = 0;
  for (let i = end - ((bytes[bth + 1] >>> 4) & 3); i < end; i++) pad = (pad << 8) | bytes[i];
  return pad;
}
