/**
 * How a driver gets at the pages of a process: by pinning them (mm/gup.c, pin_user_pages), or by
 * asking which frames they are right now (mm/hmm.c, hmm_range_fault), which is only good until the
 * next invalidation.
 */
import type { Sim } from '../../sched/completion.ts';
import { hasMovable, leaveMovableNodes } from '../migrate/long-term-pin.ts';
import { NO_FRAME, ORIGIN_DEVICE, ORIGIN_PIN, PAGE_BYTES } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { PTE_PRESENT, PTE_WRITE, pteNumber } from '../virtual/page-table.ts';
import { VM_PFNMAP, type Vma } from '../virtual/vma.ts';
import { FaultHandler } from './fault-handler.ts';

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
    private readonly mm: MmStruct,
    private readonly faults: FaultHandler,
  ) {}

  /**
   * Pins `count` pages from page `first` on, faulting them in, for writing if `write`; their frames
   * go into `out` from `at` on. Each page is pinned as soon as it is there, so it cannot be reclaimed
   * while later ones are waited for. Returns how many were pinned: fewer when an address is not
   * mapped or not writable (EFAULT). Where memory may be unplugged, pages leave it before they are pinned
   * (FOLL_LONGTERM).
   * @throws SystemCallError ENOMEM when they cannot leave it
   */
  *pin(first: number, count: number, write: boolean, out: Int32Array, at: number): Sim<number> {
    for (let attempt = 0; ; attempt++) {
      const pinned = yield* this.pinInPlace(first, count, write, out, at);
      if (!hasMovable(this.mm.memory, out, at, pinned)) return pinned;
      this.unpin(out.subarray(at), pinned, false);
      yield* leaveMovableNodes(this.mm, out.subarray(at, at + pinned), attempt);
    }
  }

  private *pinInPlace(
    first: number,
    count: number,
    write: boolean,
    out: Int32Array,
    at: number,
  ): Sim<number> {
    yield* this.mm.lock.lockRead();
    let pinned = 0;
    for (; pinned < count; pinned++) {
      const page = first + pinned;
      const vma = this.mm.vmas.find(page * PAGE_BYTES);
      if (vma === undefined || !isPinnable(vma, write)) break;
      let frame = this.faults.tryHandle(page, vma, write, ORIGIN_PIN);
      if (frame < 0) frame = yield* this.faults.handle(page, vma, write, ORIGIN_PIN);
      if (frame < 0) break;
      this.mm.memory.frames.pin(frame);
      out[at + pinned] = frame;
    }
    yield* this.faults.spend();
    this.mm.lock.unlockRead();
    return pinned;
  }

  /** Drops pins; `dirty` says that somebody may have written the pages. */
  unpin(frames: Int32Array, count: number, dirty: boolean): void {
    for (let i = 0; i < count; i++) {
      if (dirty) this.mm.memory.frames.markDirty(frames[i]);
      this.mm.memory.frames.unpin(frames[i]);
    }
  }

  /**
   * Makes a run of pages present, writable if `write`, and reports their frames. Nothing is held
   * afterwards: use the answer only under a notifier's lock, after readRetry. Returns false when an
   * address is not readable, or not writable (EFAULT).
   */
  *faultRange(first: number, write: boolean, run: PageRun, origin = ORIGIN_DEVICE): Sim<boolean> {
    yield* this.mm.lock.lockRead();
    let allowed = true;
    for (let i = 0; i < run.count; i++) {
      const page = first + i;
      const vma = this.mm.vmas.find(page * PAGE_BYTES);
      if (vma === undefined || !isReadable(vma) || !isPinnable(vma, write)) {
        allowed = false;
        break;
      }
      if (this.faults.tryHandle(page, vma, write, origin) >= 0) continue;
      if ((yield* this.faults.handle(page, vma, write, origin)) < 0) {
        allowed = false;
        break;
      }
    }
    yield* this.faults.spend();
    this.mm.lock.unlockRead();
    if (allowed) this.lookUp(first, run);
    return allowed;
  }

  /**
   * Reports the frames of the pages that are present and readable, and faults nothing in; returns how
   * many.
   */
  *snapshot(first: number, run: PageRun): Sim<number> {
    yield* this.mm.lock.lockRead();
    const present = this.lookUp(first, run);
    this.mm.lock.unlockRead();
    yield present * this.mm.memory.costs.snapshotPagePs;
    return present;
  }

  /**
   * Makes one page present, writable if `write`, and takes a reference to it (get_user_pages); returns
   * its frame, or NO_FRAME when the process may not access it (EFAULT).
   */
  *get(page: number, write: boolean): Sim<number> {
    yield* this.mm.lock.lockRead();
    const frame = yield* this.getLocked(page, write);
    this.mm.lock.unlockRead();
    return frame;
  }

  /** The same for a caller that holds the mmap lock. */
  *getLocked(page: number, write: boolean): Sim<number> {
    const vma = this.mm.vmas.find(page * PAGE_BYTES);
    let frame = NO_FRAME;
    if (vma !== undefined && isPinnable(vma, write)) {
      frame = this.faults.tryHandle(page, vma, write, ORIGIN_DEVICE);
      if (frame < 0) frame = yield* this.faults.handle(page, vma, write, ORIGIN_DEVICE);
      if (frame >= 0) this.mm.memory.frames.get(frame);
      else frame = NO_FRAME;
    }
    yield* this.faults.spend();
    return frame;
  }

  /**
   * The frame of a page that is present, and writable if `write`, or NO_FRAME: follow_page. Takes no
   * time and no reference, so it is good only as long as the caller neither sleeps nor lets go of what
   * keeps invalidations away.
   */
  followPage(page: number, write: boolean): number {
    const pte = this.mm.table.get(page);
    const wanted = PTE_PRESENT | (write ? PTE_WRITE : 0);
    return (pte & wanted) === wanted ? pteNumber(pte) : NO_FRAME;
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
      if (vma === undefined || at >= vma.end) vma = this.mm.vmas.find(at);
      // Pages of a PROT_NONE mapping stay in the page table; nobody may use them.
      if (vma === undefined || !isReadable(vma)) continue;
      run.frames[page - first] = pteNumber(pte);
      run.writable[page - first] = (pte & PTE_WRITE) !== 0 ? 1 : 0;
      present++;
    }
    return present;
  }
}

/** True for a mapping that allows the access and whose pages have counts: not what a driver has put there. */
function isPinnable(vma: Vma, write: boolean): boolean {
  return FaultHandler.allows(vma, write) && (vma.flags & VM_PFNMAP) === 0;
}

/** What hmm_range_fault asks of a mapping before anything else. */
function isReadable(vma: Vma): boolean {
  return FaultHandler.allows(vma, false);
}
