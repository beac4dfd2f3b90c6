import { describe, expect, it } from 'vitest';
import { Gru, type GruPlan } from '../../kernel/clients/gru.ts';
import { SystemCallError } from '../../kernel/errno.ts';
import { type Errno, PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { US } from '../../transport/index.ts';
import { BASE, type Bench, makeBench, PAGE, runCleanly } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;

function* device({ host }: Bench, plan: GruPlan = {}): Sim<Gru> {
  yield* host.mm.mmap(BASE, 64 * PAGE, RW);
  return yield* Gru.open(host.mm, plan);
}

describe('the GRU', () => {
  it('fills its TLB from the page table of the process and keeps no reference', () => {
    const bench = makeBench();
    const { mm } = bench.host;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const gru = yield* device(bench);
        const context = gru.createContext();
        yield* mm.write(BASE + PAGE - 2, Uint8Array.of(1, 2, 3, 4));
        expect([...(yield* context.read(BASE + PAGE - 2, 4))]).toEqual([1, 2, 3, 4]);
        // Both pages were in the page table: the interrupt handler could serve them.
        expect(gru.counters).toMatchObject({ misses: 2, userPolling: 0 });
        const frame = mm.pages.followPage(BASE / PAGE, false);
        expect(mm.memory.frames.references[frame]).toBe(1);
        yield* context.write(BASE + 2 * PAGE, Uint8Array.of(9));
        expect([...mm.read(BASE + 2 * PAGE, 1)]).toEqual([9]);
        // That one was not: the process had to fault it in.
        expect(gru.counters).toMatchObject({ misses: 3, userPolling: 1 });
        yield* gru.close();
      })(),
    );
  });

  it('flushes once for each context in use, whatever the range, and skips the others', () => {
    const bench = makeBench();
    const { mm } = bench.host;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const gru = yield* device(bench);
        const contexts = [0, 1, 2, 3].map(() => gru.createContext());
        yield* mm.touch(BASE, 64, true);
        for (const context of contexts) yield* context.read(BASE, 32 * PAGE);
        contexts[3].unload();
        yield* mm.madviseDontneed(BASE, PAGE);
        expect(gru.counters).toMatchObject({ flushes: 3, flushesSkipped: 1 });
        // The one that was skipped has lost all it had, the others one page.
        expect(contexts.map(({ entryCount }) => entryCount)).toEqual([31, 31, 31, 0]);
        yield* mm.munmap(BASE, 64 * PAGE);
        expect(gru.counters).toMatchObject({ flushes: 6, flushesSkipped: 1 });
        expect(contexts.map(({ entryCount }) => entryCount)).toEqual([0, 0, 0, 0]);
        yield* gru.close();
      })(),
    );
  });

  it('ignores an insertion that a flush has overtaken, and holds others off', () => {
    const bench = makeBench({ cpus: 4 });
    const { mm } = bench.host;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const gru = yield* device(bench);
        const threads = [0, 1].map((i) => {
          const context = gru.createContext();
          const body = function* (): Sim<void> {
            for (let round = 0; round < 1000; round++) {
              yield* context.write(BASE + ((round + i) % 8) * PAGE, Uint8Array.of(round));
            }
          };
          return bench.host.spawn(`thread ${i}`, body());
        });
        while (threads.some(({ done }) => !done.done)) {
          yield* mm.madviseDontneed(BASE, 8 * PAGE);
          // Longer than a miss takes, or no thread would ever get on.
          yield* bench.host.sleep(7 * US);
        }
        expect(gru.counters.insertsIgnored).toBeGreaterThan(1);
        expect(gru.counters.insertsDeferred).toBeGreaterThan(1);
        yield* gru.close();
      })(),
    );
  });

  it('replaces entries in turn when its TLB is full', () => {
    const bench = makeBench();
    const { mm } = bench.host;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const gru = yield* device(bench, { tlbEntries: 4 });
        const context = gru.createContext();
        yield* mm.touch(BASE, 64, true);
        for (let page = 0; page < 6; page++) yield* context.read(BASE + page * PAGE, 1);
        expect(context.entryCount).toBe(4);
        expect(mm.notifiers.references.countOf(gru)).toBe(4);
        yield* context.read(BASE + 2 * PAGE, 1);
        expect(gru.counters.misses).toBe(6);
        yield* context.read(BASE, 1);
        expect(gru.counters.misses).toBe(7);
        yield* gru.close();
      })(),
    );
  });

  it('refuses what the process may not do', () => {
    const bench = makeBench();
    const process = bench.host.createProcess('user');
    const { mm } = process;
    const refusal = function* (body: Sim<unknown>): Sim<Errno | undefined> {
      try {
        yield* body;
      } catch (error) {
        if (error instanceof SystemCallError) return error.errno;
        throw error;
      }
      return undefined;
    };
    runCleanly(
      bench,
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, PAGE, PROT_READ);
        const gru = yield* Gru.open(mm);
        const context = gru.createContext();
        expect(yield* refusal(context.read(BASE, 1))).toBe(undefined);
        expect(yield* refusal(context.write(BASE, Uint8Array.of(1)))).toBe('EFAULT');
        expect(yield* refusal(context.read(BASE + PAGE, 1))).toBe('EFAULT');
        yield* process.exit();
        expect(context.entryCount).toBe(0);
        expect(yield* refusal(context.read(BASE, 1))).toBe('ESRCH');
      })(),
    );
  });
});
