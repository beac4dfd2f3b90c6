/** Huge pages: transparent ones and those of the pool, and when they are split. */
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { MADV_HUGEPAGE } from '../../kernel/mm/calls/advice.ts';
import { MAP_HUGETLB, MAP_SHARED } from '../../kernel/mm/calls/mapping-calls.ts';
import { PageRun } from '../../kernel/mm/fault/user-pages.ts';
import { FRAME_HUGE } from '../../kernel/mm/physical/frames.ts';
import { pteNumber } from '../../kernel/mm/virtual/page-table.ts';
import { MS } from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const HUGE = 512 * PAGE;
const FIRST = BASE / PAGE;
/** Frames for a few huge pages, and a pool. */
const big = { memoryBytes: 8192 * PAGE, swapBytes: 4096 * PAGE };

describe('a transparent huge page', () => {
  it('answers one fault for 512 pages, and is split where a part goes its own way', () => {
    const { host, run } = makeBench(big);
    const { mm } = host;
    const { frames, counters } = mm.memory;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 3 * HUGE, RW);
        yield* mm.madvise(BASE, 3 * HUGE, MADV_HUGEPAGE);
        yield* mm.fill(BASE, 3 * HUGE, 5);
        expect(counters.pgfault).toBe(3);
        const { table } = mm.state;
        expect(table.getHuge(FIRST)).not.toBe(0);
        const before = mm.hash(BASE + PAGE, 3 * HUGE - 2 * PAGE);
        // munmap of a part, mprotect of a part, mremap by an odd distance.
        yield* mm.munmap(BASE, PAGE);
        expect(table.getHuge(FIRST + 1)).toBe(0);
        yield* mm.mprotect(BASE + HUGE + 7 * PAGE, 3 * PAGE, PROT_READ);
        expect(table.getHuge(FIRST + 512)).toBe(0);
        yield* mm.mremap(BASE + 2 * HUGE, HUGE, BASE + 8 * HUGE + PAGE, HUGE);
        expect(table.getHuge(FIRST + 8 * 512 + 1)).toBe(0);
        yield* mm.mremap(BASE + 8 * HUGE + PAGE, HUGE, BASE + 2 * HUGE, HUGE);
        yield* mm.munmap(BASE + 3 * HUGE - PAGE, PAGE);
        expect(mm.hash(BASE + PAGE, 3 * HUGE - 2 * PAGE)).toBe(before);
        let huge = 0;
        for (let frame = 0; frame < frames.count; frame++)
          if (frames.flags[frame] & FRAME_HUGE) huge++;
        expect(huge).toBe(0);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('moves as a whole, is shared by fork, and is copied page by page where it is written', () => {
    const { host, run } = makeBench(big);
    const { mm } = host;
    const { frames } = mm.memory;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 2 * HUGE, RW);
        yield* mm.madvise(BASE, 2 * HUGE, MADV_HUGEPAGE);
        yield* mm.fill(BASE, 2 * HUGE, 6);
        const before = mm.hash(BASE, 2 * HUGE);
        const free = frames.freeCount;
        const child = yield* mm.fork('child');
        expect(frames.freeCount).toBe(free);
        yield* child.mremap(BASE, 2 * HUGE, BASE + 16 * HUGE, 2 * HUGE);
        expect(child.state.table.getHuge(FIRST + 16 * 512)).not.toBe(0);
        yield* mm.write(BASE + 100 * PAGE, Uint8Array.of(1, 2));
        expect(frames.freeCount).toBe(free - 1);
        expect(mm.state.table.getHuge(FIRST)).toBe(0);
        expect(mm.state.table.getHuge(FIRST + 512)).not.toBe(0);
        expect(child.hash(BASE + 16 * HUGE, 2 * HUGE)).toBe(before);
        yield* child.write(BASE + 16 * HUGE + 300 * PAGE, Uint8Array.of(9));
        expect(mm.read(BASE + 300 * PAGE, 1)[0]).not.toBe(9);
        host.checkLeaks();
        yield* child.exit();
        yield* mm.fill(BASE, 2 * HUGE, 6);
        expect(mm.hash(BASE, 2 * HUGE)).toBe(before);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('stays one page while it is pinned, though it is mapped in pieces', () => {
    const { host, run } = makeBench(big);
    const { mm } = host;
    const { frames } = mm.memory;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, HUGE, RW);
        yield* mm.madvise(BASE, HUGE, MADV_HUGEPAGE);
        const out = new Int32Array(20);
        expect(yield* mm.pages.pin(FIRST + 10, 20, true, out, 0)).toBe(20);
        expect(out[19]).toBe((out[0] as number) + 19);
        const run20 = new PageRun(20);
        expect(yield* mm.pages.faultRange(FIRST + 10, true, run20)).toBe(true);
        expect([...run20.frames]).toEqual([...out]);
        expect(yield* mm.pages.snapshot(FIRST + 10, run20)).toBe(20);
        expect(mm.pages.followPage(FIRST + 12, true)).toBe(out[2]);
        const free = frames.freeCount;
        yield* mm.munmap(BASE, 15 * PAGE);
        expect(frames.flags[out[0] as number] & FRAME_HUGE).toBe(FRAME_HUGE);
        expect(frames.freeCount).toBe(free);
        host.checkLeaks();
        yield* mm.fill(BASE + 15 * PAGE, 497 * PAGE, 3);
        mm.pages.unpin(out, 20, true);
        yield* mm.munmap(BASE, HUGE);
        expect(frames.freeCount).toBe(free + 512);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('is an ordinary page where no 2 MiB are free, and can be swapped', () => {
    const { host, run } = makeBench({ memoryBytes: 1200 * PAGE, swapBytes: 4096 * PAGE });
    const { mm } = host;
    const { counters } = mm.memory;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 4 * HUGE, RW);
        yield* mm.madvise(BASE, 4 * HUGE, MADV_HUGEPAGE);
        yield* mm.fill(BASE, 4 * HUGE, 8);
        expect(counters.pgfault).toBeGreaterThan(600);
        expect(counters.pswpout).toBeGreaterThan(500);
        const before = mm.hash(BASE, 4 * HUGE);
        yield* mm.touch(BASE, 4 * 512, false);
        expect(mm.hash(BASE, 4 * HUGE)).toBe(before);
        yield* host.sleep(50 * MS);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});

describe('the pool of huge pages', () => {
  const pool = { ...big, mm: { hugePages: 4 } };

  it('is promised by mmap, taken by faults, never swapped, and given back', () => {
    const { host, run } = makeBench(pool);
    const { mm } = host;
    const { hugePool } = mm.memory;
    const log: string[] = [];
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 3 * HUGE, RW, MAP_HUGETLB);
        expect([hugePool.free, hugePool.reserved]).toEqual([4, 3]);
        yield* mm.fill(BASE, 2 * HUGE, 2);
        expect([hugePool.free, hugePool.reserved]).toEqual([2, 1]);
        yield* mm.memory.reclaim.shrink(100);
        expect(mm.residentBytes).toBe(2 * HUGE);
        yield* mm.notifiers.attach({
          name: 'recorder',
          // biome-ignore lint/correctness/useYield: takes no time
          *invalidateRangeBegin({ cause, atomic }): Sim<void> {
            log.push(`${cause} ${atomic}`);
          },
        });
        yield* mm.munmap(BASE + HUGE, 2 * HUGE);
        expect(log).toEqual(['unmap false', 'unmap true']);
        expect([hugePool.free, hugePool.reserved]).toEqual([3, 0]);
        expect(mm.hash(BASE, HUGE)).not.toBe(mm.hash(BASE + 4 * HUGE, HUGE));
        host.checkLeaks();
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('keeps what it has promised, also from a child that has to copy', () => {
    const { host, run } = makeBench({ ...big, mm: { hugePages: 2 } });
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, HUGE, RW, MAP_HUGETLB);
        yield* mm.write(BASE, Uint8Array.of(1));
        // The second page of the pool is promised, and not yet taken.
        yield* mm.mmap(BASE + HUGE, HUGE, RW, MAP_HUGETLB);
        const child = yield* mm.fork('child');
        let signal = '';
        try {
          yield* child.write(BASE, Uint8Array.of(2));
        } catch (error) {
          signal = (error as { signal: string }).signal;
        }
        expect(signal).toBe('SIGBUS');
        yield* mm.write(BASE + HUGE, Uint8Array.of(3));
        expect(mm.read(BASE + HUGE, 1)).toEqual(Uint8Array.of(3));
        yield* child.exit();
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('copies a whole huge page after fork, and ends a process that finds none left', () => {
    const { host, run } = makeBench(pool);
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 2 * HUGE, RW, MAP_HUGETLB);
        yield* mm.fill(BASE, 2 * HUGE, 2);
        const before = mm.hash(BASE, 2 * HUGE);
        const child = yield* mm.fork('child');
        yield* child.write(BASE + 5 * PAGE, Uint8Array.of(1));
        yield* child.write(BASE + HUGE, Uint8Array.of(1));
        expect(mm.hash(BASE, 2 * HUGE)).toBe(before);
        const third = yield* child.fork('third');
        let signal: unknown;
        try {
          yield* third.write(BASE, Uint8Array.of(1));
        } catch (error) {
          signal = (error as { signal?: string }).signal;
        }
        expect(signal).toBe('SIGBUS');
        yield* third.exit();
        yield* child.exit();
        yield* mm.write(BASE, Uint8Array.of(1));
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('is shared by processes that map the same', () => {
    const { host, run } = makeBench(pool);
    const { mm } = host;
    const { hugePool } = mm.memory;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 2 * HUGE, RW, MAP_HUGETLB | MAP_SHARED);
        const child = yield* mm.fork('child');
        yield* child.fill(BASE, 2 * HUGE, 3);
        yield* mm.touch(BASE, 1024, true);
        expect(mm.hash(BASE, 2 * HUGE)).toBe(child.hash(BASE, 2 * HUGE));
        expect(hugePool.free).toBe(2);
        const out = new Int32Array(1);
        yield* mm.pages.pin(FIRST + 3, 1, true, out, 0);
        expect(out[0]).toBe(pteNumber(child.state.table.get(FIRST + 3)));
        yield* mm.exit();
        yield* child.exit();
        // The adapter still has a page.
        expect([hugePool.free, hugePool.reserved]).toEqual([3, 0]);
        mm.pages.unpin(out, 1, false);
        expect(hugePool.free).toBe(4);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});
