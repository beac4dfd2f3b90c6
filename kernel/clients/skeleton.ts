/**
 * What the two skeleton drivers of seed 000 (S3: patch 4 of "MMU notifiers V6", and its form in V7) have in
 * common: a list of pages with a lock of its own, a count of the invalidations that are running, and the
 * callbacks that empty the list. How a page gets in, `populate`, is what differs.
 *
 * Names follow Documentation/mmu_notifier/skeleton.c. The "external page table" is a map; entries that the
 * device may write have a dirty bit, which reaches the page when the entry goes.
 */
import type { AddressSpace } from '../mm/address-space.ts';
import type { Invalidation } from '../mm/notify/invalidation.ts';
import type { MmuNotifier } from '../mm/notify/mmu-notifiers.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import { SpinLock } from '../sched/spin-lock.ts';

/** Results of populate besides a frame: try again; the process may not access the page. */
export const POPULATE_EAGAIN = -11;
export const POPULATE_EFAULT = -14;

interface Entry {
  readonly frame: number;
  readonly writable: boolean;
  dirty: boolean;
}

export abstract class Skeleton implements MmuNotifier {
  abstract readonly name: string;
  /** Protects the list and `invalidates`. */
  readonly lock: SpinLock;
  /** Range invalidations that have begun and not ended. */
  invalidates = 0;
  /** Pages that got in, and those that were zapped. */
  inserted = 0;
  zapped = 0;
  private readonly pages = new Map<number, Entry>();
  private isReleased = false;

  constructor(readonly mm: AddressSpace) {
    this.lock = new SpinLock(mm.memory.scheduler, 'skeleton');
  }

  /**
   * Makes the page at `address` known to the device: its frame, POPULATE_EAGAIN while an invalidation is
   * running or a lock is not to be had, POPULATE_EFAULT where the process has nothing. An `atomic` caller
   * cannot sleep, and gets only what is present.
   */
  abstract populate(address: number, atomic: boolean, write: boolean): Sim<number>;

  /** True while no page may get in: an invalidation is running, or the driver has let go of the process. */
  protected get isClosed(): boolean {
    return this.invalidates > 0 || this.isReleased;
  }

  /** Pages in the list. */
  get pageCount(): number {
    return this.pages.size;
  }

  /** The frame that the device uses for the page at `address` now, -1 for none; `write` dirties the entry. */
  access(address: number, write: boolean): number {
    const entry = this.pages.get(Math.floor(address / PAGE_BYTES));
    if (entry === undefined || (write && !entry.writable)) return -1;
    if (write) entry.dirty = true;
    return entry.frame;
  }

  *release(): Sim<void> {
    this.isReleased = true;
    yield* this.zapRange(0, Number.POSITIVE_INFINITY);
  }

  *invalidatePage(address: number): Sim<void> {
    yield* this.zapRange(address, address + PAGE_BYTES);
  }

  *invalidateRangeBegin({ start, end }: Invalidation): Sim<void> {
    // Holds off new references.
    yield* this.lock.lock();
    this.invalidates++;
    this.lock.unlock();
    yield* this.zapRange(start, end);
  }

  *invalidateRangeEnd(_range: Invalidation): Sim<void> {
    yield* this.lock.lock();
    yield this.mm.memory.costs.skeletonCallPs;
    this.invalidates--;
    this.lock.unlock();
  }

  /** Enters a page; the caller holds `lock`. */
  protected insertPage(page: number, frame: number, writable: boolean): void {
    const old = this.pages.get(page);
    if (old !== undefined) this.zapPage(page, old);
    this.mm.notifiers.references.insert(this, page, frame);
    this.pages.set(page, { frame, writable, dirty: old?.frame === frame && old.dirty });
    this.inserted++;
  }

  private *zapRange(start: number, end: number): Sim<void> {
    yield* this.lock.lock();
    const before = this.zapped;
    const [first, last] = [start / PAGE_BYTES, Math.ceil(end / PAGE_BYTES)];
    if (last - first < this.pages.size) {
      for (let page = first; page < last; page++) {
        const entry = this.pages.get(page);
        if (entry !== undefined) this.zapPage(page, entry);
      }
    } else {
      for (const [page, entry] of this.pages) {
        if (page >= first && page < last) this.zapPage(page, entry);
      }
    }
    const { skeletonCallPs, skeletonPagePs } = this.mm.memory.costs;
    yield skeletonCallPs + (this.zapped - before) * skeletonPagePs;
    this.lock.unlock();
  }

  private zapPage(page: number, entry: Entry): void {
    if (entry.dirty) this.mm.memory.frames.markDirty(entry.frame);
    this.mm.notifiers.references.drop(this, page, entry.frame);
    this.pages.delete(page);
    this.zapped++;
  }
}
