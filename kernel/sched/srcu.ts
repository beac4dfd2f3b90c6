/**
 * Sleepable read-copy-update (kernel/rcu/srcutree.c): lists that are read without a lock while others
 * change them. A reader sees the list as it comes by it; whoever takes an element out waits for a grace
 * period, after which no reader can have it in hand any more, before the element may be freed.
 *
 * The notifier patch of 2008 used plain RCU, whose readers must not sleep: that is what Lameter says
 * stands in the way of notifiers that wait for a network (seed 002). Linux has since gone over to SRCU
 * (mm/mmu_notifier.c), and so do we. A grace period takes its stated length at least, and as long as
 * readers that were there before it.
 */
import type { TimePs } from '../../transport/index.ts';
import { Completion, type Sim } from './completion.ts';
import type { Timers } from './timers.ts';

export class Srcu {
  /** Number of the grace period that was asked for last. */
  private asked = 0;
  /** All grace periods up to this one are over. */
  private over = 0;
  /** Readers, by the grace period that had been asked for last when they began; oldest first. */
  private readonly sections = new Map<number, number>();
  private left = new Completion<void>('readers to leave');

  constructor(
    private readonly timers: Timers,
    /** Shortest length of a grace period. */
    private readonly gracePs: TimePs,
  ) {}

  /** Readers now. */
  get readers(): number {
    let readers = 0;
    for (const count of this.sections.values()) readers += count;
    return readers;
  }

  /** Begins to read; hand the result to `unlock` (srcu_read_lock). The reader may sleep. */
  lock(): number {
    const { asked, sections } = this;
    sections.set(asked, (sections.get(asked) ?? 0) + 1);
    return asked;
  }

  /** Ends reading (srcu_read_unlock). */
  unlock(token: number): void {
    const others = (this.sections.get(token) ?? 0) - 1;
    if (others > 0) {
      this.sections.set(token, others);
      return;
    }
    this.sections.delete(token);
    const { left } = this;
    this.left = new Completion<void>('readers to leave');
    left.resolve();
  }

  /** Names the next grace period that begins; `poll` says whether it is over (get_state_synchronize_srcu). */
  state(): number {
    return this.asked + 1;
  }

  /** True when the grace period that `state` named is over (poll_state_synchronize_srcu). */
  poll(state: number): boolean {
    return this.over >= state;
  }

  /** Sleeps for a grace period: until everybody who reads now has left (synchronize_srcu). */
  *synchronize(): Sim<void> {
    const mine = ++this.asked;
    yield* this.timers.sleep(this.gracePs);
    while (this.oldestReader() < mine) yield this.left;
    if (mine > this.over) this.over = mine;
  }

  private oldestReader(): number {
    for (const token of this.sections.keys()) return token;
    return Number.POSITIVE_INFINITY;
  }
}
