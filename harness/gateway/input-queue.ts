/**
 * What comes into a node from outside the world: things with a time, in order, behind one engine.
 *
 * A node that is given its inputs early and one that is given them just in time do the same.
 */
import { type Engine, NEVER, type Node, type TimePs } from '../../transport/index.ts';

export class InputQueue<Input> implements Engine {
  private readonly slot: number;
  private waiting: { readonly timePs: TimePs; readonly input: Input }[] = [];
  private head = 0;

  constructor(
    private readonly node: Node,
    private readonly take: (input: Input, now: TimePs) => void,
  ) {
    this.slot = node.addEngine(this);
  }

  add(timePs: TimePs, input: Input): void {
    this.waiting.push({ timePs, input });
    if (this.waiting.length - this.head === 1) this.node.queue.arm(this.slot, timePs);
  }

  fire(now: TimePs): void {
    const { input } = this.waiting[this.head++];
    if (this.head === this.waiting.length || this.head === 1024) {
      this.waiting = this.waiting.slice(this.head);
      this.head = 0;
    }
    const next = this.waiting[this.head];
    this.node.queue.arm(this.slot, next?.timePs ?? NEVER);
    this.take(input, now);
  }
}
