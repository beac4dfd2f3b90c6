/**
 * The thread that writes dirty pages of files back when reclaim meets them (mm/page-writeback.c,
 * wakeup_flusher_threads). Reclaim does not wait for it: a page that is clean again goes to the old end of
 * its list, where reclaim finds it next.
 *
 * Owns the queue of pages, each with a reference. How a page is written is `files/page-cache.ts`.
 */
import { Completion, type Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { FRAME_DIRTY, FRAME_WRITEBACK } from '../physical/frames.ts';

export class Flusher {
  private readonly queue: number[] = [];
  private readonly queued = new Set<number>();
  private isWorking = false;
  private cleaned = new Completion<void>('a page of a file to be written');

  constructor(private readonly memory: Memory) {}

  /** Pages that wait to be written or are being written. */
  get pending(): number {
    return this.queue.length + (this.isWorking ? 1 : 0);
  }

  /** Queues a dirty page; one that is queued already stays where it is. */
  write(frame: number): void {
    const { frames, scheduler } = this.memory;
    if (this.queued.has(frame)) return;
    this.queued.add(frame);
    frames.get(frame);
    this.queue.push(frame);
    if (this.pending === 1) scheduler.spawn('flush', this.run());
  }

  /** Sleeps until a page has been written; returns at once when none is to be. */
  *wait(): Sim<void> {
    if (this.pending > 0) yield this.cleaned;
  }

  private *run(): Sim<void> {
    const { frames, files, lru, pageLocks, counters } = this.memory;
    this.isWorking = true;
    for (let frame = this.queue.shift(); frame !== undefined; frame = this.queue.shift()) {
      yield* pageLocks.lock(frame);
      const isDirty = (frames.flags[frame] & FRAME_DIRTY) !== 0 && frames.files[frame] !== 0;
      if (isDirty) yield* files.writeBack(frame);
      pageLocks.unlock(frame);
      this.queued.delete(frame);
      if ((frames.flags[frame] & (FRAME_DIRTY | FRAME_WRITEBACK)) === 0 && lru.rotate(frame)) {
        counters.pgrotated++;
      }
      frames.put(frame);
      const { cleaned } = this;
      this.cleaned = new Completion<void>('a page of a file to be written');
      cleaned.resolve();
    }
    this.isWorking = false;
  }
}
