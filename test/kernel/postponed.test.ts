import { describe, expect, it } from 'vitest';
import {
  batchingPolicy,
  type HostConfig,
  immediatePolicy,
  type MemoryRegion,
  type PostponedPolicy,
  PostponedUmem,
  PROT_READ,
  PROT_WRITE,
  type Sim,
} from '../../kernel/index.ts';
import { CAUSE_MIGRATE, CAUSE_SWAP, CAUSE_UNMAP } from '../../kernel/mm/notify/invalidation.ts';
import { FRAME_DIRTY } from '../../kernel/mm/physical/frames.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_READ,
  ACCESS_WRITE,
  MS,
  RandomStream,
  US,
} from '../../transport/index.ts';
import { BASE, type Bench, makeBench, PAGE } from './bench.ts';

/** A storm of these seeds; more of them with SEEDS, from SEED on. */
const FIRST_SEED = Number(process.env.SEED ?? 1);
const SEEDS = Number(process.env.SEEDS ?? 25);
const RW = PROT_READ | PROT_WRITE;
const ACCESS = ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND;

interface Stage extends Bench {
  readonly region: MemoryRegion;
  readonly umem: PostponedUmem;
  /** The adapter's page table: page of the region to entry. */
  readonly table: Map<number, number>;
}

/** A region of the 2011 prototype over `count` pages that the program has written. */
function withRegion(
  policy: PostponedPolicy,
  count: number,
  story: (stage: Stage) => Sim<void>,
  config: Partial<HostConfig> = {},
): void {
  const bench = makeBench({ postponed: policy, ...config });
  const { host, adapter } = bench;
  const done = bench.run(
    (function* (): Sim<void> {
      yield* host.mm.mmap(BASE, count * PAGE, RW);
      yield* host.mm.touch(BASE, count, true);
      const region = yield* host.verbs.regMr(1, BASE, count * PAGE, ACCESS);
      const table = adapter.tables.get(region.lkey) as Map<number, number>;
      const umem = region.odp;
      if (!(umem instanceof PostponedUmem)) throw new Error('another umem');
      yield* story({ ...bench, region, umem, table });
      if (region.registered) yield* host.verbs.deregMr(region);
      expect(host.mm.notifiers.references.count).toBe(0);
    })(),
  );
  expect(done, host.scheduler.unfinished().join()).toBe(true);
  host.checkLeaks();
}

/** Lets reclaim have `count` frames by touching other memory. */
function* squeeze({ host }: Stage, count: number): Sim<void> {
  yield* host.mm.mmap(BASE + 2 ** 20 * PAGE, count * PAGE, RW);
  yield* host.mm.touch(BASE + 2 ** 20 * PAGE, count, true);
}

describe('regions of the 2011 prototype', () => {
  it('flush the hardware inside munmap, once for the whole range', () => {
    withRegion(immediatePolicy, 8, function* ({ host, umem, table }) {
      const start = host.node.now;
      expect(table.size).toBe(8);
      yield* host.mm.munmap(BASE + 2 * PAGE, 4 * PAGE);
      expect(host.node.now - start).toBeGreaterThanOrEqual(immediatePolicy.deviceFlushPs);
      expect([...table.keys()]).toEqual([0, 1, 6, 7]);
      expect(umem.postponedCounters).toMatchObject({ flushes: 1, postponed: 0 });
    });
  });

  it('batch what reclaim takes: fewer flushes, less time, the same bytes afterwards', () => {
    const spent = [immediatePolicy, batchingPolicy].map((policy) => {
      let result = { flushes: 0, ps: 0 };
      withRegion(
        policy,
        96,
        function* (stage) {
          const { host, umem, table } = stage;
          const { mm } = host;
          yield* mm.fill(BASE, 96 * PAGE, 7);
          const hash = mm.hash(BASE, 96 * PAGE);
          const start = host.node.now;
          yield* squeeze(stage, 96);
          const ps = host.node.now - start;
          yield* host.sleep(100 * MS);
          expect(mm.memory.counters.pswpout).toBeGreaterThan(16);
          // What the adapter still has is what the process still has.
          for (const [page, entry] of table) {
            expect(mm.pages.followPage(BASE / PAGE + page, false)).toBe(entry >>> 2);
          }
          expect(mm.hash(BASE, 96 * PAGE)).toBe(hash);
          expect(umem.postponedCounters.lateWrites).toBe(0);
          expect(mm.notifiers.references.wronglyPostponed).toBe(0);
          result = { flushes: umem.postponedCounters.flushes, ps };
        },
        { memoryBytes: 128 * PAGE },
      );
      return result;
    });
    const [immediate, batched] = spent;
    expect(batched.flushes * 4).toBeLessThan(immediate.flushes);
    expect(batched.ps * 2).toBeLessThan(immediate.ps);
  });

  it('flush at once what is unmapped while it waits', () => {
    const policy = { ...batchingPolicy, batchPs: 1000 * MS };
    withRegion(policy, 4, function* ({ host, umem, table }) {
      const { notifiers } = host.mm;
      const range = yield* notifiers.begin(BASE, BASE + 2 * PAGE, CAUSE_SWAP);
      yield* notifiers.end(range);
      expect([umem.postponedCounters.postponed, table.size]).toEqual([2, 4]);
      yield* host.mm.munmap(BASE + PAGE, PAGE);
      expect([...table.keys()]).toEqual([0, 2, 3]);
      expect(umem.postponedCounters.flushes).toBe(1);
      // The other is flushed when its batch is due, and finds only itself.
      yield* host.sleep(2000 * MS);
      expect([...table.keys()]).toEqual([2, 3]);
      expect(umem.postponedCounters.flushes).toBe(2);
    });
  });

  it('let the adapter write into a page that the program has unmapped, if unmapping is postponed', () => {
    const policy: PostponedPolicy = { ...batchingPolicy, postpone: [CAUSE_SWAP, CAUSE_UNMAP] };
    withRegion(policy, 4, function* ({ host, adapter, umem, table }) {
      const { mm } = host;
      const frame = (table.get(1) as number) >>> 2;
      yield* mm.munmap(BASE + PAGE, PAGE);
      yield* mm.mmap(BASE + PAGE, PAGE, RW);
      expect((table.get(1) as number) >>> 2).toBe(frame);
      adapter.dmaWrite(frame, 0, 0, new Uint8Array(16).fill(5));
      yield* host.sleep(1 * MS);
      // The message has arrived, and nobody will ever see it.
      expect([...mm.read(BASE + PAGE, 16)]).toEqual(new Array(16).fill(0));
      expect(mm.memory.frames.references[frame]).toBe(1);
      yield* host.sleep(50 * MS);
      expect(mm.memory.frames.references[frame]).toBe(0);
      expect(umem.postponedCounters).toMatchObject({ flushes: 1, lateWrites: 1 });
      expect(mm.notifiers.references.wronglyPostponed).toBe(1);
    });
  });

  it('flush the old page before the adapter gets another at the same address', () => {
    const policy: PostponedPolicy = {
      ...batchingPolicy,
      postpone: [CAUSE_UNMAP],
      batchPs: 1000 * MS,
    };
    withRegion(policy, 4, function* ({ host, adapter, region, umem, table }) {
      const { mm } = host;
      const old = (table.get(1) as number) >>> 2;
      yield* mm.munmap(BASE + PAGE, PAGE);
      yield* mm.mmap(BASE + PAGE, PAGE, RW);
      adapter.fault(region.lkey, BASE + PAGE, PAGE, ACCESS_WRITE);
      yield* host.sleep(50 * MS);
      expect(mm.pages.followPage(BASE / PAGE + 1, true)).toBe((table.get(1) as number) >>> 2);
      expect(umem.postponedCounters.flushes).toBe(1);
      expect(mm.memory.frames.references[old]).toBe(0);
    });
  });

  it('refuse what may be refused: the page stays, and the caller is told', () => {
    const refuse = [CAUSE_SWAP, CAUSE_MIGRATE] as const;
    const policy: PostponedPolicy = { ...immediatePolicy, refuse };
    withRegion(policy, 4, function* ({ host, umem, table }) {
      const { notifiers } = host.mm;
      for (const cause of refuse) {
        const range = yield* notifiers.begin(BASE, BASE + PAGE, cause);
        expect(range.refused).toBe(true);
        yield* notifiers.end(range);
      }
      expect([umem.postponedCounters.refused, table.size]).toEqual([2, 4]);
      const elsewhere = yield* notifiers.begin(BASE + 64 * PAGE, BASE + 65 * PAGE, CAUSE_SWAP);
      expect(elsewhere.refused).toBe(false);
      yield* notifiers.end(elsewhere);
      yield* host.mm.munmap(BASE, PAGE);
      expect(table.size).toBe(3);
    });
    const wrong: PostponedPolicy = { ...immediatePolicy, refuse: [CAUSE_UNMAP] };
    expect(() => withRegion(wrong, 1, function* () {})).toThrow(/only swap and migration/);
  });

  it('let go of everything with one flush when the process ends', () => {
    const bench = makeBench({ postponed: { ...batchingPolicy, batchPs: 1000 * MS } });
    const { host, adapter } = bench;
    const done = bench.run(
      (function* (): Sim<void> {
        const process = host.createProcess('short');
        const { mm, verbs } = process;
        yield* mm.mmap(BASE, 8 * PAGE, RW);
        yield* mm.touch(BASE, 8, true);
        const pd = yield* verbs.allocPd();
        const region = yield* verbs.regMr(pd, BASE, 8 * PAGE, ACCESS);
        const umem = region.odp as PostponedUmem;
        const range = yield* mm.notifiers.begin(BASE, BASE + 2 * PAGE, CAUSE_SWAP);
        yield* mm.notifiers.end(range);
        yield* process.exit();
        expect(umem.postponedCounters).toMatchObject({ postponed: 2, flushes: 1, lateWrites: 0 });
        expect(adapter.tables.size).toBe(0);
      })(),
    );
    expect(done, host.scheduler.unfinished().join()).toBe(true);
    host.checkLeaks();
  });

  it('survive a storm of faults, system calls and reclaim: no entry outlives its page', () => {
    const policies = [immediatePolicy, batchingPolicy];
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
      const random = new RandomStream(seed, 'test', 'storm');
      const basis = policies[random.below(2)];
      const policy = { ...basis, deviceFlushPs: 200 * US, batchPs: basis.batchPs / 20 };
      const span = 64;
      withRegion(
        { ...policy, batchPages: Math.min(policy.batchPages, 1 + random.below(16)) },
        span,
        function* ({ host, adapter, region, table }) {
          const { mm } = host;
          const { frames } = mm.memory;
          const freed = frames.onFree;
          frames.onFree = (frame) => {
            for (const entry of table.values()) {
              if (entry >>> 2 === frame) throw new Error(`frame ${frame} is freed too early`);
            }
            freed(frame);
          };
          const faulting = host.spawn(
            'adapter',
            (function* (): Sim<void> {
              for (let i = 0; i < 60; i++) {
                const at = BASE + random.below(span - 4) * PAGE;
                const access = random.chance(500_000) ? ACCESS_WRITE : ACCESS_READ;
                adapter.fault(region.lkey, at, 1 + random.below(3 * PAGE), access);
                yield* host.sleep(random.below(100 * US));
              }
            })(),
          );
          for (let i = 0; i < 40; i++) {
            const page = random.below(span);
            const count = 1 + random.below(Math.min(span - page, 24));
            const at = BASE + page * PAGE;
            switch (random.below(6)) {
              case 0:
                yield* mm.munmap(at, count * PAGE);
                for (let p = page; p < page + count; p++) expect(table.has(p)).toBe(false);
                yield* mm.mmap(at, count * PAGE, RW);
                break;
              case 1:
                yield* mm.mprotect(at, count * PAGE, PROT_READ);
                yield* mm.mprotect(at, count * PAGE, RW);
                break;
              default:
                yield* mm.touch(at, count, random.chance(700_000));
            }
            yield* host.sleep(random.below(100 * US));
          }
          yield faulting.done;
          yield* host.sleep(100 * MS);
          expect(adapter.resumes.length, `seed ${seed}`).toBe(60);
          expect(region.pagesMapped).toBe(table.size);
          const writable: number[] = [];
          for (const [page, entry] of table) {
            expect(mm.pages.followPage(BASE / PAGE + page, false)).toBe(entry >>> 2);
            if ((entry & 2) !== 0) writable.push(entry >>> 2);
          }
          yield* host.verbs.deregMr(region);
          for (const frame of writable) expect(frames.flags[frame] & FRAME_DIRTY).not.toBe(0);
        },
        { memoryBytes: (random.chance(700_000) ? 40 : 200) * PAGE, seed },
      );
    }
  }, 3_600_000);
});
