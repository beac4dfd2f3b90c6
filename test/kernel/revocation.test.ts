import { describe, expect, it } from 'vitest';
import type { RemoteSegment } from '../../kernel/clients/remote-segment.ts';
import {
  defaultHostCosts,
  type Errno,
  PROT_READ,
  PROT_WRITE,
  type Sim,
} from '../../kernel/index.ts';
import { migratePages } from '../../kernel/mm/migrate/move-pages.ts';
import { MS, QPS_ERR, RandomStream, US } from '../../transport/index.ts';
import type { HostPair } from '../fixtures/host-pair.ts';
import {
  PAGE,
  SEGMENT,
  type SharingOptions,
  START,
  share,
  until,
} from '../fixtures/sharing-pair.ts';
import { refusal } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;

/** A sharer that holds `pages` pages from START + 1 ms on. */
function holder(pages: number) {
  return function* (segment: RemoteSegment, { b }: HostPair): Sim<void> {
    yield* until(b, START + 1 * MS);
    yield* segment.read(0, pages * PAGE);
  };
}

/** Runs one recall of `pages` pages against sharers that hold them; what it took, and what was sent. */
function recallOnce(
  options: SharingOptions,
  pages = 8,
): { ps: number; sent: number; cutOff: number } {
  const outcome = { ps: 0, sent: 0, cutOff: 0 };
  share(
    options,
    function* ({ pair, ends }): Sim<void> {
      const { mm, node } = pair.a;
      yield* mm.touch(SEGMENT, pages, true);
      yield* until(pair.a, START + 5 * MS);
      const start = node.now;
      const frames = Array.from({ length: pages }, (_, i) =>
        mm.pages.followPage(SEGMENT / PAGE + i, false),
      );
      yield* mm.munmap(SEGMENT, pages * PAGE);
      outcome.ps = node.now - start;
      for (const frame of frames) expect(mm.memory.frames.references[frame]).toBe(0);
      yield* until(pair.a, START + 400 * MS);
      for (const { counters } of ends) {
        outcome.sent += counters.recallsSent;
        outcome.cutOff += counters.cutOff;
      }
    },
    holder(pages),
  );
  return outcome;
}

describe('a segment that another host shares', () => {
  it('is read and written by RDMA, and taken back before its pages go', () => {
    const pair = share(
      {},
      function* ({ pair: { a }, ends, xpmem }): Sim<void> {
        const { mm } = a;
        const { references } = mm.memory.frames;
        yield* mm.write(SEGMENT + PAGE - 1, Uint8Array.of(1, 2));
        yield* until(a, START + 2 * MS);
        expect([...mm.read(SEGMENT + PAGE - 1, 3)]).toEqual([3, 4, 5]);
        const frame = mm.pages.followPage(SEGMENT / PAGE, false);
        expect(references[frame]).toBe(2);
        yield* mm.madviseDontneed(SEGMENT, PAGE);
        expect(references[frame]).toBe(0);
        expect(ends[0].counters).toMatchObject({ recallsSent: 1, acknowledged: 1, cutOff: 0 });
        yield* until(a, START + 4 * MS);
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
        yield* until(b, START + 20 * MS);
        expect(segment.pagesHeld).toBe(0);
        expect(yield* refusal(segment.read(0, 1))).toBe('ESRCH');
      },
    );
    for (const host of [pair.a, pair.b]) host.checkLeaks();
  });

  it.each([
    ['page', 8],
    ['batch', 1],
    ['region', 1],
  ] as const)('is recalled in messages by %s', (form, messages) => {
    expect(recallOnce({ form })).toMatchObject({ sent: messages, cutOff: 0 });
  });

  it('asks all sharers at once: more of them cost less than their number', () => {
    const [one, many] = [recallOnce({ sharers: 1 }), recallOnce({ sharers: 8 })];
    expect(many.sent).toBe(8);
    expect(many.ps).toBeGreaterThan(one.ps);
    expect(many.ps).toBeLessThan(8 * one.ps);
  });

  it('survives a link that loses packets', () => {
    const clean = recallOnce({ form: 'page', timeout: 8 });
    const lossy = recallOnce({ form: 'page', timeout: 8, wire: { lossPpm: 200_000 }, seed: 3 });
    expect(lossy).toMatchObject({ sent: 8, cutOff: 0 });
    expect(lossy.ps).toBeGreaterThan(clean.ps + 500 * US);
  });

  it('acknowledges a recall only when the RDMA under way is over', () => {
    const pair = share(
      // Posting takes so long that recalls come in the middle of an operation.
      { pages: 16, host: { costs: { ...defaultHostCosts, postPs: 10 * US } } },
      function* ({ pair: { a } }): Sim<void> {
        const { mm } = a;
        for (let round = 0; round < 8; round++) {
          yield* until(a, START + 1 * MS + round * 2003 * US);
          yield* mm.mmap(SEGMENT, 16 * PAGE, RW);
          yield* mm.touch(SEGMENT, 16, true);
          yield* a.sleep(1100 * US);
          yield* mm.munmap(SEGMENT, 16 * PAGE);
        }
      },
      function* (segment, { b }): Sim<void> {
        yield* until(b, START + 1 * MS);
        while (b.node.now < START + 16 * MS) {
          if (yield* refusal(segment.read(0, 16 * PAGE))) yield* b.sleep(50 * US);
        }
        expect(segment.counters.recallsDelayed).toBeGreaterThan(4);
      },
    );
    // Without the wait, requests of an operation come after its acknowledgement, to frames that are free.
    expect(pair.a.report().dma).toMatchObject({ stale_dma_reads: 0, stale_dma_writes: 0 });
  });

  it('cuts off a sharer whose adapter is silent, when the connection gives up', () => {
    const retries = { timeout: 8, retryCnt: 3 };
    share(
      { ...retries, sharers: 2 },
      function* ({ pair: { a }, ends }): Sim<void> {
        const { mm, node } = a;
        yield* mm.touch(SEGMENT, 8, true);
        yield* until(a, START + 5 * MS);
        const frame = mm.pages.followPage(SEGMENT / PAGE, false);
        const start = node.now;
        yield* mm.madviseDontneed(SEGMENT, PAGE);
        expect(mm.memory.frames.references[frame]).toBe(0);
        // 4.096 us * 2^8, four times over; far less than the 100 ms that a silent kernel gets.
        expect(node.now - start).toBeGreaterThan(4 * 1048 * US);
        expect(node.now - start).toBeLessThan(30 * MS);
        yield* until(a, START + 50 * MS);
        expect(ends.map(({ counters }) => counters.cutOff)).toEqual([1, 0]);
        // The pages that were not recalled have been taken from the dead one too.
        const other = mm.pages.followPage(SEGMENT / PAGE + 1, false);
        expect(mm.memory.frames.clientReferences[other]).toBe(1);
      },
      function* (segment, { b }, index): Sim<void> {
        yield* holder(8)(segment, { b } as HostPair);
        yield* until(b, START + 3 * MS);
        const { verbs, qp } = segment.channel;
        if (index === 0) yield* verbs.modifyQp(qp, { state: QPS_ERR });
        yield* until(b, START + 60 * MS);
        const outcome = yield* refusal(segment.read(0, 1));
        expect(outcome).toBe(index === 0 ? 'EIO' : undefined);
      },
    );
  });

  it('cuts off a sharer whose kernel does not acknowledge, and its RDMA reaches nothing any more', () => {
    const options = { recallTimeoutPs: 10 * MS, timeout: 8, retryCnt: 3 };
    share(
      options,
      function* ({ pair: { a }, ends }): Sim<void> {
        const { mm, node } = a;
        yield* mm.touch(SEGMENT, 8, true);
        yield* until(a, START + 5 * MS);
        const start = node.now;
        yield* mm.munmap(SEGMENT, PAGE);
        expect(node.now - start).toBeGreaterThan(10 * MS);
        expect(node.now - start).toBeLessThan(12 * MS);
        expect(ends[0].counters).toMatchObject({ recallsSent: 1, acknowledged: 0, cutOff: 1 });
        yield* mm.mmap(SEGMENT, PAGE, RW);
        yield* mm.fill(SEGMENT, 8 * PAGE, 7);
        const hash = mm.hash(SEGMENT, 8 * PAGE);
        yield* until(a, START + 80 * MS);
        expect(mm.hash(SEGMENT, 8 * PAGE)).toBe(hash);
      },
      function* (segment, { b }): Sim<void> {
        yield* holder(8)(segment, { b } as HostPair);
        segment.isHung = true;
        yield* until(b, START + 30 * MS);
        // It still believes to have all pages.
        expect(segment.pagesHeld).toBe(8);
        expect(yield* refusal(segment.write(0, new Uint8Array(8 * PAGE).fill(1)))).toBe('EIO');
        expect(yield* refusal(segment.write(0, Uint8Array.of(1)))).toBe('EIO');
      },
    );
  });

  it('refuses by name', () => {
    share(
      {},
      function* ({ pair: { a } }): Sim<void> {
        yield* a.mm.munmap(SEGMENT, PAGE);
        yield* a.mm.mprotect(SEGMENT + PAGE, PAGE, PROT_READ);
      },
      function* (segment, { b }): Sim<void> {
        yield* until(b, START + 1 * MS);
        const one = Uint8Array.of(1);
        const table: [string, Errno | undefined, Sim<unknown>][] = [
          ['a page that the owner does not map', 'EFAULT', segment.read(0, 1)],
          ['a write to what the owner may only read', 'EFAULT', segment.write(PAGE, one)],
          ['a read of it', undefined, segment.read(PAGE, 1)],
          ['half of it beyond the end', 'EFAULT', segment.read(8 * PAGE - 1, 2)],
          ['the rest', undefined, segment.write(2 * PAGE, one)],
        ];
        for (const [what, errno, body] of table) {
          expect([what, yield* refusal(body)]).toEqual([what, errno]);
        }
      },
    );
  });

  it.each(['page', 'batch', 'region'] as const)(
    'keeps every byte true under recalls by %s',
    (form) => {
      const first = Number(process.env.SEED ?? 1);
      const count = Number(process.env.SEEDS ?? 2);
      for (let seed = first; seed < first + count; seed++) {
        const pair = share(
          {
            form,
            sharers: 3,
            pages: 12,
            seed,
            host: { memoryNodes: 2, swapBytes: 4096 * PAGE },
            wire: { lossPpm: 2000 },
            timeout: 8,
          },
          function* ({ pair: { a } }): Sim<void> {
            const random = new RandomStream(seed, 'test', 'owner');
            const { mm } = a;
            const pressing = a.createProcess('pressing').mm;
            yield* pressing.mmap(SEGMENT, 1200 * PAGE, RW);
            for (let i = 0; i < 60; i++) {
              const page = random.below(12);
              const at = SEGMENT + page * PAGE;
              const count = 1 + random.below(12 - page);
              // Every byte of a page is its number, unless it is 0 because the page is new.
              const write = function* (): Sim<void> {
                for (let p = page; p < page + count; p++) {
                  yield* mm.write(SEGMENT + p * PAGE, new Uint8Array(PAGE).fill(p + 1));
                }
              };
              switch (random.below(8)) {
                case 0:
                  yield* mm.mmap(at, count * PAGE, RW);
                  break;
                case 1:
                  yield* mm.madviseDontneed(at, count * PAGE);
                  break;
                case 2: {
                  const child = yield* mm.fork(`child ${i}`);
                  const hash = child.hash(SEGMENT, 12 * PAGE);
                  yield* a.sleep(random.below(200 * US));
                  expect(child.hash(SEGMENT, 12 * PAGE)).toBe(hash);
                  yield* child.exit();
                  break;
                }
                case 3:
                  yield* migratePages(mm.state, i % 2, 1 - (i % 2));
                  break;
                case 4:
                  yield* pressing.touch(SEGMENT + random.below(3) * 400 * PAGE, 400, true);
                  break;
                default:
                  yield* write();
              }
              yield* a.sleep(random.below(300 * US));
            }
          },
          function* (segment, { b }, index): Sim<void> {
            const random = new RandomStream(seed, 'test', `sharer ${index}`);
            for (let i = 0; i < 40; i++) {
              const page = random.below(12);
              if (random.chance(300_000)) {
                yield* segment.write(page * PAGE + 100 * index, new Uint8Array(100).fill(page + 1));
              } else {
                const bytes = yield* segment.read(page * PAGE, PAGE);
                const wrong = bytes.find((byte) => byte !== 0 && byte !== page + 1);
                expect(wrong, `page ${page} of seed ${seed}`).toBe(undefined);
              }
              yield* b.sleep(random.below(300 * US));
            }
          },
        );
        for (const host of [pair.a, pair.b]) host.checkLeaks();
      }
    },
    3_600_000,
  );
});
