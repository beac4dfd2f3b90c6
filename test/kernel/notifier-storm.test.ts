/**
 * Notifiers in the thick of it: clients that come and go, invalidations that nest, lookups that race with
 * them, and drivers on a process that is short of memory. The checks are made from outside: what a driver's
 * table says against the page table of the process, and what happened between the two ends of a lookup.
 * More of it: SEEDS=2000 npx vitest run test/kernel/notifier-storm.test.ts
 */
import { of } from 'rxjs';
import { describe, expect, it } from 'vitest';
import type { Skeleton } from '../../kernel/clients/skeleton.ts';
import { SkeletonV7 } from '../../kernel/clients/skeleton-v7.ts';
import {
  type AddressSpace,
  MADV_DONTNEED,
  MAP_SHARED,
  movePages,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  SystemCallError,
  type Thread,
} from '../../kernel/index.ts';
import type {
  IntervalOps,
  IntervalSubscription,
} from '../../kernel/mm/notify/interval-notifier.ts';
import { CAUSE_CLEAR, CAUSE_SWAP, type Invalidation } from '../../kernel/mm/notify/invalidation.ts';
import { threadStream } from '../../kernel/rx/thread-stream.ts';
import { SignalError } from '../../kernel/signal.ts';
import { MS, NS, RandomStream, US } from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const FIRST_SEED = Number(process.env.SEED ?? 1);
const SEEDS = Number(process.env.SEEDS ?? 10);
const seeds = Array.from({ length: SEEDS }, (_, i) => FIRST_SEED + i);
const SPAN = 32;

describe('interval notifiers under a storm', () => {
  it.each(seeds)('never let a lookup miss an invalidation (seed %i)', (seed) => {
    const { host, adapter } = makeBench({ cpus: 4 });
    const { notifiers } = host.mm;
    const { intervals } = notifiers;
    const random = new RandomStream(seed, 'test', 'intervals');
    /** Ranges between the return of begin and the call of end, and every begin so far, in order. */
    const open = new Set<Invalidation>();
    const begun: { readonly range: Invalidation; readonly atPs: number }[] = [];
    let lookups = 0;
    let retries = 0;

    function* changer(): Sim<void> {
      for (let i = 0; i < 30; i++) {
        const first = random.below(SPAN);
        const [start, end] = [first * PAGE, (first + 1 + random.below(6)) * PAGE];
        const range = yield* notifiers.begin(start, end, CAUSE_CLEAR);
        begun.push({ range, atPs: host.node.now });
        open.add(range);
        yield* host.sleep(random.below(3 * US));
        if (random.chance(300_000)) {
          const inner = yield* notifiers.begin(start, start + PAGE, CAUSE_SWAP);
          yield* host.sleep(random.below(1 * US));
          yield* notifiers.end(inner);
        }
        open.delete(range);
        yield* notifiers.end(range);
        yield* host.sleep(random.below(4 * US));
      }
    }

    function* driver(): Sim<void> {
      for (let life = 0; life < 5; life++) {
        const first = random.below(SPAN);
        const [start, end] = [first * PAGE, (first + 1 + random.below(8)) * PAGE];
        let isSubscribed = true;
        const ops: IntervalOps = {
          invalidate(range, sequence) {
            expect(isSubscribed).toBe(true);
            expect(range.start < end && start < range.end).toBe(true);
            if (random.chance(500_000)) {
              subscription.setSequence(sequence);
              return of();
            }
            return threadStream(host.scheduler, 'flush', function* () {
              yield* host.sleep(random.below(2 * US));
              subscription.setSequence(sequence);
            });
          },
        };
        const subscription: IntervalSubscription = intervals.subscribe(start, end, ops);
        for (let i = 0; i < 8; i++) {
          const sequence = yield* intervals.readBegin(subscription);
          const fromPs = host.node.now;
          yield* host.sleep(random.below(2 * US));
          lookups++;
          if (intervals.readRetry(subscription, sequence)) retries++;
          else {
            const overlaps = (range: Invalidation) => range.start < end && start < range.end;
            // Valid: nothing that overlaps has begun since, and nothing is going on now.
            expect([...open].filter(overlaps)).toEqual([]);
            expect(begun.filter(({ range, atPs }) => overlaps(range) && atPs > fromPs)).toEqual([]);
          }
        }
        yield* intervals.unsubscribe(subscription);
        isSubscribed = false;
      }
    }

    const threads: Thread[] = [];
    for (let i = 0; i < 3; i++) threads.push(host.spawn(`changer ${i}`, changer()));
    for (let i = 0; i < 6; i++) threads.push(host.spawn(`driver ${i}`, driver()));
    adapter.run(host);
    expect(threads.filter(({ done }) => !done.done)).toEqual([]);
    expect(lookups).toBe(6 * 5 * 8);
    expect(retries).toBeLessThan(lookups);
    host.checkLeaks();
  });
});

/** A process that changes all the time, with drivers that map pages of it; returns what the drivers did. */
function storm(
  make: (mm: AddressSpace) => Skeleton,
  seed: number,
): { inserted: number; zapped: number } {
  const { host, adapter } = makeBench({ memoryBytes: 192 * PAGE, memoryNodes: 2, cpus: 4 });
  const { mm, ram } = host;
  const random = new RandomStream(seed, 'test', 'drivers');
  const totals = { inserted: 0, zapped: 0 };
  const drivers: Skeleton[] = [];
  let isOver = false;
  const addressOf = (page: number): number => BASE + page * PAGE;

  /** At any moment: what a driver has is what the process has there. */
  function check(): void {
    for (const skeleton of drivers) {
      for (let page = 0; page < SPAN; page++) {
        const frame = skeleton.access(addressOf(page), false);
        if (frame < 0) continue;
        const mapped = mm.pages.followPage(addressOf(page) / PAGE, false);
        if (frame !== mapped) throw new Error(`${skeleton.name}: ${frame} for ${mapped}`);
      }
    }
  }

  function* program(): Sim<void> {
    for (let i = 0; i < 60; i++) {
      try {
        yield* change();
      } catch (error) {
        // The other program has unmapped it, or made it read-only.
        if (!(error instanceof SignalError) && !(error instanceof SystemCallError)) throw error;
      }
      check();
      yield* host.sleep(random.below(20 * US));
    }
  }

  function* change(): Sim<void> {
    const page = random.below(SPAN);
    const count = 1 + random.below(SPAN - page);
    const [at, length] = [addressOf(page), count * PAGE];
    switch (random.below(9)) {
      case 0:
        yield* mm.munmap(at, length);
        yield* mm.mmap(at, length, RW, random.chance(300_000) ? MAP_SHARED : 0);
        break;
      case 1:
        yield* mm.madvise(at, length, MADV_DONTNEED);
        break;
      case 2:
        yield* mm.mprotect(at, length, PROT_READ);
        yield* mm.mprotect(at, length, RW);
        break;
      case 3: {
        const child = yield* mm.fork('child');
        try {
          yield* child.touch(at, count, true);
        } finally {
          yield* child.exit();
        }
        break;
      }
      case 4:
        yield* ram.reclaim.shrink(16);
        break;
      case 5:
        yield* movePages(mm.state, [at], [random.below(2)]);
        break;
      default:
        yield* mm.touch(at, count, random.chance(700_000));
    }
  }

  function* driver(): Sim<void> {
    const skeleton = make(mm);
    yield* mm.notifiers.attach(skeleton);
    drivers.push(skeleton);
    while (!isOver) {
      const address = addressOf(random.below(SPAN));
      yield* skeleton.populate(address, random.chance(300_000), random.chance(500_000));
      check();
      skeleton.access(address, true);
      yield random.below(2000) * NS;
      if (random.chance(300_000)) yield* host.sleep(random.below(50 * US));
    }
    yield* mm.notifiers.detach(skeleton);
    totals.inserted += skeleton.inserted;
    totals.zapped += skeleton.zapped;
  }

  host.spawn(
    'main',
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, SPAN * PAGE, RW);
      const working = [driver(), driver()].map((body, i) => host.spawn(`driver ${i}`, body));
      yield* host.sleep(3 * ram.costs.gracePeriodPs);
      const programs = [program(), program()].map((body, i) => host.spawn(`program ${i}`, body));
      for (const thread of programs) yield thread.done;
      isOver = true;
      for (const thread of working) yield thread.done;
    })(),
  );
  adapter.run(host, 2000 * MS);
  expect(host.scheduler.unfinished().filter((name) => !name.startsWith('kswapd'))).toEqual([]);
  host.checkLeaks();
  return totals;
}

describe('drivers on a process that is short of memory', () => {
  it.each(seeds)('have what the process has, at any moment (V7, seed %i)', (seed) => {
    const { inserted, zapped } = storm((mm) => new SkeletonV7(mm), seed);
    expect(inserted).toBeGreaterThan(20);
    expect(zapped).toBe(inserted);
  });
});
