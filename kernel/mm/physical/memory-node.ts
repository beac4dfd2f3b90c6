/**
 * A NUMA node: a range of page frames with its watermarks and the state of its reclaim (pg_data_t,
 * struct zone; one zone a node).
 */
import type { Scheduler } from '../../sched/scheduler.ts';
import { SpinLock } from '../../sched/spin-lock.ts';
import { PAGE_BYTES } from './frames.ts';

/** Free frames at which things happen. */
export interface Watermarks {
  /** An allocation that would go below reclaims by itself first. */
  readonly min: number;
  /** One that leaves less wakes kswapd. */
  readonly low: number;
  /** kswapd goes on until so many are free. */
  readonly high: number;
}

/** Linux' rule: min_free_kbytes = 4 * sqrt(RAM in KiB); low and high a quarter and a half above. */
export function watermarksFor(frameCount: number): Watermarks {
  const kibibytes = frameCount * (PAGE_BYTES / 1024);
  const min = Math.min(Math.floor(Math.sqrt(kibibytes)), Math.floor(frameCount / 16));
  return { min, low: min + (min >> 2) + 1, high: min + (min >> 1) + 2 };
}

export class MemoryNode {
  watermarks: Watermarks;
  /** Held while pages go to and from LRU lists in batches; single pages come without (Linux: pagevecs). */
  readonly lruLock: SpinLock;
  /** Pages that scanners have off the lists just now (NR_ISOLATED). */
  isolatedPages = 0;
  /** Pages that reclaim has looked at since it last freed one. */
  pagesScanned = 0;
  /** Memory cgroup that the next run of reclaim begins with. */
  nextGroup = 0;
  /** Reclaim has given the node up until a page of it is freed (all_unreclaimable of 2.6.24). */
  allUnreclaimable = false;
  /** It may be unplugged: what is pinned for long is moved elsewhere first (ZONE_MOVABLE). */
  movable = false;

  /** Frames [firstFrame, endFrame). */
  constructor(
    readonly id: number,
    readonly firstFrame: number,
    readonly endFrame: number,
    scheduler: Scheduler,
  ) {
    this.lruLock = new SpinLock(scheduler, `LRU lists of node ${id}`);
    this.watermarks = watermarksFor(endFrame - firstFrame);
  }

  /** Something has become reclaimable that was not: reclaim has to look at the node again. */
  lookAgain(): void {
    this.pagesScanned = 0;
    this.allUnreclaimable = false;
  }
}
