/**
 * What every machine on an Ethernet answers besides RoCE: ARP here, the rest in `icmp.ts`.
 *
 * Pure functions from the bytes of a frame to the bytes of its answer, and to what can be learnt from
 * it. Sources: RFC 826 (ARP), RFC 5227 (probes). Does not own: who is asked when, and what waits for
 * an answer (`neighbours.ts`), nor RoCE packets: of those, only that they are some is known here.
 */
import {
  ETHERNET_BYTES,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  get16,
  IpFrame,
  PACKET_FOREIGN,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_UDP,
  put16,
  ROCE_UDP_PORT,
} from '../../transport/index.ts';
import { ALL_NODES, BROADCAST, multicastMacOf, sameBytes, solicitedNodeOf } from './addresses.ts';
import { readIcmp, readIcmpv6, solicit } from './icmp.ts';

/** Frames are padded to this; the FCS is not counted. */
const ETHERNET_MIN_BYTES = 60;
const ARP_BYTES = 28;
const ARP_ETHERNET = 1;
const ARP_REQUEST = 1;
const ARP_REPLY = 2;
const UDP_BYTES = 8;

/** The addresses of a port. */
export interface PortAddresses {
  readonly mac: Uint8Array;
  readonly ipv4: Uint8Array;
  readonly ipv6: Uint8Array;
}

/** What a frame turned out to be; counters of frames are named by it. */
export type FrameKind =
  | 'roce'
  | 'arp'
  | 'icmp'
  | 'neighbour'
  | 'runt'
  | 'malformed'
  | 'foreign_destination'
  | 'foreign_protocol';

/** What a frame asks for and tells. */
export interface Reading {
  readonly kind: FrameKind;
  /** What to send back. */
  readonly answer?: Uint8Array;
  /** Who sent it, where it says so for others to remember. */
  readonly sender?: { readonly ip: Uint8Array; readonly mac: Uint8Array };
}

const header = new IpFrame();

/** Reads a frame that came in for `own`. */
export function readFrame(frame: Uint8Array, own: PortAddresses): Reading {
  if (frame.length < ETHERNET_BYTES) return { kind: 'runt' };
  if (!isForUs(frame, own) || (frame[6] & 1) !== 0) return { kind: 'foreign_destination' };
  if (get16(frame, 12) === ETHERTYPE_ARP) return readArp(frame.subarray(ETHERNET_BYTES), own);
  const problem = header.read(frame, 0, frame.length);
  if (problem === PACKET_FOREIGN || header.tagBytes > 0) return { kind: 'foreign_protocol' };
  if (problem < 0 || (header.version === 4 && header.checksumError !== 0)) {
    return { kind: 'malformed' };
  }
  return readIp(frame, own);
}

/** An ARP request, or a neighbour solicitation: who has `ip`? */
export function askFor(ip: Uint8Array, own: PortAddresses): Uint8Array {
  if (ip.length === 16) return solicit(ip, own);
  return arp(ARP_REQUEST, BROADCAST, new Uint8Array(6), ip, own);
}

function isForUs(frame: Uint8Array, own: PortAddresses): boolean {
  const to = frame.subarray(0, 6);
  if ((to[0] & 1) === 0) return sameBytes(to, own.mac);
  const groups = [BROADCAST, multicastMacOf(ALL_NODES), multicastMacOf(solicitedNodeOf(own.ipv6))];
  return groups.some((group) => sameBytes(to, group));
}

function readIp(frame: Uint8Array, own: PortAddresses): Reading {
  const { version, protocol } = header;
  const to = version === 4 ? header.dest.subarray(0, 4) : header.dest;
  const isOwn = sameBytes(to, version === 4 ? own.ipv4 : own.ipv6);
  // Nothing here puts fragments together.
  if (header.isFragment) return { kind: isOwn ? 'foreign_protocol' : 'foreign_destination' };
  const body = frame.subarray(header.payloadAt, header.payloadEnd);
  if (version === 6 && protocol === PROTOCOL_ICMPV6) {
    const groups = [ALL_NODES, solicitedNodeOf(own.ipv6)];
    if (isOwn || groups.some((group) => sameBytes(to, group))) return readIcmpv6(header, body, own);
  }
  if (!isOwn) return { kind: 'foreign_destination' };
  if (version === 4 && protocol === PROTOCOL_ICMP) return readIcmp(header, body, own);
  const isRoce =
    protocol === PROTOCOL_UDP && body.length >= UDP_BYTES && get16(body, 2) === ROCE_UDP_PORT;
  return { kind: isRoce ? 'roce' : 'foreign_protocol' };
}

function readArp(body: Uint8Array, own: PortAddresses): Reading {
  const isKnown =
    body.length >= ARP_BYTES &&
    get16(body, 0) === ARP_ETHERNET &&
    get16(body, 2) === ETHERTYPE_IPV4 &&
    body[4] === 6 &&
    body[5] === 4;
  if (!isKnown) return { kind: 'malformed' };
  const mac = body.slice(8, 14);
  const ip = body.slice(14, 18);
  const isProbe = ip.every((byte) => byte === 0);
  const told = isProbe || (mac[0] & 1) !== 0 ? {} : { sender: { ip, mac } };
  const asksForUs = get16(body, 6) === ARP_REQUEST && sameBytes(body.subarray(24, 28), own.ipv4);
  if (!asksForUs) return { kind: 'arp', ...told };
  return { kind: 'arp', answer: arp(ARP_REPLY, mac, mac, ip, own), ...told };
}

function arp(
  operation: number,
  to: Uint8Array,
  targetMac: Uint8Array,
  targetIp: Uint8Array,
  own: PortAddresses,
): Uint8Array {
  const frame = new Uint8Array(ETHERNET_MIN_BYTES);
  frame.set(to);
  frame.set(own.mac, 6);
  put16(frame, 12, ETHERTYPE_ARP);
  const body = frame.subarray(ETHERNET_BYTES);
  put16(body, 0, ARP_ETHERNET);
  put16(body, 2, ETHERTYPE_IPV4);
  body[4] = 6;
  body[5] = 4;
  put16(body, 6, operation);
  body.set(own.mac, 8);
  body.set(own.ipv4, 14);
  body.set(targetMac, 18);
  body.set(targetIp, 24);
  return frame;
}
