/**
 * What reclaim does with one page (mm/vmscan.c: shrink_folio_list, pageout, __remove_mapping).
 *
 * A page that was used lately stays. One that somebody holds a reference to stays too, and nobody
 * remembers it: reclaim meets it again and again, which is what pinning costs (seed 000, Lameter). Any other
 * is unmapped; if its content is nowhere else it is written, to its file or to swap, and the next scan that
 * finds it written frees it.
 *
 * Owns no list: `lru-scanner.ts` brings pages, each isolated and with a reference, and takes them back.
 */
import type { Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { CAUSE_SWAP } from '../notify/invalidation.ts';
import {
  FRAME_DIRTY,
  FRAME_HUGE,
  FRAME_LOCKED,
  FRAME_RECLAIM,
  FRAME_REFERENCED,
  FRAME_SWAP_BACKED,
  FRAME_SWAP_CACHE,
  FRAME_UNEVICTABLE,
  FRAME_WRITEBACK,
} from '../physical/frames.ts';
import { splitHugePage } from '../virtual/huge-pages.ts';
import { makePte, PTE_DIRTY, PTE_SWAP } from '../virtual/page-table.ts';
import { Flusher } from './flusher.ts';
import { PageAge } from './page-age.ts';
import { type ScanControl, SWAP_CLUSTER_MAX } from './scan-control.ts';
import { NO_SLOT } from './swap.ts';
import { KEEP_ENTRY, tryToUnmap } from './try-to-unmap.ts';

/** What is to become of a page: back to its list, to the active list, or to the free lists. */
export const VERDICT_KEEP = 0;
export const VERDICT_ACTIVATE = 1;
export const VERDICT_FREE = 2;
/** Of `judge` only: nothing speaks against it. */
export const VERDICT_TRY = 3;
/** Of `judge` only: notifier clients have to be asked first. */
export const VERDICT_ASK = 4;

export class PageOut {
  readonly age: PageAge;
  readonly flusher: Flusher;

  constructor(private readonly memory: Memory) {
    this.age = new PageAge(memory);
    this.flusher = new Flusher(memory);
  }

  /** True while anonymous memory can be freed at all: swap has room, or written pages wait to be freed. */
  get canSwap(): boolean {
    const { swap, swapCache } = this.memory;
    return swap.usedSlots < swap.slotCount || swapCache.count > 0;
  }

  /** Pages that are being written and will be freed after that. */
  get inFlight(): number {
    return this.memory.swapCache.writesInFlight + this.flusher.pending;
  }

  /** Sleeps until a batch of them is written (VMSCAN_THROTTLE_WRITEBACK). */
  *waitForWrites(): Sim<void> {
    const { swapCache } = this.memory;
    if (swapCache.writesInFlight > 0) yield* swapCache.waitForWrites(SWAP_CLUSTER_MAX);
    else yield* this.flusher.wait();
  }

  /** Looks at a page without sleeping: most pages that stay are known by this. */
  judge(frame: number, scan: ScanControl): number {
    const { frames, costs } = this.memory;
    scan.pendingPs += costs.reclaimScanPs;
    const flags = frames.flags[frame];
    if ((flags & (FRAME_UNEVICTABLE | FRAME_LOCKED)) !== 0) return VERDICT_KEEP;
    if ((flags & FRAME_WRITEBACK) !== 0) {
      if ((flags & FRAME_SWAP_CACHE) !== 0) frames.flags[frame] |= FRAME_RECLAIM;
      return VERDICT_KEEP;
    }
    scan.pendingPs += this.age.look(frame);
    if (this.age.needsClients) return VERDICT_ASK;
    return this.weigh(frame, this.age.referenced, this.age.isDirty);
  }

  /** The same for a page whose clients have to be asked. */
  *judgeWithClients(frame: number, scan: ScanControl): Sim<number> {
    const { referenced, isDirty } = this.age;
    yield* scan.spend();
    const young = yield* this.age.askClients(frame);
    return this.weigh(frame, referenced + young, isDirty);
  }

  /** Takes a page out of memory as far as it goes; returns what is to become of it. */
  *reclaim(frame: number, scan: ScanControl): Sim<number> {
    const { pageLocks, costs } = this.memory;
    if ((this.memory.frames.flags[frame] & FRAME_HUGE) !== 0) return this.split(frame, scan);
    if (!pageLocks.tryLock(frame)) return VERDICT_KEEP;
    scan.pendingPs += costs.reclaimPagePs;
    yield* scan.spend();
    const isUnmapped = yield* this.unmap(frame);
    const verdict = isUnmapped ? this.letGo(frame) : VERDICT_ACTIVATE;
    pageLocks.unlock(frame);
    return verdict;
  }

  /**
   * Pages start out with the reference of the access that brought them in, so one reference keeps a page
   * for another round and only the second one makes it active (folio_check_references).
   */
  private weigh(frame: number, referenced: number, isDirty: boolean): number {
    const { frames, swapCache, swap } = this.memory;
    const flags = frames.flags[frame];
    const wasReferenced = (flags & FRAME_REFERENCED) !== 0;
    if (referenced > 0) {
      frames.flags[frame] |= FRAME_REFERENCED;
      return wasReferenced || referenced > 1 ? VERDICT_ACTIVATE : VERDICT_KEEP;
    }
    frames.flags[frame] &= ~FRAME_REFERENCED;
    if (frames.extraReferences(frame, 1) > 0) return VERDICT_KEEP;
    const needsSlot = (flags & FRAME_SWAP_BACKED) !== 0 && swapCache.slotOf(frame) === NO_SLOT;
    const isFull = swap.usedSlots === swap.slotCount;
    return needsSlot && isDirty && isFull ? VERDICT_ACTIVATE : VERDICT_TRY;
  }

  /** Huge pages are swapped in pieces (split_folio): their pages go to the lists, where reclaim meets them. */
  private split(frame: number, scan: ScanControl): number {
    scan.pendingPs += this.memory.costs.hugeSplitPs;
    return splitHugePage(this.memory, frame, 1) ? VERDICT_KEEP : VERDICT_ACTIVATE;
  }

  /** Takes a locked page out of all page tables; anonymous memory gets a slot on the way. */
  private *unmap(frame: number): Sim<boolean> {
    const { frames, swap, swapCache } = this.memory;
    // Whoever has a reverse map of its own may use a page that no process maps.
    if (frames.mapCounts[frame] + frames.clientReferences[frame] === 0) return true;
    if (frames.files[frame] !== 0)
      return yield* tryToUnmap(this.memory, frame, CAUSE_SWAP, toNothing);
    // Reclaim is a user of the slot itself while it sets entries: others may zap theirs meanwhile.
    let slot = swapCache.slotOf(frame);
    if (slot !== NO_SLOT) swap.share(slot);
    const isShared = frames.mapCounts[frame] > 1;
    const unmapped = yield* tryToUnmap(this.memory, frame, CAUSE_SWAP, (pte) => {
      const flags = frames.flags[frame];
      const isDirty = isShared || (pte & PTE_DIRTY) !== 0 || (flags & FRAME_DIRTY) !== 0;
      if (slot === NO_SLOT && (flags & FRAME_SWAP_BACKED) === 0) {
        // MADV_FREE: it may go unless it was written again, and then it is memory like any other.
        if (!isDirty) return 0;
        frames.flags[frame] |= FRAME_SWAP_BACKED;
        return KEEP_ENTRY;
      }
      if (slot === NO_SLOT) {
        if (!isDirty) return 0;
        slot = swap.allocate();
        if (slot === NO_SLOT) return KEEP_ENTRY;
        swapCache.insert(frame, slot);
        frames.flags[frame] |= FRAME_DIRTY;
      }
      if ((pte & PTE_DIRTY) !== 0) frames.flags[frame] |= FRAME_DIRTY;
      swapCache.save(frame);
      swap.share(slot);
      return makePte(slot, PTE_SWAP);
    });
    if (slot !== NO_SLOT) swap.release(slot);
    return unmapped;
  }

  /** Writes a locked page that nobody maps, or takes it out of its cache: then the reference is the last. */
  private letGo(frame: number): number {
    const { frames, swap, swapCache, files } = this.memory;
    if (frames.mapCounts[frame] > 0) return VERDICT_ACTIVATE;
    if (frames.extraReferences(frame, 1) + frames.clientReferences[frame] > 0) return VERDICT_KEEP;
    const flags = frames.flags[frame];
    const isDirty = (flags & FRAME_DIRTY) !== 0;
    if ((flags & FRAME_SWAP_CACHE) !== 0) {
      if (isDirty) swapCache.write(frame);
      if (isDirty || (flags & FRAME_WRITEBACK) !== 0) return VERDICT_KEEP;
      swapCache.remove(frame);
      return VERDICT_FREE;
    }
    if (frames.files[frame] === 0) return VERDICT_FREE;
    if ((flags & FRAME_SWAP_BACKED) !== 0) {
      // Shared memory: its object names the slot from now on (shmem_writepage).
      const slot = swap.allocate();
      if (slot === NO_SLOT) return VERDICT_ACTIVATE;
      swapCache.insert(frame, slot);
      files.moveToSlot(frame, slot);
      swapCache.write(frame);
      return VERDICT_KEEP;
    }
    if ((flags & FRAME_WRITEBACK) !== 0) return VERDICT_KEEP;
    if (isDirty) {
      this.flusher.write(frame);
      return VERDICT_KEEP;
    }
    files.remove(frame);
    return VERDICT_FREE;
  }
}

/** Pages of files are found through their file again. */
function toNothing(): number {
  return 0;
}
