/**
 * User memory as the prototype of 2011 had it (seed 004): pages are not pinned, the adapter's page table
 * is kept by callbacks of the notifier list, and taking a page from the adapter means to wait until the
 * hardware has flushed, "possibly for a long (10s of milliseconds) time".
 *
 * So the prototype asks whether callbacks may sleep (they do here, and a site that is atomic is a bug),
 * whether an invalidation may be refused, and whether it may be postponed, so that one flush does for
 * many pages. What is postponed stays in the adapter's table, with a reference to its frame, until the
 * next flush: the page cannot be freed before. That is good for what the memory manager does by itself,
 * which comes back for the page later. A page that the program has unmapped must go at once: if the
 * policy postpones that too, the adapter goes on writing into memory that is no longer the program's.
 *
 * Lookups race with callbacks as in KVM: a count of running ranges, and a sequence number that each of
 * them moves; an entry is made only under the mutex, with neither changed since the look-up.
 */
import { concatMap } from 'rxjs';
import { assert, MS, SparseTable, type TimePs } from '../../transport/index.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { PageRun } from '../mm/fault/user-pages.ts';
import { type Invalidation, mayWait } from '../mm/notify/invalidation.ts';
import type { MmuNotifier, MmuNotifiers } from '../mm/notify/mmu-notifiers.ts';
import { NO_FRAME, PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Shrinker } from '../mm/reclaim/shrinkers.ts';
import { subscribeOrFail } from '../rx/subscribe.ts';
import { threadStream } from '../rx/thread-stream.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import { Mutex } from '../sched/mutex.ts';
import type { RegionCounters } from './counters.ts';
import { type DeviceTable, ENTRY_READ, ENTRY_SHIFT, ENTRY_WRITE } from './device-table.ts';
import {
  MAP_EAGAIN,
  MAP_EFAULT,
  type MapRequest,
  type OnDemandUmem,
  type Prefetch,
} from './odp.ts';
import { type PostponedPage, PostponedPages } from './postponed-pages.ts';
import type { PostponedCounters, PostponedPolicy } from './postponed-policy.ts';

/** How long a lookup goes on while invalidations get in its way; as OdpUmem. */
const RETRY_LIMIT_PS: TimePs = 1000 * MS;
/** Pages entered at a time when many are. */
const MAP_BATCH = 512;

/** What a region is of: bytes of a process, and where to count. */
interface RegionRange {
  readonly address: number;
  readonly length: number;
  readonly counters: RegionCounters;
}

export class PostponedUmem implements OnDemandUmem {
  readonly firstPage: number;
  readonly pageCount: number;
  readonly postponedCounters: PostponedCounters = {
    flushes: 0,
    postponed: 0,
    refused: 0,
    lateWrites: 0,
  };
  private readonly counters: RegionCounters;
  private readonly notifier: MmuNotifier;
  /** Reclaim that gets nowhere else has what waits flushed: those pages are all that it could have. */
  private readonly shrinker: Shrinker = {
    name: 'postponed invalidations',
    count: () => this.pending.size,
    scan: () => this.flushOldest(),
  };
  private readonly notifiers: MmuNotifiers;
  private readonly entries: SparseTable;
  private readonly mutex = new Mutex('postponed umem');
  /** Ranges that have begun and not ended, and how many began so far. */
  private running: Invalidation[] = [];
  private sequence = 0;
  private rangeEnded = new Completion<void>('end of an invalidation');
  /** Pages whose invalidation was put off. */
  private readonly pending: PostponedPages;
  private mapped = 0;
  private isReleased = false;
  /** The process has ended, and taken the notifier off its list. */
  private hasEnded = false;

  private constructor(
    private readonly mm: AddressSpace,
    { address, length, counters }: RegionRange,
    private readonly writable: boolean,
    private readonly table: DeviceTable,
    private readonly policy: PostponedPolicy,
  ) {
    this.counters = counters;
    this.notifiers = mm.notifiers;
    this.pending = new PostponedPages(mm.memory, policy);
    this.firstPage = Math.floor(address / PAGE_BYTES);
    this.pageCount = Math.ceil((address + length) / PAGE_BYTES) - this.firstPage;
    this.entries = new SparseTable(this.pageCount);
    this.notifier = {
      name: 'region of 2011',
      release: () => this.dropAll(),
      invalidateRangeBegin: (range) => this.begin(range),
      invalidateRangeEnd: (range) => this.end(range),
    };
    this.listen();
  }

  /** Makes the umem of a region, with a notifier that hears of everything from now on. */
  static *create(
    mm: AddressSpace,
    region: RegionRange,
    writable: boolean,
    table: DeviceTable,
    policy: PostponedPolicy,
  ): Sim<PostponedUmem> {
    assert(policy.refuse.every(mayWait), 'only swap and migration can be refused');
    const umem = new PostponedUmem(mm, region, writable, table, policy);
    yield* umem.notifiers.attach(umem.notifier);
    mm.memory.reclaim.registerShrinker(umem.shrinker);
    return umem;
  }

  get mappedPages(): number {
    return this.mapped;
  }

  /** Enters the pages that the process has present, as registration does; sleeps until in force. */
  *snapshot(): Sim<void> {
    yield* this.mapAll(0, this.pageCount, { write: false, fault: false, readOnly: false });
  }

  *prefetch(first: number, count: number, how: Prefetch): Sim<number> {
    const changed = yield* this.mapAll(first, count, how);
    if (changed > 0) this.counters.page_prefetch += changed;
    return changed;
  }

  *map(request: MapRequest): Sim<number> {
    const { memory, pages } = this.mm;
    const { costs, node } = memory;
    const run = new PageRun(request.count);
    const first = this.firstPage + request.first;
    const giveUpPs = node.now + RETRY_LIMIT_PS;
    for (;;) {
      while (this.isRunning(first, request.count)) yield this.rangeEnded;
      if (this.hasEnded) return MAP_EFAULT;
      const { sequence } = this;
      if (request.fault) {
        yield request.count * costs.faultPagePs;
        if (!(yield* pages.faultRange(first, request.write, run))) return MAP_EFAULT;
      } else if ((yield* pages.snapshot(first, run)) === 0) return 0;
      yield* this.mutex.lock();
      // A page that waits for its flush may have another frame by now: out with the old one first.
      const isStale = this.pending.hasAny(request.first, request.count);
      if (isStale) yield* this.zap(request.first, request.first + request.count);
      if (!isStale && sequence === this.sequence) break;
      this.mutex.unlock();
      if (node.now > giveUpPs) return MAP_EAGAIN;
    }
    const changed = this.enter(request, run);
    if (changed > 0) {
      yield costs.tableUpdatePs + changed * costs.tableUpdatePagePs;
      if (request.synchronous) yield* this.table.flushAndWait();
      else this.table.flush();
    }
    this.mutex.unlock();
    return changed;
  }

  *release(destroyKey: Sim<unknown>): Sim<void> {
    yield* this.mutex.lock();
    try {
      yield* destroyKey;
    } catch (error) {
      this.mutex.unlock();
      throw error;
    }
    this.isReleased = true;
    this.mm.memory.reclaim.unregisterShrinker(this.shrinker);
    for (const { page } of this.pending.oldest(this.pending.size)) this.settle(page);
    for (let page = this.entries.nextUsed(0, this.pageCount); page < this.pageCount; ) {
      this.forget(page);
      page = this.entries.nextUsed(page + 1, this.pageCount);
    }
    this.mutex.unlock();
    if (!this.hasEnded) yield* this.notifiers.detach(this.notifier);
  }

  private *mapAll(first: number, count: number, how: Prefetch): Sim<number> {
    let changed = 0;
    for (let done = 0; done < count; done += MAP_BATCH) {
      const batch = Math.min(MAP_BATCH, count - done);
      const request = { first: first + done, count: batch, synchronous: true, ...how };
      const result = yield* this.map(request);
      if (result < 0) return result;
      changed += result;
    }
    return changed;
  }

  /** Batches are flushed one after the other, each by a thread of the driver. */
  private listen(): void {
    const { memory } = this.mm;
    const batches$ = this.pending.batches$.pipe(
      concatMap((batch) =>
        threadStream(memory.scheduler, 'postponed flush', () => this.flushBatch(batch)),
      ),
    );
    subscribeOrFail(memory.node, batches$, () => {});
  }

  /** Callback: runs in the context of whoever changes memory, and may sleep. */
  private *begin(range: Invalidation): Sim<void> {
    const first = Math.max(0, Math.floor(range.start / PAGE_BYTES) - this.firstPage);
    const end = Math.min(this.pageCount, Math.ceil(range.end / PAGE_BYTES) - this.firstPage);
    if (first >= end || this.isReleased) return;
    this.running.push(range);
    this.sequence++;
    if (range.nonblock) {
      // The OOM killer cannot wait for the hardware.
      if (this.entries.nextUsed(first, end) < end) range.refused = true;
      return;
    }
    const { costs } = this.mm.memory;
    const { postpone, refuse } = this.policy;
    yield costs.invalidateCheckPs + (end - first) * costs.invalidateCheckPagePs;
    if (refuse.includes(range.cause)) {
      if (this.entries.nextUsed(first, end) === end) return;
      range.refused = true;
      this.postponedCounters.refused++;
    } else if (postpone.includes(range.cause)) {
      // Does not wait for a flush under way: the next batch fills meanwhile.
      this.postponeRange(range, first, end);
    } else {
      yield* this.mutex.lock();
      if (this.entries.nextUsed(first, end) < end) yield* this.zap(first, end);
      this.mutex.unlock();
    }
  }

  private *end(range: Invalidation): Sim<void> {
    this.running = this.running.filter((other) => other !== range);
    const { rangeEnded } = this;
    this.rangeEnded = new Completion<void>(rangeEnded.purpose);
    rangeEnded.resolve();
    yield 0;
  }

  /** Leaves the pages to the adapter until the next flush, and holds their frames meanwhile. */
  private postponeRange({ cause }: Invalidation, first: number, end: number): void {
    for (let page = this.entries.nextUsed(first, end); page < end; ) {
      if (!this.pending.has(page)) {
        const frame = this.entries.get(page) >>> ENTRY_SHIFT;
        const { references } = this.notifiers;
        references.postpone(this.notifier, this.firstPage + page, frame, cause);
        this.postponedCounters.postponed++;
        this.pending.hold(page, frame);
      }
      page = this.entries.nextUsed(page + 1, end);
    }
  }

  /** Takes a range from the adapter now, with what waits in it: however long, it is one flush. */
  private *zap(first: number, end: number): Sim<void> {
    for (let page = this.entries.nextUsed(first, end); page < end; ) {
      this.table.set(page, 0);
      page = this.entries.nextUsed(page + 1, end);
    }
    yield* this.flush([], first, end);
  }

  /** Flushes one batch of what waits; returns how many pages. */
  private *flushOldest(): Sim<number> {
    yield* this.mutex.lock();
    const waiting = this.pending.oldest(this.policy.batchPages);
    if (waiting.length > 0) yield* this.flush(waiting);
    this.mutex.unlock();
    return waiting.length;
  }

  private *flushBatch(batch: readonly PostponedPage[]): Sim<void> {
    yield* this.mutex.lock();
    const waiting = batch.filter((one) => this.pending.isWaiting(one));
    if (waiting.length > 0 && !this.isReleased) yield* this.flush(waiting);
    this.mutex.unlock();
  }

  /** One flush of the hardware for `waiting` and for the entries of [first, end); the mutex is held. */
  private *flush(waiting: readonly PostponedPage[], first = 0, end = 0): Sim<void> {
    const { costs, timers } = this.mm.memory;
    for (const { page } of waiting) this.table.set(page, 0);
    const before = this.mapped;
    yield costs.invalidateUpdatePs + waiting.length * costs.invalidateUpdatePagePs;
    yield* this.table.flushAndWait();
    yield* timers.sleep(this.policy.deviceFlushPs);
    this.postponedCounters.flushes++;
    for (const { page } of waiting) this.settle(page);
    // Of the others some may have been put off while the hardware flushed; now they are out as well.
    for (let page = this.entries.nextUsed(first, end); page < end; ) {
      if (this.pending.has(page)) this.settle(page);
      else this.forget(page);
      page = this.entries.nextUsed(page + 1, end);
    }
    const zapped = before - this.mapped;
    yield costs.invalidateBookPs + zapped * costs.invalidateBookPagePs;
    this.counters.page_invalidations += zapped;
    this.counters.page_invalidations_handled++;
  }

  /** A postponed page is out of the adapter's table: lets go of its frame. */
  private settle(page: number): void {
    const frame = this.entries.get(page) >>> ENTRY_SHIFT;
    const isProgramsPage = this.mm.pages.followPage(this.firstPage + page, false) === frame;
    // The entry goes first: a frame must not be freed while the adapter's table has it.
    this.forget(page);
    if (this.pending.release(page) && !isProgramsPage) this.postponedCounters.lateWrites++;
  }

  /** The process ends: everything goes, with one flush. */
  private *dropAll(): Sim<void> {
    this.hasEnded = true;
    yield* this.mutex.lock();
    if (!this.isReleased && this.mapped > 0) yield* this.zap(0, this.pageCount);
    this.mutex.unlock();
  }

  private isRunning(first: number, count: number): boolean {
    const start = first * PAGE_BYTES;
    const end = start + count * PAGE_BYTES;
    return this.running.some((range) => range.start < end && start < range.end);
  }

  /** Writes the entries that differ; returns how many did. */
  private enter(request: MapRequest, run: PageRun): number {
    const { references } = this.notifiers;
    let changed = 0;
    for (let i = 0; i < run.count; i++) {
      const frame = run.frames[i];
      if (frame === NO_FRAME) continue;
      const page = request.first + i;
      const old = this.entries.get(page);
      const mayWrite = this.writable && run.writable[i] === 1 && !request.readOnly;
      const bits = ENTRY_READ | (mayWrite ? ENTRY_WRITE : 0) | (old & ENTRY_WRITE);
      const entry = (frame << ENTRY_SHIFT) | bits;
      if (entry === old) continue;
      if (old === 0) this.mapped++;
      else references.drop(this.notifier, this.firstPage + page, old >>> ENTRY_SHIFT);
      references.insert(this.notifier, this.firstPage + page, frame);
      this.entries.set(page, entry);
      this.table.set(page, entry);
      changed++;
    }
    return changed;
  }

  /** Drops one entry from our copy; a page that the adapter could write counts as written. */
  private forget(page: number): void {
    const entry = this.entries.get(page);
    const frame = entry >>> ENTRY_SHIFT;
    if (entry & ENTRY_WRITE) this.mm.memory.frames.markDirty(frame);
    this.notifiers.references.drop(this.notifier, this.firstPage + page, frame);
    this.entries.set(page, 0);
    this.mapped--;
  }
}
