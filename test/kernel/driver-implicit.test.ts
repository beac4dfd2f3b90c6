/** The whole address space under one key: what comes, moves and goes without any registration. */
import { describe, expect, it } from 'vitest';
import {
  type Errno,
  type HostProcess,
  MAP_HUGETLB,
  type MemoryRegion,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  VerbsError,
} from '../../kernel/index.ts';
import type { ImplicitUmem } from '../../kernel/umem/implicit.ts';
import {
  ACCESS_HUGETLB,
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  MS,
  SEND_SIGNALED,
  SIZE_MAX,
  US,
  WC_LOC_PROT_ERR,
  WC_REM_OP_ERR,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { ALL_RIGHTS, HostPair, type HostPairOptions, PAGE } from '../fixtures/host-pair.ts';
import { type Endpoint, endpoint, join } from '../fixtures/loopback.ts';

const RW = PROT_READ | PROT_WRITE;
const IMPLICIT = ALL_RIGHTS | ACCESS_ON_DEMAND;
const GIB = 2 ** 30;
const LID_A = 1;
const BYTES = 8 * PAGE;
/** Where buffers are: each in a GiB of its own. */
const place = (gib: number): number => (1000 + gib) * GIB;

interface Stage {
  readonly pair: HostPair;
  readonly from: Endpoint;
  readonly to: Endpoint;
  /** The sender's memory and the receiver's, each under one key. */
  readonly source: MemoryRegion;
  readonly target: MemoryRegion;
}

const childrenOf = (region: MemoryRegion): number => (region.odp as ImplicitUmem).childCount;

function* move(stage: Stage, opcode: number, local: number, remote: number): Sim<number> {
  const { from, source, target } = stage;
  yield* from.process.verbs.postSend(from.qp, {
    opcode,
    wrId: 1,
    flags: SEND_SIGNALED,
    sges: [{ address: local, length: BYTES, lkey: source.lkey }],
    remoteAddress: remote,
    rkey: target.rkey,
  });
  return (yield* from.cq.next()).status;
}

/** Runs `story` with two processes whose whole memory is registered. */
function tell(story: (stage: Stage) => Sim<void>, options: HostPairOptions = {}): HostPair {
  const pair = new HostPair(options);
  const { a } = pair;
  const other = a.createProcess('other');
  const done = pair.run(
    (function* (): Sim<void> {
      const from = yield* endpoint(a.processes[0] as HostProcess);
      const to = yield* endpoint(other);
      yield* join(from, to, LID_A);
      const source = yield* a.verbs.regMr(from.pd, 0, SIZE_MAX, IMPLICIT);
      const target = yield* other.verbs.regMr(to.pd, 0, SIZE_MAX, IMPLICIT);
      yield* story({ pair, from, to, source, target });
    })(),
  );
  expect(done).toBe(true);
  pair.checkLeaks();
  return pair;
}

describe('an implicit region', () => {
  it('covers what was mapped after it, through munmap, mmap and mremap, and pins nothing', () => {
    tell(function* (stage): Sim<void> {
      const { from, to, source, target } = stage;
      const { mm } = to.process;
      expect([target.address, target.length]).toEqual([0, 2 ** 47]);
      yield* from.process.mm.mmap(place(0), BYTES, RW);
      const send = function* (pattern: number, remote: number): Sim<void> {
        yield* from.process.mm.fill(place(0), BYTES, pattern);
        expect(yield* move(stage, WR_RDMA_WRITE, place(0), remote)).toBe(WC_SUCCESS);
        expect(mm.hash(remote, BYTES)).toBe(from.process.mm.hash(place(0), BYTES));
      };
      yield* mm.mmap(place(5), BYTES, RW);
      yield* send(1, place(5));
      // The allocator gives it back and gets the same address with other pages.
      yield* mm.munmap(place(5), BYTES);
      yield* mm.mmap(place(5), BYTES, RW);
      yield* send(2, place(5));
      yield* mm.mremap(place(5), BYTES, place(9), BYTES);
      yield* send(3, place(9));
      expect(from.process.mm.pinnedPeakBytes + mm.pinnedPeakBytes).toBe(0);
      expect([source.mrn, target.mrn]).toEqual([1, 2]);
      expect(target.counters).toMatchObject({ page_faults: 24, page_invalidations: 16 });
      expect(target.pagesMapped).toBe(8);
    });
  });

  it('makes children where there are faults, and gives them back when they are empty', () => {
    const pair = tell(function* (stage): Sim<void> {
      const { from, to, target } = stage;
      const { mm } = to.process;
      yield* from.process.mm.mmap(place(0), BYTES, RW);
      for (const gib of [1, 2, 3]) {
        yield* mm.mmap(place(gib), BYTES, RW);
        expect(yield* move(stage, WR_RDMA_WRITE, place(0), place(gib))).toBe(WC_SUCCESS);
      }
      expect(childrenOf(target)).toBe(3);
      yield* mm.munmap(place(2), PAGE);
      yield* stage.pair.a.sleep(1 * MS);
      expect(childrenOf(target)).toBe(3);
      yield* mm.munmap(place(2), BYTES);
      yield* stage.pair.a.sleep(1 * MS);
      expect(childrenOf(target)).toBe(2);
      yield* to.process.verbs.deregMr(target);
    });
    // Of children there is no trace in the reports.
    expect(pair.hcaA.report().regions.length).toBe(2);
    expect(pair.a.report().regions.length).toBe(2);
  });

  it('serves a message that lies in two children', () => {
    tell(function* (stage): Sim<void> {
      const { from, to, target, source } = stage;
      for (const { process } of [from, to]) {
        const start = place(4) - 4 * PAGE;
        yield* process.mm.mmap(start, BYTES, RW);
        yield* process.mm.fill(start, BYTES, process === from.process ? 7 : 8);
      }
      const start = place(4) - 4 * PAGE;
      expect(yield* move(stage, WR_RDMA_READ, start, start)).toBe(WC_SUCCESS);
      expect(from.process.mm.hash(start, BYTES)).toBe(to.process.mm.hash(start, BYTES));
      expect([childrenOf(source), childrenOf(target)]).toEqual([2, 2]);
    });
  });

  it('fails the work request that leaves what the process has mapped', () => {
    const ends: number[][] = [];
    for (const isLocal of [true, false]) {
      tell(function* (stage): Sim<void> {
        const { mm } = (isLocal ? stage.to : stage.from).process;
        yield* mm.mmap(place(0), BYTES, RW);
        ends.push([yield* move(stage, WR_RDMA_WRITE, place(0), place(0))]);
      });
    }
    expect(ends).toEqual([[WC_LOC_PROT_ERR], [WC_REM_OP_ERR]]);
  });

  it('pays for an invalidation by the children that it hits', () => {
    const costOf = (gibs: readonly number[]): number => {
      let cost = 0;
      tell(function* (stage): Sim<void> {
        const { from, to } = stage;
        const { mm } = to.process;
        const { node } = stage.pair.a;
        yield* from.process.mm.mmap(place(0), BYTES, RW);
        yield* mm.mmap(place(1), 6 * GIB, RW);
        for (const gib of gibs) yield* move(stage, WR_RDMA_WRITE, place(0), place(gib));
        const start = node.now;
        yield* mm.madviseDontneed(place(1), 6 * GIB);
        cost = node.now - start;
      });
      return cost;
    };
    const [none, one, three] = [[], [1], [1, 3, 5]].map(costOf) as [number, number, number];
    expect(none).toBeLessThan(2 * US);
    const each = one - none;
    // Looking at a GiB of entries and zeroing eight of them, each for itself.
    expect(each).toBeGreaterThan(300 * US);
    expect(Math.abs(three - none - 3 * each)).toBeLessThan(0.02 * each);
  });

  it('survives a fault in a child that is being taken apart, whenever they meet', () => {
    let replaced = 0;
    for (let leadUs = 100; leadUs < 240; leadUs += 5) {
      tell(function* (stage): Sim<void> {
        const { from, to, target, pair } = stage;
        const { mm } = to.process;
        const [one, two] = [place(1), place(1) + 2 ** 20];
        yield* from.process.mm.mmap(place(0), BYTES, RW);
        yield* from.process.mm.fill(place(0), BYTES, leadUs);
        for (const at of [one, two]) yield* mm.mmap(at, BYTES, RW);
        expect(yield* move(stage, WR_RDMA_WRITE, place(0), one)).toBe(WC_SUCCESS);
        const before = target.counters.page_faults;
        // The child is emptied while the adapter's fault for its other pages is on its way.
        const gone = pair.a.spawn(
          'dontneed',
          (function* (): Sim<void> {
            yield* pair.a.sleep(leadUs * US);
            yield* mm.madviseDontneed(one, BYTES);
          })(),
        );
        expect(yield* move(stage, WR_RDMA_WRITE, place(0), two)).toBe(WC_SUCCESS);
        yield gone.done;
        if (target.counters.page_faults > before + 8) replaced++;
        expect(mm.hash(two, BYTES)).toBe(from.process.mm.hash(place(0), BYTES));
        yield* pair.a.sleep(1 * MS);
        expect(yield* move(stage, WR_RDMA_WRITE, place(0), one)).toBe(WC_SUCCESS);
        expect(mm.hash(one, BYTES)).toBe(from.process.mm.hash(place(0), BYTES));
        expect(childrenOf(target)).toBe(1);
        yield* to.process.verbs.deregMr(target);
      });
    }
    // In some of the runs the fault was served into the child that went away, and had to be again.
    expect(replaced).toBeGreaterThan(0);
  });

  it('may be of huge pages where it is explicit, and only of those', () => {
    const errors: string[] = [];
    tell(
      function* ({ to, from, source }): Sim<void> {
        const { mm, verbs } = to.process;
        const huge = 2 * 2 ** 20;
        const access = IMPLICIT | ACCESS_HUGETLB;
        yield* mm.mmap(place(2), huge, RW, MAP_HUGETLB);
        yield* mm.mmap(place(3), huge, RW);
        const mr = yield* verbs.regMr(to.pd, place(2), huge, access);
        yield* from.process.mm.mmap(place(0), BYTES, RW);
        yield* from.process.mm.fill(place(0), BYTES, 3);
        yield* from.process.verbs.postSend(from.qp, {
          opcode: WR_RDMA_WRITE,
          wrId: 1,
          flags: SEND_SIGNALED,
          sges: [{ address: place(0), length: BYTES, lkey: source.lkey }],
          remoteAddress: place(2) + 2 ** 20,
          rkey: mr.rkey,
        });
        expect((yield* from.cq.next()).status).toBe(WC_SUCCESS);
        expect(mm.hash(place(2) + 2 ** 20, BYTES)).toBe(from.process.mm.hash(place(0), BYTES));
        for (const [at, length] of [
          [place(3), huge],
          [place(2), huge + PAGE],
          [place(4), huge],
        ] as const) {
          try {
            yield* verbs.regMr(to.pd, at, length, access);
          } catch (error) {
            errors.push((error as VerbsError).errno);
          }
        }
        yield* verbs.deregMr(mr);
        yield* mm.munmap(place(2), huge);
      },
      { host: { memoryBytes: 4096 * PAGE, mm: { hugePages: 1 } } },
    );
    expect(errors).toEqual(['EINVAL', 'EINVAL', 'EINVAL']);
  });

  const refusals: { what: string; range: [number, number]; access: number; errno: Errno }[] = [
    {
      what: 'huge pages',
      range: [0, SIZE_MAX],
      access: IMPLICIT | ACCESS_HUGETLB,
      errno: 'EINVAL',
    },
    { what: 'pinned', range: [0, SIZE_MAX], access: ACCESS_LOCAL_WRITE, errno: 'EINVAL' },
    { what: 'another start than 0', range: [PAGE, SIZE_MAX], access: IMPLICIT, errno: 'EINVAL' },
    {
      what: 'one byte less than everything',
      range: [0, 2 ** 47 - 1],
      access: IMPLICIT,
      errno: 'EINVAL',
    },
    {
      what: 'remote rights without local ones',
      range: [0, SIZE_MAX],
      access: IMPLICIT & ~ACCESS_LOCAL_WRITE,
      errno: 'EINVAL',
    },
  ];

  it.each(refusals)('is refused: $what', ({ range, access, errno }) => {
    const pair = new HostPair();
    let thrown: unknown;
    pair.run(
      (function* (): Sim<void> {
        const pd = yield* pair.a.verbs.allocPd();
        try {
          yield* pair.a.verbs.regMr(pd, ...range, access);
        } catch (error) {
          thrown = error;
        }
      })(),
    );
    expect((thrown as VerbsError | undefined)?.errno).toBe(errno);
    expect(thrown).toBeInstanceOf(VerbsError);
    pair.checkLeaks();
  });
});
