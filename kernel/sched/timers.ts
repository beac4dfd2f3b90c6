/**
 * One-shot timers of a host, behind one engine of its node: sleeping threads, the swap device and
 * the virtual clock of RxJS. Timers due at one time run in the order in which they were set.
 */
import {
  assert,
  deadline,
  type Engine,
  type Node,
  type TimePs,
  TimerQueue,
} from '../../transport/index.ts';
import { Completion, type Sim } from './completion.ts';

export class Timers implements Engine {
  private readonly queue = new TimerQueue();
  private readonly callbacks: ((() => void) | undefined)[] = [];
  private readonly freeIds: number[] = [];
  private readonly slot: number;

  constructor(readonly node: Node) {
    this.slot = node.addEngine(this);
  }

  /** Calls `callback` after `spanPs`; returns an id for cancel. */
  after(spanPs: TimePs, callback: () => void): number {
    assert(
      spanPs >= 0 && Number.isInteger(spanPs),
      'a timer is set for a span that is none',
      this.node,
    );
    const id = this.freeIds.pop() ?? this.callbacks.length;
    this.callbacks[id] = callback;
    this.queue.add(deadline(this.node.now, spanPs), id);
    this.node.queue.arm(this.slot, this.queue.nextTime());
    return id;
  }

  /** Takes back a timer that has not fired. */
  cancel(id: number): void {
    this.callbacks[id] = undefined;
  }

  /** Sleeps for `spanPs` without using a CPU. */
  *sleep(spanPs: TimePs): Sim<void> {
    if (spanPs === 0) return;
    const over = new Completion<void>(`${spanPs} ps to pass`);
    this.after(spanPs, () => over.resolve());
    yield over;
  }

  fire(now: TimePs): void {
    while (this.queue.nextTime() <= now) {
      const id = this.queue.take();
      const callback = this.callbacks[id];
      this.callbacks[id] = undefined;
      this.freeIds.push(id);
      callback?.();
    }
    this.node.queue.arm(this.slot, this.queue.nextTime());
  }
}
