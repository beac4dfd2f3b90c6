/**
 * An RxJS scheduler on simulated time, so that `delay`, `debounceTime` and their kin can be used in
 * the driver. Times are picoseconds. (rxjs has a VirtualTimeScheduler of its own; it sorts its whole
 * queue at every schedule and is driven by hand.)
 */
import { type SchedulerAction, type SchedulerLike, Subscription } from 'rxjs';
import type { Timers } from '../sched/timers.ts';

type Work<T> = (this: SchedulerAction<T>, state?: T) => void;

export class VirtualScheduler implements SchedulerLike {
  constructor(private readonly timers: Timers) {}

  /** Simulated time in picoseconds. */
  now(): number {
    return this.timers.node.now;
  }

  schedule<T>(work: Work<T>, delayPs = 0, state?: T): Subscription {
    return new VirtualAction(this.timers, work).schedule(state, delayPs);
  }
}

/** One piece of work that may schedule itself again; unsubscribing takes its timer back. */
class VirtualAction<T> extends Subscription implements SchedulerAction<T> {
  private timer = -1;

  constructor(
    private readonly timers: Timers,
    private readonly work: Work<T>,
  ) {
    super(() => this.disarm());
  }

  schedule(state?: T, delayPs = 0): Subscription {
    if (this.closed) return this;
    this.disarm();
    this.timer = this.timers.after(delayPs, () => {
      this.timer = -1;
      try {
        this.work(state);
        if (this.timer < 0) this.unsubscribe();
      } catch (error) {
        this.unsubscribe();
        this.timers.node.fail(error);
      }
    });
    return this;
  }

  private disarm(): void {
    if (this.timer >= 0) this.timers.cancel(this.timer);
    this.timer = -1;
  }
}
