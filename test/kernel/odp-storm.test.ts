import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { FRAME_DIRTY } from '../../kernel/mm/physical/frames.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_READ,
  ACCESS_WRITE,
  MS,
  RandomStream,
  US,
} from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const SPAN = 64;

describe('on-demand paging under a storm', () => {
  it('never frees a page frame that the adapter still has, and serves every fault', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1 }), fc.constantFrom(32, 200), (seed, frameCount) => {
        const bench = makeBench({ memoryBytes: frameCount * PAGE, faultWorkers: 3 });
        const { host, adapter } = bench;
        const { mm, verbs } = host;
        const random = new RandomStream(seed, 'test', 'storm');
        adapter.doneDelayPs = random.below(3) * 20 * US;
        const { frames } = mm.memory;
        const freed = frames.onFree;
        frames.onFree = (frame) => {
          for (const table of adapter.tables.values()) {
            for (const entry of table.values()) {
              if (entry >>> 2 === frame) throw new Error(`frame ${frame} is freed too early`);
            }
          }
          freed(frame);
        };

        const program = function* (): Sim<void> {
          for (let i = 0; i < 40; i++) {
            const page = random.below(SPAN);
            const count = 1 + random.below(Math.min(16, SPAN - page));
            const at = BASE + page * PAGE;
            switch (random.below(6)) {
              case 0:
                yield* mm.mmap(at, count * PAGE, RW);
                break;
              case 1:
                yield* mm.munmap(at, count * PAGE);
                yield* mm.mmap(at, count * PAGE, RW);
                break;
              case 2:
                yield* mm.madviseDontneed(at, count * PAGE);
                break;
              case 3:
                yield* mm.mprotect(at, count * PAGE, PROT_READ);
                yield* mm.mprotect(at, count * PAGE, RW);
                break;
              default:
                yield* mm.touch(at, count, random.chance(700_000));
            }
            yield* host.sleep(random.below(50 * US));
          }
        };
        const faulting = function* (mkey: number): Sim<number> {
          for (let i = 0; i < 60; i++) {
            const page = random.below(SPAN - 4);
            const bytes = 1 + random.below(4 * PAGE);
            const access = random.chance(500_000) ? ACCESS_WRITE : ACCESS_READ;
            adapter.fault(mkey, BASE + page * PAGE, bytes, access);
            yield* host.sleep(random.below(30 * US));
          }
          return 60;
        };
        let faults = 0;
        const ended = bench.run(
          (function* (): Sim<void> {
            yield* mm.mmap(BASE, SPAN * PAGE, RW);
            const mr = yield* verbs.regMr(
              1,
              BASE,
              SPAN * PAGE,
              ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND,
            );
            const other = host.spawn('program', program());
            faults = yield* faulting(mr.lkey);
            yield other.done;
            yield* host.sleep(50 * MS);

            const table = adapter.tables.get(mr.lkey) as Map<number, number>;
            expect(mr.pagesMapped).toBe(table.size);
            for (const [page, entry] of table) {
              const frame = entry >>> 2;
              // What was only read is the page of zeros, which is nobody's.
              if (frame === mm.memory.zeroFrame) continue;
              expect(mm.memory.rmap.pageOf(frame)).toBe(BASE / PAGE + page);
              expect(frames.references[frame]).toBe(1);
            }
            const writable = [...table.values()].filter((entry) => (entry & 2) !== 0);
            yield* verbs.deregMr(mr);
            for (const entry of writable) {
              expect(frames.flags[entry >>> 2] & FRAME_DIRTY).toBe(FRAME_DIRTY);
            }
            // A fault for a region that is gone is answered too.
            adapter.fault(mr.lkey, BASE, 1, ACCESS_READ);
            yield* host.sleep(1 * MS);
          })(),
        );
        expect(ended).toBe(true);
        const tokens = adapter.resumes.map((resume) => resume.token).sort((a, b) => a - b);
        expect(tokens).toEqual(Array.from({ length: faults + 1 }, (_, i) => i + 1));
        expect(adapter.resumes[faults].status).toBe(1);
        host.checkLeaks();
        host.dispose();
        expect(bench.pool.framesInUse).toBe(0);
        expect(bench.pool.burstsInUse).toBe(0);
        expect(bench.pool.blocks.blocksInUse).toBe(0);
      }),
      { numRuns: 60 },
    );
  });
});
