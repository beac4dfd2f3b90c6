/**
 * Owns how the tools write a GID, and the IPv4 address inside one.
 */
import { ExchangeError } from './line.ts';

const V4_PREFIX = Buffer.from('00000000000000000000ffff', 'hex');

/** `192.0.2.1` as the 16 bytes of its IPv4-mapped GID. */
export function gidOf(ipv4: string): Buffer {
  return Buffer.concat([V4_PREFIX, Buffer.from(ipv4.split('.').map(Number))]);
}

/** The IPv4 address inside an IPv4-mapped GID. */
export function ipv4Of(gid: Buffer): string {
  if (gid.length !== 16 || !gid.subarray(0, 12).equals(V4_PREFIX)) {
    throw new ExchangeError(`GID ${gid.toString('hex')} has no IPv4 address`);
  }
  return [...gid.subarray(12)].join('.');
}
