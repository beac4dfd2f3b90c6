/**
 * Getting page frames, and getting them back when they run short (mm/vmscan.c, mm/page_alloc.c).
 *
 * Three watermarks: an allocation that leaves less than `low` wakes kswapd, which frees up to `high`;
 * one that would go below `min` reclaims by itself first (direct reclaim). A page is evicted by
 * telling the notifiers, taking it out of the page table, and writing it to swap when it is dirty.
 *
 * Pinned pages cannot be evicted: reclaim finds them, and sets them aside again. That they still cost
 * scanning is part of what pinning costs.
 *
 * Simpler than Linux: one zone, anonymous pages only, no shared zero page, no swap readahead, one
 * process, and a page's slot is given back when it is read in again.
 */
import { assert, Failure } from '../../transport/index.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import { FRAME_DIRTY, FRAME_LOCKED, PAGE_BYTES } from './frames.ts';
import {
  makePte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_SWAP,
  pteNumber,
} from './page-table.ts';
import type { MmParts } from './parts.ts';

/** Pages freed in one go: SWAP_CLUSTER_MAX. */
const RECLAIM_BATCH = 32;
/** The first scan looks at 2^-12 of the pages, each further one at twice as many: DEF_PRIORITY. */
const FIRST_PRIORITY = 12;
/** Rounds of direct reclaim without a page freed before the process is out of memory. */
const MAX_RECLAIM_RETRIES = 16;

/** Free frames at which things happen. */
export interface Watermarks {
  readonly min: number;
  readonly low: number;
  readonly high: number;
}

/** Linux' rule: min_free_kbytes = 4 * sqrt(RAM in KiB); low and high a quarter and a half above. */
export function watermarksFor(frameCount: number): Watermarks {
  const kibibytes = frameCount * (PAGE_BYTES / 1024);
  const min = Math.min(Math.floor(Math.sqrt(kibibytes)), Math.floor(frameCount / 16));
  return { min, low: min + (min >> 2) + 1, high: min + (min >> 1) + 2 };
}

export class Reclaim {
  readonly watermarks: Watermarks;
  private kswapdCall = new Completion<void>('kswapd to be needed');

  constructor(private readonly mm: MmParts) {
    this.watermarks = watermarksFor(mm.frames.count);
    mm.scheduler.spawn('kswapd', this.kswapd());
  }

  /** A zeroed frame with one reference if one is to be had without waiting, else -1. */
  tryAllocate(): number {
    const { frames } = this.mm;
    const { min, low } = this.watermarks;
    if (frames.freeCount <= low) this.kswapdCall.resolve();
    return frames.freeCount > min ? frames.allocate() : -1;
  }

  /**
   * A zeroed frame with one reference; sleeps in direct reclaim when there is none.
   * @throws Failure E_OPERATION when nothing can be reclaimed: the process is out of memory
   */
  *allocate(): Sim<number> {
    let fruitless = 0;
    for (;;) {
      const frame = this.tryAllocate();
      if (frame >= 0) return frame;
      if (fruitless === MAX_RECLAIM_RETRIES) break;
      this.mm.counters.allocstall++;
      const freed = yield* this.shrink(RECLAIM_BATCH);
      if (freed > 0) fruitless = 0;
      else {
        fruitless++;
        // Others may be writing pages out: one turn of the swap device.
        yield* this.mm.timers.sleep(this.mm.costs.swapLatencyPs);
      }
    }
    const { frames, swap, node } = this.mm;
    throw new Failure(
      'E_OPERATION',
      `out of memory: ${frames.count} page frames, ${frames.freeCount} free (of which ` +
        `${this.watermarks.min} reserved), ${swap.slotCount - swap.usedSlots} of ` +
        `${swap.slotCount} swap slots free, nothing to reclaim`,
      node.name,
      'more memory or swap, or fewer pinned pages',
    );
  }

  /** Evicts about `target` pages, looking harder as it fails; returns how many it freed. */
  *shrink(target: number): Sim<number> {
    const { lru, node, timers, costs, counters } = this.mm;
    const written: number[] = [];
    let writtenPs = 0;
    let freed = 0;
    for (let priority = FIRST_PRIORITY; priority >= 0 && freed < target; priority--) {
      const pages = lru.inactiveCount + lru.activeCount;
      let toScan = (pages >>> priority) + RECLAIM_BATCH;
      this.deactivate(toScan);
      let scanned = 0;
      while (toScan-- > 0 && freed < target) {
        const frame = lru.takeOldest(false);
        if (frame < 0) break;
        scanned++;
        if (this.isInUse(frame)) {
          lru.add(frame, true);
          continue;
        }
        const slot = yield* this.evict(frame);
        if (slot === KEPT) continue;
        freed++;
        if (slot === DROPPED) continue;
        written.push(frame);
        writtenPs = this.mm.swap.startWrite(slot, node.now);
      }
      counters.pgscan += scanned;
      yield scanned * costs.reclaimScanPs;
    }
    if (writtenPs > node.now) yield* timers.sleep(writtenPs - node.now);
    for (const frame of written) this.release(frame);
    counters.pgsteal += freed;
    return freed;
  }

  private *kswapd(): Sim<void> {
    const { frames, timers, costs } = this.mm;
    for (;;) {
      yield this.kswapdCall;
      while (frames.freeCount < this.watermarks.high) {
        const freed = yield* this.shrink(RECLAIM_BATCH);
        // Nothing to be had: leave it to direct reclaim, and to whoever calls next.
        if (freed === 0) break;
      }
      this.kswapdCall = new Completion<void>('kswapd to be needed');
      yield* timers.sleep(costs.swapLatencyPs);
    }
  }

  /** Moves old active pages to the inactive list while the active one is the longer. */
  private deactivate(count: number): void {
    const { lru, table, frames } = this.mm;
    for (let i = 0; i < count && lru.activeCount > lru.inactiveCount; i++) {
      const frame = lru.takeOldest(true);
      const page = frames.virtualPages[frame];
      table.set(page, table.get(page) & ~PTE_ACCESSED);
      lru.add(frame, false);
    }
  }

  /** True for a page that reclaim should leave alone: pinned, or used since it was last looked at. */
  private isInUse(frame: number): boolean {
    const { frames, table } = this.mm;
    if (frames.isPinned(frame)) return true;
    const page = frames.virtualPages[frame];
    const pte = table.get(page);
    if ((pte & PTE_ACCESSED) === 0) return false;
    table.set(page, pte & ~PTE_ACCESSED);
    return true;
  }

  /**
   * Takes an isolated page out of the process. Returns the swap slot that it is to be written to, or
   * DROPPED when it needs none, or KEPT when it could not be evicted after all. The frame of a page
   * that is being written keeps reclaim's reference until the write is over.
   */
  private *evict(frame: number): Sim<number> {
    const { frames, lru, table, notifiers, swap, counters, costs } = this.mm;
    frames.get(frame);
    frames.flags[frame] |= FRAME_LOCKED;
    const page = frames.virtualPages[frame];
    const range = yield* notifiers.begin(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    yield costs.reclaimPagePs;
    // Devices have let go, and time has passed: look again, and act without sleeping.
    const pte = table.get(page);
    const mapped = (pte & PTE_PRESENT) !== 0 && pteNumber(pte) === frame;
    if (!mapped || frames.isPinned(frame, 1) || (pte & PTE_ACCESSED) !== 0) {
      notifiers.end(range);
      this.keep(frame);
      return KEPT;
    }
    const dirty = (pte & PTE_DIRTY) !== 0 || (frames.flags[frame] & FRAME_DIRTY) !== 0;
    const slot = dirty ? swap.allocate() : DROPPED;
    if (dirty && slot < 0) {
      notifiers.end(range);
      this.keep(frame);
      return KEPT;
    }
    if (slot >= 0) {
      frames.content.moveTo(frame, swap.content, slot);
      table.set(page, makePte(slot, PTE_SWAP));
      counters.pswpout++;
    } else table.set(page, 0);
    lru.remove(frame);
    frames.unmap(frame);
    notifiers.end(range);
    if (slot < 0) this.release(frame);
    return slot < 0 ? DROPPED : slot;
  }

  /** Puts a page that stays back onto the active list, unless it lost its mapping meanwhile. */
  private keep(frame: number): void {
    const { frames, lru } = this.mm;
    if (frames.mapCounts[frame] > 0) lru.add(frame, true);
    this.release(frame);
  }

  private release(frame: number): void {
    const { frames } = this.mm;
    assert((frames.flags[frame] & FRAME_LOCKED) !== 0, 'reclaim releases what it does not hold');
    frames.flags[frame] &= ~FRAME_LOCKED;
    frames.put(frame);
  }
}

/** Results of evict besides a slot number. */
const KEPT = -1;
const DROPPED = -2;
