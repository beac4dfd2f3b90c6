/**
 * Timers of queue pairs: local ACK time-out, the wait after an RNR NAK or a discarded response, and
 * how long a suspended peer is believed.
 *
 * All of them stand behind one engine of the adapter's node. Moving a deadline later, which every
 * ACK does, only stores a number: when the old deadline comes, the timer looks and goes on waiting.
 * Equal deadlines fire in the order of (queue pair, kind), whatever was armed first.
 */
import { type Engine, EventQueue, NEVER, type Node, type TimePs } from '../transport/index.ts';

export const TIMER_ACK = 0;
export const TIMER_WAIT = 1;
export const TIMER_PEER = 2;
const KINDS = 3;

/** Who is told: `qp` is the index given to `addQueuePair`'s caller. */
export interface TimerListener {
  onTimer(qp: number, kind: number, now: TimePs): void;
}

export class Timers implements Engine {
  private readonly pending = new EventQueue();
  private readonly slot: number;
  private deadlines = new Float64Array(64).fill(NEVER);

  constructor(
    private readonly node: Node,
    private readonly listener: TimerListener,
  ) {
    this.slot = node.addEngine(this);
  }

  /** Makes room for the timers of the next queue pair; called once for each, in order. */
  addQueuePair(): void {
    for (let kind = 0; kind < KINDS; kind++) {
      const timer = this.pending.addSlot();
      if (timer >= this.deadlines.length) {
        const grown = new Float64Array(this.deadlines.length * 2).fill(NEVER);
        grown.set(this.deadlines);
        this.deadlines = grown;
      }
    }
  }

  /** Sets, moves or (NEVER) stops the timer of `kind` of queue pair number `qp`. */
  set(qp: number, kind: number, at: TimePs): void {
    const timer = qp * KINDS + kind;
    this.deadlines[timer] = at;
    if (at >= this.pending.timeOf(timer)) return;
    this.pending.arm(timer, at);
    this.node.queue.arm(this.slot, this.pending.nextTime());
  }

  /** When the timer is due, or NEVER. */
  deadlineOf(qp: number, kind: number): TimePs {
    return this.deadlines[qp * KINDS + kind];
  }

  fire(now: TimePs): void {
    const timer = this.pending.nextSlot();
    const at = this.deadlines[timer];
    // Taken out first: the listener may set it again.
    this.pending.arm(timer, at > now ? at : NEVER);
    if (at <= now) {
      this.deadlines[timer] = NEVER;
      this.listener.onTimer(Math.floor(timer / KINDS), timer % KINDS, now);
    }
    this.node.queue.arm(this.slot, this.pending.nextTime());
  }
}
