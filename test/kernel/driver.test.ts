import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim, VerbsError } from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_WRITE,
  ADVICE_PREFETCH,
  ADVICE_PREFETCH_WRITE,
  ADVISE_FLUSH,
  ATOMIC_ADD,
  ATOMIC_COMPARE_SWAP,
  NS,
  QPT_RC,
  US,
} from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const PINNED = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE;
const ODP = PINNED | ACCESS_ON_DEMAND;

describe('pinned regions', () => {
  it('enters every page, survives munmap, and unpins at the end', () => {
    const { host, adapter, run } = makeBench();
    const { mm, verbs } = host;
    const free = mm.memory.frames.freeCount;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 40 * PAGE, RW);
        const pd = yield* verbs.allocPd();
        const mr = yield* verbs.regMr(pd, BASE + 100, 39 * PAGE, PINNED);
        const table = adapter.tables.get(mr.lkey);
        expect(table?.size).toBe(40);
        expect([...(table?.values() ?? [])].every((entry) => (entry & 3) === 3)).toBe(true);
        expect(mm.pinnedBytes).toBe(40 * PAGE);
        yield* mm.munmap(BASE, 40 * PAGE);
        expect(mm.residentBytes).toBe(0);
        expect(mm.memory.frames.freeCount).toBe(free - 40);
        yield* verbs.deregMr(mr);
        expect(mm.memory.frames.freeCount).toBe(free);
        expect(mm.pinnedBytes).toBe(0);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
    expect(host.report().pinnedBytesPeak).toBe(40 * PAGE);
  });

  it('are refused beyond the memlock limit and on unmapped memory, and leave nothing behind', () => {
    const { host, run } = makeBench({ memlockBytes: 8 * PAGE });
    const { mm, verbs } = host;
    const errors: string[] = [];
    const attempt = function* (length: number, access: number): Sim<void> {
      try {
        yield* verbs.regMr(1, BASE, length, access);
      } catch (error) {
        if (!(error instanceof VerbsError)) throw error;
        errors.push(error.errno);
      }
    };
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 6 * PAGE, RW);
        yield* attempt(9 * PAGE, PINNED);
        yield* attempt(8 * PAGE, PINNED);
        yield* attempt(0, PINNED);
        yield* attempt(PAGE, ACCESS_REMOTE_WRITE);
        expect(mm.pinnedBytes).toBe(0);
      })(),
    );
    expect(errors).toEqual(['ENOMEM', 'EFAULT', 'EINVAL', 'EINVAL']);
    expect(host.report().regions).toEqual([]);
    host.checkLeaks();
  });
});

describe('on-demand regions', () => {
  it('snapshot what is present, fault in the rest, and lose it at munmap', () => {
    const { host, adapter, run } = makeBench();
    const { mm, verbs } = host;
    const free = mm.memory.frames.freeCount;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 8 * PAGE, RW);
        yield* mm.touch(BASE, 2, true);
        const mr = yield* verbs.regMr(1, BASE, 8 * PAGE, ODP);
        const table = adapter.tables.get(mr.lkey);
        expect([...(table?.keys() ?? [])]).toEqual([0, 1]);
        adapter.fault(mr.lkey, BASE + 3 * PAGE, 2 * PAGE, ACCESS_WRITE);
        yield* host.sleep(100 * US);
        expect(adapter.resumes.map((r) => r.status)).toEqual([0]);
        expect([...(table?.keys() ?? [])]).toEqual([0, 1, 3, 4]);
        yield* mm.munmap(BASE, 8 * PAGE);
        expect(table?.size).toBe(0);
        expect(mm.memory.frames.freeCount).toBe(free);

        adapter.fault(mr.lkey, BASE, 1, ACCESS_READ);
        yield* host.sleep(100 * US);
        expect(adapter.resumes[1].status).toBe(1);
        yield* mm.mmap(BASE, PAGE, RW);
        adapter.fault(mr.lkey, BASE, 1, ACCESS_READ);
        yield* host.sleep(100 * US);
        expect(adapter.resumes[2].status).toBe(0);
        yield* verbs.deregMr(mr);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
    const [region] = host.report().regions;
    expect(region.counters).toMatchObject({
      page_faults: 3,
      page_faults_handled: 2, // the one that failed is not: mlx5 counts it nowhere
      page_invalidations: 4,
      page_invalidations_handled: 1,
      pages_mapped: 1,
    });
    expect(region.faultLatenciesPs).toHaveLength(3);
    expect(region.faultLatenciesPs[0]).toBeGreaterThan(2 * US + 5_300 * NS + 6_600 * NS);
  });

  it('give read permission only where the mapping is read-only, and upgrade later', () => {
    const { host, adapter, run } = makeBench();
    const { mm, verbs } = host;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, PAGE, PROT_READ);
        const mr = yield* verbs.regMr(1, BASE, PAGE, ODP);
        const table = adapter.tables.get(mr.lkey);
        adapter.fault(mr.lkey, BASE, 8, ACCESS_READ);
        yield* host.sleep(100 * US);
        expect((table?.get(0) ?? 0) & 3).toBe(1);
        adapter.fault(mr.lkey, BASE, 8, ACCESS_WRITE);
        yield* host.sleep(100 * US);
        yield* mm.mprotect(BASE, PAGE, RW);
        expect(table?.size).toBe(0);
        yield* verbs.adviseMr(1, ADVICE_PREFETCH, ADVISE_FLUSH, [
          { address: BASE, length: PAGE, lkey: mr.lkey },
        ]);
        expect((table?.get(0) ?? 0) & 3).toBe(1);
        adapter.fault(mr.lkey, BASE, 8, ACCESS_WRITE);
        yield* host.sleep(100 * US);
        expect((table?.get(0) ?? 0) & 3).toBe(3);
        expect(mr.counters.page_prefetch).toBe(1);
      })(),
    );
    expect(adapter.resumes.map((r) => r.status)).toEqual([0, 1, 0]);
  });

  it('do not enter pages that the process may not access', () => {
    const { host, adapter, run } = makeBench();
    const { mm, verbs } = host;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 3 * PAGE, RW);
        yield* mm.touch(BASE, 3, true);
        yield* mm.mprotect(BASE + PAGE, PAGE, 0);
        const mr = yield* verbs.regMr(1, BASE, 3 * PAGE, ODP);
        expect([...(adapter.tables.get(mr.lkey)?.keys() ?? [])]).toEqual([0, 2]);
      })(),
    );
    host.checkLeaks();
  });

  it('change no table of a key that is gone, whenever munmap and deregistration meet', () => {
    for (let leadNs = 0; leadNs <= 24_000; leadNs += 400) {
      const { host, adapter, run } = makeBench();
      const { mm, verbs } = host;
      const done = run(
        (function* (): Sim<void> {
          yield* mm.mmap(BASE, 20 * PAGE, RW);
          yield* mm.touch(BASE, 20, true);
          const mr = yield* verbs.regMr(1, BASE, 20 * PAGE, ODP);
          const unmap = host.spawn('munmap', mm.munmap(BASE, 20 * PAGE));
          yield* host.sleep(leadNs * NS);
          yield* verbs.deregMr(mr);
          yield unmap.done;
        })(),
      );
      expect(done).toBe(true);
      expect(adapter.tables.size).toBe(0);
      host.checkLeaks();
    }
  });

  it('are deregistered only when a prefetch at work is over', () => {
    const { host, adapter, run } = makeBench();
    const { mm, verbs } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 4 * PAGE, RW);
        const mr = yield* verbs.regMr(1, BASE, 4 * PAGE, ODP);
        adapter.doneDelayPs = 500 * US;
        const prefetch = host.spawn(
          'prefetch',
          verbs.adviseMr(1, ADVICE_PREFETCH_WRITE, ADVISE_FLUSH, [
            { address: BASE, length: 4 * PAGE, lkey: mr.lkey },
          ]),
        );
        yield* host.sleep(20 * US);
        yield* verbs.deregMr(mr);
        expect(prefetch.done.done).toBe(true);
        expect(mr.counters).toMatchObject({ page_prefetch: 4, pages_mapped: 4 });
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('are deregistered only when a fault at work is over', () => {
    const { host, adapter, run } = makeBench();
    const { mm, verbs } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, PAGE, RW);
        const mr = yield* verbs.regMr(1, BASE, PAGE, ODP);
        adapter.fault(mr.lkey, BASE, 1, ACCESS_WRITE);
        yield* host.sleep(10 * US); // its thread is past the look-up of the region
        yield* verbs.deregMr(mr);
        expect(adapter.resumes).toMatchObject([{ status: 0 }]);
        expect(mr.counters).toMatchObject({ page_faults: 1, pages_mapped: 1 });
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('pay only the check when the adapter has nothing of the range', () => {
    const { host, run } = makeBench();
    const { mm, verbs } = host;
    const { costs } = mm.memory;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 4 * PAGE, RW);
        yield* verbs.regMr(1, BASE, 4 * PAGE, ODP);
        const start = host.node.now;
        yield* mm.munmap(BASE, 4 * PAGE);
        const expected =
          costs.systemCallPs +
          costs.vmaChangePs +
          costs.invalidateCheckPs +
          4 * costs.invalidateCheckPagePs;
        expect(host.node.now - start).toBe(expected);
      })(),
    );
  });

  it('look again when an invalidation races with a fault', () => {
    // The adapter acknowledges slowly, so an invalidation of one page is still running when a fault
    // on its neighbour, and then on the page itself, come in.
    const { host, adapter, run } = makeBench();
    const { mm, verbs } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 4 * PAGE, RW);
        yield* mm.touch(BASE, 4, true);
        const mr = yield* verbs.regMr(1, BASE, 4 * PAGE, ODP);
        const table = adapter.tables.get(mr.lkey);
        adapter.doneDelayPs = 500 * US;
        const other = host.spawn('dontneed', mm.madviseDontneed(BASE, 2 * PAGE));
        yield* host.sleep(30 * US);
        adapter.fault(mr.lkey, BASE, PAGE, ACCESS_WRITE);
        yield* host.sleep(100 * US);
        expect(adapter.resumes).toHaveLength(0);
        yield other.done;
        const zapped = host.node.now;
        yield* host.sleep(100 * US);
        expect(adapter.resumes).toHaveLength(1);
        expect(adapter.resumes[0].status).toBe(0);
        expect(adapter.resumes[0].at).toBeGreaterThan(zapped);
        expect(table?.get(0)).toBeDefined();
        expect(table?.get(1)).toBeUndefined();
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});

describe('DMA', () => {
  it('samples memory when the read arrives and copies on later writes', () => {
    const { host, adapter, pool, run } = makeBench();
    const { mm, verbs } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 2 * PAGE, RW);
        yield* mm.fill(BASE, 2 * PAGE, 5);
        const mr = yield* verbs.regMr(1, BASE, 2 * PAGE, PINNED);
        const table = adapter.tables.get(mr.lkey) as Map<number, number>;
        const frames = [0, 1].map((page) => (table.get(page) as number) >>> 2);
        adapter.dmaRead(9, frames, 4000, 200);
        yield* host.sleep(700 * NS); // it gets here after two latencies
        yield* mm.fill(BASE, 2 * PAGE, 6);
        yield* host.sleep(10 * US);
        const bytes = adapter.readData.get(9);
        expect(bytes).toHaveLength(200);

        const before = mm.hash(BASE + 4000, 200);
        adapter.dmaWrite(frames[0], 4000, frames[1], bytes as Uint8Array, {
          qpn: 4,
          message: 1,
          bytes: 200,
          address: BASE + 4000,
        });
        yield* host.sleep(10 * US);
        expect(mm.hash(BASE + 4000, 200)).not.toBe(before);
        yield* mm.fill(BASE, 2 * PAGE, 5);
        expect(host.report().messages).toEqual([
          {
            side: 'target',
            service: QPT_RC,
            qpn: 4,
            lid: 0,
            message: 1,
            bytes: 200,
            hash: mm.hash(BASE + 4000, 200),
          },
        ]);
        yield* verbs.deregMr(mr);
        yield* mm.munmap(BASE, 2 * PAGE);
        adapter.dmaWrite(frames[0], 0, 0, new Uint8Array(PAGE).fill(1));
        yield* host.sleep(10 * US);
      })(),
    );
    expect(done).toBe(true);
    expect(host.report().dma).toMatchObject({ dma_reads: 1, dma_writes: 2, stale_dma_writes: 1 });
    host.checkLeaks();
    host.dispose();
    expect(pool.framesInUse).toBe(0);
    expect(pool.burstsInUse).toBe(0);
    expect(pool.blocks.blocksInUse).toBe(0);
  });

  it('executes atomics on 64 bits of memory, exactly when they arrive', () => {
    const { host, adapter, run } = makeBench();
    const { mm, verbs } = host;
    const word = (at: number): bigint =>
      new DataView(mm.read(BASE + at, 8).buffer).getBigUint64(0, true);
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, PAGE, RW);
        yield* mm.write(BASE + 16, Uint8Array.of(0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0x80));
        const mr = yield* verbs.regMr(1, BASE, PAGE, PINNED);
        const frame = (adapter.tables.get(mr.lkey)?.get(0) as number) >>> 2;
        // What a read has taken before stays as it was.
        adapter.dmaRead(9, [frame], 16, 8);
        adapter.dmaAtomic(1, frame, 16, ATOMIC_ADD, [0x7fffffff, 2]);
        adapter.dmaAtomic(2, frame, 16, ATOMIC_COMPARE_SWAP, [5, 6], [7, 1]);
        adapter.dmaAtomic(3, frame, 16, ATOMIC_COMPARE_SWAP, [0x80000000, 6], [7, 0]);
        adapter.dmaAtomic(4, frame, 4088, ATOMIC_ADD, [0xffffffff, 0xffffffff]);
        yield* host.sleep(10 * US);
        expect(word(16)).toBe(5n * 2n ** 32n + 6n);
        expect(word(4088)).toBe(2n ** 64n - 1n);
        expect(word(8) | word(24)).toBe(0n);
      })(),
    );
    expect(done).toBe(true);
    expect(adapter.readData.get(9)).toEqual(Uint8Array.of(0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0x80));
    expect([...adapter.originals]).toEqual([
      [1, [0x80000007, 0xffffffff]],
      [2, [7, 1]],
      [3, [5, 6]],
      [4, [0, 0]],
    ]);
    expect(host.report().dma).toMatchObject({ dma_atomics: 4, stale_dma_writes: 0 });
    expect(host.report().atomics.map(({ side, address }) => [side, address - BASE])).toEqual([
      ['target', 16],
      ['target', 16],
      ['target', 16],
      ['target', 4088],
    ]);
  });

  it('logs a READ that is answered twice by its last answer', () => {
    const { host, adapter, run } = makeBench();
    const { mm, verbs } = host;
    let hash = 0;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, PAGE, RW);
        const mr = yield* verbs.regMr(1, BASE, PAGE, PINNED);
        const frame = (adapter.tables.get(mr.lkey)?.get(0) as number) >>> 2;
        const ends = { qpn: 4, message: 1, bytes: PAGE, address: BASE };
        for (const pattern of [1, 2]) {
          yield* mm.fill(BASE, PAGE, pattern);
          adapter.dmaRead(pattern, [frame], 0, PAGE, ends);
          yield* host.sleep(10 * US);
        }
        hash = mm.hash(BASE, PAGE);
      })(),
    );
    expect(host.report().messages).toMatchObject([{ side: 'target', message: 1, hash }]);
  });
});
