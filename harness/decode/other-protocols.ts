/**
 * A few words on frames that are not for an RDMA adapter: what they are, and between whom.
 */
import {
  ETHERTYPE_ARP,
  formatIpv4,
  formatIpv6,
  formatMac,
  get16,
  type IpFrame,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../../transport/index.ts';

/** What the frame in `bytes`, whose headers `frame` has read as far as they go, is. */
export function describeOther(frame: IpFrame, bytes: Uint8Array, end: number): string {
  if (frame.version === 0) return describeEthernet(frame, bytes, end);
  const { payloadAt: at, payloadEnd } = frame;
  const length = payloadEnd - at;
  switch (frame.protocol) {
    case PROTOCOL_TCP:
      return length >= 20 ? describeTcp(bytes, at, length) : 'TCP';
    case PROTOCOL_UDP:
      return length >= 8 ? `UDP ${get16(bytes, at)} > ${get16(bytes, at + 2)}` : 'UDP';
    case PROTOCOL_ICMP:
      return `ICMP ${icmpTypes[bytes[at]] ?? `type ${bytes[at]}`}`;
    case PROTOCOL_ICMPV6:
      return describeIcmpv6(bytes, at, length);
    case 0:
      return 'IPv6 with hop-by-hop options';
    default:
      return `IP protocol ${frame.protocol}`;
  }
}

const icmpTypes: Readonly<Record<number, string>> = {
  0: 'echo reply',
  3: 'destination unreachable',
  8: 'echo request',
  11: 'time exceeded',
};

const icmpv6Types: Readonly<Record<number, string>> = {
  1: 'destination unreachable',
  2: 'packet too big',
  128: 'echo request',
  129: 'echo reply',
  133: 'router solicitation',
  134: 'router advertisement',
  135: 'neighbour solicitation for',
  136: 'neighbour advertisement of',
  143: 'multicast listener report',
};

const etherTypes: Readonly<Record<number, string>> = {
  2048: 'IPv4, cut off',
  34525: 'IPv6, cut off',
  35093: 'RoCEv1',
  35020: 'LLDP',
};

function describeEthernet(frame: IpFrame, bytes: Uint8Array, end: number): string {
  const { etherType, ipAt: at } = frame;
  if (etherType === ETHERTYPE_ARP && end - at >= 28) {
    const target = formatIpv4(bytes, at + 24);
    const sender = formatIpv4(bytes, at + 14);
    return get16(bytes, at + 6) === 1
      ? `ARP who has ${target}? Tell ${sender}`
      : `ARP ${sender} is at ${formatMac(bytes, at + 8)}`;
  }
  const name = etherTypes[etherType];
  return name ?? `EtherType 0x${etherType.toString(16).padStart(4, '0')}`;
}

function describeTcp(bytes: Uint8Array, at: number, length: number): string {
  const flags = ['FIN', 'SYN', 'RST', 'PSH', 'ACK'].filter((_, i) => bytes[at + 13] & (1 << i));
  const data = Math.max(0, length - (bytes[at + 12] >>> 4) * 4);
  return `TCP ${get16(bytes, at)} > ${get16(bytes, at + 2)} ${flags.join(',')}, ${data} bytes`;
}

function describeIcmpv6(bytes: Uint8Array, at: number, length: number): string {
  const type = bytes[at];
  const name = icmpv6Types[type] ?? `type ${type}`;
  const hasTarget = (type === 135 || type === 136) && length >= 24;
  return `ICMPv6 ${name}${hasTarget ? ` ${formatIpv6(bytes, at + 8)}` : ''}`;
}
