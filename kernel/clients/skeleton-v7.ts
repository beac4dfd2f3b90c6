/**
 * The simple skeleton driver as of "MMU notifiers V7" (S3: seed 000, patch 4 of 2008-02-15).
 *
 * `populate` keeps the mmap lock, looks the page up under the page table lock, and inserts it there under
 * its own lock with no invalidation running; whenever one is, the answer is EAGAIN. So a page that is
 * returned has been inserted, and any invalidation of it comes later and finds it.
 */
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import { POPULATE_EAGAIN, POPULATE_EFAULT, Skeleton } from './skeleton.ts';

export class SkeletonV7 extends Skeleton {
  readonly name = 'skeleton V7';

  *populate(address: number, atomic: boolean, write: boolean): Sim<number> {
    const { mm } = this;
    const { frames } = mm.memory;
    const page = Math.floor(address / PAGE_BYTES);
    if (this.isClosed) return POPULATE_EAGAIN;
    if (!atomic) yield* mm.state.lock.lockRead();
    else if (!mm.state.lock.tryLockRead()) return POPULATE_EAGAIN;
    let result = POPULATE_EAGAIN;
    while (!this.isClosed) {
      const frame = yield* this.tryInsert(page, write);
      if (frame !== undefined) result = frame;
      if (frame !== undefined || atomic) break;
      // The page fault handler gets the entry set up right.
      const faulted = yield* mm.pages.getLocked(page, write);
      if (faulted < 0) {
        result = POPULATE_EFAULT;
        break;
      }
      frames.put(faulted);
    }
    mm.state.lock.unlockRead();
    return result;
  }

  /** The frame of a page that is present, once it is inserted, or EAGAIN; undefined when it is not present. */
  private *tryInsert(page: number, write: boolean): Sim<number | undefined> {
    const { mm, lock } = this;
    const { tableLock } = mm.state;
    yield* tableLock.lock();
    const frame = mm.pages.followPage(page, write);
    if (frame < 0) {
      tableLock.unlock();
      return undefined;
    }
    // Holds the count of invalidations constant; invalidatePage is held off by the page table lock.
    yield* lock.lock();
    yield mm.memory.costs.skeletonPagePs;
    const mayInsert = !this.isClosed;
    if (mayInsert) this.insertPage(page, frame, write);
    lock.unlock();
    tableLock.unlock();
    return mayInsert ? frame : POPULATE_EAGAIN;
  }
}
