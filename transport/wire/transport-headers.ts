/**
 * The bytes of a packet that are the same on every kind of network: BTH, extension headers
 * (`extension-headers.ts`), payload and pad (IBTA volume 1, chapter 9). What is in front of them and
 * the ICRC behind them belong to the network (`infiniband.ts`, `roce.ts`).
 *
 * Every bit is kept: a packet that was read and is written again has the same bytes. An opcode that
 * is not in the table has a BTH, and everything behind it is payload.
 */
import { get16, get24, put16, put32 } from './big-endian.ts';
import { putExtensions, takeExtensions } from './extension-headers.ts';
import { BURST, BURST_OFFSET, FRAME_WORDS, type FramePool, PAYLOAD_BYTES } from './frame-pool.ts';
import { OP_KNOWN, opFlags, opHeaderBytes, opHeaders } from './opcodes.ts';
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
  W_BTH_FLAGS,
  W_DEST_QPN,
  W_OPCODE,
  W_PKEY,
  W_PSN,
} from './packet.ts';

export const BTH_BYTES = 12;
/** Flags of a BTH that adapters of ours do not set. */
const BTH_RARE =
  BTH_NOT_MIGRATED |
  BTH_FECN |
  BTH_BECN |
  (0xf << BTH_TVER_SHIFT) |
  (0x3f << BTH_RESERVED6_SHIFT) |
  (0x7f << BTH_RESERVED7_SHIFT);
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
  out[at + 1] = (flags & BTH_SOLICITED ? 0x80 : 0) | 0x40 | (pad << 4);
  put16(out, at + 2, words[base + W_PKEY]);
  put32(out, at + 4, words[base + W_DEST_QPN] & 0xffffff);
  const psn = (words[base + W_PSN] + index) & 0xffffff;
  put32(out, at + 8, (flags & BTH_ACK_REQUEST ? 0x80000000 : 0) | psn);
  if ((flags & BTH_RARE) !== 0) putRareBits(flags, out, at);

  if (opHeaders[opcode] !== 0) putExtensions(pool, frame, opcode, out, at);
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
  words[base + W_OPCODE] = opcode;
  words[base + W_PKEY] = get16(bytes, at + 2);
  words[base + W_DEST_QPN] = get24(bytes, at + 5);
  words[base + W_PSN] = get24(bytes, at + 9);
  words[base + W_BTH_FLAGS] =
    (bytes[at + 1] & 0x80 ? BTH_SOLICITED : 0) | (bytes[at + 8] & 0x80 ? BTH_ACK_REQUEST : 0);
  // Anything but MigReq alone.
  const rare = ((bytes[at + 1] ^ 0x40) & 0x4f) | bytes[at + 4] | (bytes[at + 8] & 0x7f);
  if (rare !== 0) words[base + W_BTH_FLAGS] |= rareBitsOf(bytes, at);

  if (opHeaders[opcode] !== 0) takeExtensions(pool, frame, opcode, bytes, at);

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

/** The BTH_RARE bits of `flags`, into a BTH that has none yet. */
function putRareBits(flags: number, out: Uint8Array, at: number): void {
  if (flags & BTH_NOT_MIGRATED) out[at + 1] &= ~0x40;
  out[at + 1] |= (flags >>> BTH_TVER_SHIFT) & 0xf;
  out[at + 4] =
    (flags & BTH_FECN ? 0x80 : 0) |
    (flags & BTH_BECN ? 0x40 : 0) |
    ((flags >>> BTH_RESERVED6_SHIFT) & 0x3f);
  out[at + 8] |= (flags >>> BTH_RESERVED7_SHIFT) & 0x7f;
}

function rareBitsOf(bytes: Uint8Array, at: number): number {
  const second = bytes[at + 1];
  const fifth = bytes[at + 4];
  return (
    (second & 0x40 ? 0 : BTH_NOT_MIGRATED) |
    ((second & 0xf) << BTH_TVER_SHIFT) |
    (fifth & 0x80 ? BTH_FECN : 0) |
    (fifth & 0x40 ? BTH_BECN : 0) |
    ((fifth & 0x3f) << BTH_RESERVED6_SHIFT) |
    ((bytes[at + 8] & 0x7f) << BTH_RESERVED7_SHIFT)
  );
}
