/**
 * Making one page of a process present: the work of handle_mm_fault (mm/memory.c), for CPU accesses, pins
 * and page faults of the adapter alike.
 *
 * Works on single pages with the mmap lock held for reading by the caller. Everything that can be done
 * without sleeping goes through `tryHandle`, which only adds up the CPU time it took, so that a run of
 * ordinary faults costs the model one event. `handle` does the same where memory, a device or a notifier has
 * to be waited for.
 *
 * A page of an anonymous mapping that is read first shows the shared zero page; the first write then is a
 * second fault, which copies (do_anonymous_page, do_wp_page). Owns the decision what a fault needs; the
 * bigger answers are `copy-on-write.ts` and `huge-fault.ts`, files are `file-fault.ts`.
 */
import type { Sim } from '../../sched/completion.ts';
import {
  FRAME_ANON_EXCLUSIVE,
  FRAME_LRU,
  FRAME_SWAP_BACKED,
  FRAME_SWAP_CACHE,
  ORIGIN_CPU,
  ORIGIN_PIN,
} from '../physical/frames.ts';
import { lockPage } from '../virtual/mlock-pages.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import {
  isMigrationPte,
  isSwapPte,
  makePte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_WRITE,
  pteNumber,
} from '../virtual/page-table.ts';
import {
  PROT_READ,
  PROT_WRITE,
  VM_HUGETLB,
  VM_LOCKED,
  VM_PFNMAP,
  VM_SHARED,
  type Vma,
} from '../virtual/vma.ts';
import { copyOnWrite, isReusable } from './copy-on-write.ts';
import { MUST_SLEEP, NO_PAGE } from './fault-result.ts';
import { isBeyondEnd, isHole, readFilePage, tryFileFault } from './file-fault.ts';
import { hugeTlbFault, isHugeCandidate, tryHugeFault } from './huge-fault.ts';

export class FaultHandler {
  /** CPU time of what tryHandle has done and the caller has not yet spent. */
  pendingPs = 0;
  /** A frame that was waited for, for the next page that needs one; -1 for none. */
  private spareFrame = -1;

  constructor(readonly mm: MmStruct) {}

  /** True when an access of that kind to a page of `vma` is allowed at all. */
  static allows(vma: Vma, write: boolean): boolean {
    return (vma.prot & (write ? PROT_WRITE : PROT_READ)) !== 0;
  }

  /**
   * Makes `page` of `vma` present, and writable for a write, if that needs no sleep; returns its frame, or
   * MUST_SLEEP. The access must be allowed. For ORIGIN_PIN a page of a private mapping is the process' own
   * afterwards, so that the pin stays with it.
   */
  tryHandle(page: number, vma: Vma, write: boolean, origin = ORIGIN_CPU): number {
    const { table } = this.mm;
    const pte = table.get(page);
    if (pte & PTE_PRESENT) {
      const isEnough = write ? (pte & PTE_WRITE) !== 0 : !this.mustUnshare(pte, vma, origin);
      if (!isEnough) return this.tryBreak(page, pte, vma, write);
      const touched = PTE_ACCESSED | (write ? PTE_DIRTY : 0);
      if ((pte & touched) !== touched) table.mark(page, touched);
      return pteNumber(pte);
    }
    if (pte !== 0 || this.mm.tableLock.locked) return MUST_SLEEP;
    if (vma.flags & (VM_PFNMAP | VM_HUGETLB)) return MUST_SLEEP;
    if (vma.file !== undefined) return tryFileFault(this, page, vma, write, origin);
    if (isHugeCandidate(this.mm, page, vma)) return MUST_SLEEP;
    if (!write && origin !== ORIGIN_PIN) return this.mapZero(page);
    const frame = this.takeFrame();
    if (frame < 0) return MUST_SLEEP;
    this.countFault();
    this.installAnonymous(page, frame, vma, write, origin);
    return frame;
  }

  /** The same for what may sleep; returns the frame, or NO_PAGE (also to a process that is being killed). */
  *handle(page: number, vma: Vma, write: boolean, origin = ORIGIN_CPU): Sim<number> {
    try {
      return yield* this.handleSlowly(page, vma, write, origin);
    } catch (error) {
      // VM_FAULT_OOM: the locks of the callers have to be let go of before the process ends.
      if (this.mm.killed === undefined || error !== this.mm.killed) throw error;
      return NO_PAGE;
    }
  }

  private *handleSlowly(page: number, vma: Vma, write: boolean, origin: number): Sim<number> {
    const { table, memory, tableLock } = this.mm;
    const { reclaim, pageLocks, frames } = memory;
    for (;;) {
      const ready = this.tryHandle(page, vma, write, origin);
      if (ready >= 0) return ready;
      const takesTime = this.pendingPs > 0;
      yield* this.spend();
      // What follows acts on the entry that tryHandle has seen; another thread may have changed it since.
      if (takesTime) continue;
      if (tableLock.locked) {
        yield* tableLock.lock();
        tableLock.unlock();
        // Whoever waits behind us has it now: two that only look would hand it to and fro for ever.
        yield memory.costs.memoryLoadPs;
        continue;
      }
      const pte = table.get(page);
      if (isMigrationPte(pte)) yield* pageLocks.wait(frames.headOf(pteNumber(pte)));
      else if (isSwapPte(pte)) yield* this.swapIn(page, pte, vma, write, origin);
      else if (vma.flags & VM_PFNMAP) return NO_PAGE;
      else if (vma.flags & VM_HUGETLB) {
        const frame = yield* hugeTlbFault(this, page, vma, write, origin);
        if (frame !== MUST_SLEEP) return frame;
      } else if (pte !== 0) {
        if (isHole(this.mm, pte, vma)) yield* readFilePage(this, page, vma, write);
        else yield* copyOnWrite(this, page, vma, write, origin);
      } else if (vma.file !== undefined) {
        if (isBeyondEnd(page, vma)) return NO_PAGE;
        const cached = yield* readFilePage(this, page, vma, write);
        const frame = this.tryHandle(page, vma, write, origin);
        if (cached >= 0) frames.put(cached);
        if (frame >= 0) return frame;
        // A private page needs a frame for its copy; the pages of an xip file are not read, but copied too.
        if (cached >= 0 || vma.file.kind === 'xip') yield* this.prepareFrame();
      } else if (isHugeCandidate(this.mm, page, vma)) {
        const frame = yield* tryHugeFault(this, page, vma, write, origin);
        if (frame >= 0) return frame;
        // No 2 MiB to be had: an ordinary page.
        yield* this.prepareFrame();
        if (table.get(page) === 0) {
          const single = this.takeFrame();
          this.countFault();
          this.installAnonymous(page, single, vma, write, origin);
          return single;
        }
      } else this.keepFrame(yield* reclaim.allocate(this.mm));
    }
  }

  /** Spends the CPU time that has piled up. */
  *spend(): Sim<void> {
    const spanPs = this.pendingPs;
    this.pendingPs = 0;
    if (this.spareFrame >= 0) this.dropSpare();
    if (spanPs > 0) yield spanPs;
  }

  /** Counts a fault and its CPU time. */
  countFault(): void {
    const { counters, costs } = this.mm.memory;
    counters.pgfault++;
    this.pendingPs += costs.minorFaultPs;
  }

  /** A zeroed frame if one is to be had without sleeping, else -1; its one reference is the caller's. */
  takeFrame(): number {
    const spare = this.spareFrame;
    if (spare < 0) return this.mm.memory.reclaim.tryAllocate(this.mm);
    this.spareFrame = -1;
    return spare;
  }

  /** Makes sure that the next takeFrame finds one, unless somebody sleeps before. */
  *prepareFrame(): Sim<void> {
    if (this.spareFrame < 0) this.keepFrame(yield* this.mm.memory.reclaim.allocate(this.mm));
  }

  /** Maps a frame, whose reference becomes the mapping's, as anonymous memory of this process alone. */
  installAnonymous(page: number, frame: number, vma: Vma, write: boolean, origin: number): void {
    const { table, memory, id } = this.mm;
    const { frames, lru, rmap } = memory;
    // Linux makes an entry writable for a write only: a page that a driver reads is written by a later fault.
    const rights = write ? PTE_WRITE | PTE_DIRTY : 0;
    table.set(page, makePte(frame, PTE_PRESENT | PTE_ACCESSED | rights));
    frames.flags[frame] |= FRAME_SWAP_BACKED | FRAME_ANON_EXCLUSIVE;
    frames.origins[frame] = origin;
    rmap.map(frame, id, page);
    lru.add(frame, false);
    if (vma.flags & VM_LOCKED) lockPage(memory, frame);
  }

  /** True where a pin must not be content with what a read sees: a page that a later write would replace. */
  private mustUnshare(pte: number, vma: Vma, origin: number): boolean {
    if (origin !== ORIGIN_PIN || (pte & PTE_WRITE) !== 0) return false;
    const { frames, settings } = this.mm.memory;
    if (settings.pinnedAtFork === 'shared' || (vma.flags & (VM_SHARED | VM_PFNMAP)) !== 0)
      return false;
    return (frames.flags[frames.headOf(pteNumber(pte))] & FRAME_ANON_EXCLUSIVE) === 0;
  }

  /** Gives an entry that is present the right to write, if that needs neither a copy nor a sleep. */
  private tryBreak(page: number, pte: number, vma: Vma, write: boolean): number {
    if (!write || this.mm.tableLock.locked || (vma.flags & VM_PFNMAP) !== 0) return MUST_SLEEP;
    if (!isReusable(this.mm, pte, vma)) return MUST_SLEEP;
    this.countFault();
    this.mm.table.mark(page, PTE_WRITE | PTE_DIRTY | PTE_ACCESSED);
    return pteNumber(pte);
  }

  private mapZero(page: number): number {
    const { table, memory } = this.mm;
    this.countFault();
    table.set(page, makePte(memory.zeroFrame, PTE_PRESENT | PTE_ACCESSED));
    return memory.zeroFrame;
  }

  private *swapIn(page: number, pte: number, vma: Vma, write: boolean, origin: number): Sim<void> {
    const { table, memory, tableLock } = this.mm;
    const { frames, swap, swapCache, rmap, lru } = memory;
    const slot = pteNumber(pte);
    const frame = yield* swapCache.swapIn(this.mm, slot);
    if (frame < 0) return;
    if (table.get(page) !== pte || tableLock.locked) {
      frames.put(frame);
      return;
    }
    this.countFault();
    const isSole = swap.users(slot) === 1;
    swap.release(slot);
    // do_swap_page: a page of this process alone may be written at once, if the area may be.
    const isOwn =
      isSole && (frames.flags[frame] & FRAME_SWAP_CACHE) === 0 && frames.mapCounts[frame] === 0;
    const mayWrite = isOwn && (vma.prot & PROT_WRITE) !== 0;
    const rights = (mayWrite ? PTE_WRITE : 0) | (mayWrite && write ? PTE_DIRTY : 0);
    table.set(page, makePte(frame, PTE_PRESENT | PTE_ACCESSED | rights));
    if (isOwn) frames.flags[frame] |= FRAME_ANON_EXCLUSIVE;
    else frames.flags[frame] &= ~FRAME_ANON_EXCLUSIVE;
    frames.flags[frame] |= FRAME_SWAP_BACKED;
    frames.origins[frame] = origin;
    rmap.map(frame, this.mm.id, page);
    if ((frames.flags[frame] & FRAME_LRU) === 0 && !memory.pageLocks.isLocked(frame))
      lru.add(frame, false);
    if (vma.flags & VM_LOCKED) lockPage(memory, frame);
  }

  private keepFrame(frame: number): void {
    if (this.spareFrame >= 0) this.dropSpare();
    this.spareFrame = frame;
  }

  private dropSpare(): void {
    this.mm.memory.frames.put(this.spareFrame);
    this.spareFrame = -1;
  }
}
