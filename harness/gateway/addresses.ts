/**
 * Ethernet and IP addresses from text, and the multicast addresses that follow from them.
 *
 * A GID of RoCEv2 is an IPv6 address, or an IPv4 address mapped into one; here an IPv4 address has
 * 4 bytes and an IPv6 address 16.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { formatIpv4, formatIpv6, get16, put16 } from '../../transport/index.ts';

export const BROADCAST = new Uint8Array(6).fill(0xff);
/** All nodes of the link (RFC 4291). */
export const ALL_NODES = ipv6Bytes('ff02::1');

/** Six bytes, or undefined where `text` is no unicast address such as 02:00:00:00:00:09. */
export function parseMac(text: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined;
  const mac = Uint8Array.from(text.split(':'), (byte) => Number.parseInt(byte, 16));
  return (mac[0] & 1) === 0 && mac.some((byte) => byte !== 0) ? mac : undefined;
}

/** 4 or 16 bytes, or undefined. IPv4 addresses mapped into IPv6, as GIDs have them, become 4 bytes. */
export function parseIp(text: string): Uint8Array | undefined {
  if (isIPv4(text)) return Uint8Array.from(text.split('.'), Number);
  if (!isIPv6(text) || text.includes('%')) return undefined;
  const bytes = ipv6Bytes(text);
  const isMapped = bytes.subarray(0, 10).every((byte) => byte === 0) && get16(bytes, 10) === 0xffff;
  return isMapped ? bytes.slice(12) : bytes;
}

export function ipText(ip: Uint8Array): string {
  return ip.length === 4 ? formatIpv4(ip) : formatIpv6(ip);
}

/** The GID of an address, as inet_ntop writes it. */
export function gidText(ip: Uint8Array): string {
  return ip.length === 4 ? `::ffff:${formatIpv4(ip)}` : formatIpv6(ip);
}

/** The link-local address of a port with this MAC (modified EUI-64, RFC 4291). */
export function linkLocalOf(mac: Uint8Array): Uint8Array {
  const [a, b, c, d, e, f] = mac;
  return Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f);
}

/** The multicast address under which the owner of `ip` is asked for its MAC (RFC 4291). */
export function solicitedNodeOf(ip: Uint8Array): Uint8Array {
  const group = ipv6Bytes('ff02::1:ff00:0');
  group.set(ip.subarray(13), 13);
  return group;
}

/** The Ethernet address of an IPv6 multicast address (RFC 2464). */
export function multicastMacOf(group: Uint8Array): Uint8Array {
  return Uint8Array.of(0x33, 0x33, ...group.subarray(12));
}

/** Whether packets to `ip` go to one port: not multicast, broadcast or unspecified. */
export function isUnicast(ip: Uint8Array): boolean {
  if (ip.every((byte) => byte === 0)) return false;
  return ip.length === 4 ? ip[0] < 224 && ip[0] !== 0 : ip[0] !== 0xff;
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** The bytes of a valid IPv6 address. */
function ipv6Bytes(text: string): Uint8Array {
  const dotted = /\d+\.\d+\.\d+\.\d+$/.exec(text)?.[0];
  let plain = text;
  if (dotted !== undefined) {
    const [a, b, c, d] = dotted.split('.').map(Number);
    const tail = `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
    plain = text.slice(0, -dotted.length) + tail;
  }
  const [left, right] = plain.split('::');
  const head = left === '' ? [] : left.split(':');
  const tail = right === undefined || right === '' ? [] : right.split(':');
  const zeros = new Array<string>(8 - head.length - tail.length).fill('0');
  const bytes = new Uint8Array(16);
  [...head, ...zeros, ...tail].forEach((group, i) => {
    put16(bytes, 2 * i, Number.parseInt(group, 16));
  });
  return bytes;
}
