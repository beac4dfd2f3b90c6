/**
 * What simulated threads are made of and what they sleep on.
 *
 * A simulated thread is a generator. It yields a number to spend that many picoseconds of its CPU, in
 * one slice that nothing preempts, or a Completion to sleep until somebody resolves it; the value of
 * the yield is then the completion's value. Generators, and not promises, because a thread has to be
 * resumed at a point of simulated time and in an order that the model decides.
 *
 * Named after the kernel's `struct completion` (kernel/sched/completion.c).
 */

/** A simulated computation that returns `T`: run it with `yield*`, or give it to Scheduler.spawn. */
export type Sim<T> = Generator<number | Completion<unknown>, T, unknown>;

/** Whoever is told when a completion resolves; a thread, or a stream. */
export interface Waiter {
  wake(value: unknown): void;
}

export class Completion<T> {
  private resolved = false;
  private result: T | undefined;
  private waiters: Waiter[] | undefined;

  /** `purpose` says what is being waited for; reports of stalled threads show it. */
  constructor(readonly purpose = '') {}

  /** True once resolved. Waiting for a resolved completion takes no time. */
  get done(): boolean {
    return this.resolved;
  }

  /** True while somebody waits for it. */
  get awaited(): boolean {
    return this.waiters !== undefined;
  }

  /** What it was resolved with; meaningless before. */
  get value(): T {
    return this.result as T;
  }

  /** Wakes everybody who waits, in the order in which they began to. The second call does nothing. */
  resolve(value: T): void {
    if (this.resolved) return;
    this.resolved = true;
    this.result = value;
    const waiters = this.waiters;
    this.waiters = undefined;
    if (waiters) for (const waiter of waiters) waiter.wake(value);
  }

  /** Tells `waiter` once; at once when already resolved. */
  subscribe(waiter: Waiter): void {
    if (this.resolved) waiter.wake(this.result);
    else if (this.waiters) this.waiters.push(waiter);
    else this.waiters = [waiter];
  }
}

/** Sleeps until `completion` is resolved and returns its value: a yield that knows its type. */
export function* wait<T>(completion: Completion<T>): Sim<T> {
  if (!completion.done) yield completion;
  return completion.value;
}
