import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { MAP_POPULATE } from '../../kernel/mm/address-space.ts';
import { patternByte } from '../../kernel/mm/physical/pattern.ts';
import { MessageHash, MS, US } from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const SPAN = 24;

/** What a process should see: protection and bytes of each mapped page, by page number in the span. */
type Oracle = Map<number, { prot: number; bytes: Uint8Array }>;

type Call =
  | { name: 'mmap'; page: number; count: number; prot: number }
  | { name: 'munmap' | 'dontneed'; page: number; count: number }
  | { name: 'mprotect'; page: number; count: number; prot: number }
  | { name: 'mremap'; page: number; count: number; to: number; newCount: number }
  | { name: 'fill' | 'write'; at: number; length: number; seed: number }
  | { name: 'touch'; page: number; count: number; write: boolean };

const page = fc.nat(SPAN - 1);
const count = fc.integer({ min: 1, max: 8 });
const prot = fc.constantFrom(RW, RW, PROT_READ);
const call: fc.Arbitrary<Call> = fc.oneof(
  fc.record({ name: fc.constant('mmap' as const), page, count, prot }),
  fc.record({ name: fc.constantFrom('munmap' as const, 'dontneed' as const), page, count }),
  fc.record({ name: fc.constant('mprotect' as const), page, count, prot }),
  fc.record({ name: fc.constant('mremap' as const), page, count, to: page, newCount: count }),
  fc.record({
    name: fc.constantFrom('fill' as const, 'write' as const),
    at: fc.nat(SPAN * PAGE),
    length: fc.integer({ min: 1, max: 5 * PAGE }),
    seed: fc.nat(0xffff),
  }),
  fc.record({ name: fc.constant('touch' as const), page, count, write: fc.boolean() }),
);

function pages(from: number, n: number): number[] {
  return Array.from({ length: n }, (_, i) => from + i);
}

/** Does `c` to the oracle; returns false where a process would crash or the call is refused. */
function applyTo(oracle: Oracle, c: Call): boolean {
  const mapped = (p: number, bit: number): boolean => ((oracle.get(p)?.prot ?? 0) & bit) !== 0;
  switch (c.name) {
    case 'mmap':
      for (const p of pages(c.page, c.count)) {
        oracle.set(p, { prot: c.prot, bytes: new Uint8Array(PAGE) });
      }
      return true;
    case 'munmap':
      for (const p of pages(c.page, c.count)) oracle.delete(p);
      return true;
    case 'dontneed':
      for (const p of pages(c.page, c.count)) oracle.get(p)?.bytes.fill(0);
      return true;
    case 'mprotect':
      for (const p of pages(c.page, c.count)) {
        const entry = oracle.get(p);
        if (entry) entry.prot = c.prot;
      }
      return true;
    case 'mremap': {
      const old = pages(c.page, c.count);
      const first = oracle.get(c.page);
      const oneArea = first && old.every((p) => oracle.get(p)?.prot === first.prot);
      const apart = c.to === c.page || c.to >= c.page + c.count || c.to + c.newCount <= c.page;
      if (!oneArea || !apart) return false;
      const contents = old.map((p) => oracle.get(p)?.bytes as Uint8Array);
      for (const p of old) oracle.delete(p);
      pages(c.to, c.newCount).forEach((p, i) => {
        oracle.set(p, { prot: first.prot, bytes: contents[i] ?? new Uint8Array(PAGE) });
      });
      return true;
    }
    case 'fill':
    case 'write': {
      const first = Math.floor(c.at / PAGE);
      const last = Math.floor((c.at + c.length - 1) / PAGE);
      if (!pages(first, last - first + 1).every((p) => mapped(p, PROT_WRITE))) return false;
      for (let i = 0; i < c.length; i++) {
        const at = c.at + i;
        (oracle.get(Math.floor(at / PAGE)) as { bytes: Uint8Array }).bytes[at % PAGE] = patternByte(
          c.seed,
          i,
        );
      }
      return true;
    }
    case 'touch':
      return pages(c.page, c.count).every((p) => mapped(p, c.write ? PROT_WRITE : PROT_READ));
  }
}

function hashOf(bytes: Uint8Array): number {
  const hash = new MessageHash();
  hash.start();
  hash.update(bytes, new Int32Array(bytes.buffer), 0, bytes.length);
  return hash.finish();
}

describe('address space', () => {
  it('shows the process what an array of pages would, whatever was called, swapped or not', () => {
    fc.assert(
      fc.property(
        fc.array(call, { minLength: 1, maxLength: 30 }),
        fc.constantFrom(20, 256),
        (calls, frameCount) => {
          // With 20 frames for up to 32 pages, most of the memory is always in swap.
          const { host, run } = makeBench({ memoryBytes: frameCount * PAGE });
          const { mm } = host;
          const oracle: Oracle = new Map();
          const done = run(
            (function* (): Sim<void> {
              for (const c of calls) {
                if (!applyTo(oracle, c)) continue;
                switch (c.name) {
                  case 'mmap':
                    yield* mm.mmap(BASE + c.page * PAGE, c.count * PAGE, c.prot);
                    break;
                  case 'munmap':
                    yield* mm.munmap(BASE + c.page * PAGE, c.count * PAGE);
                    break;
                  case 'dontneed':
                    yield* mm.madviseDontneed(BASE + c.page * PAGE, c.count * PAGE);
                    break;
                  case 'mprotect':
                    yield* mm.mprotect(BASE + c.page * PAGE, c.count * PAGE, c.prot);
                    break;
                  case 'mremap':
                    yield* mm.mremap(
                      BASE + c.page * PAGE,
                      c.count * PAGE,
                      BASE + c.to * PAGE,
                      c.newCount * PAGE,
                    );
                    break;
                  case 'fill':
                    yield* mm.fill(BASE + c.at, c.length, c.seed);
                    break;
                  case 'write': {
                    const bytes = Uint8Array.from({ length: c.length }, (_, i) =>
                      patternByte(c.seed, i),
                    );
                    yield* mm.write(BASE + c.at, bytes);
                    break;
                  }
                  case 'touch':
                    yield* mm.touch(BASE + c.page * PAGE, c.count, c.write);
                    break;
                }
              }
            })(),
          );
          expect(done).toBe(true);
          for (let p = 0; p < SPAN + 8; p++) {
            const entry = oracle.get(p);
            expect(mm.isMapped(BASE + p * PAGE, PAGE)).toBe(entry !== undefined);
            if (!entry) continue;
            expect(mm.hash(BASE + p * PAGE, PAGE)).toBe(hashOf(entry.bytes));
            expect(Buffer.compare(mm.read(BASE + p * PAGE, PAGE), entry.bytes)).toBe(0);
          }
          const all = mm.read(BASE - 5, (SPAN + 8) * PAGE + 5);
          const ranges = [0, 1000, 5 * PAGE + 3].map((at, i, list) => {
            const end = list[i + 1] ?? all.length;
            return { address: BASE - 5 + at, length: end - at };
          });
          expect(mm.hashRanges(ranges)).toBe(mm.hash(BASE - 5, all.length));
          host.checkLeaks();
        },
      ),
      { numRuns: 150 },
    );
  });

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
