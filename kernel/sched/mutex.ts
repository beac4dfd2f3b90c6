/**
 * A sleeping lock in virtual time (kernel/locking/mutex.c). It is handed over first come, first
 * served, so who gets it does not depend on anything but the order in which threads asked.
 */
import { assert } from '../../transport/index.ts';
import { Completion, type Sim } from './completion.ts';

export class Mutex {
  private held = false;
  private waiters: Completion<void>[] = [];

  constructor(private readonly name: string) {}

  get locked(): boolean {
    return this.held;
  }

  *lock(): Sim<void> {
    if (!this.held) {
      this.held = true;
      return;
    }
    const turn = new Completion<void>(`mutex ${this.name}`);
    this.waiters.push(turn);
    yield turn;
  }

  /** Hands the lock to whoever has waited longest. */
  unlock(): void {
    assert(this.held, 'a mutex is not held');
    const next = this.waiters.shift();
    if (next) next.resolve();
    else this.held = false;
  }
}
