/**
 * What one run of reclaim wants and how far it has got (struct scan_control of mm/vmscan.c).
 */
import type { TimePs } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';

/** Pages that reclaim handles and frees in one go: SWAP_CLUSTER_MAX. */
export const SWAP_CLUSTER_MAX = 32;
/** The first scan looks at 2^-12 of the pages, each further one at twice as many. */
export const DEF_PRIORITY = 12;
/** Reclaim on behalf of all memory cgroups. */
export const ALL_GROUPS = -1;

export class ScanControl {
  /** Each step down doubles what is looked at; at 0 it is everything. */
  priority = DEF_PRIORITY;
  /** Pages looked at, and freed. */
  scanned = 0;
  reclaimed = 0;
  /** CPU time that has come up and not been spent yet: a batch costs the model one event. */
  pendingPs: TimePs = 0;
  /** The isolated pages that are being worked on, and what is to become of each. */
  readonly batch = new Int32Array(SWAP_CLUSTER_MAX);
  readonly verdicts = new Uint8Array(SWAP_CLUSTER_MAX);

  constructor(
    /** Pages wanted. */
    readonly target: number,
    /** The memory cgroup whose pages count, or ALL_GROUPS. */
    readonly group: number,
    readonly byKswapd: boolean,
  ) {}

  get isDone(): boolean {
    return this.reclaimed >= this.target;
  }

  /** Spends the CPU time that has come up. */
  *spend(): Sim<void> {
    const spanPs = this.pendingPs;
    this.pendingPs = 0;
    if (spanPs > 0) yield spanPs;
  }
}
