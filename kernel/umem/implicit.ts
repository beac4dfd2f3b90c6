/**
 * The whole address space of a process as one on-demand region (implicit ODP: drivers/infiniband/hw/
 * mlx5/odp.c, mlx5_ib_alloc_implicit_mr and pagefault_implicit_mr).
 *
 * The region is an indirect key of entries of 1 GiB. An entry is the null key until somebody faults
 * there; then a *child* is made, a key and an on-demand umem of that GiB, and the entry names it. An
 * invalidation that empties a child has it taken apart behind the scenes. So a mapping may come, move
 * and go without any registration, and an invalidation costs what the children that it hits cost.
 *
 * The parent's table changes only under this umem's mutex, and always to what `children` says then:
 * a child that is taken apart while its successor is made leaves the successor's key there.
 */
import { assert } from '../../transport/index.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import { Completion, type Sim, wait } from '../sched/completion.ts';
import { Mutex } from '../sched/mutex.ts';
import type { RegionCounters } from './counters.ts';
import type { DeviceTable } from './device-table.ts';
import {
  type MapRequest,
  OdpUmem,
  type OnDemandUmem,
  type Prefetch,
  type UmemOwner,
} from './odp.ts';

/** log2 of the bytes that a child stands for: 1 GiB (MLX5_IMR_MTT_SHIFT). */
export const CHILD_SHIFT = 30;
const CHILD_BYTES = 2 ** CHILD_SHIFT;
const CHILD_PAGES = CHILD_BYTES / PAGE_BYTES;

/** The key of a child, in the adapter. */
export interface ChildKey {
  readonly key: number;
  readonly table: DeviceTable;
  /** Takes the key away. */
  destroy(): Sim<unknown>;
}

/** Makes keys for children; the driver implements it. */
export interface ChildKeys {
  create(address: number, length: number): Sim<ChildKey>;
}

interface Child {
  readonly index: number;
  readonly key: ChildKey;
  readonly umem: OdpUmem;
  /** Faults and prefetches at work on it; `unused` resolves when the last of a dying child is done. */
  users: number;
  unused: Completion<void> | undefined;
}

export class ImplicitUmem implements OnDemandUmem {
  readonly firstPage = 0;
  /** Children that faults find, by GiB. */
  private readonly children = new Map<number, Child>();
  /** Children that are being taken apart. */
  private readonly dying = new Set<Child>();
  private lastGone = new Completion<void>('children of an implicit region');
  private readonly mutex = new Mutex('implicit umem');
  private isReleased = false;

  /** `table` is the indirect key's: entry i is the key of the child of GiB i. */
  constructor(
    private readonly mm: UmemOwner,
    private readonly writable: boolean,
    private readonly counters: RegionCounters,
    private readonly table: DeviceTable,
    private readonly keys: ChildKeys,
  ) {}

  get mappedPages(): number {
    let pages = 0;
    for (const { umem } of this.children.values()) pages += umem.mappedPages;
    for (const { umem } of this.dying) pages += umem.mappedPages;
    return pages;
  }

  /** Children that exist now. */
  get childCount(): number {
    return this.children.size + this.dying.size;
  }

  map(request: MapRequest): Sim<number> {
    return this.inChildren(request.first, request.count, (umem, first, count) =>
      umem.map({ ...request, first, count }),
    );
  }

  prefetch(first: number, count: number, how: Prefetch): Sim<number> {
    return this.inChildren(first, count, (umem, from, pages) => umem.prefetch(from, pages, how));
  }

  *release(destroyKey: Sim<unknown>): Sim<void> {
    this.isReleased = true;
    while (this.dying.size > 0) yield* wait(this.lastGone);
    try {
      yield* destroyKey;
    } catch (error) {
      this.isReleased = false;
      throw error;
    }
    for (const child of this.children.values()) {
      assert(child.users === 0, 'a child of a region that is released is in use');
      yield* child.umem.release(child.key.destroy());
    }
    this.children.clear();
  }

  /** Does something with each child that a run of pages touches; the sum, or the first failure. */
  private *inChildren(
    first: number,
    count: number,
    act: (umem: OdpUmem, first: number, count: number) => Sim<number>,
  ): Sim<number> {
    let sum = 0;
    for (let page = first; page < first + count; ) {
      const index = Math.floor(page / CHILD_PAGES);
      const end = Math.min(first + count, (index + 1) * CHILD_PAGES);
      const child = yield* this.take(index);
      const result = yield* act(child.umem, page - index * CHILD_PAGES, end - page);
      this.put(child);
      if (result < 0) return result;
      sum += result;
      page = end;
    }
    return sum;
  }

  /** The child of a GiB, made if there is none; it is not taken apart before `put`. */
  private *take(index: number): Sim<Child> {
    let child = this.children.get(index);
    if (child === undefined) {
      yield* this.mutex.lock();
      try {
        // Somebody else may have made it while we waited.
        child = this.children.get(index);
        if (child === undefined) return yield* this.make(index);
      } finally {
        this.mutex.unlock();
      }
    }
    (child as Child).users++;
    return child as Child;
  }

  private put(child: Child): void {
    if (--child.users === 0) child.unused?.resolve();
  }

  /** Makes a child, with us as its first user, and puts it into the parent's table; under the mutex. */
  private *make(index: number): Sim<Child> {
    const { costs } = this.mm.memory;
    const address = index * CHILD_BYTES;
    const key = yield* this.keys.create(address, CHILD_BYTES);
    const child: Child = {
      index,
      key,
      umem: new OdpUmem(
        this.mm,
        address,
        CHILD_BYTES,
        this.writable,
        this.counters,
        key.table,
        () => this.emptied(child),
      ),
      users: 1,
      unused: undefined,
    };
    this.children.set(index, child);
    this.table.set(index, key.key);
    yield costs.tableUpdatePs + costs.tableUpdatePagePs;
    // Whatever follows on the bus, the pages of the child and the resume, finds the entry.
    this.table.flush();
    return child;
  }

  /** An invalidation has emptied a child (destroy_unused_implicit_child_mr): it may not sleep for it. */
  private emptied(child: Child): void {
    if (this.isReleased || this.children.get(child.index) !== child) return;
    this.children.delete(child.index);
    this.dying.add(child);
    this.mm.memory.scheduler.spawn('free implicit child', this.takeApart(child));
  }

  private *takeApart(child: Child): Sim<void> {
    const { costs } = this.mm.memory;
    if (child.users > 0) {
      child.unused = new Completion<void>('users of an implicit child');
      yield* wait(child.unused);
    }
    yield* this.mutex.lock();
    this.table.set(child.index, this.children.get(child.index)?.key.key ?? 0);
    yield costs.tableUpdatePs + costs.tableUpdatePagePs;
    yield* this.table.flushAndWait();
    this.mutex.unlock();
    yield* child.umem.release(child.key.destroy());
    this.dying.delete(child);
    if (this.dying.size > 0) return;
    const gone = this.lastGone;
    this.lastGone = new Completion<void>(gone.purpose);
    gone.resolve();
  }
}
