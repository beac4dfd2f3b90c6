/**
 * The invariant CRC of an InfiniBand packet (IBTA volume 1, 7.8.1): the Ethernet CRC-32 over
 * everything from the LRH to the padded payload, with the fields that switches may change replaced
 * by ones: the virtual lane (LRH byte 0, high nibble) and BTH byte 4 (FECN, BECN and reserved bits).
 * It travels least significant byte first.
 */
import { crc32 } from 'node:zlib';

const LRH_BYTES = 8;
const BTH_RESERVED = LRH_BYTES + 4;
const masked = new Uint8Array(LRH_BYTES + 12);

/** ICRC of the packet in `bytes` from `start`, LRH first, up to `end`, where the ICRC stands. */
export function icrcOfLocalPacket(bytes: Uint8Array, start: number, end: number): number {
  masked.set(bytes.subarray(start, start + masked.length));
  masked[0] |= 0xf0;
  masked[BTH_RESERVED] = 0xff;
  const head = crc32(masked);
  return crc32(bytes.subarray(start + masked.length, end), head);
}
