import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type {
  ChangedEntries,
  InvalidationSource,
} from '../../../kernel/clients/invalidation-source.ts';
import type { CacheOptions, Lease, Registrar } from '../../../kernel/clients/registration-cache.ts';
import { SystemCallError } from '../../../kernel/errno.ts';
import {
  ALL_ENTRIES,
  HooksSource,
  type Host,
  type MemoryRegion,
  NoSource,
  PerfSource,
  PROT_READ,
  PROT_WRITE,
  RegistrationCache,
  type Sim,
  Ummunotify,
  UmmunotifySource,
  VerbsError,
  VerbsRegistrar,
} from '../../../kernel/index.ts';
import { US } from '../../../transport/index.ts';
import { BASE, makeBench, PAGE } from '../bench.ts';

const RW = PROT_READ | PROT_WRITE;
const LAZY: CacheOptions = { release: 'lazy', budgetBytes: Number.POSITIVE_INFINITY };

/** Registers in a domain that the fake adapter has from the start. */
function registrarOf({ verbs }: Host): Registrar<MemoryRegion> {
  return new VerbsRegistrar(verbs, 1);
}

function runOn(bench: ReturnType<typeof makeBench>, body: Sim<void>): void {
  const done = bench.run(body);
  expect(done, bench.host.scheduler.unfinished().join()).toBe(true);
}

describe('registration cache', () => {
  /** True when the adapter would write where the program does not look. */
  function isStale(bench: ReturnType<typeof makeBench>, region: MemoryRegion): boolean {
    const entry = bench.adapter.tables.get(region.lkey)?.get(0) ?? 0;
    const frame = entry >>> 2;
    return bench.host.mm.pages.followPage(region.address / PAGE, false) !== frame;
  }

  /** munmap and mmap of a buffer that is in the cache, then the next look-up. */
  function reuse(
    makeSource: (host: Host) => Sim<InvalidationSource>,
    unmap: (host: Host, source: InvalidationSource) => Sim<void>,
  ): { hit: boolean; stale: boolean; invalidated: number } {
    const bench = makeBench();
    const { host } = bench;
    const { mm } = host;
    const outcome = { hit: false, stale: false, invalidated: 0 };
    runOn(
      bench,
      (function* (): Sim<void> {
        const source = yield* makeSource(host);
        const cache = new RegistrationCache(mm, registrarOf(host), source, LAZY);
        yield* mm.mmap(BASE, 4 * PAGE, RW);
        const first = yield* cache.acquire(BASE + 100, 3 * PAGE, true);
        expect([first.hit, isStale(bench, first.handle)]).toEqual([false, false]);
        yield* cache.release(first);
        const again = yield* cache.acquire(BASE + PAGE, 100, false);
        expect([again.hit, again.handle]).toEqual([true, first.handle]);
        yield* cache.release(again);
        yield* unmap(host, source);
        yield* mm.mmap(BASE, 4 * PAGE, RW);
        yield* mm.touch(BASE, 4, true);
        const second = yield* cache.acquire(BASE + 100, 3 * PAGE, true);
        outcome.hit = second.hit;
        outcome.stale = isStale(bench, second.handle);
        outcome.invalidated = cache.counters.invalidated;
        yield* cache.release(second);
        yield* cache.close();
        expect(cache.counters.registeredBytes).toBe(0);
      })(),
    );
    expect(host.mm.pinnedBytes).toBe(0);
    host.checkLeaks();
    return outcome;
  }

  const raw = (host: Host): Sim<void> => host.mm.munmap(BASE, 4 * PAGE);
  const STALE = { hit: true, stale: true, invalidated: 0 };
  const FRESH = { hit: false, stale: false, invalidated: 1 };

  it('serves a stale translation when nobody tells it (S16)', () => {
    expect(
      reuse(function* () {
        yield 0;
        return new NoSource();
      }, raw),
    ).toEqual(STALE);
  });

  it('with malloc hooks hears of munmap through libc, and not of the raw system call', () => {
    function* hooks({ mm }: Host): Sim<InvalidationSource> {
      yield 0;
      return new HooksSource(mm);
    }
    const libc = (_host: Host, source: InvalidationSource): Sim<void> =>
      (source as HooksSource).munmap(BASE, 4 * PAGE);
    expect(reuse(hooks, libc)).toEqual(FRESH);
    expect(reuse(hooks, raw)).toEqual(STALE);
  });

  it('with ummunotify and with a perf ring hears of the raw system call', () => {
    expect(reuse(({ mm }) => UmmunotifySource.open(new Ummunotify(), mm), raw)).toEqual(FRESH);
    const ring = { pageCount: 1, mode: 'drop' } as const;
    expect(reuse(({ mm }) => PerfSource.open(mm, ring), raw)).toEqual(FRESH);
    const counters = { pageCount: 1, mode: 'overwrite', records: 'tag' } as const;
    expect(reuse(({ mm }) => PerfSource.open(mm, counters, 'counters'), raw)).toEqual(FRESH);
  });

  it('hooks see brk, mremap, madvise and a mapping over another, before they happen', () => {
    const bench = makeBench();
    const { mm } = bench.host;
    runOn(
      bench,
      (function* (): Sim<void> {
        mm.setBrk(BASE);
        const hooks = new HooksSource(mm);
        yield* hooks.brk(BASE + 8 * PAGE);
        for (let i = 0; i < 8; i++) yield* hooks.watch(i, BASE + i * PAGE, BASE + (i + 1) * PAGE);
        expect(yield* hooks.collect()).toEqual([]);
        yield* hooks.brk(BASE + 7 * PAGE);
        yield* hooks.madvise(BASE, PAGE, 3);
        yield* hooks.madvise(BASE + PAGE, PAGE, 4);
        yield* hooks.mmap(BASE + 2 * PAGE, PAGE, RW);
        yield* hooks.mremap(BASE + 3 * PAGE, PAGE, BASE + 64 * PAGE, PAGE);
        expect(yield* hooks.collect()).toEqual([7, 1, 2, 3]);
        yield* hooks.unwatch(4);
        yield* hooks.munmap(BASE + 4 * PAGE, 2 * PAGE);
        expect(yield* hooks.collect()).toEqual([5]);
      })(),
    );
  });

  it('keeps an entry whose memory goes away in use until its user is done', () => {
    const bench = makeBench();
    const { host } = bench;
    const { mm } = host;
    runOn(
      bench,
      (function* (): Sim<void> {
        const source = yield* UmmunotifySource.open(new Ummunotify(), mm);
        const cache = new RegistrationCache(mm, registrarOf(host), source, LAZY);
        yield* mm.mmap(BASE, PAGE, RW);
        const old = yield* cache.acquire(BASE, PAGE, true);
        yield* mm.mmap(BASE, PAGE, RW);
        const fresh = yield* cache.acquire(BASE, PAGE, true);
        expect(fresh.handle).not.toBe(old.handle);
        expect([old.handle.registered, cache.counters.zombies]).toEqual([true, 1]);
        expect(isStale(bench, fresh.handle)).toBe(false);
        yield* cache.release(old);
        expect([old.handle.registered, fresh.handle.registered]).toEqual([false, true]);
        yield* cache.release(fresh);
        yield* cache.close();
      })(),
    );
    host.checkLeaks();
  });

  it('gives up what is unused when the memlock limit or the limit of watched ranges is in the way', () => {
    const bench = makeBench({ memlockBytes: 4 * PAGE });
    const { host } = bench;
    const { mm } = host;
    runOn(
      bench,
      (function* (): Sim<void> {
        const source = yield* UmmunotifySource.open(new Ummunotify(3), mm);
        const cache = new RegistrationCache(mm, registrarOf(host), source, LAZY);
        yield* mm.mmap(BASE, 16 * PAGE, RW);
        for (let i = 0; i < 3; i++) {
          yield* cache.release(yield* cache.acquire(BASE + i * PAGE, PAGE, true));
        }
        // A fourth range is one too many for ummunotify; the oldest goes.
        const held = yield* cache.acquire(BASE + 8 * PAGE, PAGE, true);
        expect(cache.counters).toMatchObject({ evictions: 1, refusals: 1 });
        // Three pages more exceed the memlock limit with the three that are registered.
        const big = yield* cache.acquire(BASE + 12 * PAGE, 3 * PAGE, true);
        expect([cache.counters.evictions, cache.counters.registeredBytes]).toEqual([3, 4 * PAGE]);
        let errno = 'none';
        try {
          yield* cache.acquire(BASE + 4 * PAGE, PAGE, true);
        } catch (error) {
          if (error instanceof VerbsError) errno = error.errno;
        }
        expect([errno, held.handle.registered, big.handle.registered]).toEqual([
          'ENOMEM',
          true,
          true,
        ]);
        yield* cache.release(held);
        yield* cache.release(big);
        yield* cache.close();
      })(),
    );
    host.checkLeaks();
  });

  it('registers for one operation only with the policy `immediate`', () => {
    const bench = makeBench();
    const { host } = bench;
    const { mm } = host;
    runOn(
      bench,
      (function* (): Sim<void> {
        const options: CacheOptions = { ...LAZY, release: 'immediate' };
        const cache = new RegistrationCache(mm, registrarOf(host), new NoSource(), options);
        yield* mm.mmap(BASE, PAGE, RW);
        for (let i = 0; i < 3; i++) {
          const lease = yield* cache.acquire(BASE, PAGE, true);
          expect(mm.pinnedBytes).toBe(PAGE);
          yield* cache.release(lease);
          expect(mm.pinnedBytes).toBe(0);
          yield* mm.mmap(BASE, PAGE, RW);
        }
        expect(cache.counters).toMatchObject({ misses: 3, hits: 0, deregistrations: 3 });
      })(),
    );
  });

  it('gives unused pages back when the kernel runs short, and swaps nothing that was in use', () => {
    const bench = makeBench({ memoryBytes: 256 * PAGE, swapBytes: 0 });
    const { host } = bench;
    const { mm } = host;
    runOn(
      bench,
      (function* (): Sim<void> {
        const options: CacheOptions = { ...LAZY, release: 'pressure' };
        const cache = new RegistrationCache(mm, registrarOf(host), new NoSource(), options);
        const count = 10;
        const leases: Lease<MemoryRegion>[] = [];
        for (let i = 0; i < count; i++) {
          yield* mm.mmap(BASE + i * 64 * PAGE, 16 * PAGE, RW);
          leases.push(yield* cache.acquire(BASE + i * 64 * PAGE, 16 * PAGE, true));
        }
        for (const lease of leases.slice(1)) yield* cache.release(lease);
        // The program drops the buffers; the cache alone keeps their frames now.
        for (let i = 1; i < count; i++) yield* mm.munmap(BASE + i * 64 * PAGE, 16 * PAGE);
        yield* mm.mmap(BASE + 2 ** 20 * PAGE, 160 * PAGE, RW);
        yield* mm.touch(BASE + 2 ** 20 * PAGE, 160, true);
        expect(cache.counters.requests).toBeGreaterThan(0);
        expect(cache.counters.evictions).toBeGreaterThan(0);
        expect(leases[0]?.handle.registered).toBe(true);
        yield* cache.release(leases[0] as Lease<MemoryRegion>);
        yield* cache.close();
      })(),
    );
    host.checkLeaks();
  });
});

describe('registration cache against a model', () => {
  /** Registrations by number, refused above a limit; nothing of a host. */
  class CountingRegistrar implements Registrar<number> {
    readonly live = new Map<number, { start: number; end: number }>();
    private last = 0;

    constructor(private readonly limitBytes: number) {}

    *register(address: number, length: number): Sim<number> {
      yield 10 * US;
      if (this.bytes + length > this.limitBytes) throw new VerbsError('ENOMEM', 'reg_mr', 'limit');
      this.live.set(++this.last, { start: address, end: address + length });
      return this.last;
    }

    *deregister(handle: number): Sim<void> {
      yield 10;
      expect(this.live.delete(handle)).toBe(true);
    }

    get bytes(): number {
      let sum = 0;
      for (const { start, end } of this.live.values()) sum += end - start;
      return sum;
    }
  }

  /** Says what the test tells it. */
  class ScriptedSource implements InvalidationSource {
    readonly name = 'none';
    eventsLost = 0;
    readonly watched = new Map<number, { start: number; end: number }>();
    private readonly changed = new Set<number>();
    private isAll = false;

    constructor(private readonly limit: number) {}

    change(start: number, end: number): void {
      for (const [cookie, range] of this.watched) {
        if (range.start < end && start < range.end) this.changed.add(cookie);
      }
    }

    lose(): void {
      this.eventsLost++;
      this.isAll = true;
    }

    *watch(cookie: number, start: number, end: number): Sim<void> {
      yield 1;
      if (this.watched.size === this.limit) {
        throw new SystemCallError('ENOMEM', 'watch', 'too many', 'test');
      }
      this.watched.set(cookie, { start, end });
    }

    *unwatch(cookie: number): Sim<void> {
      yield 1;
      expect(this.watched.delete(cookie)).toBe(true);
      this.changed.delete(cookie);
    }

    *collect(): Sim<ChangedEntries> {
      yield 1;
      const changed = [...this.changed];
      this.changed.clear();
      const all = this.isAll;
      this.isAll = false;
      return all ? ALL_ENTRIES : changed;
    }

    *close(): Sim<void> {
      yield 1;
    }
  }

  it('leaves alone what somebody took while its last user waited to give it up', () => {
    const bench = makeBench();
    const { host } = bench;
    const registrar = new CountingRegistrar(Number.POSITIVE_INFINITY);
    const options: CacheOptions = { release: 'immediate', budgetBytes: Number.POSITIVE_INFINITY };
    const cache = new RegistrationCache(host.mm, registrar, new ScriptedSource(9), options);
    runOn(
      bench,
      (function* (): Sim<void> {
        const first = yield* cache.acquire(BASE, PAGE, true);
        let second: Lease<number> | undefined;
        function* other(at: number): Sim<void> {
          const lease = yield* cache.acquire(at, PAGE, true);
          if (at === BASE) second = lease;
          else yield* cache.release(lease);
        }
        // One thread is in the cache, another waits for the entry, and then its user gives it up.
        const busy = host.spawn('busy', other(BASE + 8 * PAGE));
        const taker = host.spawn('taker', other(BASE));
        yield* host.sleep(5 * US);
        yield* cache.release(first);
        yield busy.done;
        yield taker.done;
        expect(second?.handle).toBe(first.handle);
        expect(registrar.live.has(first.handle)).toBe(true);
        yield* cache.release(second as Lease<number>);
        expect(registrar.live.size).toBe(0);
        yield* cache.close();
      })(),
    );
  });

  it('never lends memory that has changed, keeps its limits and its users, and leaks nothing', () => {
    const page = fc.nat(11);
    const count = fc.integer({ min: 1, max: 4 });
    const action = fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({
          name: fc.constant('acquire' as const),
          page,
          count,
          writable: fc.boolean(),
        }),
      },
      {
        weight: 4,
        arbitrary: fc.record({
          name: fc.constant('release' as const),
          page,
          count,
          writable: fc.boolean(),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({
          name: fc.constant('change' as const),
          page,
          count,
          writable: fc.boolean(),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          name: fc.constant('lose' as const),
          page,
          count,
          writable: fc.boolean(),
        }),
      },
    );
    fc.assert(
      fc.property(
        fc.array(action, { maxLength: 50 }),
        fc.constantFrom('immediate' as const, 'lazy' as const, 'budget' as const),
        fc.integer({ min: 4, max: 12 }),
        fc.integer({ min: 2, max: 5 }),
        (actions, release, limitPages, watchLimit) => {
          const bench = makeBench();
          const registrar = new CountingRegistrar(limitPages * PAGE);
          const source = new ScriptedSource(watchLimit);
          const budgetBytes = 6 * PAGE;
          const options: CacheOptions = { release, budgetBytes };
          const cache = new RegistrationCache(bench.host.mm, registrar, source, options);
          const leases: { lease: Lease<number>; at: number }[] = [];
          /** When each page changed last, and all of them when events were lost: in steps. */
          const changed = new Map<number, number>();
          const madeAt = new Map<number, number>();
          runOn(
            bench,
            (function* (): Sim<void> {
              for (let step = 1; step <= actions.length; step++) {
                const { name, page: first, count: pages, writable } = actions[step - 1];
                const start = BASE + first * PAGE;
                if (name === 'lose') source.lose();
                if (name === 'change') {
                  source.change(start, start + pages * PAGE);
                  for (let i = first; i < first + pages; i++) changed.set(i, step);
                }
                if (name === 'release') {
                  const [{ lease } = { lease: undefined }] = leases.splice(first % 3, 1);
                  if (lease !== undefined) yield* cache.release(lease);
                }
                if (name === 'acquire') {
                  try {
                    const lease = yield* cache.acquire(start + 5, pages * PAGE - 10, writable);
                    leases.push({ lease, at: step });
                    if (!lease.hit) madeAt.set(lease.handle, step);
                    expect(lease.entry.writable || !writable).toBe(true);
                    const range = registrar.live.get(lease.handle);
                    expect(range).toBeDefined();
                    expect(range?.start).toBeLessThanOrEqual(start + 5);
                    expect(range?.end).toBeGreaterThanOrEqual(start + pages * PAGE - 5);
                    const made = madeAt.get(lease.handle) as number;
                    for (let i = first; i < first + pages; i++) {
                      expect(changed.get(i) ?? 0).toBeLessThanOrEqual(made);
                    }
                  } catch (error) {
                    if (!(error instanceof VerbsError) && !(error instanceof SystemCallError)) {
                      throw error;
                    }
                    expect(error.errno).toBe('ENOMEM');
                    // Only what is in use can be in the way.
                    expect(cache.unusedBytes).toBe(0);
                  }
                }
                for (const { lease } of leases) expect(registrar.live.has(lease.handle)).toBe(true);
                const { registeredBytes } = cache.counters;
                expect(registeredBytes).toBe(registrar.bytes);
                expect(registeredBytes).toBeLessThanOrEqual(limitPages * PAGE);
                if (release === 'budget') expect(registeredBytes).toBeLessThanOrEqual(budgetBytes);
                if (release === 'immediate') expect(cache.unusedBytes).toBe(0);
              }
              for (const { lease } of leases) yield* cache.release(lease);
              yield* cache.close();
            })(),
          );
          expect(registrar.live.size).toBe(0);
          expect(source.watched.size).toBe(0);
        },
      ),
      { numRuns: 150, seed: 16 },
    );
  });
});
