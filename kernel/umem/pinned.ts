/**
 * User memory pinned for as long as it is registered (drivers/infiniband/core/umem.c, ib_umem_get).
 *
 * Pages are accounted against RLIMIT_MEMLOCK, then pinned in batches. If anything fails, everything
 * is undone. The pages stay the region's even after the program has unmapped them: from then on the
 * adapter and the program see different memory, which is the trap of registration caches.
 */
import { SystemCallError, VerbsError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import { type DeviceTable, ENTRY_READ, ENTRY_SHIFT, ENTRY_WRITE } from './device-table.ts';

/** Pages for each call of pin_user_pages: PAGE_SIZE / sizeof(struct page *). */
const PIN_BATCH = 512;

/** Memory of a process as it was when it was pinned; after exec the process has other memory. */
type PinOwner = Pick<AddressSpace, 'memory' | 'pages' | 'state'>;

export class PinnedUmem {
  private constructor(
    private readonly mm: PinOwner,
    private readonly frames: Int32Array,
    private readonly writable: boolean,
  ) {}

  get pageCount(): number {
    return this.frames.length;
  }

  /**
   * Pins the pages of [address, address + length).
   * @throws VerbsError ENOMEM over the memlock limit, EFAULT where the process may not access
   */
  static *pin(
    process: AddressSpace,
    address: number,
    length: number,
    writable: boolean,
    memlockBytes: number,
  ): Sim<PinnedUmem> {
    const mm: PinOwner = { memory: process.memory, pages: process.pages, state: process.state };
    const { costs } = mm.memory;
    const first = Math.floor(address / PAGE_BYTES);
    const pageCount = Math.ceil((address + length) / PAGE_BYTES) - first;
    yield costs.registerPs;
    if ((mm.state.pinnedPages + pageCount) * PAGE_BYTES > memlockBytes) {
      throw new VerbsError(
        'ENOMEM',
        'reg_mr',
        `${pageCount} pages, with ${mm.state.pinnedPages} pinned, exceed RLIMIT_MEMLOCK (${memlockBytes} bytes)`,
      );
    }
    mm.state.accountPinned(pageCount);
    const frames = new Int32Array(pageCount);
    let pinned = 0;
    try {
      while (pinned < pageCount) {
        const batch = Math.min(PIN_BATCH, pageCount - pinned);
        const got = yield* mm.pages.pin(first + pinned, batch, writable, frames, pinned);
        pinned += got;
        yield got * costs.registerPagePs;
        if (got < batch) {
          if (mm.state.killed !== undefined) throw mm.state.killed;
          const where = ((first + pinned) * PAGE_BYTES).toString(16);
          throw new VerbsError(
            'EFAULT',
            'reg_mr',
            `no ${writable ? 'write ' : ''}access at 0x${where}`,
          );
        }
      }
    } catch (error) {
      mm.pages.unpin(frames, pinned, false);
      mm.state.accountPinned(-pageCount);
      if (!(error instanceof SystemCallError)) throw error;
      throw new VerbsError(error.errno, 'reg_mr', error.message);
    }
    return new PinnedUmem(mm, frames, writable);
  }

  /** Whether a frame is one of the region's. */
  holds(frame: number): boolean {
    return this.frames.includes(frame);
  }

  /** Frame of a page, counted from the region's first. */
  frameOf(page: number): number {
    return this.frames[page];
  }

  /** The table entry of a page if it were in `frame`. */
  entryFor(frame: number): number {
    return (frame << ENTRY_SHIFT) | ENTRY_READ | (this.writable ? ENTRY_WRITE : 0);
  }

  /**
   * Gives up the pin of a page for as long as its driver moves it to another frame: what is left is a
   * reference of somebody who lets go when he is told to. Ends with `pinAt`.
   */
  lend(page: number): void {
    const { frames } = this.mm.memory;
    frames.get(this.frames[page]);
    frames.giveToClient(this.frames[page]);
    frames.unpin(this.frames[page]);
  }

  /** Pins a page that was lent in the frame where it is now; the adapter knows it there. */
  pinAt(page: number, frame: number): void {
    const { frames } = this.mm.memory;
    const old = this.frames[page];
    frames.pin(frame);
    if (this.writable) frames.markDirty(frame);
    this.frames[page] = frame;
    frames.putFromClient(old);
  }

  /** Enters all pages into the adapter's table and sleeps until they are in force. */
  *enter(table: DeviceTable): Sim<void> {
    for (let page = 0; page < this.frames.length; page++) {
      if (page % PIN_BATCH === 0) yield* table.room();
      table.set(page, this.entryFor(this.frames[page]));
    }
    yield* table.flushAndWait();
  }

  /** Takes the region from the adapter with `destroyKey`, and unpins. */
  *release(destroyKey: Sim<unknown>): Sim<void> {
    yield* destroyKey;
    yield* this.unpin();
  }

  /** Unpins; the adapter must not know the pages. */
  *unpin(): Sim<void> {
    const { costs } = this.mm.memory;
    yield costs.deregisterPs + this.frames.length * costs.deregisterPagePs;
    this.mm.pages.unpin(this.frames, this.frames.length, this.writable);
    this.mm.state.accountPinned(-this.frames.length);
  }
}
