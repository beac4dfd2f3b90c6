/**
 * User memory that is not pinned: pages enter the adapter's table when it faults on them, and leave
 * it when the kernel wants them (drivers/infiniband/core/umem_odp.c, hw/mlx5/odp.c).
 *
 * `entries` is the driver's copy of the adapter's table. It changes only under the umem mutex, which
 * invalidations take too: so whoever holds it and has found the notifier's sequence unchanged knows
 * that the frames it looked up are still the process' frames.
 *
 * The region covers addresses, not mappings: it outlives munmap, and a later mmap at the same place
 * faults in again.
 */
import type { Observable } from 'rxjs';
import { MS, SparseTable, type TimePs } from '../../transport/index.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { PageRun } from '../mm/fault/user-pages.ts';
import type { IntervalOps, IntervalSubscription } from '../mm/notify/interval-notifier.ts';
import type { Invalidation } from '../mm/notify/invalidation.ts';
import { NO_FRAME, ORIGIN_DEVICE, ORIGIN_PREFETCH, PAGE_BYTES } from '../mm/physical/frames.ts';
import { threadStream } from '../rx/thread-stream.ts';
import type { Sim } from '../sched/completion.ts';
import { Mutex } from '../sched/mutex.ts';
import type { RegionCounters } from './counters.ts';
import { type DeviceTable, ENTRY_READ, ENTRY_SHIFT, ENTRY_WRITE } from './device-table.ts';

/** How long a lookup goes on while invalidations keep getting in its way (HMM_RANGE_DEFAULT_TIMEOUT). */
const RETRY_LIMIT_PS: TimePs = 1000 * MS;
/** Pages entered at a time when a large range is, so that invalidations get their turn. */
const MAP_BATCH = 512;

/** Results of map besides a number of pages. */
export const MAP_EFAULT = -14;
export const MAP_EAGAIN = -11;

/** How pages get into the adapter's table. */
export interface MapRequest {
  /** First page, counted from the region's first, and how many. */
  readonly first: number;
  readonly count: number;
  /** The adapter wants to write. */
  readonly write: boolean;
  /** Bring absent pages in; otherwise enter only what the process has present. */
  readonly fault: boolean;
  /** Give no more than read permission (PREFETCH without write). */
  readonly readOnly: boolean;
  /** Sleep until the adapter has acknowledged the entries, as mlx5 waits for its UMR. */
  readonly synchronous: boolean;
  /** What frames that come in remember as the reason (ORIGIN_*); ORIGIN_DEVICE when left out. */
  readonly origin?: number;
}

/**
 * Memory of a process as it was when it was registered: a program that exec starts has other memory,
 * and what its predecessor registered stays with the old.
 */
export type UmemOwner = Pick<AddressSpace, 'memory' | 'pages' | 'notifiers'>;

/** The memory that `mm` has now. */
export function ownerOf({ memory, pages, notifiers }: AddressSpace): UmemOwner {
  return { memory, pages, notifiers };
}

/** How pages get in ahead of use: see MapRequest. */
export type Prefetch = Pick<MapRequest, 'write' | 'fault' | 'readOnly'>;

/** Memory that an adapter works on without holding it. */
export interface OnDemandUmem {
  /** Pages in the adapter's table. */
  readonly mappedPages: number;
  readonly firstPage: number;
  /** Enters a run of pages: how many entries changed, MAP_EFAULT or MAP_EAGAIN. */
  map(request: MapRequest): Sim<number>;
  /** Brings pages in ahead of use; sleeps until in force. Returns what `map` returns. */
  prefetch(first: number, count: number, how: Prefetch): Sim<number>;
  /** Takes the region from the adapter with `destroyKey`. */
  release(destroyKey: Sim<unknown>): Sim<void>;
}

export class OdpUmem implements IntervalOps, OnDemandUmem {
  /** For the ledger of external references. */
  readonly name = 'on-demand region';
  readonly firstPage: number;
  readonly pageCount: number;
  private readonly entries: SparseTable;
  private readonly mutex = new Mutex('umem');
  private readonly subscription: IntervalSubscription;
  private mapped = 0;

  constructor(
    private readonly mm: UmemOwner,
    address: number,
    length: number,
    private readonly writable: boolean,
    private readonly counters: RegionCounters,
    private readonly table: DeviceTable,
    /** Told, in the invalidation, that it has taken the last page out of the adapter's table. */
    private readonly onEmpty: () => void = () => {},
  ) {
    this.firstPage = Math.floor(address / PAGE_BYTES);
    this.pageCount = Math.ceil((address + length) / PAGE_BYTES) - this.firstPage;
    this.entries = new SparseTable(this.pageCount);
    this.subscription = mm.notifiers.intervals.subscribe(
      this.firstPage * PAGE_BYTES,
      (this.firstPage + this.pageCount) * PAGE_BYTES,
      this,
    );
  }

  /** Pages in the adapter's table. */
  get mappedPages(): number {
    return this.mapped;
  }

  /** Enters the pages that the process has present, as registration does; sleeps until in force. */
  *snapshot(): Sim<void> {
    yield* this.mapAll(0, this.pageCount, { write: false, fault: false, readOnly: false });
  }

  *prefetch(first: number, count: number, how: Prefetch): Sim<number> {
    const pages = yield* this.mapAll(first, count, how, ORIGIN_PREFETCH);
    if (pages > 0) this.counters.page_prefetch += pages;
    return pages;
  }

  /**
   * Enters a run of pages (ib_umem_odp_map_dma_and_lock and mlx5_ib_update_xlt). Returns how many
   * entries changed; MAP_EFAULT when the process may not access one of them; MAP_EAGAIN when
   * invalidations kept racing with it. What is sent to the adapter afterwards finds the entries.
   */
  *map(request: MapRequest): Sim<number> {
    const { memory, pages } = this.mm;
    const { costs, node } = memory;
    const { intervals } = this.mm.notifiers;
    const run = new PageRun(request.count);
    const first = this.firstPage + request.first;
    const giveUpPs = node.now + RETRY_LIMIT_PS;
    for (;;) {
      const sequence = yield* intervals.readBegin(this.subscription);
      if (request.fault) {
        yield request.count * costs.faultPagePs;
        if (!(yield* pages.faultRange(first, request.write, run, request.origin)))
          return MAP_EFAULT;
      } else if ((yield* pages.snapshot(first, run)) === 0) return 0;
      yield* this.mutex.lock();
      if (!intervals.readRetry(this.subscription, sequence)) break;
      this.mutex.unlock();
      if (node.now > giveUpPs) return MAP_EAGAIN;
    }
    const changed = this.enter(request, run);
    if (changed > 0) {
      // Nothing can be invalidated here while this time passes: we hold the mutex.
      yield costs.tableUpdatePs + changed * costs.tableUpdatePagePs;
      if (request.synchronous) yield* this.table.flushAndWait();
      else this.table.flush();
    }
    this.mutex.unlock();
    return changed;
  }

  /** Notifier callback: takes the range out of the adapter's table before the pages go away. */
  invalidate(range: Invalidation, sequence: number): Observable<never> {
    return threadStream(
      this.mm.memory.scheduler,
      'invalidate',
      () => this.zap(range, sequence),
      true,
    );
  }

  /**
   * Takes the region from the adapter with `destroyKey`, and ends the subscription. Invalidations
   * wait for that, and find nothing afterwards: no update is sent for a key that is gone.
   */
  *release(destroyKey: Sim<unknown>): Sim<void> {
    yield* this.mutex.lock();
    try {
      yield* destroyKey;
      const { entries, pageCount } = this;
      for (let page = entries.nextUsed(0, pageCount); page < pageCount; ) {
        this.forget(page);
        page = entries.nextUsed(page + 1, pageCount);
      }
    } finally {
      this.mutex.unlock();
    }
    yield* this.mm.notifiers.intervals.unsubscribe(this.subscription);
  }

  private *mapAll(from: number, count: number, how: Prefetch, origin = ORIGIN_DEVICE): Sim<number> {
    let changed = 0;
    for (let done = 0; done < count; done += MAP_BATCH) {
      const batch = Math.min(MAP_BATCH, count - done);
      const request = { first: from + done, count: batch, synchronous: true, origin, ...how };
      const result = yield* this.map(request);
      if (result < 0) return result;
      changed += result;
    }
    return changed;
  }

  /** Writes the entries that differ; returns how many did. */
  private enter(request: MapRequest, run: PageRun): number {
    let changed = 0;
    for (let i = 0; i < run.count; i++) {
      const frame = run.frames[i];
      if (frame === NO_FRAME) continue;
      const page = request.first + i;
      const old = this.entries.get(page);
      const mayWrite = this.writable && run.writable[i] === 1 && !request.readOnly;
      // An advice to read does not take away permission that is there.
      const bits = ENTRY_READ | (mayWrite ? ENTRY_WRITE : 0) | (old & ENTRY_WRITE);
      const entry = (frame << ENTRY_SHIFT) | bits;
      if (entry === old) continue;
      if (old === 0) this.mapped++;
      else this.mm.notifiers.references.drop(this, this.firstPage + page, old >>> ENTRY_SHIFT);
      this.mm.notifiers.references.insert(this, this.firstPage + page, frame);
      this.entries.set(page, entry);
      this.table.set(page, entry);
      changed++;
    }
    return changed;
  }

  private *zap(range: Invalidation, sequence: number): Sim<void> {
    const { costs } = this.mm.memory;
    const first = Math.max(0, range.start / PAGE_BYTES - this.firstPage);
    const end = Math.min(this.pageCount, range.end / PAGE_BYTES - this.firstPage);
    yield* this.mutex.lock();
    this.subscription.setSequence(sequence);
    yield costs.invalidateCheckPs + (end - first) * costs.invalidateCheckPagePs;
    let zapped = 0;
    if (this.mapped > 0) {
      for (let page = this.entries.nextUsed(first, end); page < end; ) {
        this.forget(page);
        this.table.set(page, 0);
        zapped++;
        page = this.entries.nextUsed(page + 1, end);
      }
    }
    if (zapped > 0) {
      yield costs.invalidateUpdatePs + zapped * costs.invalidateUpdatePagePs;
      yield* this.table.flushAndWait();
      yield costs.invalidateBookPs + zapped * costs.invalidateBookPagePs;
      this.counters.page_invalidations += zapped;
      this.counters.page_invalidations_handled++;
      if (this.mapped === 0) this.onEmpty();
    }
    this.mutex.unlock();
  }

  /** Drops one entry, which there is, from our copy; a page that the adapter could write counts as written. */
  private forget(page: number): void {
    const entry = this.entries.get(page);
    if (entry & ENTRY_WRITE) this.mm.memory.frames.markDirty(entry >>> ENTRY_SHIFT);
    this.mm.notifiers.references.drop(this, this.firstPage + page, entry >>> ENTRY_SHIFT);
    this.entries.set(page, 0);
    this.mapped--;
  }
}
