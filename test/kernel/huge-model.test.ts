/**
 * Random calls on huge pages of several processes, with pins, reclaim and compaction, against a model that
 * knows one byte of each page. HUGE_CASES=1000 for more of them.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import type { AddressSpace } from '../../kernel/mm/address-space.ts';
import { MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE } from '../../kernel/mm/calls/advice.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const CASES = Number(process.env.HUGE_CASES ?? 30);
const RW = PROT_READ | PROT_WRITE;
const SPAN = 2 * 512;

const call = fc.record({
  name: fc.constantFrom(
    'write',
    'write',
    'touch',
    'munmap',
    'mmap',
    'protect',
    'move',
    'fork',
    'exit',
    'pin',
    'unpin',
    'dontneed',
    'free',
    'mlock',
    'munlock',
    'shrink',
    'compact',
  ),
  who: fc.nat(2),
  page: fc.nat(SPAN - 1),
  count: fc.constantFrom<number>(1, 3, 100, 512, 600),
  value: fc.integer({ min: 1, max: 255 }),
});
type Call = typeof call extends fc.Arbitrary<infer T> ? T : never;

interface Process {
  readonly mm: AddressSpace;
  /** First byte of each page that is mapped; several after MADV_FREE. */
  pages: Map<number, readonly number[]>;
}

function* step(processes: Process[], pins: { frame: number; by: Process }[], c: Call): Sim<void> {
  const process = processes[c.who % processes.length] as Process;
  const { mm, pages } = process;
  const count = Math.min(c.count, SPAN - c.page);
  const [at, length] = [BASE + c.page * PAGE, count * PAGE];
  const all = Array.from({ length: count }, (_, i) => c.page + i);
  const isWhole = all.every((page) => pages.has(page));
  switch (c.name) {
    case 'write':
      if (!pages.has(c.page)) return;
      yield* mm.write(at, Uint8Array.of(c.value));
      pages.set(c.page, [c.value]);
      return;
    case 'touch':
      if (isWhole) yield* mm.touch(at, count, c.value % 2 === 0);
      return;
    case 'munmap':
      yield* mm.munmap(at, length);
      for (const page of all) pages.delete(page);
      return;
    case 'mmap':
      yield* mm.mmap(at, length, RW);
      yield* mm.madvise(at, length, MADV_HUGEPAGE);
      for (const page of all) pages.set(page, [0]);
      return;
    case 'protect':
      if (!isWhole) return;
      yield* mm.mprotect(at, length, PROT_READ);
      yield* mm.mprotect(at, length, RW);
      return;
    case 'move': {
      // Out of the span, and back to another place.
      if (!isWhole || !isOneArea(mm, at, length)) return;
      const to = (c.value * 37) % (SPAN - count + 1);
      yield* mm.mremap(at, length, BASE + 4 * SPAN * PAGE + (c.value % 2) * PAGE, length);
      yield* mm.mremap(
        BASE + 4 * SPAN * PAGE + (c.value % 2) * PAGE,
        length,
        BASE + to * PAGE,
        length,
      );
      const moved = all.map((page) => pages.get(page) as readonly number[]);
      for (const page of all) pages.delete(page);
      for (const [i, bytes] of moved.entries()) pages.set(to + i, bytes);
      return;
    }
    case 'fork':
      if (processes.length < 3) {
        processes.push({ mm: yield* mm.fork('child'), pages: new Map(pages) });
      }
      return;
    case 'exit':
      if (process === processes[0]) return;
      for (const pin of pins.filter(({ by }) => by === process)) unpin(pins, pin);
      yield* mm.exit();
      processes.splice(processes.indexOf(process), 1);
      return;
    case 'pin': {
      if (!pages.has(c.page) || pins.length > 5) return;
      const out = new Int32Array(1);
      expect(yield* mm.pages.pin(at / PAGE, 1, true, out, 0)).toBe(1);
      pins.push({ frame: out[0], by: process });
      // What a lazily freed page holds is settled by a write.
      if ((pages.get(c.page)?.length ?? 0) > 1) pages.set(c.page, [mm.read(at, 1)[0]]);
      return;
    }
    case 'unpin':
      if (pins.length > 0) unpin(pins, pins[0]);
      return;
    case 'dontneed':
      if (!isWhole || isLocked(mm, at, length)) return;
      yield* mm.madvise(at, length, MADV_DONTNEED);
      for (const page of all) pages.set(page, [0]);
      return;
    case 'free':
      if (!isWhole || isLocked(mm, at, length)) return;
      yield* mm.madvise(at, length, MADV_FREE);
      for (const page of all) pages.set(page, [0, ...(pages.get(page) ?? [])]);
      return;
    case 'mlock':
      if (isWhole && count < 100) yield* mm.mlock(at, length);
      return;
    case 'munlock':
      if (isWhole) yield* mm.munlock(at, length);
      return;
    case 'shrink':
      yield* mm.memory.reclaim.shrink(100);
      return;
    case 'compact':
      yield* mm.memory.compaction.forAllocation(0);
  }
}

function unpin(pins: { frame: number; by: Process }[], pin: { frame: number; by: Process }): void {
  pins.splice(pins.indexOf(pin), 1);
  pin.by.mm.pages.unpin(Int32Array.of(pin.frame), 1, false);
}

function isOneArea(mm: AddressSpace, at: number, length: number): boolean {
  return mm.mappings().some(({ start, end }) => start <= at && at + length <= end);
}

function isLocked(mm: AddressSpace, at: number, length: number): boolean {
  const areas = mm.mappings().filter(({ start, end }) => start < at + length && at < end);
  return areas.some(({ flags }) => (flags & 0x2000) !== 0);
}

function compare(processes: readonly Process[]): void {
  for (const { mm, pages } of processes) {
    for (const [page, bytes] of pages) {
      const [seen] = mm.read(BASE + page * PAGE, 1);
      if (bytes.includes(seen)) continue;
      throw new Error(`${mm.name} sees ${seen} in page ${page}, which holds ${bytes}`);
    }
  }
}

describe('huge pages under random calls', () => {
  it('hold what they should, whole or in pieces', () => {
    let huge = 0;
    fc.assert(
      fc.property(
        fc.array(call, { minLength: 5, maxLength: 40 }),
        fc.constantFrom(1700, 6000),
        (calls, frameCount) => {
          const { host, run } = makeBench({
            memoryBytes: frameCount * PAGE,
            swapBytes: 8192 * PAGE,
          });
          const processes: Process[] = [{ mm: host.mm, pages: new Map() }];
          const pins: { frame: number; by: Process }[] = [];
          const done = run(
            (function* (): Sim<void> {
              const start = { who: 0, page: 0, count: SPAN, value: 2 };
              yield* step(processes, pins, { ...start, name: 'mmap' });
              yield* step(processes, pins, { ...start, name: 'touch' });
              if (host.mm.state.table.getHuge(BASE / PAGE) !== 0) huge++;
              for (const c of calls) yield* step(processes, pins, c);
              compare(processes);
              for (const pin of [...pins]) unpin(pins, pin);
            })(),
          );
          expect(done).toBe(true);
          host.checkLeaks();
        },
      ),
      { numRuns: CASES },
    );
    expect(huge).toBeGreaterThan(CASES / 3);
  }, 3_600_000);
});
