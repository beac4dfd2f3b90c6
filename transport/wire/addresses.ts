/**
 * Ethernet and IP addresses as text, and the checksum of the Internet protocols.
 *
 * Source: RFC 1071 (checksum), RFC 5952 (IPv6 text).
 */
import { get16 } from './big-endian.ts';

/** `52:54:00:00:00:01`. */
export function formatMac(bytes: Uint8Array, at = 0): string {
  const parts = Array.from({ length: 6 }, (_, i) => bytes[at + i].toString(16).padStart(2, '0'));
  return parts.join(':');
}

/** Four bytes in dotted decimal. */
export function formatIpv4(bytes: Uint8Array, at = 0): string {
  return bytes.subarray(at, at + 4).join('.');
}

/** 16 bytes, the longest run of zero groups (two at least) as `::`. */
export function formatIpv6(bytes: Uint8Array, at = 0): string {
  const groups = Array.from({ length: 8 }, (_, i) => get16(bytes, at + 2 * i));
  let start = -1;
  let longest = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > longest) {
      start = i;
      longest = end - i;
    }
  }
  const hex = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':');
  return start < 0 ? hex(0, 8) : `${hex(0, start)}::${hex(start + longest, 8)}`;
}

/** One's complement sum of `bytes` from `at` to `end`, on top of `sum`; not yet folded. */
export function checksumAdd(bytes: Uint8Array, at: number, end: number, sum = 0): number {
  let total = sum;
  let i = at;
  for (; i + 1 < end; i += 2) total += get16(bytes, i);
  return i < end ? total + (bytes[i] << 8) : total;
}

/** The Internet checksum of a sum: folded to 16 bits and complemented. */
export function checksumEnd(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 65_536);
  return ~folded & 0xffff;
}
