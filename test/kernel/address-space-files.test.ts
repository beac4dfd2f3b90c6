/** Files and shared memory in the address space: where bytes come from, and when they go where. */
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { MADV_RANDOM, MADV_REMOVE, MADV_WILLNEED } from '../../kernel/mm/calls/advice.ts';
import { MAP_HUGETLB, MAP_SHARED } from '../../kernel/mm/calls/mapping-calls.ts';
import type { MmuNotifier } from '../../kernel/mm/notify/mmu-notifiers.ts';
import { FRAME_DIRTY, ORIGIN_AROUND, ORIGIN_CPU } from '../../kernel/mm/physical/frames.ts';
import { patternByte } from '../../kernel/mm/physical/pattern.ts';
import { PTE_WRITE, pteNumber } from '../../kernel/mm/virtual/page-table.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_WRITE,
  MS,
  US,
} from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const FIRST = BASE / PAGE;

/** A client that says what it was told. */
function recorder(log: string[]): MmuNotifier {
  return {
    name: 'recorder',
    // biome-ignore lint/correctness/useYield: takes no time
    *invalidateRangeBegin({ start, end, cause, atomic }): Sim<void> {
      log.push(
        `${cause} ${start / PAGE - FIRST}+${(end - start) / PAGE}${atomic ? ' atomic' : ''}`,
      );
    },
    // biome-ignore lint/correctness/useYield: takes no time
    *invalidatePage(address): Sim<void> {
      log.push(`page ${address / PAGE - FIRST}`);
    },
  };
}

describe('a mapped file', () => {
  it('is read from its device once, around the fault, and mapped around it', () => {
    const { host, run } = makeBench({ memoryBytes: 1024 * PAGE });
    const { mm } = host;
    const other = host.createProcess('b').mm;
    const { frames, files, counters } = mm.memory;
    const file = files.open('/lib');
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 64 * PAGE, PROT_READ, 0, file, 16 * PAGE);
        const before = host.node.now;
        yield* mm.touch(BASE + 20 * PAGE, 1, false);
        expect(host.node.now - before).toBeGreaterThan(80 * US);
        // 32 pages of the file around the miss are in memory, 16 of them mapped.
        expect(file.pages.size).toBe(32);
        expect(mm.residency()).toEqual([
          { address: BASE + 16 * PAGE, pageCount: 16, anonymous: false },
        ]);
        const { table } = mm.state;
        expect(frames.origins[pteNumber(table.get(FIRST + 20))]).toBe(ORIGIN_CPU);
        expect(frames.origins[pteNumber(table.get(FIRST + 21))]).toBe(ORIGIN_AROUND);
        expect(mm.read(BASE + 20 * PAGE, 4)).toEqual(
          Uint8Array.from([0, 1, 2, 3], (i) => patternByte(file.id, 36 * PAGE + i)),
        );
        // Another process finds the pages in memory.
        yield* other.mmap(BASE, 64 * PAGE, PROT_READ, 0, file, 16 * PAGE);
        const reads = counters.pgmajfault;
        yield* other.touch(BASE + 16 * PAGE, 16, false);
        expect(counters.pgmajfault).toBe(reads);
        expect(frames.mapCounts[pteNumber(table.get(FIRST + 20))]).toBe(2);
        // At random there is no read-ahead.
        yield* other.madvise(BASE + 48 * PAGE, 16 * PAGE, MADV_RANDOM);
        yield* other.touch(BASE + 50 * PAGE, 1, false);
        expect(file.pages.size).toBe(33);
        yield* other.madvise(BASE, 16 * PAGE, MADV_WILLNEED);
        yield* host.sleep(5 * MS);
        // The 16 that were asked for, and the rest of their read-ahead window.
        expect(file.pages.size).toBe(33 + 32);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('is in memory already when it is warm', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 32 * PAGE, PROT_READ, 0, mm.memory.files.open('/lib', true));
        yield* mm.touch(BASE + 3 * PAGE, 1, false);
        expect(host.node.now).toBeLessThan(10 * US);
        expect(mm.residentBytes).toBe(16 * PAGE);
        expect(mm.memory.counters.pgmajfault).toBe(0);
      })(),
    );
    host.checkLeaks();
  });

  it('keeps what is written to a shared mapping, and not what is written to a private one', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const { files, frames } = mm.memory;
    const file = files.open('/data');
    const log: string[] = [];
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 4 * PAGE, RW, MAP_SHARED, file);
        yield* mm.mmap(BASE + 4 * PAGE, 4 * PAGE, RW, 0, file);
        yield* mm.touch(BASE, 8, false);
        yield* mm.write(BASE + 4 * PAGE, Uint8Array.of(1, 2, 3));
        yield* mm.write(BASE, Uint8Array.of(7, 8, 9));
        expect([...mm.read(BASE, 3)]).toEqual([7, 8, 9]);
        expect([...mm.read(BASE + 4 * PAGE, 3)]).toEqual([1, 2, 3]);
        const frame = file.frameOf(0);
        expect(frames.flags[frame] & FRAME_DIRTY).toBe(FRAME_DIRTY);
        // Writing back takes the right to write away, and says so page by page.
        yield* mm.notifiers.attach(recorder(log));
        yield* files.sync(file);
        expect(log).toEqual(['protection 0+1', 'page 0']);
        expect(frames.flags[frame] & FRAME_DIRTY).toBe(0);
        expect(mm.state.table.get(FIRST) & PTE_WRITE).toBe(0);
        yield* mm.write(BASE, Uint8Array.of(6));
        expect(frames.flags[frame] & FRAME_DIRTY).toBe(FRAME_DIRTY);
        yield* files.sync(file);
        // Gone from memory, it comes back from the device.
        yield* mm.munmap(BASE, 8 * PAGE);
        yield* mm.memory.reclaim.shrink(64);
        expect(file.frameOf(0)).toBe(-1);
        yield* mm.mmap(BASE, PAGE, RW, MAP_SHARED, file);
        yield* mm.touch(BASE, 1, false);
        expect([...mm.read(BASE, 3)]).toEqual([6, 8, 9]);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('loses pages by truncation and by holes, in atomic context, for every process', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const { files } = mm.memory;
    const file = files.open('/data');
    file.length = 8 * PAGE;
    const log: string[] = [];
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 8 * PAGE, RW, MAP_SHARED, file);
        yield* mm.fill(BASE, 8 * PAGE, 3);
        const child = yield* mm.fork('child');
        yield* child.touch(BASE, 8, false);
        yield* mm.notifiers.attach(recorder(log));
        yield* files.truncate(file, 5 * PAGE + 10);
        expect(log).toEqual(['clear 6+2 atomic']);
        expect(child.residentBytes).toBe(6 * PAGE);
        expect([...mm.read(BASE + 5 * PAGE, 12)].slice(9)).toEqual([
          patternByte(3, 5 * PAGE + 9),
          0,
          0,
        ]);
        yield* child.madvise(BASE + PAGE, PAGE, MADV_REMOVE);
        expect(log.slice(1)).toEqual(['clear 1+1 atomic']);
        expect([...mm.read(BASE + PAGE, 2)]).toEqual([0, 0]);
        yield* files.truncate(file, 8 * PAGE);
        yield* mm.touch(BASE, 8, true);
        expect([...mm.read(BASE + 7 * PAGE, 2)]).toEqual([0, 0]);
        expect(mm.read(BASE + 3 * PAGE, 1)[0]).toBe(patternByte(3, 3 * PAGE));
        yield* child.exit();
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('has a hole where one was punched, though pages leave memory and come back meanwhile', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const { files, frames, pageLocks } = mm.memory;
    const file = files.open('/data');
    file.length = 3 * PAGE;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 3 * PAGE, RW, MAP_SHARED, file);
        yield* mm.touch(BASE, 3, false);
        expect([...file.pages.keys()]).toEqual([0, 1, 2]);
        // Somebody is at work on the first page, so that the hole has to wait.
        const first = file.frameOf(0);
        frames.get(first);
        yield* pageLocks.lock(first);
        const punching = host.spawn('punching', mm.madvise(BASE, 3 * PAGE, MADV_REMOVE));
        yield* host.sleep(1 * MS);
        for (const index of [1, 2]) {
          const frame = file.frameOf(index);
          expect(frames.mapCounts[frame]).toBe(0);
          files.remove(frame);
        }
        frames.put(yield* files.read(file, 2, mm.state, 0));
        expect(punching.done.done).toBe(false);
        pageLocks.unlock(first);
        frames.put(first);
        yield punching.done;
        yield* mm.touch(BASE, 3, false);
        expect(mm.read(BASE, 3 * PAGE).every((byte) => byte === 0)).toBe(true);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('can be an on-demand region, which is emptied by truncation; so can huge pages of the pool', () => {
    const { host, adapter, run } = makeBench({
      memoryBytes: 4096 * PAGE,
      mm: { hugePages: 2 },
    });
    const { mm, verbs } = host;
    const { files } = mm.memory;
    const file = files.open('/data');
    file.length = 8 * PAGE;
    const hugeAt = BASE + 1024 * PAGE;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 8 * PAGE, RW, MAP_SHARED, file);
        yield* mm.mmap(hugeAt, 1024 * PAGE, RW, MAP_HUGETLB);
        yield* mm.touch(BASE, 8, true);
        yield* mm.touch(hugeAt, 1024, true);
        const access = ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND;
        const region = yield* verbs.regMr(1, BASE, 8 * PAGE, access);
        const huge = yield* verbs.regMr(1, hugeAt, 1024 * PAGE, access);
        for (const { lkey, address } of [region, huge])
          adapter.fault(lkey, address, 8 * PAGE, ACCESS_WRITE);
        yield* host.sleep(5 * MS);
        expect([region.pagesMapped, huge.pagesMapped]).toEqual([8, 1024]);
        yield* files.truncate(file, 2 * PAGE);
        expect(region.pagesMapped).toBe(2);
        yield* mm.munmap(hugeAt, 512 * PAGE);
        expect(huge.pagesMapped).toBe(512);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('executed in place shows zeros in its holes until somebody writes there', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const other = host.createProcess('b').mm;
    const { files, zeroFrame } = mm.memory;
    const file = files.openXip('/xip', 4 * PAGE);
    const log: string[] = [];
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 4 * PAGE, PROT_READ, MAP_SHARED, file);
        yield* other.mmap(BASE, 4 * PAGE, RW, MAP_SHARED, file);
        yield* mm.touch(BASE, 4, false);
        expect(pteNumber(mm.state.table.get(FIRST + 1))).toBe(zeroFrame);
        yield* mm.notifiers.attach(recorder(log));
        yield* other.write(BASE + PAGE, Uint8Array.of(42));
        expect(log).toEqual(['clear 1+1 atomic']);
        expect(mm.state.table.get(FIRST + 1)).toBe(0);
        yield* mm.touch(BASE, 4, false);
        expect(mm.read(BASE + PAGE, 1)[0]).toBe(42);
        expect(pteNumber(mm.state.table.get(FIRST + 1))).toBe(file.frameOf(1));
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});

describe('anonymous memory', () => {
  it('shows the page of zeros until it is written: two faults, the second one told to devices', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const { counters, zeroFrame, frames } = mm.memory;
    const log: string[] = [];
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 8 * PAGE, RW);
        yield* mm.notifiers.attach(recorder(log));
        const free = frames.freeCount;
        yield* mm.touch(BASE, 8, false);
        expect([counters.pgfault, frames.freeCount]).toEqual([8, free]);
        expect(pteNumber(mm.state.table.get(FIRST))).toBe(zeroFrame);
        yield* mm.touch(BASE, 2, true);
        expect([counters.pgfault, frames.freeCount]).toEqual([10, free - 2]);
        expect(log).toEqual(['cow 0+1', 'cow 1+1']);
        expect(mm.residency()).toEqual([{ address: BASE, pageCount: 8, anonymous: true }]);
      })(),
    );
    host.checkLeaks();
  });

  it('shared between processes is swapped and comes back, and ends with its last mapping', () => {
    const { host, run } = makeBench({ memoryBytes: 64 * PAGE });
    const { mm } = host;
    const { frames, swap, counters } = mm.memory;
    const done = run(
      (function* (): Sim<void> {
        const free = frames.freeCount;
        yield* mm.mmap(BASE, 100 * PAGE, RW, MAP_SHARED);
        yield* mm.fill(BASE, 100 * PAGE, 9);
        const child = yield* mm.fork('child');
        yield* child.touch(BASE, 100, false);
        expect(counters.pswpout).toBeGreaterThan(50);
        expect(child.hash(BASE, 100 * PAGE)).toBe(mm.hash(BASE, 100 * PAGE));
        yield* child.write(BASE + 50 * PAGE, Uint8Array.of(1));
        expect(mm.read(BASE + 50 * PAGE, 1)[0]).toBe(1);
        yield* mm.munmap(BASE, 100 * PAGE);
        yield* child.touch(BASE, 100, false);
        yield* child.exit();
        yield* host.sleep(10 * MS);
        expect([frames.freeCount, swap.usedSlots]).toEqual([free, 0]);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});
