/**
 * Everybody who must hear when page table entries of a process change: the notifier list of the seeds
 * (000, patch 1, "MMU notifier V6") and the interval notifiers that Linux has today, behind one door.
 *
 * A site that takes entries away runs
 *
 *     range = yield* begin(start, end, cause)  ->  change the page table  ->  yield* end(range)
 *
 * and when `begin` returns, nobody uses the range any more, and nobody starts to before `end`. Sites that
 * come from the reverse map with a single page call `invalidatePage`, in atomic context. Clients of the
 * list run in the caller's context and may sleep unless the range is atomic; they cost nothing while
 * nobody is registered.
 */
import { assert, type Node } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import { type Frames, PAGE_BYTES } from '../physical/frames.ts';
import { ExternalReferences } from './external-references.ts';
import { IntervalNotifiers } from './interval-notifier.ts';
import type { Invalidation, InvalidationCause } from './invalidation.ts';

/** A client of the list: struct mmu_notifier_ops of seed 000, patch 1. Absent methods cost nothing. */
export interface MmuNotifier {
  readonly name: string;
  /** The process ends; called before any mapping is torn down. */
  release?(): Sim<void>;
  /** True when the page at `address` was used through the client's table since it was last asked; never sleeps. */
  agePage?(address: number): boolean;
  /** Drops one page; the caller holds the page table lock. */
  invalidatePage?(address: number, cause: InvalidationCause): Sim<void>;
  /** Drops a range, and takes no page of it until the end. */
  invalidateRangeBegin?(range: Invalidation): Sim<void>;
  invalidateRangeEnd?(range: Invalidation): Sim<void>;
}

export class MmuNotifiers {
  readonly intervals: IntervalNotifiers;
  readonly references: ExternalReferences;
  private clients: MmuNotifier[] = [];
  /** Ranges announced so far, by cause: for reports. */
  readonly announced = new Map<InvalidationCause, number>();

  constructor(
    private readonly node: Node,
    frames: Frames,
  ) {
    this.intervals = new IntervalNotifiers(node);
    this.references = new ExternalReferences(node, frames);
  }

  /** Puts a client on the list; the caller holds the mmap lock for writing. */
  register(client: MmuNotifier): void {
    assert(!this.clients.includes(client), `${client.name} is registered twice`, this.node);
    this.clients = [...this.clients, client];
  }

  /** Takes a client off the list. */
  unregister(client: MmuNotifier): void {
    assert(this.clients.includes(client), `${client.name} is not registered`, this.node);
    this.clients = this.clients.filter((other) => other !== client);
  }

  /**
   * Announces that page table entries of [start, end) will change, and returns once every client has
   * dropped them. `refused` of the result is true when a client does not let go: the caller then leaves
   * the entries as they are, and ends the invalidation all the same.
   */
  *begin(start: number, end: number, cause: InvalidationCause, atomic = false): Sim<Invalidation> {
    const range: Invalidation = { start, end, cause, atomic, refused: false };
    for (const client of this.clients) {
      if (client.invalidateRangeBegin) yield* client.invalidateRangeBegin(range);
    }
    yield* this.intervals.begin(range);
    // A client that has not been called yet may still take a page; its callback drops it again.
    this.references.begin(range);
    return range;
  }

  /** Says that the entries have changed. */
  *end(range: Invalidation): Sim<void> {
    this.references.end(range);
    this.intervals.end(range);
    for (const client of this.clients) {
      if (client.invalidateRangeEnd) yield* client.invalidateRangeEnd(range);
    }
  }

  /** Has every client of the list drop one page; the caller holds the page table lock. */
  *invalidatePage(address: number, cause: InvalidationCause): Sim<void> {
    for (const client of this.clients) {
      if (client.invalidatePage) yield* client.invalidatePage(address, cause);
    }
  }

  /** True when a client has used the page at `address` since it was last asked. */
  agePage(address: number): boolean {
    let young = false;
    for (const client of this.clients) {
      if (client.agePage?.(Math.floor(address / PAGE_BYTES) * PAGE_BYTES)) young = true;
    }
    return young;
  }

  /** The process ends: every client lets go of everything, before any mapping is torn down. */
  *release(): Sim<void> {
    const { clients } = this;
    this.clients = [];
    for (const client of clients) if (client.release) yield* client.release();
  }
}
