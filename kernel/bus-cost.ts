/**
 * What a bus message occupies of the bus: PCIe transaction layer packets, as arithmetic.
 */

/** Bytes of payload in one TLP: MaxPayload of common servers. */
const MAX_PAYLOAD_BYTES = 256;
/** Header, framing and CRC of one TLP with a 64-bit address: Kalia et al., ATC 2016, PCIe 3.0. */
const TLP_OVERHEAD_BYTES = 26;

/** Bytes on the bus for a message with `payloadBytes` of data; a message without data is one TLP. */
export function busBytes(payloadBytes: number): number {
  const packets = payloadBytes === 0 ? 1 : Math.ceil(payloadBytes / MAX_PAYLOAD_BYTES);
  return payloadBytes + packets * TLP_OVERHEAD_BYTES;
}
