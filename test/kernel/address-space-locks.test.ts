/** Locked memory, stacks, and memory of drivers. */
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { MADV_FREE } from '../../kernel/mm/calls/advice.ts';
import { MCL_CURRENT, MCL_FUTURE } from '../../kernel/mm/calls/lock-calls.ts';
import { MAP_GROWSDOWN, MAP_LOCKED, MAP_SHARED } from '../../kernel/mm/calls/mapping-calls.ts';
import { migratePages } from '../../kernel/mm/migrate/move-pages.ts';
import { FRAME_UNEVICTABLE, ORIGIN_LOCK } from '../../kernel/mm/physical/frames.ts';
import { LRU_UNEVICTABLE } from '../../kernel/mm/physical/lru.ts';
import { PTE_PRESENT, PTE_WRITE, pteNumber } from '../../kernel/mm/virtual/page-table.ts';
import { NS } from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const FIRST = BASE / PAGE;

describe('locked memory', () => {
  it('is present at once, stays while others are swapped, and is ordinary again after munlock', () => {
    const { host, run } = makeBench({ memoryBytes: 64 * PAGE });
    const { mm } = host;
    const { lru, frames } = mm.memory;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 100 * PAGE, RW);
        yield* mm.mlock(BASE + 10, 20 * PAGE - 20);
        expect(mm.state.lockedPages).toBe(20);
        expect(mm.residentBytes).toBe(20 * PAGE);
        expect(lru.total(LRU_UNEVICTABLE)).toBe(20);
        expect(frames.origins[pteNumber(mm.state.table.get(FIRST))]).toBe(ORIGIN_LOCK);
        yield* mm.fill(BASE, 20 * PAGE, 4);
        yield* mm.touch(BASE + 20 * PAGE, 80, true);
        for (let page = FIRST; page < FIRST + 20; page++) {
          expect(mm.state.table.get(page) & PTE_PRESENT).toBe(PTE_PRESENT);
        }
        yield* mm.munmap(BASE, 5 * PAGE);
        yield* mm.munlock(BASE + 5 * PAGE, 10 * PAGE);
        expect([mm.state.lockedPages, lru.total(LRU_UNEVICTABLE)]).toEqual([5, 5]);
        yield* mm.touch(BASE + 20 * PAGE, 80, true);
        expect(mm.residency().length).toBeGreaterThan(0);
        yield* mm.munlockall();
        expect(lru.total(LRU_UNEVICTABLE)).toBe(0);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('can be everything there is and will be, is not inherited, and is left by shared pages last', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const { frames } = mm.memory;
    const done = run(
      (function* (): Sim<void> {
        mm.setBrk(BASE + 64 * PAGE, BASE + 64 * PAGE);
        yield* mm.mmap(BASE, 4 * PAGE, RW, MAP_SHARED);
        yield* mm.mlockall(MCL_CURRENT | MCL_FUTURE);
        yield* mm.mmap(BASE + 8 * PAGE, 2 * PAGE, RW);
        yield* mm.brk(BASE + 66 * PAGE);
        expect(mm.state.lockedPages).toBe(8);
        expect(mm.residentBytes).toBe(8 * PAGE);
        const child = yield* mm.fork('child');
        expect(child.state.lockedPages).toBe(0);
        yield* child.mlock(BASE, PAGE);
        const frame = pteNumber(child.state.table.get(FIRST));
        yield* mm.munlockall();
        expect(frames.flags[frame] & FRAME_UNEVICTABLE).toBe(FRAME_UNEVICTABLE);
        yield* child.exit();
        expect(frames.flags[frame] & FRAME_UNEVICTABLE).toBe(0);
        yield* mm.mmap(BASE + 20 * PAGE, 2 * PAGE, RW, MAP_LOCKED);
        yield* mm.mremap(BASE + 20 * PAGE, 2 * PAGE, BASE + 30 * PAGE, 4 * PAGE);
        expect([mm.state.lockedPages, mm.residentBytes / PAGE]).toEqual([4, 12]);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});

describe('memory that is locked or unlocked while it migrates', () => {
  it('is what the last call said', () => {
    const { host, run } = makeBench({ cpus: 2, memoryNodes: 2, memoryBytes: 2048 * PAGE });
    const { mm, ram } = host;
    const done = run(
      (function* (): Sim<void> {
        for (let delay = 0; delay < 80; delay++) {
          const isLocked = delay % 2 === 0;
          yield* mm.mmap(BASE, PAGE, RW, isLocked ? 0 : MAP_LOCKED);
          yield* mm.touch(BASE, 1, true);
          const moving = host.spawn('moving', migratePages(mm.state, 0, 1));
          yield* host.sleep(delay * 50 * NS);
          yield* isLocked ? mm.mlock(BASE, PAGE) : mm.munlock(BASE, PAGE);
          yield moving.done;
          const frame = mm.pages.followPage(FIRST, false);
          const isUnevictable = (ram.frames.flags[frame] & FRAME_UNEVICTABLE) !== 0;
          expect([delay, isUnevictable]).toEqual([delay, isLocked]);
        }
      })(),
    );
    expect(done).toBe(true);
    expect(ram.counters.pgmigrate_success).toBe(80);
    host.checkLeaks();
  });
});

describe('a stack', () => {
  it('grows down to what is touched, as far as it may', () => {
    const { host, run } = makeBench({ mm: { stackBytes: 1024 * PAGE } });
    const { mm } = host;
    const top = BASE + 2048 * PAGE;
    const outcomes: unknown[] = [];
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(top - 2 * PAGE, 2 * PAGE, RW, MAP_GROWSDOWN);
        yield* mm.touch(top - 100 * PAGE, 1, true);
        expect(mm.isMapped(top - 100 * PAGE, 100 * PAGE)).toBe(true);
        expect(mm.residentBytes).toBe(PAGE);
        // Neither beyond its limit, nor close to another mapping.
        yield* mm.mmap(top - 600 * PAGE, PAGE, RW);
        for (const pages of [1025, 400]) {
          try {
            yield* mm.touch(top - pages * PAGE, 1, true);
          } catch (error) {
            outcomes.push((error as { signal?: string }).signal);
          }
        }
        yield* mm.touch(top - 300 * PAGE, 1, true);
      })(),
    );
    expect(outcomes).toEqual(['SIGSEGV', 'SIGSEGV']);
    host.checkLeaks();
  });
});

describe('memory of a driver in a process', () => {
  it('is reached by the CPU, cannot be pinned, and goes away uncounted', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const { frames } = mm.memory;
    const done = run(
      (function* (): Sim<void> {
        const frame = frames.allocate();
        yield* mm.mmap(BASE, 2 * PAGE, RW, MAP_SHARED);
        yield* mm.remapPfnRange(BASE, PAGE, frame);
        yield* mm.write(BASE, Uint8Array.of(77));
        const block = frames.content.sample(frame);
        expect(frames.content.blocks.bytes[block * PAGE]).toBe(77);
        frames.content.blocks.release(block);
        expect(yield* mm.pages.pin(FIRST, 1, false, new Int32Array(1), 0)).toBe(0);
        expect(frames.references[frame]).toBe(1);
        yield* mm.applyToPageRange(BASE, PAGE, (_page, pte) => pte & ~PTE_WRITE);
        expect(mm.state.table.get(FIRST) & PTE_WRITE).toBe(0);
        yield* mm.munmap(BASE, 2 * PAGE);
        expect(frames.references[frame]).toBe(1);
        frames.put(frame);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});

describe('MADV_FREE', () => {
  it('lets pages go when memory is wanted, unless they were written again', () => {
    const { host, run } = makeBench({ memoryBytes: 64 * PAGE, swapBytes: 0 });
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 100 * PAGE, RW);
        yield* mm.fill(BASE, 40 * PAGE, 4);
        const kept = mm.hash(BASE, PAGE);
        yield* mm.madvise(BASE, 40 * PAGE, MADV_FREE);
        expect(mm.residentBytes).toBe(40 * PAGE);
        yield* mm.write(BASE + 5, mm.read(BASE + 5, 1));
        // Without swap the rest can only be dropped.
        yield* mm.touch(BASE + 40 * PAGE, 50, true);
        expect(mm.hash(BASE, PAGE)).toBe(kept);
        expect(mm.memory.counters.pswpout).toBe(0);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});
