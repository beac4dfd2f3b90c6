/** Counters of one adapter as plain data. */
import { namedCounters } from './counters.ts';
import type { Region } from './memory/region.ts';
import type { QueuePair } from './qp/queue-pair.ts';

export interface HcaReport {
  readonly name: string;
  readonly digest: string;
  readonly counters: Record<string, number>;
  readonly regions: readonly {
    readonly lkey: number;
    readonly rnr_naks: number;
    readonly bytes_retransmitted: number;
    readonly stall_ps: number;
  }[];
  readonly queuePairs: readonly {
    readonly qpn: number;
    readonly pd: number;
    readonly state: number;
    readonly packets_sent: number;
    readonly packets_received: number;
    readonly retransmitted_packets: number;
    readonly rnr_naks_sent: number;
    readonly rnr_naks_received: number;
    readonly timeouts: number;
    readonly sequence_naks_sent: number;
    readonly duplicate_requests: number;
  }[];
}

/** The report of the adapter with these counters, regions and queue pairs, in order of creation. */
export function newReport(
  name: string,
  digest: string,
  counters: Float64Array,
  regions: readonly Region[],
  queuePairs: readonly QueuePair[],
): HcaReport {
  return {
    name,
    digest,
    counters: namedCounters(counters),
    regions: regions.map((region) => ({
      lkey: region.key,
      rnr_naks: region.rnrNaks,
      bytes_retransmitted: region.bytesRetransmitted,
      stall_ps: region.stallPs,
    })),
    queuePairs: queuePairs.map((qp) => ({
      qpn: qp.qpn,
      pd: qp.pd.number,
      state: qp.state,
      packets_sent: qp.packetsSent,
      packets_received: qp.packetsReceived,
      retransmitted_packets: qp.retransmittedPackets,
      rnr_naks_sent: qp.rnrNaksSent,
      rnr_naks_received: qp.rnrNaksReceived,
      timeouts: qp.timeouts,
      sequence_naks_sent: qp.sequenceNaksSent,
      duplicate_requests: qp.duplicateRequests,
    })),
  };
}
