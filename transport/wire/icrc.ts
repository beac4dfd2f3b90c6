/**
 * The invariant CRC of a packet (IBTA volume 1, 7.8.1, and annex A17 for RoCEv2): the Ethernet CRC-32
 * over everything that switches and routers leave alone; what they may change counts as ones. It
 * travels least significant byte first.
 *
 * Owns also the *rules* by which peers are known to depart from it, and the VCRC of native links.
 */
import { crc32 } from 'node:zlib';
import { RC_FLUSH } from './opcodes.ts';

const LRH_BYTES = 8;
const GRH_BYTES = 40;
const UDP_BYTES = 8;
const BTH_BYTES = 12;
/** What stands for the LRH in front of an IP header. */
const ROCE_PREFIX_BYTES = 8;
/** Copies of headers with ones in the variant fields; the longest is a prefix, IPv4 with options, UDP, BTH. */
const masked = new Uint8Array(ROCE_PREFIX_BYTES + 60 + UDP_BYTES + BTH_BYTES);

/** A departure of a peer from the ICRC of the specification, for one opcode. */
export interface IcrcRule {
  readonly name: string;
  readonly opcode: number;
  /** Bytes of the packet, from its BTH on, that are covered a second time, behind all others. */
  readonly repeatedBytes: number;
  readonly meaning: string;
  readonly source: string;
}

export const rxeIcrcRules: readonly IcrcRule[] = [
  {
    name: 'rxe-flush-icrc',
    opcode: RC_FLUSH,
    repeatedBytes: BTH_BYTES + 4 + 16,
    meaning: 'the ICRC of a FLUSH covers BTH, FETH and RETH twice',
    source:
      'rxe_opcode.c gives FLUSH no payload offset, so rxe_icrc.c takes the headers for payload as well',
  },
];

/** The rule of `rules` that a packet with this opcode comes under. */
export function icrcRuleOf(rules: readonly IcrcRule[], opcode: number): IcrcRule | undefined {
  for (let i = 0; i < rules.length; i++) if (rules[i].opcode === opcode) return rules[i];
  return undefined;
}

/** ICRC of the packet in `bytes` from `start`, LRH first, up to `end`, where the ICRC stands. */
export function icrcOfLocalPacket(bytes: Uint8Array, start: number, end: number): number {
  const head = LRH_BYTES + BTH_BYTES;
  masked.set(bytes.subarray(start, start + head));
  masked[0] |= 0xf0;
  masked[LRH_BYTES + 4] = 0xff;
  return crc32(bytes.subarray(start + head, end), crc32(masked.subarray(0, head)));
}

/** ICRC of a packet with LRH and GRH. */
export function icrcOfGlobalPacket(bytes: Uint8Array, start: number, end: number): number {
  const head = LRH_BYTES + GRH_BYTES + BTH_BYTES;
  masked.set(bytes.subarray(start, start + head));
  masked[0] |= 0xf0;
  maskIpv6(LRH_BYTES);
  masked[LRH_BYTES + GRH_BYTES + 4] = 0xff;
  return crc32(bytes.subarray(start + head, end), crc32(masked.subarray(0, head)));
}

/**
 * ICRC of the RoCEv2 packet in `bytes` whose IP header starts at `ip`, BTH at `bth` and ICRC at
 * `end`, by `rule` or by the specification.
 */
export function icrcOfRoce(
  bytes: Uint8Array,
  ip: number,
  bth: number,
  end: number,
  rule?: IcrcRule,
): number {
  const head = ROCE_PREFIX_BYTES + (bth - ip) + BTH_BYTES;
  const udp = head - BTH_BYTES - UDP_BYTES;
  masked.fill(0xff, 0, ROCE_PREFIX_BYTES);
  masked.set(bytes.subarray(ip, bth + BTH_BYTES), ROCE_PREFIX_BYTES);
  if (masked[ROCE_PREFIX_BYTES] >>> 4 === 4) maskIpv4(ROCE_PREFIX_BYTES);
  else maskIpv6(ROCE_PREFIX_BYTES);
  masked[udp + 6] = 0xff;
  masked[udp + 7] = 0xff;
  masked[udp + UDP_BYTES + 4] = 0xff;
  const covered = crc32(bytes.subarray(bth + BTH_BYTES, end), crc32(masked.subarray(0, head)));
  if (rule === undefined) return covered;
  return crc32(bytes.subarray(bth, Math.min(bth + rule.repeatedBytes, end)), covered);
}

/** Type of service, time to live and header checksum. */
function maskIpv4(at: number): void {
  masked[at + 1] = 0xff;
  masked[at + 8] = 0xff;
  masked[at + 10] = 0xff;
  masked[at + 11] = 0xff;
}

/** Traffic class, flow label and hop limit of an IPv6 header or GRH. */
function maskIpv6(at: number): void {
  masked[at] |= 0x0f;
  masked[at + 1] = 0xff;
  masked[at + 2] = 0xff;
  masked[at + 3] = 0xff;
  masked[at + 7] = 0xff;
}

/**
 * The variant CRC of a native packet: CRC-16 (polynomial 0x100b, sent least significant bit first)
 * over everything from the LRH to the ICRC.
 */
export function vcrc(bytes: Uint8Array, start: number, end: number): number {
  let crc = 0xffff;
  for (let i = start; i < end; i++) crc = (crc >>> 8) ^ vcrcTable[(crc ^ bytes[i]) & 0xff];
  return ~crc & 0xffff;
}

const vcrcTable = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xd008 : 0);
  return crc;
});
