/**
 * What the ranks of one host tell each other through shared memory: which queue pair each has for each
 * other, and where a message may go. Owns the meeting points; what telling costs is the caller's business.
 */
import { Completion, type QueuePair, type Sim, wait } from '../../kernel/index.ts';

/** Where a message goes. */
export interface Target {
  readonly address: number;
  readonly rkey: number;
}

export class SharedMemory {
  private readonly queuePairs = new Map<string, QueuePair>();
  private readonly ready = new Map<number, Target>();
  private readonly waiting = new Map<number, (target: Target) => void>();
  private arrived = 0;
  private gate = new Completion<void>('the other ranks');

  constructor(readonly ranks: readonly number[]) {}

  /** Sleeps until every rank has come here. */
  *meetOthers(): Sim<void> {
    const { gate } = this;
    if (++this.arrived === this.ranks.length) {
      this.arrived = 0;
      this.gate = new Completion<void>(gate.purpose);
      gate.resolve();
    }
    yield* wait(gate);
  }

  publish(from: number, to: number, qp: QueuePair): void {
    this.queuePairs.set(`${from} ${to}`, qp);
  }

  /** The queue pair that `from` has for `to`. */
  queuePair(from: number, to: number): QueuePair {
    return this.queuePairs.get(`${from} ${to}`) as QueuePair;
  }

  /** The receiver of a message is ready. */
  announce(key: number, target: Target): void {
    const go = this.waiting.get(key);
    this.waiting.delete(key);
    if (go) go(target);
    else this.ready.set(key, target);
  }

  /** Where a message goes, if its receiver is ready; else `later` hears of it. */
  take(key: number, later: (target: Target) => void): Target | undefined {
    const target = this.ready.get(key);
    if (target) this.ready.delete(key);
    else this.waiting.set(key, later);
    return target;
  }
}
