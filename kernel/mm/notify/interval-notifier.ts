/**
 * Interval notifiers: how a device driver with a page table of its own learns that a range of a
 * process is about to change, and how it tells whether what it just looked up is still true.
 *
 * After mm/mmu_notifier.c (mmu_interval_notifier). One sequence number per address space, even while
 * no subscribed range is being invalidated, odd while one is. An invalidation runs
 *
 *     begin -> every driver has dropped the range -> page tables change -> end
 *
 * and a lookup runs
 *
 *     sequence = readBegin -> look at page tables -> lock -> readRetry(sequence)? again : use it
 *
 * where the lock is one that the driver's callback takes before it notes the sequence. Callbacks
 * return an Observable that completes once the device is done with the range; the caller of `begin`
 * sleeps until then. Subscriptions that come or go during an invalidation wait for its end. A range that is
 * announced by somebody who cannot wait (`nonblock`, the OOM killer) may be refused with `false`.
 */
import type { Observable } from 'rxjs';
import { assert, type Node } from '../../../transport/index.ts';
import { untilComplete } from '../../rx/thread-stream.ts';
import { Completion, type Sim } from '../../sched/completion.ts';
import { IntervalTree } from './interval-tree.ts';
import { type Invalidation, isRefusable } from './invalidation.ts';

/** A driver's side of a subscription. */
export interface IntervalOps {
  /** For bug reports. */
  readonly name?: string;
  /**
   * Drops the device's use of the range. Under its own lock it must call `setSequence(sequence)` on
   * the subscription first, then drop; the stream completes when the device has let go, at once if
   * `range.atomic`. False, before anything was done, says that this would take a sleep and `range.nonblock`
   * forbids it (EAGAIN).
   */
  invalidate(range: Invalidation, sequence: number): Observable<unknown> | false;
}

export class IntervalSubscription {
  /** Sequence of the last invalidation that hit this interval; odd. */
  sequence = 0;

  constructor(
    readonly start: number,
    readonly end: number,
    readonly ops: IntervalOps,
  ) {}

  /** mmu_interval_set_seq: called under the lock that readers hold when they call readRetry. */
  setSequence(sequence: number): void {
    this.sequence = sequence;
  }

  /** For bug reports. */
  get name(): string {
    return this.ops.name ?? 'a driver';
  }
}

export class IntervalNotifiers {
  /** Even: nothing is being invalidated. Linux starts at 2, so that 1 is an older, odd number. */
  private sequence = 2;
  private running = 0;
  private readonly tree = new IntervalTree<IntervalSubscription>();
  private deferredInserts: IntervalSubscription[] = [];
  private deferredRemovals: IntervalSubscription[] = [];
  private ended = new Completion<void>('end of an invalidation');
  /** Invalidations that hit a subscription, for the report. */
  invalidations = 0;

  constructor(private readonly node: Node) {}

  /** Subscribes `ops` to [start, end); mmu_interval_notifier_insert. */
  subscribe(start: number, end: number, ops: IntervalOps): IntervalSubscription {
    assert(start < end, 'an empty interval', this.node);
    const subscription = new IntervalSubscription(start, end, ops);
    if (this.running === 0) {
      assert(!this.isInvalidating(), 'odd sequence without an invalidation', this.node);
      subscription.sequence = this.sequence - 1;
      this.tree.insert(subscription);
      return subscription;
    }
    // It must look invalidated until the running invalidation ends: its pages may be going away.
    if (this.isInvalidating()) this.deferredInserts.push(subscription);
    else {
      this.sequence |= 1;
      this.tree.insert(subscription);
    }
    subscription.sequence = this.sequence;
    return subscription;
  }

  /** Ends a subscription and sleeps until no callback of it can run any more. */
  *unsubscribe(subscription: IntervalSubscription): Sim<void> {
    const deferred = this.deferredInserts.indexOf(subscription);
    if (deferred >= 0) {
      this.deferredInserts.splice(deferred, 1);
      return;
    }
    if (!this.isInvalidating()) {
      this.drop(subscription);
      return;
    }
    this.deferredRemovals.push(subscription);
    const sequence = this.sequence;
    while (this.sequence === sequence) yield this.ended;
  }

  /** True when a subscription overlaps [start, end). */
  hits(start: number, end: number): boolean {
    return this.tree.size > 0 && this.tree.hits(start, end);
  }

  /** Begins an invalidation that hits nobody. */
  beginUnheard(): void {
    this.running++;
  }

  /**
   * Announces an invalidation, and sleeps until every driver whose interval it hits has dropped it, or one
   * has refused.
   */
  *begin(range: Invalidation): Sim<void> {
    this.running++;
    if (range.refused || this.tree.size === 0) return;
    const hit = this.tree.overlapping(range.start, range.end);
    if (hit.length === 0) return;
    // From here on nobody leaves the tree before the end, so the list stays good while drivers sleep.
    this.sequence |= 1;
    this.invalidations++;
    const { sequence } = this;
    for (const subscription of hit) {
      yield* this.invalidate(subscription, range, sequence);
      if (range.refused) return;
    }
  }

  /** Says that the page table entries have changed. */
  end(_range: Invalidation): void {
    assert(this.running > 0, 'an invalidation ends that never began', this.node);
    if (--this.running > 0 || !this.isInvalidating()) return;
    this.sequence++;
    for (const subscription of this.deferredInserts) this.tree.insert(subscription);
    this.deferredInserts = [];
    for (const subscription of this.deferredRemovals) this.drop(subscription);
    this.deferredRemovals = [];
    const ended = this.ended;
    this.ended = new Completion<void>('end of an invalidation');
    ended.resolve();
  }

  /** Starts a lookup: sleeps while the interval is being invalidated; mmu_interval_read_begin. */
  *readBegin(subscription: IntervalSubscription): Sim<number> {
    const sequence = subscription.sequence;
    while (this.sequence === sequence) yield this.ended;
    return sequence;
  }

  /** True when the interval was invalidated since readBegin; mmu_interval_read_retry. */
  readRetry(subscription: IntervalSubscription, sequence: number): boolean {
    return subscription.sequence !== sequence;
  }

  private isInvalidating(): boolean {
    return (this.sequence & 1) === 1;
  }

  private *invalidate(
    subscription: IntervalSubscription,
    range: Invalidation,
    sequence: number,
  ): Sim<void> {
    const { node } = this;
    const { name, ops } = subscription;
    const { cause } = range;
    const isThere = this.tree.has(subscription);
    if (!isThere) assert(false, `${name} is called after its unsubscription (${cause})`, node);
    const stream = ops.invalidate(range, sequence);
    if (stream === false) {
      range.refused = true;
      if (!isRefusable(range)) {
        assert(false, `${name} refuses what must happen now (${cause})`, node);
      }
      return;
    }
    const dropped = untilComplete(node, stream, 'a device to drop a range');
    if (!range.atomic) yield* dropped;
    else if (!dropped.next().done) {
      assert(false, `${name} sleeps in invalidate, which is atomic (${cause})`, node);
    }
    if (range.refused && !isRefusable(range)) {
      assert(false, `${name} refuses what must happen now (${cause})`, node);
    }
    if (subscription.sequence === sequence || range.refused) return;
    assert(false, `${name} does not note the sequence of an invalidation (${cause})`, node);
  }

  private drop(subscription: IntervalSubscription): void {
    const wasThere = this.tree.remove(subscription);
    assert(wasThere, 'a subscription ends twice', this.node);
  }
}
