/**
 * How many bytes a transfer takes on a PCIe class bus.
 *
 * Source: Kalia et al., "Design Guidelines for High Performance RDMA Systems" (ATC 2016): 26 bytes of
 * overhead on each request TLP. A MaxPayloadSize of 256 bytes is an assumption (common on servers of
 * that time). TLPs are arithmetic; they are never simulated one by one.
 */
const TLP_OVERHEAD_BYTES = 26;
const MAX_PAYLOAD_BYTES = 256;

/** Bytes on the bus for `payloadBytes` of data or of message fields: at least one TLP. */
export function busTransferBytes(payloadBytes: number): number {
  const tlps = payloadBytes <= MAX_PAYLOAD_BYTES ? 1 : Math.ceil(payloadBytes / MAX_PAYLOAD_BYTES);
  return payloadBytes + tlps * TLP_OVERHEAD_BYTES;
}
