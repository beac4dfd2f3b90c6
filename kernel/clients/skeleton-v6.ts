/**
 * The simple skeleton driver as of "MMU notifiers V6" (S3: seed 000, patch 4, 2008-02-08).
 *
 * `populate` holds a reference and the page lock while it looks whether an invalidation is running, and
 * inserts the page if none is. It returns the page either way: its caller cannot tell that nothing was
 * inserted, and uses a page that the process is about to lose. That is the flaw that V7 mends. Nor does it
 * look whether the address still shows the page, once the mmap lock is given back.
 *
 * One thing is not as in the patch: where TestSetPageLocked fails, the patch returns the page with a
 * reference that nobody drops; here the reference goes and the answer is EAGAIN, as its comment says.
 */

import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import { POPULATE_EAGAIN, POPULATE_EFAULT, Skeleton } from './skeleton.ts';

export class SkeletonV6 extends Skeleton {
  readonly name = 'skeleton V6';

  *populate(address: number, atomic: boolean, write: boolean): Sim<number> {
    const { mm, lock } = this;
    const { frames, pageLocks, costs, zeroFrame } = mm.memory;
    const page = Math.floor(address / PAGE_BYTES);
    // No need to do anything if a range invalidate is running.
    if (this.isClosed) return POPULATE_EAGAIN;
    let frame: number;
    if (atomic) {
      if (!mm.state.lock.tryLockRead()) return POPULATE_EAGAIN;
      frame = mm.pages.followPage(page, write);
      if (frame >= 0) frames.get(frame);
      mm.state.lock.unlockRead();
      if (frame < 0) return POPULATE_EAGAIN;
      if (!pageLocks.tryLock(frames.headOf(frame))) {
        frames.put(frame);
        return POPULATE_EAGAIN;
      }
    } else {
      frame = yield* mm.pages.get(page, write);
      if (frame < 0) return POPULATE_EFAULT;
      yield* pageLocks.lock(frames.headOf(frame));
    }
    // The page is now locked and we are holding a refcount on it. So things are tied down.
    yield costs.skeletonPagePs;
    const head = frames.headOf(frame);
    if (frames.mapCounts[head] > 0 || frame === zeroFrame) {
      yield* lock.lock();
      if (!this.isClosed) this.insertPage(page, frame, write);
      lock.unlock();
    }
    pageLocks.unlock(head);
    frames.put(frame);
    return frame;
  }
}
