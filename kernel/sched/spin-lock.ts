/**
 * A spinlock in virtual time (include/linux/spinlock.h): whoever holds it, or waits for it, keeps its
 * CPU and must not sleep. It is handed over first come, first served, as queued spinlocks are.
 */
import { assert, type TimePs } from '../../transport/index.ts';
import { Completion, type Sim } from './completion.ts';
import type { Scheduler } from './scheduler.ts';

export class SpinLock {
  private held = false;
  private readonly waiters: Completion<void>[] = [];
  /** Acquisitions, those that had to wait, and CPU time spent in waiting. */
  acquisitions = 0;
  contended = 0;
  waitedPs: TimePs = 0;

  constructor(
    private readonly scheduler: Scheduler,
    private readonly name: string,
  ) {}

  get locked(): boolean {
    return this.held;
  }

  /** Takes the lock, with the CPU busy until it is free; atomic context begins. */
  *lock(): Sim<void> {
    this.scheduler.enterAtomic();
    this.acquisitions++;
    if (!this.held) {
      this.held = true;
      return;
    }
    this.contended++;
    const startPs = this.scheduler.now;
    const turn = new Completion<void>(`spinlock ${this.name}`);
    this.waiters.push(turn);
    yield* this.scheduler.spin(turn);
    this.waitedPs += this.scheduler.now - startPs;
  }

  /** Takes the lock if it is free. */
  tryLock(): boolean {
    if (this.held) return false;
    this.scheduler.enterAtomic();
    this.acquisitions++;
    this.held = true;
    return true;
  }

  /** Hands the lock to whoever has waited longest; atomic context ends. */
  unlock(): void {
    assert(this.held, 'a spinlock is not held');
    const next = this.waiters.shift();
    if (next) next.resolve();
    else this.held = false;
    this.scheduler.leaveAtomic();
  }
}
