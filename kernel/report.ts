/**
 * What a host has to say about a run: plain data that survives JSON.
 */
import type { DmaCounters } from './driver/host-memory.ts';
import type { AtomicEntry, MessageEntry } from './driver/message-log.ts';
import type { QueuePairCounters } from './driver/queue-pair.ts';
import type { MmCounters } from './mm/counters.ts';
import type { OomKill } from './mm/reclaim/oom-killer.ts';
import type { RegionCounters } from './umem/counters.ts';

/** One memory region, registered or not any more. */
export interface RegionReport {
  readonly mrn: number;
  /** Name of the process that it is of. */
  readonly process: string;
  readonly pd: number;
  readonly lkey: number;
  readonly rkey: number;
  readonly address: number;
  readonly length: number;
  /** IBV_ACCESS_*. */
  readonly access: number;
  readonly registration: 'pinned' | 'odp';
  readonly registered: boolean;
  readonly counters: RegionCounters;
  /** One per fault event, in order, from its arrival at the host to its resume. */
  readonly faultLatenciesPs: readonly number[];
}

/** One queue pair, destroyed or not. */
export interface QueuePairReport {
  readonly qpn: number;
  /** IBV_QPT_*. */
  readonly type: number;
  readonly counters: QueuePairCounters;
}

/** One process, ended or not. */
export interface ProcessReport {
  readonly name: string;
  readonly notifierInvalidations: number;
  readonly pinnedBytesPeak: number;
  readonly residentBytesPeak: number;
  readonly residentBytes: number;
  /** Time that its threads spent in registering and deregistering, waiting included. */
  readonly registrationPs: number;
}

/** Of several processes, peaks are the sum of each one's own. */
export interface HostReport {
  readonly name: string;
  /** Memory manager, named as in /proc/vmstat. */
  readonly mm: MmCounters;
  readonly dma: DmaCounters;
  readonly notifierInvalidations: number;
  readonly faultsFailed: number;
  readonly faultsRaced: number;
  /** IBV_EVENT_*, and the number of the queue pair, completion queue or shared receive queue. */
  readonly asyncEvents: readonly { readonly event: number; readonly number: number }[];
  readonly regions: readonly RegionReport[];
  readonly queuePairs: readonly QueuePairReport[];
  readonly messages: readonly MessageEntry[];
  readonly atomics: readonly AtomicEntry[];
  readonly pinnedBytesPeak: number;
  readonly residentBytesPeak: number;
  readonly residentBytes: number;
  /** In order of their making. */
  readonly processes: readonly ProcessReport[];
  readonly swapBytesUsed: number;
  /** Processes that the OOM killer has ended, in order, with its reasons. */
  readonly oomKills: readonly OomKill[];
  /** Time that threads spent in registering and deregistering, waiting included. */
  readonly registrationPs: number;
}
