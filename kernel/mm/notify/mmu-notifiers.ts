/**
 * Everybody who must hear when page table entries of a process change: the notifier list of the seeds
 * (000, patch 1, "MMU notifier V6") and the interval notifiers that Linux has today, behind one door.
 *
 * A site that takes entries away runs
 *
 *     range = yield* begin(start, end, cause)  ->  change the page table  ->  yield* end(range)
 *
 * and when `begin` returns, nobody uses the range any more, and nobody starts to before `end`. Ranges
 * nest and overlap. Sites that come from the reverse map with a single page call `invalidatePage` under
 * the page table lock. Clients of the list run in the caller's context and may sleep unless the range is
 * atomic; while nobody has to be told, nothing is walked and no time passes (`tryBegin`, `tryEnd`).
 *
 * Two departures from V6, both as in today's Linux: `invalidateRangeEnd` goes only to clients that were
 * told of the begin, and walks of the list may sleep (SRCU).
 */
import { assert } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import type { Thread } from '../../sched/scheduler.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { ExternalReferences } from './external-references.ts';
import { IntervalNotifiers } from './interval-notifier.ts';
import { CAUSE_RELEASE, type Invalidation, type InvalidationCause } from './invalidation.ts';
import { type MmuNotifier, NotifierChain } from './notifier-chain.ts';
import { type RunningRange, RunningRanges } from './running-range.ts';

export type { MmuNotifier } from './notifier-chain.ts';

/** End of the addresses of a process. */
const TASK_SIZE = 2 ** 47;

export class MmuNotifiers {
  readonly intervals: IntervalNotifiers;
  readonly references: ExternalReferences;
  private readonly chain: NotifierChain;
  private readonly ranges: RunningRanges;
  private isReleased = false;

  constructor(private readonly mm: MmStruct) {
    const { node, frames } = mm.memory;
    this.intervals = new IntervalNotifiers(node);
    this.references = new ExternalReferences(node, frames, (client) =>
      this.chain.list.objection(client),
    );
    this.chain = new NotifierChain(mm.memory, this.references);
    this.ranges = new RunningRanges(mm.memory, this.references);
  }

  /**
   * Puts a client at the head of the list (mmu_notifier_register); the caller holds the mmap lock for
   * writing. Walks that are under way do not see it: it must not make references before a grace period
   * (`memory.srcu.synchronize()`) is over. `attach` does all of this.
   */
  register(client: MmuNotifier): void {
    this.checkLocked(`${client.name} is registered`);
    assert(!this.isReleased, `${client.name} is registered after the release`, this.mm.memory.node);
    this.chain.list.add(client);
    this.references.reconsider();
  }

  /**
   * Takes a client off the list (mmu_notifier_unregister); the caller holds the mmap lock for writing.
   * Walks that have come to it may still call it: it may be freed after a grace period. Does nothing after
   * the release of the process, which has taken everybody off.
   */
  unregister(client: MmuNotifier): void {
    if (this.isReleased) return;
    this.checkLocked(`${client.name} is unregistered`);
    this.chain.list.remove(client);
    this.references.reconsider();
  }

  /** Says that an unregistered client is no more: nobody may call it, and it has no entries. */
  free(client: MmuNotifier): void {
    this.chain.list.free(client);
    this.references.reconsider();
    const left = this.references.countOf(client);
    assert(left === 0, `${client.name} is freed and has ${left} entries left`, this.mm.memory.node);
  }

  /** Registers a client, and returns when it hears of everything: from then on it may make references. */
  *attach(client: MmuNotifier): Sim<void> {
    yield* this.mm.lock.lockWrite();
    this.register(client);
    this.mm.lock.unlockWrite();
    const { count } = this.chain.list;
    yield* this.mm.memory.srcu.synchronize();
    // Sites without the mmap lock may have begun before. Linux takes the locks of all of them.
    yield* this.ranges.waitForOlder(count);
  }

  /**
   * Has a client let go of everything, takes it off the list, and returns when it may be freed
   * (mmu_notifier_unregister of today's Linux, which calls release too).
   */
  *detach(client: MmuNotifier): Sim<void> {
    if (!this.isReleased && client.release) yield* client.release();
    yield* this.mm.lock.lockWrite();
    this.unregister(client);
    this.mm.lock.unlockWrite();
    yield* this.mm.memory.srcu.synchronize();
    this.free(client);
  }

  /** True while nobody is on the list: agePage and invalidatePage have nothing to do. */
  get idle(): boolean {
    return this.chain.list.head === undefined;
  }

  /** Ranges announced so far, by cause. */
  get announced(): Readonly<Record<InvalidationCause, number>> {
    return this.ranges.announced;
  }

  /** Callbacks of the list made so far. */
  get callbacks(): number {
    return this.chain.callbacks;
  }

  /**
   * Announces that page table entries of [start, end) will change, and returns once every client has
   * dropped them. `refused` of the result is true when a client does not let go: the caller then leaves
   * the entries as they are, and ends the invalidation all the same. `atomic` says that the caller holds
   * spinlocks, so that nobody may sleep.
   */
  *begin(start: number, end: number, cause: InvalidationCause, atomic = false): Sim<Invalidation> {
    const quiet = this.tryBegin(start, end, cause, atomic);
    if (quiet !== undefined) return quiet;
    return yield* this.announce(this.open(start, end, cause, atomic, false));
  }

  /**
   * The same when nobody has to be told: no client is registered and no subscription is hit. Otherwise
   * nothing happens, and the result is undefined: call `begin`.
   */
  tryBegin(
    start: number,
    end: number,
    cause: InvalidationCause,
    atomic = false,
  ): Invalidation | undefined {
    if (!this.idle || this.intervals.hits(start, end)) return undefined;
    const range = this.open(start, end, cause, atomic, false);
    this.intervals.beginUnheard();
    this.references.begin(range);
    return range;
  }

  /**
   * The same for a caller that cannot wait (mmu_notifier_invalidate_range_start_nonblock, for the OOM
   * killer): a client that would have to sleep refuses, which is Linux' EAGAIN.
   */
  *beginNonblock(start: number, end: number, cause: InvalidationCause): Sim<Invalidation> {
    return yield* this.announce(this.open(start, end, cause, true, true));
  }

  /** Says that the entries have changed. */
  *end(range: Invalidation): Sim<void> {
    const running = this.close(range);
    if (running.told) yield* this.chain.end(running);
  }

  /** The same when no client of the list was told; otherwise nothing happens: call `end`. */
  tryEnd(range: Invalidation): boolean {
    if ((range as RunningRange).told) return false;
    this.close(range);
    return true;
  }

  /** Has every client of the list drop one page; the caller holds the page table lock. */
  *invalidatePage(address: number, cause: InvalidationCause): Sim<void> {
    if (!this.idle) yield* this.chain.invalidatePage(address, cause);
  }

  /**
   * True when a client has used the page at `address` since it was last asked (page_referenced); the
   * caller holds the page table lock.
   */
  *agePage(address: number): Sim<boolean> {
    return !this.idle && (yield* this.chain.agePage(address));
  }

  /**
   * The process ends: every client lets go of everything in one go, before any mapping is torn down
   * (mmu_notifier_release). Clients of the list hear nothing more; subscriptions stay until their drivers
   * end them.
   */
  *release(): Sim<void> {
    const { node, scheduler } = this.mm.memory;
    assert(!this.isReleased, 'the notifiers of a process are released twice', node);
    const { current } = scheduler;
    if (current !== undefined && current.invalidations > 0) this.checkThread(current, 'exits');
    this.isReleased = true;
    const range = this.open(0, TASK_SIZE, CAUSE_RELEASE, false, false);
    yield* this.intervals.begin(range);
    yield* this.chain.release(CAUSE_RELEASE);
    this.references.begin(range);
    this.close(range);
  }

  /** Asserts that no invalidation of this process that `thread` has begun is still running. */
  checkThread(thread: Thread, does = 'ends'): void {
    const { list } = this.chain;
    this.ranges.checkThread(thread, does, ({ toldFrom, toldBelow }) =>
      list.names(toldFrom, toldBelow),
    );
  }

  /** Asserts that nothing is going on and that every entry names the frame that the process has there. */
  checkAtRest(): void {
    const { node } = this.mm.memory;
    const [range] = this.references.unfinished;
    if (range !== undefined) assert(false, `an invalidation never ended (${range})`, node);
    this.references.checkAgainst(this.mm.table);
  }

  private *announce(range: RunningRange): Sim<Invalidation> {
    // In Linux' order; what subscribes while clients of the list sleep waits for the end.
    yield* this.intervals.begin(range);
    if (!range.refused) yield* this.chain.begin(range);
    // A client that has not been called yet may still take a page; its callback drops it again.
    this.references.begin(range);
    return range;
  }

  private open(
    start: number,
    end: number,
    cause: InvalidationCause,
    atomic: boolean,
    nonblock: boolean,
  ): RunningRange {
    const { count } = this.chain.list;
    return this.ranges.open(start, end, cause, atomic, nonblock, count);
  }

  private close(range: Invalidation): RunningRange {
    const running = this.ranges.close(range);
    this.intervals.end(range);
    return running;
  }

  private checkLocked(what: string): void {
    if (this.mm.lock.writeLocked) return;
    assert(false, `${what} without the mmap lock of ${this.mm.name}`, this.mm.memory.node);
  }
}
