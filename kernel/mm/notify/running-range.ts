/**
 * Invalidations of a process between their begin and their end: who began each, who was told, and that each
 * ends, once, before the thread that began it does.
 */
import { assert } from '../../../transport/index.ts';
import { Completion, type Sim } from '../../sched/completion.ts';
import type { Thread } from '../../sched/scheduler.ts';
import type { Memory } from '../memory.ts';
import type { ExternalReferences } from './external-references.ts';
import { type Invalidation, type InvalidationCause, newCauseCounts } from './invalidation.ts';

export class RunningRange implements Invalidation {
  refused = false;
  /** Has ended. */
  ended = false;
  /** Clients of the list that were told of the begin are those with these numbers. */
  toldFrom = 0;
  toldBelow = 0;

  constructor(
    readonly start: number,
    readonly end: number,
    readonly cause: InvalidationCause,
    readonly atomic: boolean,
    readonly nonblock: boolean,
    /** Clients that had ever registered when it began. */
    readonly registered: number,
    /** Whoever began it, and must end it. */
    readonly thread: Thread | undefined,
  ) {}

  /** True when a client of the list has been told of the begin, and so has to be told of the end. */
  get told(): boolean {
    return this.toldFrom < this.toldBelow;
  }

  /** For bug reports. */
  toString(): string {
    return `${this.cause} of 0x${this.start.toString(16)} to 0x${this.end.toString(16)}`;
  }
}

export class RunningRanges {
  /** Ranges announced so far, by cause: for reports. */
  readonly announced = newCauseCounts();
  private ended = new Completion<void>('end of an invalidation');

  constructor(
    private readonly memory: Memory,
    /** Has the ranges whose begin has returned. */
    private readonly references: ExternalReferences,
  ) {}

  /** A range that the current thread begins; `registered` clients have ever been on the list. */
  open(
    start: number,
    end: number,
    cause: InvalidationCause,
    atomic: boolean,
    nonblock: boolean,
    registered: number,
  ): RunningRange {
    const { current } = this.memory.scheduler;
    if (current !== undefined) {
      if (current.atomicDepth > 0 && !atomic) this.failAtomic(current, cause);
      current.invalidations++;
    }
    this.announced[cause]++;
    return new RunningRange(start, end, cause, atomic, nonblock, registered, current);
  }

  /** It ends: entries may be made again. */
  close(range: Invalidation): RunningRange {
    if (!(range instanceof RunningRange) || range.ended) {
      const what = `an invalidation ends that never began (${range.cause})`;
      assert(false, what, this.memory.node);
    }
    range.ended = true;
    if (range.thread !== undefined) range.thread.invalidations--;
    this.references.end(range);
    const { ended } = this;
    if (ended.awaited) {
      this.ended = new Completion<void>(ended.purpose);
      ended.resolve();
    }
    return range;
  }

  /** Sleeps until no range is running that began before the latest of `registered` clients came. */
  *waitForOlder(registered: number): Sim<void> {
    const isOlder = (range: Invalidation): boolean =>
      range instanceof RunningRange && range.registered < registered;
    while (this.references.unfinished.some(isOlder)) yield this.ended;
  }

  /** Asserts that `thread`, which `does` something final, has ended what it began; `told` names clients. */
  checkThread(
    thread: Thread,
    does: string,
    told: (range: RunningRange) => readonly string[],
  ): void {
    for (const range of this.references.unfinished) {
      if (!(range instanceof RunningRange) || range.thread !== thread) continue;
      const waiting = told(range).join(', ') || 'nobody';
      const what = `${thread.name} ${does} with an invalidation begun and not ended`;
      assert(false, `${what} (${range}; ${waiting} was told)`, this.memory.node);
    }
  }

  private failAtomic({ name }: Thread, cause: InvalidationCause): void {
    const what = `${name} announces an invalidation in which clients may sleep`;
    assert(false, `${what}, and holds a spinlock (${cause})`, this.memory.node);
  }
}
