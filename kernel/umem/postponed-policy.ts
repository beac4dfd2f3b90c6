/**
 * What a driver of the 2011 prototype does about invalidations (seed 004), and what it counts.
 */
import { MS, type TimePs } from '../../transport/index.ts';
import { CAUSE_MIGRATE, CAUSE_SWAP, type InvalidationCause } from '../mm/notify/invalidation.ts';

/** What the driver does about an invalidation. */
export interface PostponedPolicy {
  /** Time the hardware takes to flush, beyond the update of its table; once a batch. */
  readonly deviceFlushPs: TimePs;
  /** Causes whose invalidations wait for a batch; right are swap and migration. */
  readonly postpone: readonly InvalidationCause[];
  /** Causes that are refused; only swap and migration can be. */
  readonly refuse: readonly InvalidationCause[];
  /** A batch is flushed so long after its first page, or when it is full. */
  readonly batchPs: TimePs;
  /** Pages that one flush of the hardware can be told of. */
  readonly batchPages: number;
}

/** Everything at once, as notifiers ask for it. */
export const immediatePolicy: PostponedPolicy = {
  deviceFlushPs: 10 * MS, // seed 004: tens of milliseconds
  postpone: [],
  refuse: [],
  batchPs: 0,
  batchPages: 1,
};

/** What the prototype asks for: what reclaim and migration want may wait. */
export const batchingPolicy: PostponedPolicy = {
  ...immediatePolicy,
  postpone: [CAUSE_SWAP, CAUSE_MIGRATE],
  batchPs: 10 * MS,
  batchPages: 256,
};

/** Counts of one region, besides those that every region has. */
export interface PostponedCounters {
  /** Times the hardware was flushed. */
  flushes: number;
  /** Pages whose invalidation was put off. */
  postponed: number;
  /** Invalidations that were refused. */
  refused: number;
  /**
   * Pages that the adapter wrote after the program had lost them, and before they were flushed: the data
   * are gone. Found by comparing what the page held when its invalidation was put off.
   */
  lateWrites: number;
}
