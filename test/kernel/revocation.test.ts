import { describe, expect, it } from 'vitest';
import type { Sim } from '../../kernel/index.ts';
import { MS } from '../../transport/index.ts';
import { PAGE, SEGMENT, START, share, until } from '../fixtures/sharing-pair.ts';

describe('a segment that another host shares', () => {
  it('is read and written by RDMA, and taken back before its pages go', () => {
    share(
      {},
      function* ({ pair, ends, xpmem }): Sim<void> {
        const { mm } = pair.a;
        yield* mm.write(SEGMENT + PAGE - 1, Uint8Array.of(1, 2));
        yield* until(pair.a, START + 2 * MS);
        expect([...mm.read(SEGMENT + PAGE - 1, 3)]).toEqual([3, 4, 5]);
        const frame = mm.pages.followPage(SEGMENT / PAGE, false);
        expect(mm.memory.frames.references[frame]).toBe(2);
        yield* mm.madviseDontneed(SEGMENT, PAGE);
        expect(mm.memory.frames.references[frame]).toBe(0);
        expect(ends[0].counters).toMatchObject({ recallsSent: 1, acknowledged: 1, cutOff: 0 });
        yield* until(pair.a, START + 4 * MS);
        yield* xpmem.unload();
      },
      function* (segment, { b }): Sim<void> {
        yield* until(b, START + 1 * MS);
        expect([...(yield* segment.read(PAGE - 1, 2))]).toEqual([1, 2]);
        yield* segment.write(PAGE - 1, Uint8Array.of(3, 4, 5));
        expect(segment.pagesHeld).toBe(2);
        yield* until(b, START + 3 * MS);
        expect(segment.pagesHeld).toBe(1);
        expect([...(yield* segment.read(PAGE - 1, 2))]).toEqual([0, 4]);
        yield* until(b, START + 5 * MS);
        expect(segment.pagesHeld).toBe(0);
      },
    );
  });
});
