/** fork, vfork, exec and exit; and what fork does to pages that an adapter uses. */
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { MADV_DONTFORK } from '../../kernel/mm/calls/advice.ts';
import { pteNumber } from '../../kernel/mm/virtual/page-table.ts';
import { MS } from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const FIRST = BASE / PAGE;

/** The parent pins a page and forks, then both write it: whose bytes does the adapter have? */
function pinAndFork(pinnedAtFork: 'copied' | 'shared'): {
  adapter: number;
  parent: number;
  child: number;
} {
  const { host, run } = makeBench({ mm: { pinnedAtFork } });
  const { mm } = host;
  const result = { adapter: -1, parent: -1, child: -1 };
  run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, 2 * PAGE, RW);
      yield* mm.write(BASE, Uint8Array.of(10));
      const out = new Int32Array(1);
      yield* mm.pages.pin(FIRST, 1, true, out, 0);
      const child = yield* mm.fork('child');
      yield* mm.write(BASE, Uint8Array.of(20));
      yield* child.write(BASE, Uint8Array.of(30));
      const { content } = mm.memory.frames;
      const block = content.sample(out[0]);
      result.adapter = content.blocks.bytes[block * PAGE];
      content.blocks.release(block);
      result.parent = mm.read(BASE, 1)[0];
      result.child = child.read(BASE, 1)[0];
      mm.pages.unpin(out, 1, false);
      yield* child.exit();
    })(),
  );
  host.checkLeaks();
  return result;
}

describe('fork', () => {
  it('leaves a pinned page to the parent, and did not in 2008', () => {
    expect(pinAndFork('copied')).toEqual({ adapter: 20, parent: 20, child: 30 });
    // The parent wrote first and got a copy: what the adapter reads is the child's.
    expect(pinAndFork('shared')).toEqual({ adapter: 30, parent: 20, child: 30 });
  });

  it('shares pages until they are written, in memory and in swap', () => {
    const { host, run } = makeBench({ memoryBytes: 64 * PAGE });
    const { mm } = host;
    const { frames } = mm.memory;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 90 * PAGE, RW);
        yield* mm.fill(BASE, 90 * PAGE, 4);
        const before = mm.hash(BASE, 90 * PAGE);
        const child = yield* mm.fork('child');
        yield* mm.touch(BASE, 90, false);
        yield* child.touch(BASE, 90, false);
        const shared = pteNumber(child.state.table.get(FIRST + 89));
        expect(frames.mapCounts[shared]).toBeGreaterThan(0);
        yield* child.fill(BASE, 45 * PAGE, 5);
        expect(mm.hash(BASE, 90 * PAGE)).toBe(before);
        yield* mm.fill(BASE, 90 * PAGE, 6);
        expect(child.read(BASE + 60 * PAGE, 100)).not.toEqual(mm.read(BASE + 60 * PAGE, 100));
        yield* child.exit();
        yield* mm.touch(BASE, 90, true);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('gives back what it took when memory runs out, and leaves areas out that are not to be copied', () => {
    const { host, run } = makeBench({ mm: { forkFailsAfterEntries: 20 } });
    const { mm } = host;
    const outcomes: unknown[] = [];
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 40 * PAGE, RW);
        yield* mm.fill(BASE, 40 * PAGE, 4);
        const before = mm.hash(BASE, 40 * PAGE);
        try {
          yield* mm.fork('child');
        } catch (error) {
          outcomes.push((error as { errno?: string }).errno);
        }
        yield* mm.madvise(BASE + 20 * PAGE, 20 * PAGE, MADV_DONTFORK);
        const child = yield* mm.fork('child');
        expect(child.isMapped(BASE + 20 * PAGE, PAGE)).toBe(false);
        expect(child.residentBytes).toBe(20 * PAGE);
        yield* mm.fill(BASE, 10 * PAGE, 4);
        expect(mm.hash(BASE, 40 * PAGE)).toBe(before);
        yield* child.exit();
      })(),
    );
    expect(outcomes).toEqual(['ENOMEM']);
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('of the V6 patch forgets to end the invalidation when it fails, which is caught', () => {
    const attempt = (v6CopyPageRange: boolean) => () => {
      const { host, run } = makeBench({ mm: { forkFailsAfterEntries: 2, v6CopyPageRange } });
      run(
        (function* (): Sim<void> {
          yield* host.mm.mmap(BASE, 4 * PAGE, RW);
          yield* host.mm.touch(BASE, 4, true);
          try {
            yield* host.mm.fork('child');
          } catch (error) {
            expect(error).toMatchObject({ errno: 'ENOMEM' });
          }
        })(),
      );
    };
    expect(attempt(false)).not.toThrow();
    expect(attempt(true)).toThrow(/begun and not ended \(cow/);
  });
});

describe('the life of a process', () => {
  it('shares its memory with a vfork child until that starts a program of its own', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 4 * PAGE, RW);
        const child = yield* mm.vfork();
        yield* child.write(BASE, Uint8Array.of(5));
        expect(mm.read(BASE, 1)[0]).toBe(5);
        yield* child.exec();
        expect(child.mappings()).toEqual([]);
        yield* child.mmap(BASE, PAGE, RW);
        yield* child.write(BASE, Uint8Array.of(6));
        expect(mm.read(BASE, 1)[0]).toBe(5);
        yield* child.exit();
        const second = yield* mm.vfork();
        yield* second.exit();
        yield* mm.touch(BASE, 4, true);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('ends with its notifiers released before any mapping goes, and all at once', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const seen: string[] = [];
    const done = run(
      (function* (): Sim<void> {
        const child = yield* mm.fork('child');
        for (let i = 0; i < 5; i++) yield* child.mmap(BASE + 2 * i * PAGE, PAGE, RW);
        yield* child.touch(BASE, 1, true);
        yield* child.notifiers.attach({
          name: 'client',
          // biome-ignore lint/correctness/useYield: takes no time
          *release(): Sim<void> {
            seen.push(`release with ${child.mappings().length} mappings, ${child.residentBytes}`);
          },
          // biome-ignore lint/correctness/useYield: takes no time
          *invalidateRangeBegin(): Sim<void> {
            seen.push('begin');
          },
        });
        yield* child.exit();
        yield* host.sleep(1 * MS);
      })(),
    );
    expect(seen).toEqual([`release with 5 mappings, ${PAGE}`]);
    expect(done).toBe(true);
    host.checkLeaks();
  });
});
