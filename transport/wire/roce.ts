/**
 * RoCEv2 frames: Ethernet, IPv4 or IPv6, UDP port 4791, then a packet from its BTH to its ICRC (IBTA
 * annex A17).
 *
 * What a pool frame has no words for, addresses and the like, stands in a `RoceHeader` beside it.
 * A frame that was read is written again byte for byte from the two.
 */
import { checksumAdd, checksumEnd } from './addresses.ts';
import { get16, put16 } from './big-endian.ts';
import { FRAME_WORDS, type FramePool } from './frame-pool.ts';
import { type IcrcRule, icrcOfRoce, icrcRuleOf } from './icrc.ts';
import { getIcrc, padOf, putIcrc } from './infiniband.ts';
import { IPV4_BYTES, IpFrame, PROTOCOL_UDP } from './ip-frame.ts';
import { SERVICE_MASK, SERVICE_UD } from './opcodes.ts';
import {
  BTH_DAMAGED,
  GRH_BYTES,
  HEADERS_MAX_BYTES,
  ICRC_BYTES,
  PACKET_BAD_LENGTH,
  PACKET_FOREIGN,
  PACKET_FRAGMENT,
  PACKET_TRUNCATED,
  PAYLOAD_MAX_BYTES,
  W_BTH_FLAGS,
  W_OPCODE,
} from './packet.ts';
import {
  BTH_BYTES,
  decodeTransport,
  encodeTransport,
  transportBytes,
} from './transport-headers.ts';

/** The UDP destination port of RoCEv2. */
export const ROCE_UDP_PORT = 4791;
const UDP_BYTES = 8;
/** The most bytes `encodeRoce` writes: two VLAN tags, IPv4 options and a trailer included. */
export const ROCE_MAX_BYTES =
  14 + 8 + 60 + UDP_BYTES + HEADERS_MAX_BYTES + PAYLOAD_MAX_BYTES + ICRC_BYTES + 64;

/** Everything of a RoCEv2 frame that its pool frame does not hold. */
export class RoceHeader extends IpFrame {
  /** UDP source port: its high bits are all ones, the rest is the flow (udpSourcePort). */
  sourcePort = 0xc000;
  /** RoCEv2 recommends none. */
  hasUdpChecksum = false;
  /** The UDP checksum that came, exclusive or the right one; 0: right, or none. */
  udpChecksumError = 0;
  /** The pad bytes, the last of them lowest; zero by the specification. */
  padBytes = 0;
  /** What the ICRC is by: a rule of the peer, or the specification. */
  icrcRule: IcrcRule | undefined = undefined;
  /** The ICRC that came, exclusive or the right one; 0: right. */
  icrcError = 0;
  /** Where the BTH of a frame that was read stands. */
  bthAt = 0;
}

export interface RoceDecoding {
  /** Departures of the sender that are known (`rxeIcrcRules`); tried where the ICRC is wrong. */
  readonly icrcRules?: readonly IcrcRule[];
  /** Whether the payload of a datagram starts with its 40-byte GRH area (BTH_WITH_GRH). */
  readonly withGrh?: boolean;
}

const byTheBook: RoceDecoding = {};
const grh = new Uint8Array(GRH_BYTES);

/**
 * Reads the frame in `bytes` from `at` to `end` into `header` and a fresh pool frame, or returns a
 * PACKET_* problem; PACKET_FOREIGN means that it is not RoCEv2 at all. A wrong ICRC is no problem
 * here: `header.icrcError` has it, and the frame is BTH_DAMAGED. The LIDs are the caller's.
 */
export function decodeRoce(
  pool: FramePool,
  bytes: Uint8Array,
  at: number,
  end: number,
  header: RoceHeader,
  { icrcRules, withGrh }: RoceDecoding = byTheBook,
): number {
  header.icrcRule = undefined;
  header.icrcError = 0;
  header.padBytes = 0;
  const problem = header.read(bytes, at, end);
  if (problem < 0) return problem;
  if (header.protocol !== PROTOCOL_UDP) return PACKET_FOREIGN;
  if (header.isFragment) return PACKET_FRAGMENT;
  const udp = header.payloadAt;
  const udpEnd = header.payloadEnd;
  if (udpEnd - udp < UDP_BYTES) return PACKET_TRUNCATED;
  if (get16(bytes, udp + 2) !== ROCE_UDP_PORT) return PACKET_FOREIGN;
  header.sourcePort = get16(bytes, udp);
  if (get16(bytes, udp + 4) !== udpEnd - udp) return PACKET_BAD_LENGTH;
  const checksum = get16(bytes, udp + 6);
  header.hasUdpChecksum = checksum !== 0;
  header.udpChecksumError = checksum === 0 ? 0 : checksum ^ udpChecksum(header, bytes, udp, udpEnd);
  const bth = udp + UDP_BYTES;
  const icrc = udpEnd - ICRC_BYTES;
  if (icrc - bth < BTH_BYTES) return PACKET_TRUNCATED;
  header.bthAt = bth;

  const isDatagram = withGrh === true && (bytes[bth] & SERVICE_MASK) === SERVICE_UD;
  if (isDatagram) copyGrh(bytes, header);
  const frame = decodeTransport(pool, bytes, bth, icrc, isDatagram ? grh : undefined);
  if (frame < 0) return frame;
  header.padBytes = padOf(bytes, bth, icrc);
  header.icrcError = getIcrc(bytes, icrc) ^ icrcOfRoce(bytes, header.ipAt, bth, icrc);
  if (header.icrcError === 0) return frame;
  const rule = icrcRules === undefined ? undefined : icrcRuleOf(icrcRules, bytes[bth]);
  if (rule !== undefined) {
    const byRule = icrcOfRoce(bytes, header.ipAt, bth, icrc, rule);
    if (byRule === getIcrc(bytes, icrc) >>> 0) {
      header.icrcRule = rule;
      header.icrcError = 0;
      return frame;
    }
  }
  pool.words[frame * FRAME_WORDS + W_BTH_FLAGS] |= BTH_DAMAGED;
  return frame;
}

/**
 * Writes packet `index` of wire frame `frame` (0 unless it is a train) at `at`, with `header` in
 * front of it; returns its end. A BTH_DAMAGED packet gets the ICRC that it came with, or, where it
 * did not come from a wire, the complement of the right one.
 */
export function encodeRoce(
  pool: FramePool,
  frame: number,
  index: number,
  header: RoceHeader,
  out: Uint8Array,
  at: number,
): number {
  const words = pool.words;
  const base = frame * FRAME_WORDS;
  const udpBytes = UDP_BYTES + transportBytes(pool, frame) + ICRC_BYTES;
  header.protocol = PROTOCOL_UDP;
  const udp = header.write(udpBytes, out, at);
  put16(out, udp, header.sourcePort);
  put16(out, udp + 2, ROCE_UDP_PORT);
  put16(out, udp + 4, udpBytes);
  put16(out, udp + 6, 0);
  const bth = udp + UDP_BYTES;
  const end = encodeTransport(pool, frame, index, out, bth);
  for (let pad = header.padBytes, i = end - 1; pad !== 0; pad >>>= 8, i--) out[i] = pad;
  const rule = header.icrcRule?.opcode === words[base + W_OPCODE] ? header.icrcRule : undefined;
  const ip = udp - (header.version === 6 ? 40 : IPV4_BYTES + header.optionBytes);
  const icrc = icrcOfRoce(out, ip, bth, end, rule);
  const isDamaged = (words[base + W_BTH_FLAGS] & BTH_DAMAGED) !== 0;
  putIcrc(out, end, icrc ^ (isDamaged && header.icrcError === 0 ? -1 : header.icrcError));
  const udpEnd = end + ICRC_BYTES;
  if (header.hasUdpChecksum) {
    const checksum = udpChecksum(header, out, udp, udpEnd) ^ header.udpChecksumError;
    put16(out, udp + 6, checksum);
  }
  return header.writeTrailer(out, udpEnd);
}

/** The right checksum of the datagram from `udp` to `end`, whatever stands in its place. */
function udpChecksum(header: RoceHeader, bytes: Uint8Array, udp: number, end: number): number {
  const sum = checksumAdd(bytes, udp, udp + 6, header.pseudoSum(end - udp));
  const checksum = checksumEnd(checksumAdd(bytes, udp + UDP_BYTES, end, sum));
  // 0 would mean that there is none (RFC 768).
  return checksum === 0 ? 0xffff : checksum;
}

/** The GRH area of a datagram as Linux fills it: the IPv6 header, or 20 zeros and the IPv4 header. */
function copyGrh(bytes: Uint8Array, { ipAt, version }: RoceHeader): void {
  grh.fill(0);
  if (version === 6) grh.set(bytes.subarray(ipAt, ipAt + GRH_BYTES));
  else grh.set(bytes.subarray(ipAt, ipAt + IPV4_BYTES), GRH_BYTES - IPV4_BYTES);
}

/**
 * The UDP source port of a flow as Linux computes it (`rdma_get_udp_sport`, include/rdma/ib_verbs.h):
 * from the flow label of the address vector, or, where that is 0, from both QP numbers.
 */
export function udpSourcePort(flowLabel: number, localQpn: number, remoteQpn: number): number {
  const label = flowLabel === 0 ? flowLabelOf(localQpn, remoteQpn) : flowLabel;
  return 0xc000 | ((label & 0x3fff) ^ ((label & 0xfc000) >>> 14));
}

/** `rdma_calc_flow_label`: the product of both QP numbers, folded to 20 bits; the same on both ends. */
function flowLabelOf(localQpn: number, remoteQpn: number): number {
  // 48 bits: bits 20 to 39 come down to 0 to 19, then bits 40 to 47 of the result do.
  const product = localQpn * remoteQpn;
  const low = product % 0x100000;
  const middle = Math.floor(product / 0x100000) % 0x100000;
  const high = Math.floor(product / 0x10000000000);
  return low ^ middle ^ high;
}
