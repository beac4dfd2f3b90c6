/**
 * An invalidation between its begin and its end, with what the notifiers note about it.
 */
import type { Thread } from '../../sched/scheduler.ts';
import type { Invalidation, InvalidationCause } from './invalidation.ts';

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
