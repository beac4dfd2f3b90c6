/**
 * The lock of a page (PG_locked, lock_page of mm/filemap.c): reclaim, migration and faults that read a
 * page in have it to themselves meanwhile. A sleeping lock; the flag stands in `frames.flags`.
 */
import { assert } from '../../../transport/index.ts';
import { Completion, type Sim } from '../../sched/completion.ts';
import { FRAME_LOCKED, type Frames } from './frames.ts';

export class PageLocks {
  /** Who waits for each locked frame, in order. */
  private readonly waiters = new Map<number, Completion<void>[]>();
  /** Who only wants to know that a frame has been unlocked. */
  private readonly onlookers = new Map<number, Completion<void>>();

  constructor(private readonly frames: Frames) {}

  isLocked(frame: number): boolean {
    return (this.frames.flags[frame] & FRAME_LOCKED) !== 0;
  }

  /** Takes the lock if it is free. */
  tryLock(frame: number): boolean {
    if (this.isLocked(frame)) return false;
    this.frames.flags[frame] |= FRAME_LOCKED;
    return true;
  }

  /** Takes the lock, sleeping until it is free; the caller holds a reference to the frame. */
  *lock(frame: number): Sim<void> {
    if (this.tryLock(frame)) return;
    const turn = new Completion<void>(`lock of page frame ${frame}`);
    const queue = this.waiters.get(frame);
    if (queue) queue.push(turn);
    else this.waiters.set(frame, [turn]);
    yield turn;
  }

  /** Sleeps until the lock is let go of once, and takes nothing: the frame may be another page by then. */
  *wait(frame: number): Sim<void> {
    if (!this.isLocked(frame)) return;
    let released = this.onlookers.get(frame);
    if (released === undefined) {
      released = new Completion<void>(`release of page frame ${frame}`);
      this.onlookers.set(frame, released);
    }
    yield released;
  }

  /** Hands the lock to whoever has waited longest. */
  unlock(frame: number): void {
    assert(this.isLocked(frame), 'a page is unlocked that is not locked');
    if (this.onlookers.size > 0) {
      const released = this.onlookers.get(frame);
      this.onlookers.delete(frame);
      released?.resolve();
    }
    const queue = this.waiters.get(frame);
    const next = queue?.shift();
    if (queue?.length === 0) this.waiters.delete(frame);
    if (next) next.resolve();
    else this.frames.flags[frame] &= ~FRAME_LOCKED;
  }
}
