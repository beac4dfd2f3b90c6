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
import { assert, Failure } from '../../../transport/index.ts';
import { Completion, type Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { CAUSE_SWAP } from '../notify/invalidation.ts';
import { FRAME_DIRTY, FRAME_LOCKED, PAGE_BYTES } from '../physical/frames.ts';
import { LRU_ACTIVE_ANON, LRU_INACTIVE_ANON } from '../physical/lru.ts';
import type { MemoryNode } from '../physical/memory-node.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import {
  makePte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_SWAP,
  pteNumber,
} from '../virtual/page-table.ts';

/** Pages freed in one go: SWAP_CLUSTER_MAX. */
const RECLAIM_BATCH = 32;
/** The first scan looks at 2^-12 of the pages, each further one at twice as many: DEF_PRIORITY. */
const FIRST_PRIORITY = 12;
/** Rounds of direct reclaim without a page freed before the process is out of memory. */
const MAX_RECLAIM_RETRIES = 16;

export class Reclaim {
  private kswapdCall = new Completion<void>('kswapd to be needed');

  constructor(private readonly memory: Memory) {
    memory.scheduler.spawn('kswapd', this.kswapd());
  }

  private get node(): MemoryNode {
    return this.memory.nodes[0] as MemoryNode;
  }

  /** A zeroed frame with one reference if one is to be had without waiting, else -1. */
  tryAllocate(mm: MmStruct): number {
    const { frames } = this.memory;
    const { min, low } = this.node.watermarks;
    if (frames.freeCount <= low) this.kswapdCall.resolve();
    return frames.freeCount > min ? frames.allocate(mm.homeNode) : -1;
  }

  /**
   * A zeroed frame with one reference; sleeps in direct reclaim when there is none.
   * @throws Failure E_OPERATION when nothing can be reclaimed: the process is out of memory
   */
  *allocate(mm: MmStruct): Sim<number> {
    let fruitless = 0;
    for (;;) {
      const frame = this.tryAllocate(mm);
      if (frame >= 0) return frame;
      if (fruitless === MAX_RECLAIM_RETRIES) break;
      this.memory.counters.allocstall++;
      const freed = yield* this.shrink(RECLAIM_BATCH);
      if (freed > 0) fruitless = 0;
      else {
        fruitless++;
        // Others may be writing pages out: one turn of the swap device.
        yield* this.memory.timers.sleep(this.memory.costs.swapLatencyPs);
      }
    }
    const { frames, swap, node } = this.memory;
    throw new Failure(
      'E_OPERATION',
      `out of memory: ${frames.count} page frames, ${frames.freeCount} free (of which ` +
        `${this.node.watermarks.min} reserved), ${swap.slotCount - swap.usedSlots} of ` +
        `${swap.slotCount} swap slots free, nothing to reclaim`,
      node.name,
      'more memory or swap, or fewer pinned pages',
    );
  }

  /** Evicts about `target` pages, looking harder as it fails; returns how many it freed. */
  *shrink(target: number): Sim<number> {
    const { lru, node, timers, costs, counters } = this.memory;
    const written: number[] = [];
    let writtenPs = 0;
    let freed = 0;
    for (let priority = FIRST_PRIORITY; priority >= 0 && freed < target; priority--) {
      const pages = lru.count(0, 0, LRU_INACTIVE_ANON) + lru.count(0, 0, LRU_ACTIVE_ANON);
      let toScan = (pages >>> priority) + RECLAIM_BATCH;
      this.deactivate(toScan);
      let scanned = 0;
      while (toScan-- > 0 && freed < target) {
        const frame = lru.takeOldest(0, 0, LRU_INACTIVE_ANON);
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
        writtenPs = this.memory.swap.startWrite(slot, node.now);
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
    const { frames, timers, costs } = this.memory;
    for (;;) {
      yield this.kswapdCall;
      while (frames.freeCount < this.node.watermarks.high) {
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
    const { lru } = this.memory;
    for (let i = 0; i < count; i++) {
      if (lru.count(0, 0, LRU_ACTIVE_ANON) <= lru.count(0, 0, LRU_INACTIVE_ANON)) return;
      const frame = lru.takeOldest(0, 0, LRU_ACTIVE_ANON);
      this.clearAccessed(frame);
      lru.add(frame, false);
    }
  }

  /** True for a page that reclaim should leave alone: pinned, or used since it was last looked at. */
  private isInUse(frame: number): boolean {
    return this.memory.frames.extraReferences(frame) > 0 || this.clearAccessed(frame);
  }

  /** Clears the accessed bit of every mapping of a frame; true when one was set (page_referenced). */
  private clearAccessed(frame: number): boolean {
    const { rmap } = this.memory;
    let accessed = false;
    rmap.forEach(frame, (id, page) => {
      const { table } = this.memory.mmOf(id);
      const pte = table.get(page);
      if ((pte & PTE_ACCESSED) === 0) return;
      table.set(page, pte & ~PTE_ACCESSED);
      accessed = true;
    });
    return accessed;
  }

  /**
   * Takes an isolated page out of its process. Returns the swap slot that it is to be written to, or
   * DROPPED when it needs none, or KEPT when it could not be evicted after all. The frame of a page
   * that is being written keeps reclaim's reference until the write is over.
   */
  private *evict(frame: number): Sim<number> {
    const { frames, lru, rmap, swap, counters, costs } = this.memory;
    frames.get(frame);
    frames.flags[frame] |= FRAME_LOCKED;
    const mm = this.memory.mmOf(rmap.mmOf(frame));
    const page = rmap.pageOf(frame);
    const { table, notifiers } = mm;
    const range = yield* notifiers.begin(page * PAGE_BYTES, (page + 1) * PAGE_BYTES, CAUSE_SWAP);
    yield costs.reclaimPagePs;
    // Devices have let go, and time has passed: look again, and act without sleeping.
    const pte = table.get(page);
    const mapped = (pte & PTE_PRESENT) !== 0 && pteNumber(pte) === frame;
    const busy = !mapped || range.refused || (pte & PTE_ACCESSED) !== 0;
    if (busy || frames.extraReferences(frame, 1) > 0) {
      yield* notifiers.end(range);
      this.keep(frame);
      return KEPT;
    }
    const dirty = (pte & PTE_DIRTY) !== 0 || (frames.flags[frame] & FRAME_DIRTY) !== 0;
    const slot = dirty ? swap.allocate() : DROPPED;
    if (dirty && slot < 0) {
      yield* notifiers.end(range);
      this.keep(frame);
      return KEPT;
    }
    if (slot >= 0) {
      frames.content.moveTo(frame, swap.content, slot);
      table.set(page, makePte(slot, PTE_SWAP));
      counters.pswpout++;
    } else table.set(page, 0);
    lru.remove(frame);
    rmap.unmap(frame, mm.id, page);
    yield* notifiers.end(range);
    if (slot < 0) this.release(frame);
    return slot < 0 ? DROPPED : slot;
  }

  /** Puts a page that stays back onto the active list, unless it lost its mapping meanwhile. */
  private keep(frame: number): void {
    const { frames, lru } = this.memory;
    if (frames.mapCounts[frame] > 0) lru.add(frame, true);
    this.release(frame);
  }

  private release(frame: number): void {
    const { frames } = this.memory;
    assert((frames.flags[frame] & FRAME_LOCKED) !== 0, 'reclaim releases what it does not hold');
    frames.flags[frame] &= ~FRAME_LOCKED;
    frames.put(frame);
  }
}

/** Results of evict besides a slot number. */
const KEPT = -1;
const DROPPED = -2;
