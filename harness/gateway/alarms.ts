/** Wake-up calls for simulated threads that wait for something, but not for ever. */
import type { Completion } from '../../kernel/index.ts';
import { type Engine, type Node, type TimePs, TimerQueue } from '../../transport/index.ts';

export class Alarms implements Engine {
  private readonly slot: number;
  private readonly timers = new TimerQueue();
  private readonly rings = new Map<number, Completion<void>>();
  private count = 0;

  constructor(private readonly node: Node) {
    this.slot = node.addEngine(this);
  }

  /** Resolves `ring` at `atPs`, unless somebody has done so before. */
  set(atPs: TimePs, ring: Completion<void>): void {
    this.count = (this.count + 1) & 0x7fffffff;
    this.rings.set(this.count, ring);
    this.timers.add(atPs, this.count);
    this.node.queue.arm(this.slot, this.timers.nextTime());
  }

  fire(now: TimePs): void {
    while (this.timers.nextTime() <= now) {
      const number = this.timers.take();
      this.rings.get(number)?.resolve();
      this.rings.delete(number);
    }
    this.node.queue.arm(this.slot, this.timers.nextTime());
  }
}
