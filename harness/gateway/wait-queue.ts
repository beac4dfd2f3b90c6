/**
 * What the edge of a world does later: packets that are late on purpose, and questions asked again.
 */
import { type Engine, type Node, type TimePs, TimerQueue } from '../../transport/index.ts';
import type { Neighbours } from './neighbours.ts';

export class WaitQueue implements Engine {
  private readonly slot: number;
  private readonly timers = new TimerQueue();
  private readonly late = new Map<number, (now: TimePs) => void>();
  private count = 0;

  constructor(
    private readonly node: Node,
    private readonly neighbours: Neighbours,
  ) {
    this.slot = node.addEngine(this);
  }

  /** Calls `pass` at `atPs`. */
  add(atPs: TimePs, pass: (now: TimePs) => void): void {
    this.count = (this.count + 1) & 0x7fffffff;
    this.late.set(this.count, pass);
    this.timers.add(atPs, this.count);
    this.arm();
  }

  arm(): void {
    const next = Math.min(this.timers.nextTime(), this.neighbours.nextPs);
    this.node.queue.arm(this.slot, next);
  }

  fire(now: TimePs): void {
    while (this.timers.nextTime() <= now) {
      const number = this.timers.take();
      const pass = this.late.get(number);
      this.late.delete(number);
      pass?.(now);
    }
    this.neighbours.tick(now);
    this.arm();
  }
}
