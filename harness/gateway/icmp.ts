/**
 * Echo requests and neighbour discovery: what is answered, and what is learnt.
 *
 * Sources: RFC 792 and RFC 4443 (ICMP), RFC 4861 (neighbour discovery). Everything else of ICMP is
 * left unanswered.
 */
import {
  checksumAdd,
  checksumEnd,
  IpFrame,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  put16,
} from '../../transport/index.ts';
import { ALL_NODES, isUnicast, multicastMacOf, sameBytes, solicitedNodeOf } from './addresses.ts';
import type { PortAddresses, Reading } from './internet.ts';

const ECHO_REPLY = 0;
const ECHO = 8;
const ECHO_V6 = 128;
const ECHO_REPLY_V6 = 129;
const NEIGHBOUR_SOLICITATION = 135;
const NEIGHBOUR_ADVERTISEMENT = 136;
const NEIGHBOUR_BYTES = 24;
/** Flags of an advertisement. */
const SOLICITED = 0x40;
const OVERRIDE = 0x20;
/** Options: a type, a length of 1 (eight bytes), a MAC. */
const OPTION_SOURCE_MAC = 1;
const OPTION_TARGET_MAC = 2;
const OPTION_BYTES = 8;
/** Neighbour discovery comes from this link: no router lets a hop limit of 255 pass. */
const FROM_THIS_LINK = 255;
const HOP_LIMIT = 64;

const answerHeader = new IpFrame();

/** Reads an ICMP message whose IPv4 header is `header`. */
export function readIcmp(header: IpFrame, body: Uint8Array, own: PortAddresses): Reading {
  if (body.length < 8 || checksumEnd(checksumAdd(body, 0, body.length)) !== 0) {
    return { kind: 'malformed' };
  }
  if (body[0] !== ECHO || body[1] !== 0) return { kind: 'foreign_protocol' };
  const from = header.source.slice(0, 4);
  if (!isUnicast(from)) return { kind: 'malformed' };
  const reply = body.slice();
  reply[0] = ECHO_REPLY;
  return { kind: 'icmp', answer: message(own, header.sourceMac, from, reply, HOP_LIMIT) };
}

/** Reads an ICMPv6 message whose IPv6 header is `header`. */
export function readIcmpv6(header: IpFrame, body: Uint8Array, own: PortAddresses): Reading {
  const sum = header.pseudoSum(body.length);
  if (body.length < 8 || checksumEnd(checksumAdd(body, 0, body.length, sum)) !== 0) {
    return { kind: 'malformed' };
  }
  const from = header.source.slice();
  switch (body[0]) {
    case ECHO_V6: {
      if (!isUnicast(from)) return { kind: 'malformed' };
      const reply = body.slice();
      reply[0] = ECHO_REPLY_V6;
      return { kind: 'icmp', answer: message(own, header.sourceMac, from, reply, HOP_LIMIT) };
    }
    case NEIGHBOUR_SOLICITATION:
    case NEIGHBOUR_ADVERTISEMENT: {
      const isSound =
        body.length >= NEIGHBOUR_BYTES && body[1] === 0 && header.hopLimit === FROM_THIS_LINK;
      if (!isSound) return { kind: 'malformed' };
      const target = body.slice(8, NEIGHBOUR_BYTES);
      if (body[0] === NEIGHBOUR_SOLICITATION) return readSolicitation(header, body, target, own);
      const mac = optionMac(body, OPTION_TARGET_MAC) ?? header.sourceMac.slice();
      return { kind: 'neighbour', sender: { ip: target, mac } };
    }
    default:
      return { kind: 'foreign_protocol' };
  }
}

/** A neighbour solicitation: who has `ip`? */
export function solicit(ip: Uint8Array, own: PortAddresses): Uint8Array {
  const group = solicitedNodeOf(ip);
  const body = neighbourMessage(NEIGHBOUR_SOLICITATION, ip, OPTION_SOURCE_MAC, own.mac);
  return message(own, multicastMacOf(group), group, body, FROM_THIS_LINK);
}

function readSolicitation(
  header: IpFrame,
  body: Uint8Array,
  target: Uint8Array,
  own: PortAddresses,
): Reading {
  const from = header.source.slice();
  const mac = optionMac(body, OPTION_SOURCE_MAC);
  // Somebody who looks for others with its address before it takes it has none yet.
  const isProbe = !isUnicast(from);
  const told = isProbe || mac === undefined ? {} : { sender: { ip: from, mac } };
  if (!sameBytes(target, own.ipv6)) return { kind: 'neighbour', ...told };
  const reply = neighbourMessage(NEIGHBOUR_ADVERTISEMENT, own.ipv6, OPTION_TARGET_MAC, own.mac);
  reply[4] = isProbe ? OVERRIDE : SOLICITED | OVERRIDE;
  const to = isProbe ? ALL_NODES : from;
  const toMac = isProbe ? multicastMacOf(ALL_NODES) : (mac ?? header.sourceMac);
  return { kind: 'neighbour', answer: message(own, toMac, to, reply, FROM_THIS_LINK), ...told };
}

/** A solicitation or advertisement with one option; all but its checksum. */
function neighbourMessage(
  type: number,
  target: Uint8Array,
  option: number,
  mac: Uint8Array,
): Uint8Array {
  const body = new Uint8Array(NEIGHBOUR_BYTES + OPTION_BYTES);
  body[0] = type;
  body.set(target, 8);
  body[NEIGHBOUR_BYTES] = option;
  body[NEIGHBOUR_BYTES + 1] = 1;
  body.set(mac, NEIGHBOUR_BYTES + 2);
  return body;
}

/** The link-layer address in option `type` of a neighbour discovery message. */
function optionMac(body: Uint8Array, type: number): Uint8Array | undefined {
  for (let at = NEIGHBOUR_BYTES; at + OPTION_BYTES <= body.length; ) {
    const bytes = body[at + 1] * OPTION_BYTES;
    if (bytes === 0) return undefined;
    if (body[at] === type && (body[at + 2] & 1) === 0) return body.slice(at + 2, at + 8);
    at += bytes;
  }
  return undefined;
}

/** A frame with an ICMP or ICMPv6 message from us. */
function message(
  own: PortAddresses,
  toMac: Uint8Array,
  to: Uint8Array,
  body: Uint8Array,
  hopLimit: number,
): Uint8Array {
  const header = answerHeader;
  const isV4 = to.length === 4;
  header.version = isV4 ? 4 : 6;
  header.destMac.set(toMac);
  header.sourceMac.set(own.mac);
  header.source.set(isV4 ? own.ipv4 : own.ipv6);
  header.dest.set(to);
  header.hopLimit = hopLimit;
  header.protocol = isV4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6;
  put16(body, 2, 0);
  const sum = isV4 ? 0 : header.pseudoSum(body.length);
  put16(body, 2, checksumEnd(checksumAdd(body, 0, body.length, sum)));
  const frame = new Uint8Array(header.headBytes + body.length);
  frame.set(body, header.write(body.length, frame, 0));
  return frame;
}
