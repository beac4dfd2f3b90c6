/**
 * What completion queues do later than an entry is posted: events whose time has come, and the end
 * of a queue that has overflowed.
 *
 * A queue overflows in the middle of whatever completed something, so its queue pairs are taken to
 * ERR by an event of their own, at the same time.
 */
import {
  type Engine,
  EVENT_CQ_ERR,
  type Node,
  type TimePs,
  TimerQueue,
} from '../../transport/index.ts';
import type { BusPort } from '../dma/bus-port.ts';
import type { CompletionQueue } from './completion-queue.ts';

/** Knows the queues by number, and who completes into them. */
export interface CompletionUsers {
  findCq(cqn: number): CompletionQueue | undefined;
  /** Takes every queue pair of `cq` to ERR. */
  failUsers(cq: CompletionQueue, now: TimePs): void;
}

export class CompletionEvents implements Engine {
  /** cqn * 2 for an event that may be due, cqn * 2 + 1 for an overflow. */
  private readonly timers = new TimerQueue();
  private readonly slot: number;

  constructor(
    private readonly node: Node,
    private readonly bus: BusPort,
    private readonly users: CompletionUsers,
  ) {
    this.slot = node.addEngine(this);
  }

  /** An event of `cq` may be due at `at`. */
  wakeAt(at: TimePs, cq: CompletionQueue): void {
    this.add(at, cq.cqn * 2);
  }

  /** `cq` has had no room for an entry. */
  overflowed(cq: CompletionQueue): void {
    this.add(this.node.now, cq.cqn * 2 + 1);
  }

  fire(now: TimePs): void {
    const due = this.timers.take();
    this.node.queue.arm(this.slot, this.timers.nextTime());
    const cq = this.users.findCq(due >> 1);
    if (cq === undefined) return;
    if ((due & 1) === 0) {
      // It may have been raised by a count meanwhile, and be waiting for another.
      if (cq.eventDuePs <= now) cq.raise(now);
      return;
    }
    this.bus.asyncEvent(now, EVENT_CQ_ERR, cq.cqn);
    this.users.failUsers(cq, now);
  }

  private add(at: TimePs, due: number): void {
    this.timers.add(at, due);
    this.node.queue.arm(this.slot, this.timers.nextTime());
  }
}
