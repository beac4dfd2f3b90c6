import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { MAP_POPULATE } from '../../kernel/mm/address-space.ts';
import { MS, US } from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
describe('address space', () => {
  it('moves the program break both ways', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    mm.setBrk(BASE);
    run(
      (function* (): Sim<void> {
        yield* mm.brk(BASE + 3 * PAGE - 5);
        yield* mm.touch(BASE, 3, true);
        expect(mm.residentBytes).toBe(3 * PAGE);
        yield* mm.brk(BASE + PAGE);
        expect(mm.residentBytes).toBe(PAGE);
        expect(mm.isMapped(BASE, PAGE)).toBe(true);
        expect(mm.isMapped(BASE, PAGE + 1)).toBe(false);
      })(),
    );
    expect(mm.residentPeakBytes).toBe(3 * PAGE);
    host.checkLeaks();
  });

  it('ends the run with a clear failure when the program touches what is not mapped', () => {
    const { host, run } = makeBench();
    expect(() => run(host.mm.touch(BASE, 1, false))).toThrow(/segmentation fault: read of 0x7f/);
  });
});

describe('system calls that go wrong or meet each other', () => {
  it('refuse to move a mapping onto itself, and to move what is mapped only in part', () => {
    const attempt = (to: number, pageCount: number) => () => {
      const { host, run } = makeBench();
      run(
        (function* (): Sim<void> {
          yield* host.mm.mmap(BASE, 4 * PAGE, RW);
          yield* host.mm.mremap(BASE, pageCount * PAGE, to, pageCount * PAGE);
        })(),
      );
    };
    expect(attempt(BASE + 2 * PAGE, 4)).toThrow(
      expect.objectContaining({ code: 'E_OPERATION', message: expect.stringContaining('EINVAL') }),
    );
    expect(attempt(BASE + 64 * PAGE, 5)).toThrow(
      expect.objectContaining({ code: 'E_OPERATION', message: expect.stringContaining('EFAULT') }),
    );
  });

  it('stop populating where another thread has unmapped', () => {
    const { host, run } = makeBench({ cpus: 2 });
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        const populate = host.spawn('populate', mm.mmap(BASE, 200 * PAGE, RW, MAP_POPULATE));
        yield* host.sleep(10 * US);
        yield* mm.munmap(BASE + 100 * PAGE, 100 * PAGE);
        yield populate.done;
        expect(mm.residentBytes).toBe(100 * PAGE);
        yield* mm.mmap(BASE, PAGE, 0, MAP_POPULATE);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});

describe('reclaim', () => {
  it('swaps out what is not pinned, and only that', () => {
    const { host, adapter, run } = makeBench({ memoryBytes: 64 * PAGE });
    const { mm, verbs } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 200 * PAGE, RW);
        yield* mm.fill(BASE, 200 * PAGE, 3);
        const mr = yield* verbs.regMr(1, BASE, 20 * PAGE, 1);
        const odp = yield* verbs.regMr(1, BASE, 200 * PAGE, 1 | 64);
        const before = mm.hash(BASE, 200 * PAGE);
        for (let round = 0; round < 3; round++) yield* mm.touch(BASE, 200, false);
        expect(mm.hash(BASE, 200 * PAGE)).toBe(before);
        const pinned = [...(adapter.tables.get(mr.lkey) as Map<number, number>).entries()];
        for (const [p, entry] of pinned) {
          expect(mm.memory.rmap.pageOf(entry >>> 2)).toBe(BASE / PAGE + p);
          expect(mm.memory.frames.references[entry >>> 2]).toBe(2);
        }
        // Whatever the adapter has of the on-demand region is present in the process.
        for (const [p, entry] of adapter.tables.get(odp.lkey) as Map<number, number>) {
          expect(mm.memory.rmap.pageOf(entry >>> 2)).toBe(BASE / PAGE + p);
        }
        yield* host.sleep(10 * MS);
      })(),
    );
    expect(done).toBe(true);
    const report = host.report();
    expect(report.mm.pswpout).toBeGreaterThan(300);
    expect(report.mm.pgmajfault).toBeGreaterThan(300);
    expect(report.regions[1].counters.page_invalidations).toBeGreaterThan(0);
    expect(report.residentBytesPeak).toBeLessThanOrEqual(64 * PAGE);
    host.checkLeaks();
  });

  it('says that memory is exhausted when everything is pinned', () => {
    const { host, run } = makeBench({ memoryBytes: 64 * PAGE, swapBytes: 0 });
    const { mm, verbs } = host;
    expect(() =>
      run(
        (function* (): Sim<void> {
          yield* mm.mmap(BASE, 100 * PAGE, RW);
          yield* verbs.regMr(1, BASE, 100 * PAGE, 1);
        })(),
      ),
    ).toThrow(/Out of memory: killed process 1 \(a\)/);
  });

  it('drops clean pages without swap', () => {
    const { host, run } = makeBench({ memoryBytes: 64 * PAGE, swapBytes: 0 });
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 500 * PAGE, RW);
        yield* mm.touch(BASE, 500, false);
      })(),
    );
    expect(done).toBe(true);
    expect(host.report().mm.pswpout).toBe(0);
    host.checkLeaks();
  });
});
