/**
 * The registration cache of an MPI library (pin-down cache): a buffer stays registered after its
 * message, so that the next one from there need not register it again (Wyckoff and Geoffray in seed
 * 000; Tezuka et al., IPPS 1998; rcache of Open MPI, UCX).
 *
 * The cache goes by addresses. What it is told about changes of memory comes from an
 * InvalidationSource; what nobody tells it, it does not know: an entry then still names the page frames
 * that were pinned when it was made, while the program sees others at the same addresses.
 *
 * Owns its entries and what is registered through it. Nothing of it runs while somebody else is in it:
 * one mutex, as the progress engine of such a library has.
 */
import { assert } from '../../transport/index.ts';
import { SystemCallError, VerbsError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Shrinker } from '../mm/reclaim/shrinkers.ts';
import { type Sim, wait } from '../sched/completion.ts';
import { Mutex } from '../sched/mutex.ts';
import type { Thread } from '../sched/scheduler.ts';
import { type CacheCounters, newCacheCounters } from './cache-counters.ts';
import { ALL_ENTRIES, type InvalidationSource } from './invalidation-source.ts';
import { WatchedRanges } from './watched-ranges.ts';

/** How registrations are made; `H` is what it is called by, a MemoryRegion in practice. */
export interface Registrar<H> {
  /** @throws VerbsError ENOMEM over the memlock limit: the cache gives something up and tries again */
  register(address: number, length: number, writable: boolean): Sim<H>;
  deregister(handle: H): Sim<void>;
}

/**
 * When a registration that nobody uses goes away.
 *
 * - `immediate`: at the end of its operation, as kernel protocols do (SRP, NFS over RDMA; Gunthorpe in
 *   seed 000: "very short lifetimes"): no cache at all.
 * - `lazy`: never, unless its memory changes or the memlock limit is in the way.
 * - `budget`: the least recently used ones, so that no more than `budgetBytes` are registered (Bestler in
 *   seed 000: programs want "to be told how much memory they can have up front").
 * - `pressure`: when the kernel, short of memory, asks for it (Wyckoff in seed 000: "The VM could ask for
 *   certain (or any) pages to be released, and the library would respond").
 */
export type ReleasePolicy = 'immediate' | 'lazy' | 'budget' | 'pressure';

export interface CacheOptions {
  readonly release: ReleasePolicy;
  /** Bytes that may be registered at a time; Infinity for no limit. Counts with `budget` only. */
  readonly budgetBytes: number;
}

/** The right to use a registration until it is released. */
export interface Lease<H> {
  readonly handle: H;
  /** What was asked for. */
  readonly address: number;
  readonly length: number;
  /** True when no registration was needed. */
  readonly hit: boolean;
  /** The registration itself: whole pages, maybe more than was asked for. */
  readonly entry: CacheEntry<H>;
}

/** One registration. Bytes [start, end) are whole pages. */
export interface CacheEntry<H> {
  readonly cookie: number;
  readonly start: number;
  readonly end: number;
  readonly writable: boolean;
  readonly handle: H;
  /** Leases that are out. */
  users: number;
  /** False once its memory has changed: nobody new gets it, and its last user takes it apart. */
  isValid: boolean;
}

export class RegistrationCache<H> {
  readonly counters: CacheCounters = newCacheCounters();
  private readonly entries = new WatchedRanges<CacheEntry<H>>();
  /** Entries that nobody uses, least recently used first. */
  private readonly unused = new Set<CacheEntry<H>>();
  private readonly mutex = new Mutex('registration cache');
  private lastCookie = 0;
  private leases = 0;
  private isClosed = false;
  /** How the kernel asks for memory, with the policy `pressure`, and who is at work on an answer. */
  private readonly shrinker: Shrinker;
  private libraryThread: Thread | undefined;

  constructor(
    private readonly mm: AddressSpace,
    private readonly registrar: Registrar<H>,
    readonly source: InvalidationSource,
    private readonly options: CacheOptions,
  ) {
    this.shrinker = {
      name: 'registration cache',
      count: () => Math.floor(this.unusedBytes / PAGE_BYTES),
      scan: (pageCount) => this.answer(pageCount),
    };
    if (options.release === 'pressure') mm.memory.reclaim.registerShrinker(this.shrinker);
  }

  /** Bytes that are registered and in nobody's use. */
  get unusedBytes(): number {
    let bytes = 0;
    for (const entry of this.unused) bytes += bytesOf(entry);
    return bytes;
  }

  /** Registrations that a look-up can find. */
  get entryCount(): number {
    return this.entries.size;
  }

  /**
   * A registration that covers [address, address + length), for writing if `writable`: one that is there,
   * or a new one of the pages around it.
   * @throws VerbsError ENOMEM when a limit is in the way and nothing unused is left to give up; EFAULT
   */
  *acquire(address: number, length: number, writable: boolean): Sim<Lease<H>> {
    assert(!this.isClosed, 'a closed registration cache is used');
    const { counters } = this;
    yield* this.mutex.lock();
    try {
      yield* this.dropChanged();
      counters.lookups++;
      yield this.mm.memory.costs.cacheLookupPs;
      const found = this.entries.findCover(
        address,
        address + length,
        (entry) => entry.writable || !writable,
      );
      if (found !== undefined) {
        counters.hits++;
        return this.lend(found, address, length, true);
      }
      counters.misses++;
      const start = Math.floor(address / PAGE_BYTES) * PAGE_BYTES;
      const end = Math.ceil((address + length) / PAGE_BYTES) * PAGE_BYTES;
      const entry = yield* this.enter(start, end, writable);
      return this.lend(entry, address, length, false);
    } finally {
      this.mutex.unlock();
    }
  }

  /** Ends a lease. The registration stays, unless the policy or a change of its memory says otherwise. */
  *release({ entry }: Lease<H>): Sim<void> {
    assert(entry.users > 0, 'a lease is released twice');
    this.leases--;
    if (--entry.users > 0) return;
    const isZombie = !entry.isValid;
    if (!isZombie) {
      this.unused.add(entry);
      if (this.options.release !== 'immediate') return;
    }
    yield* this.mutex.lock();
    try {
      if (!isZombie) {
        // Somebody may have taken it again, or dropped it, while we waited.
        if (!this.unused.has(entry)) return;
        yield* this.takeOut(entry);
      }
      yield* this.deregister(entry);
    } finally {
      this.mutex.unlock();
    }
  }

  /** Gives up every registration; no lease may be out. */
  *close(): Sim<void> {
    assert(this.leases === 0, 'a registration cache is closed while in use');
    this.isClosed = true;
    this.mm.memory.reclaim.unregisterShrinker(this.shrinker);
    yield* this.mutex.lock();
    for (const entry of [...this.entries.list()]) {
      yield* this.takeOut(entry);
      yield* this.deregister(entry);
    }
    yield* this.source.close();
    this.mutex.unlock();
  }

  private lend(entry: CacheEntry<H>, address: number, length: number, hit: boolean): Lease<H> {
    this.unused.delete(entry);
    entry.users++;
    this.leases++;
    return { handle: entry.handle, address, length, hit, entry };
  }

  /** Drops what the source says has changed. */
  private *dropChanged(): Sim<void> {
    const { counters } = this;
    const changed = yield* this.source.collect();
    const isAll = changed === ALL_ENTRIES;
    if (isAll) counters.flushes++;
    const cookies = isAll ? this.entries.list().map(({ cookie }) => cookie) : changed;
    for (const cookie of cookies) {
      const entry = this.entries.get(cookie);
      if (entry === undefined) continue;
      counters.invalidated++;
      entry.isValid = false;
      yield* this.takeOut(entry);
      if (entry.users > 0) counters.zombies++;
      else yield* this.deregister(entry);
    }
  }

  /** Makes an entry: watches first, so that no change is missed, then registers. */
  private *enter(start: number, end: number, writable: boolean): Sim<CacheEntry<H>> {
    if (this.options.release === 'budget') yield* this.makeRoom(end - start);
    const cookie = ++this.lastCookie;
    yield* this.insist(() => this.source.watch(cookie, start, end));
    let handle: H;
    try {
      handle = yield* this.insist(() => this.registrar.register(start, end - start, writable));
    } catch (error) {
      yield* this.source.unwatch(cookie);
      throw error;
    }
    const entry: CacheEntry<H> = { cookie, start, end, writable, handle, users: 0, isValid: true };
    this.entries.add(entry);
    const { counters } = this;
    counters.registrations++;
    counters.registeredBytes += end - start;
    counters.registeredBytesPeak = Math.max(counters.registeredBytesPeak, counters.registeredBytes);
    return entry;
  }

  /** Does what a limit may refuse, giving up an unused entry after each refusal. */
  private *insist<T>(attempt: () => Sim<T>): Sim<T> {
    for (;;) {
      try {
        return yield* attempt();
      } catch (error) {
        if (!isLimit(error)) throw error;
        this.counters.refusals++;
        if (!(yield* this.evictOldest())) throw error;
      }
    }
  }

  private *makeRoom(bytes: number): Sim<void> {
    const { budgetBytes } = this.options;
    while (this.counters.registeredBytes + bytes > budgetBytes) {
      if (yield* this.evictOldest()) continue;
      const inUse = `${this.counters.registeredBytes} bytes are in use`;
      const detail = `${bytes} bytes exceed the budget of ${budgetBytes}, of which ${inUse}`;
      throw new VerbsError('ENOMEM', 'registration cache', detail);
    }
  }

  /** Gives up the entry that has not been used for longest; false when all are in use. */
  private *evictOldest(): Sim<boolean> {
    for (const entry of this.unused) {
      this.counters.evictions++;
      this.counters.evictedPages += bytesOf(entry) / PAGE_BYTES;
      yield* this.takeOut(entry);
      yield* this.deregister(entry);
      return true;
    }
    return false;
  }

  /** No look-up finds the entry any more. */
  private *takeOut(entry: CacheEntry<H>): Sim<void> {
    this.entries.remove(entry.cookie);
    this.unused.delete(entry);
    yield* this.source.unwatch(entry.cookie);
  }

  private *deregister(entry: CacheEntry<H>): Sim<void> {
    this.counters.deregistrations++;
    this.counters.registeredBytes -= bytesOf(entry);
    yield* this.registrar.deregister(entry.handle);
  }

  /**
   * The kernel asks the library for `pageCount` pages, and waits for its answer: how many it has unpinned.
   * Whoever asks may be in the middle of a registration of this very cache; then there is no answer now.
   */
  private *answer(pageCount: number): Sim<number> {
    const { counters } = this;
    counters.requests++;
    const before = counters.evictedPages;
    if (this.libraryThread === undefined) {
      if (this.mutex.locked) return 0;
      this.libraryThread = this.mm.memory.scheduler.spawn(
        'registration cache',
        this.giveUp(pageCount),
      );
    }
    yield* wait(this.libraryThread.done);
    return counters.evictedPages - before;
  }

  /** A thread of the library gives up unused entries: the program's context is its own. */
  private *giveUp(pageCount: number): Sim<void> {
    yield* this.mutex.lock();
    const target = this.counters.evictedPages + pageCount;
    while (this.counters.evictedPages < target && (yield* this.evictOldest()));
    this.mutex.unlock();
    this.libraryThread = undefined;
  }
}

/** A limit of the process: giving something up may help. */
function isLimit(error: unknown): boolean {
  if (!(error instanceof VerbsError) && !(error instanceof SystemCallError)) return false;
  return error.errno === 'ENOMEM' || error.errno === 'EMFILE';
}

function bytesOf({ start, end }: { readonly start: number; readonly end: number }): number {
  return end - start;
}
