/**
 * ERF records (Endace): the header that stands in front of each packet under link type 197.
 *
 * It is how Wireshark gets native InfiniBand: record type 21 holds a packet from its LRH to its VCRC.
 *
 *     u64 time (little-endian, seconds in the high half)   u8 type   u8 flags   u16 record length
 *     u16 colour   u16 wire length                                   (big-endian)
 */
import { get16 } from '../wire/big-endian.ts';

export const ERF_BYTES = 16;
export const ERF_ETHERNET = 2;
export const ERF_INFINIBAND = 21;
/** An Ethernet record has two more bytes in front of its frame. */
const ERF_ETHERNET_PAD_BYTES = 2;
const FLAG_VARYING_LENGTH = 4;
/** More headers of 8 bytes follow, each saying in the same bit whether another does. */
const MORE_HEADERS = 0x80;

/** The type of an ERF record and where its packet stands, or undefined where there is none. */
export function readErf(
  bytes: Uint8Array,
): { readonly type: number; readonly start: number; readonly end: number } | undefined {
  if (bytes.length < ERF_BYTES) return undefined;
  const type = bytes[8] & 0x7f;
  let start = ERF_BYTES;
  for (let more = bytes[8] & MORE_HEADERS; more !== 0; start += 8) {
    if (start + 8 > bytes.length) return undefined;
    more = bytes[start] & MORE_HEADERS;
  }
  if (type === ERF_ETHERNET) start += ERF_ETHERNET_PAD_BYTES;
  const end = Math.min(bytes.length, start + get16(bytes, 14));
  return start > end ? undefined : { type, start, end };
}

/** Writes the header of an InfiniBand record of `packetBytes` at `at`; returns its end. */
export function writeErf(timeNs: number, packetBytes: number, view: DataView, at: number): number {
  const seconds = Math.floor(timeNs / 1e9);
  view.setUint32(at, Math.floor(((timeNs - seconds * 1e9) * 4294967296) / 1e9), true);
  view.setUint32(at + 4, seconds, true);
  view.setUint8(at + 8, ERF_INFINIBAND);
  view.setUint8(at + 9, FLAG_VARYING_LENGTH);
  view.setUint16(at + 10, ERF_BYTES + packetBytes);
  view.setUint16(at + 12, 0);
  view.setUint16(at + 14, packetBytes);
  return at + ERF_BYTES;
}
