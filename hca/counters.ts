/**
 * Counters of the adapter: one block of doubles, counted by index, named only when they are read.
 *
 * Names are Linux's where Linux has one: port counters of Documentation/ABI/stable/sysfs-class-
 * infiniband, hw_counters of mlx5 (counters.c), ODP totals of `devlink health` (reporter vnic). The
 * last group is ours. `docs/STATS.md` says when each moves; a test keeps the two lists equal.
 */
export const counterNames = [
  'port_xmit_packets',
  'port_xmit_data',
  'port_rcv_packets',
  'port_rcv_data',
  'port_rcv_errors',
  'rx_write_requests',
  'rx_read_requests',
  'rx_atomic_requests',
  'out_of_buffer',
  'out_of_sequence',
  'duplicate_request',
  'resp_local_length_error',
  'resp_remote_access_errors',
  'bad_pkey_cntr',
  'packet_seq_err',
  'rnr_nak_retry_err',
  'local_ack_timeout_err',
  'implied_nak_seq_err',
  'req_remote_access_errors',
  'req_remote_invalid_request',
  'req_transport_retries_exceeded',
  'req_rnr_retries_exceeded',
  'rp_cnp_ignored',
  'odp_local_triggered_page_fault',
  'odp_remote_triggered_page_fault',
  'rnr_naks_sent',
  'retransmitted_packets',
  'retransmitted_bytes',
  'read_responses_discarded',
  'suspended_drops',
  'state_drops',
  'header_drops',
  'qkey_viol_cntr',
  'unreliable_drops',
  'page_fault_drops',
  'wire_drops',
  'wire_duplicates',
  'wire_delays',
  'wire_corruptions',
  'vport_loopback_packets',
  'vport_loopback_bytes',
  'translation_cache_hits',
  'translation_cache_misses',
] as const;

export type CounterName = (typeof counterNames)[number];

/** Index of each counter in the block. */
export const C = Object.fromEntries(counterNames.map((name, i) => [name, i])) as Readonly<
  Record<CounterName, number>
>;

/** A block with every counter at zero. */
export function newCounters(): Float64Array {
  return new Float64Array(counterNames.length);
}

/** The block with its names. */
export function namedCounters(block: Float64Array): Record<string, number> {
  return Object.fromEntries(counterNames.map((name, i) => [name, block[i]]));
}
