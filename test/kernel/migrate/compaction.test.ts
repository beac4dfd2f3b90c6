/** Compaction: free blocks out of scattered pages, and what keeps them from coming about. */
import { describe, expect, it } from 'vitest';
import { type Host, PROT_READ, PROT_WRITE, type Sim } from '../../../kernel/index.ts';
import { HUGE_ORDER } from '../../../kernel/mm/physical/free-lists.ts';
import { ACCESS_LOCAL_WRITE } from '../../../transport/index.ts';
import { BASE, makeBench, PAGE } from '../bench.ts';

const RW = PROT_READ | PROT_WRITE;
const FRAMES = 8192;
const KEPT_EVERY = 4;

/** Fills most of memory, then gives back all but every fourth page: free memory in small pieces. */
function* scatter(host: Host): Sim<number> {
  const { mm } = host;
  const pages = FRAMES - 1024;
  mm.mapAtStart(BASE, pages * PAGE, RW);
  mm.adopt(BASE, pages);
  yield* mm.mmap(BASE + pages * PAGE, 600 * PAGE, RW);
  yield* mm.touch(BASE + pages * PAGE, 600, true);
  for (let page = 0; page < pages; page += KEPT_EVERY) {
    yield* mm.munmap(BASE + (page + 1) * PAGE, (KEPT_EVERY - 1) * PAGE);
  }
  yield* mm.munmap(BASE + pages * PAGE, 600 * PAGE);
  return pages;
}

describe('compaction', () => {
  it('makes huge pages out of scattered free memory, and no byte changes', () => {
    const { host, run } = makeBench({ memoryBytes: FRAMES * PAGE });
    const { mm, ram } = host;
    const { freeLists } = ram.frames;
    const done = run(
      (function* (): Sim<void> {
        const pages = yield* scatter(host);
        for (let page = 0; page < pages; page += KEPT_EVERY) {
          yield* mm.fill(BASE + page * PAGE, PAGE, page + 1);
        }
        const before = mm.hash(BASE, pages * PAGE);
        const free = freeLists.freeCounts[0];
        const blocks = freeLists.blocksOf(0, HUGE_ORDER);
        expect(blocks).toBeLessThan(3);
        expect(yield* ram.compaction.compactNode(0)).toBe('complete');
        expect(freeLists.freeCounts[0]).toBe(free);
        // All but what the scanners met in, and the piece that is no whole block.
        expect(freeLists.blocksOf(0, HUGE_ORDER)).toBeGreaterThan(Math.floor(free / 512) - 3);
        expect(mm.hash(BASE, pages * PAGE)).toBe(before);
      })(),
    );
    expect(done).toBe(true);
    // Where the scanners meet there is nowhere left to go to.
    const { compact_isolated, pgmigrate_success, pgmigrate_fail } = ram.counters;
    expect(compact_isolated).toBe(pgmigrate_success + pgmigrate_fail);
    expect(pgmigrate_fail).toBeLessThanOrEqual(32);
    host.checkLeaks();
  });

  it('stops at the first block that an allocation can use, and says why there was none', () => {
    const { host, run } = makeBench({ memoryBytes: FRAMES * PAGE });
    const { ram } = host;
    const { freeLists } = ram.frames;
    const done = run(
      (function* (): Sim<void> {
        yield* scatter(host);
        while (freeLists.blocksOf(0, HUGE_ORDER) > 0) ram.frames.allocateHuge(0);
        const index = ram.compaction.fragmentationIndex(0, HUGE_ORDER);
        expect(index).toBeGreaterThan(900);
        expect(yield* ram.compaction.forAllocation(0)).toBe('success');
        expect(freeLists.blocksOf(0, HUGE_ORDER)).toBe(1);
        expect(ram.compaction.fragmentationIndex(0, HUGE_ORDER)).toBe(-1000);
      })(),
    );
    expect(done).toBe(true);
    const { compact_stall, compact_success, pgmigrate_success } = ram.counters;
    expect([compact_stall, compact_success]).toEqual([1, 1]);
    // A quarter of one block is used, so about so many pages move.
    expect(pgmigrate_success).toBeLessThan(512);
  });

  it('fails where every block has a pinned page, does not try those, and is deferred', () => {
    const { host, run } = makeBench({ memoryBytes: FRAMES * PAGE });
    const { ram, verbs } = host;
    const { freeLists } = ram.frames;
    const done = run(
      (function* (): Sim<void> {
        const pages = yield* scatter(host);
        while (freeLists.blocksOf(0, HUGE_ORDER) > 0) ram.frames.allocateHuge(0);
        // One page of each 64.
        for (let page = 0; page < pages; page += 64) {
          yield* verbs.regMr(1, BASE + page * PAGE, PAGE, ACCESS_LOCAL_WRITE);
        }
        expect(yield* ram.compaction.forAllocation(0)).toBe('complete');
        expect(freeLists.blocksOf(0, HUGE_ORDER)).toBe(0);
        expect(yield* ram.compaction.forAllocation(0)).toBe('skipped');
        expect(yield* ram.compaction.forAllocation(0)).toBe('complete');
      })(),
    );
    expect(done).toBe(true);
    const { compact_stall, compact_fail, pgmigrate_fail } = ram.counters;
    expect([compact_stall, compact_fail]).toEqual([2, 2]);
    // A cluster where the scanners meet, each time; no pinned page is among them.
    expect(pgmigrate_fail).toBeLessThanOrEqual(64);
  });

  it('does not begin without free memory to move to', () => {
    const { host, run } = makeBench({ memoryBytes: 2048 * PAGE });
    const { mm, ram } = host;
    run(
      (function* (): Sim<void> {
        mm.mapAtStart(BASE, 1800 * PAGE, RW);
        mm.adopt(BASE, 1800);
        expect(yield* ram.compaction.forAllocation(0)).toBe('skipped');
      })(),
    );
    expect(ram.counters.compact_stall).toBe(0);
  });
});
