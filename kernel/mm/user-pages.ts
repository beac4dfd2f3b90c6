/**
 * How a driver gets at the pages of a process: by pinning them (mm/gup.c, pin_user_pages), or by
 * asking which frames they are right now (mm/hmm.c, hmm_range_fault), which is only good until the
 * next invalidation.
 */
import type { Sim } from '../sched/completion.ts';
import type { RwLock } from '../sched/rw-lock.ts';
import { FaultHandler } from './fault-handler.ts';
import { PAGE_BYTES } from './frames.ts';
import { PTE_PRESENT, PTE_WRITE, pteNumber } from './page-table.ts';
import type { MmParts } from './parts.ts';
import type { Vma, VmaList } from './vma.ts';

/** A page that is not there, in the lists of frames below. */
export const NO_FRAME = -1;

/** Frames of a run of pages, with the write permission of each. */
export class PageRun {
  /** Frame of each page, or NO_FRAME. */
  readonly frames: Int32Array;
  /** 1 where the process may write the page. */
  readonly writable: Uint8Array;

  constructor(readonly count: number) {
    this.frames = new Int32Array(count).fill(NO_FRAME);
    this.writable = new Uint8Array(count);
  }
}

export class UserPages {
  constructor(
    private readonly mm: MmParts,
    private readonly vmas: VmaList,
    private readonly lock: RwLock,
    private readonly faults: FaultHandler,
  ) {}

  /**
   * Pins `count` pages from page `first` on, faulting them in, for writing if `write`; their frames
   * go into `out` from `at` on. Each page is pinned as soon as it is there, so it cannot be reclaimed
   * while later ones are waited for. Returns how many were pinned: fewer when an address is not
   * mapped or not writable (EFAULT).
   */
  *pin(first: number, count: number, write: boolean, out: Int32Array, at: number): Sim<number> {
    yield* this.lock.lockRead();
    let pinned = 0;
    for (; pinned < count; pinned++) {
      const page = first + pinned;
      const vma = this.vmas.find(page * PAGE_BYTES);
      if (vma === undefined || !FaultHandler.allows(vma, write)) break;
      let frame = this.faults.tryHandle(page, vma, write);
      if (frame < 0) frame = yield* this.faults.handle(page, vma, write);
      this.mm.frames.get(frame);
      out[at + pinned] = frame;
    }
    yield* this.faults.spend();
    this.lock.unlockRead();
    return pinned;
  }

  /** Drops pins; `dirty` says that somebody may have written the pages. */
  unpin(frames: Int32Array, count: number, dirty: boolean): void {
    for (let i = 0; i < count; i++) {
      if (dirty) this.mm.frames.markDirty(frames[i]);
      this.mm.frames.put(frames[i]);
    }
  }

  /**
   * Makes a run of pages present, writable if `write`, and reports their frames. Nothing is held
   * afterwards: use the answer only under a notifier's lock, after readRetry. Returns false when an
   * address is not readable, or not writable (EFAULT).
   */
  *faultRange(first: number, write: boolean, run: PageRun): Sim<boolean> {
    yield* this.lock.lockRead();
    let allowed = true;
    for (let i = 0; i < run.count; i++) {
      const page = first + i;
      const vma = this.vmas.find(page * PAGE_BYTES);
      if (vma === undefined || !isReadable(vma) || !FaultHandler.allows(vma, write)) {
        allowed = false;
        break;
      }
      if (this.faults.tryHandle(page, vma, write) < 0) yield* this.faults.handle(page, vma, write);
    }
    yield* this.faults.spend();
    this.lock.unlockRead();
    if (allowed) this.lookUp(first, run);
    return allowed;
  }

  /**
   * Reports the frames of the pages that are present and readable, and faults nothing in; returns how
   * many.
   */
  *snapshot(first: number, run: PageRun): Sim<number> {
    yield* this.lock.lockRead();
    const present = this.lookUp(first, run);
    this.lock.unlockRead();
    yield present * this.mm.costs.snapshotPagePs;
    return present;
  }

  private lookUp(first: number, run: PageRun): number {
    const { table } = this.mm;
    const end = first + run.count;
    let present = 0;
    let vma: Vma | undefined;
    run.frames.fill(NO_FRAME);
    for (let page = table.nextUsed(first, end); page < end; page = table.nextUsed(page + 1, end)) {
      const pte = table.get(page);
      if ((pte & PTE_PRESENT) === 0) continue;
      const at = page * PAGE_BYTES;
      if (vma === undefined || at >= vma.end) vma = this.vmas.find(at);
      // Pages of a PROT_NONE mapping stay in the page table; nobody may use them.
      if (vma === undefined || !isReadable(vma)) continue;
      run.frames[page - first] = pteNumber(pte);
      run.writable[page - first] = (pte & PTE_WRITE) !== 0 ? 1 : 0;
      present++;
    }
    return present;
  }
}

/** What hmm_range_fault asks of a mapping before anything else. */
function isReadable(vma: Vma): boolean {
  return FaultHandler.allows(vma, false);
}
