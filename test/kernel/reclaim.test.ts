/**
 * One test for each rule of reclaim: who is evicted and who is not, what is written, who is killed, and
 * what a memory cgroup may have.
 */
import { describe, expect, it } from 'vitest';
import { type AddressSpace, PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import type { MmuNotifier } from '../../kernel/mm/notify/notifier-chain.ts';
import { type ProcessKilled, untilKilled } from '../../kernel/mm/reclaim/process-killed.ts';
import { isSwapPte, PTE_PRESENT, pteNumber } from '../../kernel/mm/virtual/page-table.ts';
import { MS, US } from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const OTHER = BASE + 2 ** 32;

/** Pages of [address, address + pageCount pages) that are present. */
function present(mm: AddressSpace, address: number, pageCount: number): number {
  let count = 0;
  for (let i = 0; i < pageCount; i++) {
    if (mm.state.table.get(address / PAGE + i) & PTE_PRESENT) count++;
  }
  return count;
}

describe('the swap cache', () => {
  it('gives a page back without reading while its write is under way', () => {
    const { host, run } = makeBench();
    const { mm, ram } = host;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 8 * PAGE, RW);
        yield* mm.fill(BASE, 8 * PAGE, 7);
        const hash = mm.hash(BASE, 8 * PAGE);
        host.spawn('reclaim', ram.reclaim.shrink(8));
        while (present(mm, BASE, 8) === 8) yield* host.sleep(1 * US);
        expect(mm.hash(BASE, 8 * PAGE)).toBe(hash);
        yield* mm.touch(BASE, 8, true);
        expect(ram.counters.pswpout).toBeGreaterThan(0);
        expect(ram.counters.pswpin).toBe(0);
        yield* host.sleep(10 * MS);
        expect(mm.hash(BASE, 8 * PAGE)).toBe(hash);
      })(),
    );
    host.checkLeaks();
  });

  it('reads neighbours ahead when a program goes through swapped memory in order', () => {
    const { host, run } = makeBench({ memoryBytes: 512 * PAGE });
    const { mm, ram } = host;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 128 * PAGE, RW);
        yield* mm.fill(BASE, 128 * PAGE, 3);
        const hash = mm.hash(BASE, 128 * PAGE);
        yield* ram.reclaim.shrink(128);
        yield* ram.reclaim.shrink(128);
        expect(present(mm, BASE, 128)).toBe(0);
        for (let i = 0; i < 128; i++) yield* mm.touch(BASE + i * PAGE, 1, false);
        expect(ram.counters.pswpin).toBe(128);
        expect(ram.counters.pgmajfault).toBeLessThan(48);
        expect(ram.counters.swap_ra_hit).toBeGreaterThan(64);
        expect(mm.hash(BASE, 128 * PAGE)).toBe(hash);
      })(),
    );
    host.checkLeaks();
  });
});

describe('reclaim', () => {
  it('keeps pages that are used and evicts those that are not', () => {
    const { host, run } = makeBench({ memoryBytes: 256 * PAGE });
    const { mm } = host;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 32 * PAGE, RW);
        yield* mm.mmap(OTHER, 600 * PAGE, RW);
        yield* mm.fill(BASE, 32 * PAGE, 1);
        for (let i = 0; i < 600; i++) {
          yield* mm.fill(OTHER + i * PAGE, PAGE, 2);
          yield* mm.touch(BASE, 32, false);
        }
        // The hot pages are the oldest of all by their first use.
        expect(present(mm, BASE, 32)).toBe(32);
        expect(present(mm, OTHER, 600)).toBeLessThan(224);
      })(),
    );
    expect(host.ram.counters.pgactivate).toBeGreaterThan(0);
    host.checkLeaks();
  });

  it('works ahead of a slow writer, so that he never reclaims by himself', () => {
    const { host, run } = makeBench();
    const { mm, ram } = host;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 800 * PAGE, RW);
        for (let i = 0; i < 800; i += 4) {
          yield* mm.fill(BASE + i * PAGE, 4 * PAGE, i);
          yield* host.sleep(300 * US);
        }
      })(),
    );
    expect(ram.counters.allocstall).toBe(0);
    expect(ram.counters.pgsteal_kswapd).toBeGreaterThan(500);
    expect(ram.counters.pgrotated).toBeGreaterThan(500);
    expect(ram.frames.freeCount).toBeGreaterThan(ram.nodes[0].watermarks.min);
  });

  it('never takes a pinned page, and does not even meet one that is marked', () => {
    const scans = (['counted', 'marked'] as const).map((pinnedPages) => {
      const { host, run } = makeBench({ pinnedPages });
      const { mm, ram } = host;
      const { counters } = ram;
      let perPage = 0;
      run(
        (function* (): Sim<void> {
          yield* mm.mmap(BASE, 160 * PAGE, RW);
          yield* mm.mmap(OTHER, 400 * PAGE, RW);
          yield* mm.fill(BASE, 160 * PAGE, 1);
          const pinned = new Int32Array(160);
          yield* mm.pages.pin(BASE / PAGE, 160, true, pinned, 0);
          yield* mm.fill(OTHER, 400 * PAGE, 2);
          for (let i = 0; i < 160; i++) {
            const pte = mm.state.table.get(BASE / PAGE + i);
            expect(pte & PTE_PRESENT).toBe(PTE_PRESENT);
            expect(pteNumber(pte)).toBe(pinned[i]);
          }
          const scanned = counters.pgscan_direct + counters.pgscan_kswapd;
          perPage = scanned / (counters.pgsteal_direct + counters.pgsteal_kswapd);
          mm.pages.unpin(pinned, 160, true);
          yield* mm.fill(OTHER, 400 * PAGE, 3);
          expect(present(mm, BASE, 160)).toBeLessThan(160);
        })(),
      );
      host.checkLeaks();
      return perPage;
    });
    expect(scans[0]).toBeGreaterThan(1.3 * scans[1]);
  });

  it('fails over to the next node when the own one is full, and uses the own one first', () => {
    const { host, run } = makeBench({ memoryBytes: 2048 * PAGE, memoryNodes: 2, swapBytes: 0 });
    const { mm, ram } = host;
    mm.state.homeNode = 1;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 1500 * PAGE, RW);
        yield* mm.touch(BASE, 500, true);
        expect(ram.frames.nodeOf(pteNumber(mm.state.table.get(BASE / PAGE)))).toBe(1);
        expect(ram.frames.freeLists.freeCounts[0]).toBeGreaterThan(1000);
        yield* mm.touch(BASE, 1500, true);
        expect(ram.frames.freeLists.freeCounts[0]).toBeLessThan(700);
      })(),
    );
    expect(ram.counters.allocstall).toBe(0);
  });

  it('has a kswapd for each node, and what they write comes back right', () => {
    const { host, run } = makeBench({ memoryBytes: 1024 * PAGE, memoryNodes: 2, cpus: 4 });
    const { ram } = host;
    const processes = [0, 1].map((home) => {
      const process = host.createProcess(`on node ${home}`);
      process.mm.state.homeNode = home;
      return process;
    });
    run(
      (function* (): Sim<void> {
        for (const { mm } of processes) yield* mm.mmap(BASE, 800 * PAGE, RW);
        const fills = processes.map(({ name, mm }, i) =>
          host.spawn(name, mm.fill(BASE, 800 * PAGE, i + 1)),
        );
        for (const fill of fills) yield fill.done;
        const hashes = processes.map(({ mm }) => mm.hash(BASE, 800 * PAGE));
        expect(ram.reclaim.kswapds.map(({ runs }) => runs > 0)).toEqual([true, true]);
        for (const { mm } of processes) yield* mm.touch(BASE, 800, false);
        expect(processes.map(({ mm }) => mm.hash(BASE, 800 * PAGE))).toEqual(hashes);
      })(),
    );
    host.checkLeaks();
  });

  it('has several CPUs wait for one LRU lock', () => {
    const waited = [1, 4].map((cpus) => {
      const { host, run } = makeBench({ cpus, memoryBytes: 1024 * PAGE, swapBytes: 4096 * PAGE });
      const { mm, ram } = host;
      run(
        (function* (): Sim<void> {
          yield* mm.mmap(BASE, 3200 * PAGE, RW);
          const writers = Array.from({ length: 4 }, (_, i) =>
            host.spawn(`writer ${i}`, mm.fill(BASE + i * 800 * PAGE, 800 * PAGE, i)),
          );
          for (const writer of writers) yield writer.done;
        })(),
      );
      host.checkLeaks();
      return ram.nodes[0].lruLock.contended;
    });
    expect(waited[1]).toBeGreaterThan(waited[0] + 10);
  });

  it('drops clean pages of files, and writes dirty ones back first', () => {
    const { host, run } = makeBench({ swapBytes: 0 });
    const { mm, ram } = host;
    run(
      (function* (): Sim<void> {
        const file = ram.files.open('/data');
        yield* mm.mmap(BASE, 500 * PAGE, RW, 1, file);
        yield* mm.touch(BASE, 500, false);
        expect(present(mm, BASE, 500)).toBeLessThan(256);
        yield* mm.fill(BASE, 500 * PAGE, 9);
        const hash = mm.hash(BASE, 500 * PAGE);
        yield* mm.touch(BASE, 500, false);
        expect(mm.hash(BASE, 500 * PAGE)).toBe(hash);
      })(),
    );
    expect(ram.counters.pswpout).toBe(0);
    host.checkLeaks();
  });

  it('asks a shrinker before it kills anybody', () => {
    const { host, run } = makeBench({ swapBytes: 0 });
    const { mm, ram } = host;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 150 * PAGE, RW);
        yield* mm.mmap(OTHER, 200 * PAGE, RW);
        yield* mm.fill(BASE, 150 * PAGE, 1);
        let cached = 150;
        ram.reclaim.registerShrinker({
          name: 'cache',
          count: () => cached,
          *scan(pageCount): Sim<number> {
            const given = Math.min(cached, pageCount);
            cached -= given;
            yield* mm.munmap(BASE + cached * PAGE, given * PAGE);
            return given;
          },
        });
        // Another process allocates: that of the cache would wait for its own mmap lock.
        const other = host.createProcess('other');
        yield* other.mm.mmap(BASE, 200 * PAGE, RW);
        yield* other.mm.fill(BASE, 200 * PAGE, 2);
        expect(cached).toBeLessThan(100);
      })(),
    );
    expect(ram.oom.kills).toEqual([]);
    host.checkLeaks();
  });
});

describe('the OOM killer', () => {
  it('ends the largest process, gives its memory back, and leaves the others alone', () => {
    const { host, run } = makeBench({ swapBytes: 32 * PAGE, mm: { overcommit: 'always' } });
    const { ram } = host;
    const small = host.createProcess('small');
    const large = host.createProcess('large');
    let killed: ProcessKilled | undefined;
    const ended = run(
      (function* (): Sim<void> {
        yield* small.mm.mmap(BASE, 40 * PAGE, RW);
        yield* small.mm.fill(BASE, 40 * PAGE, 5);
        const hash = small.mm.hash(BASE, 40 * PAGE);
        yield* large.mm.mmap(BASE, 1000 * PAGE, RW);
        killed = yield* untilKilled(large.mm.fill(BASE, 1000 * PAGE, 6));
        yield* host.sleep(10 * MS);
        expect(small.mm.hash(BASE, 40 * PAGE)).toBe(hash);
        yield* small.mm.touch(BASE, 40, true);
        expect(large.mm.residentBytes).toBe(0);
        expect(ram.frames.freeCount).toBeGreaterThan(200);
      })(),
    );
    expect(ended).toBe(true);
    expect(killed?.reason).toMatch(
      /^Out of memory: killed process \d+ \(large\): total-vm 4000 kB/,
    );
    expect(ram.oom.kills.map(({ process }) => process)).toEqual(['large']);
    expect(ram.counters.oom_kill).toBe(1);
    host.checkLeaks();
  });

  it('follows oom_score_adj', () => {
    const { host, run } = makeBench({ swapBytes: 0 });
    const precious = host.createProcess('precious');
    const cheap = host.createProcess('cheap');
    precious.mm.state.oomScoreAdj = -1000;
    cheap.mm.state.oomScoreAdj = 500;
    run(
      (function* (): Sim<void> {
        yield* cheap.mm.mmap(BASE, 20 * PAGE, RW);
        yield* cheap.mm.fill(BASE, 20 * PAGE, 1);
        yield* precious.mm.mmap(BASE, 230 * PAGE, RW);
        yield* precious.mm.fill(BASE, 230 * PAGE, 2);
      })(),
    );
    expect(host.ram.oom.kills.map(({ process }) => process)).toEqual(['cheap']);
  });

  it('panics when everybody left is exempt', () => {
    const { host, run } = makeBench({ swapBytes: 0, mm: { overcommit: 'always' } });
    host.mm.state.oomScoreAdj = -1000;
    const body = (function* (): Sim<void> {
      yield* host.mm.mmap(BASE, 400 * PAGE, RW);
      yield* host.mm.touch(BASE, 400, true);
    })();
    expect(() => run(body)).toThrow(/^kernel panic/);
    expect(host.ram.nodes[0].allUnreclaimable).toBe(true);
  });

  it('comes when pins leave nothing to reclaim, and unpinning clears all_unreclaimable', () => {
    const { host, run } = makeBench();
    const { ram } = host;
    const holder = host.createProcess('holder');
    holder.mm.state.oomScoreAdj = -1000;
    const guest = host.createProcess('guest');
    run(
      (function* (): Sim<void> {
        const pinned = new Int32Array(230);
        yield* holder.mm.mmap(BASE, 230 * PAGE, RW);
        yield* holder.mm.pages.pin(BASE / PAGE, 230, true, pinned, 0);
        yield* guest.mm.mmap(BASE, 40 * PAGE, RW);
        // There is swap for a thousand pages; it does not help.
        const filled = yield* untilKilled(
          (function* (): Sim<void> {
            const more = new Int32Array(40);
            const count = yield* guest.mm.pages.pin(BASE / PAGE, 40, true, more, 0);
            guest.mm.pages.unpin(more, count, true);
            yield* guest.mm.touch(BASE, 40, true);
          })(),
        );
        expect(filled?.process).toBe('guest');
        expect(filled?.reason).toMatch(/1 of 1 nodes all_unreclaimable/);
        holder.mm.pages.unpin(pinned, 230, false);
        yield* host.sleep(200 * MS);
        yield* holder.mm.munmap(BASE, 230 * PAGE);
        expect(ram.nodes[0].allUnreclaimable).toBe(false);
      })(),
    );
  });
});

describe('a memory cgroup', () => {
  it("holds its processes to memory.max, swapping their pages and nobody else's", () => {
    const { host, run } = makeBench({ memoryBytes: 1024 * PAGE });
    const { ram } = host;
    const group = ram.groups.create('small', 64 * PAGE);
    const inside = host.createProcess('inside');
    const outside = host.createProcess('outside');
    ram.groups.enter(inside.mm.state, group);
    run(
      (function* (): Sim<void> {
        yield* outside.mm.mmap(BASE, 200 * PAGE, RW);
        yield* outside.mm.fill(BASE, 200 * PAGE, 1);
        yield* inside.mm.mmap(BASE, 200 * PAGE, RW);
        yield* inside.mm.fill(BASE, 200 * PAGE, 2);
        expect(present(outside.mm, BASE, 200)).toBe(200);
        expect(present(inside.mm, BASE, 200)).toBeLessThanOrEqual(64);
        yield* inside.mm.munmap(BASE, 200 * PAGE);
        yield* host.sleep(1 * MS);
      })(),
    );
    expect(group.pageCountPeak).toBeLessThanOrEqual(64);
    expect(group.failcnt).toBeGreaterThan(0);
    expect(group.pageCount).toBe(0);
    expect(ram.counters.allocstall).toBe(0);
    host.checkLeaks();
  });

  it('kills inside when its own reclaim is not enough', () => {
    const { host, run } = makeBench({ memoryBytes: 1024 * PAGE, swapBytes: 0 });
    const { ram } = host;
    const group = ram.groups.create('small', 64 * PAGE);
    const inside = host.createProcess('inside');
    const outside = host.createProcess('outside');
    ram.groups.enter(inside.mm.state, group);
    let killed: ProcessKilled | undefined;
    run(
      (function* (): Sim<void> {
        yield* outside.mm.mmap(BASE, 500 * PAGE, RW);
        yield* outside.mm.fill(BASE, 500 * PAGE, 1);
        yield* inside.mm.mmap(BASE, 100 * PAGE, RW);
        killed = yield* untilKilled(inside.mm.fill(BASE, 100 * PAGE, 2));
        yield* host.sleep(1 * MS);
      })(),
    );
    expect(killed?.reason).toMatch(/^Memory cgroup out of memory: killed process \d+ \(inside\)/);
    expect([group.oom, group.oomKills, group.pageCount]).toEqual([1, 1, 0]);
    expect(present(outside.mm, BASE, 500)).toBe(500);
    host.checkLeaks();
  });
});

describe('memory cgroups', () => {
  it('are refused when there are too many, or have no page', () => {
    const { groups } = makeBench().host.ram;
    const refusal = { code: 'E_OPERATION', place: 'x' };
    for (const bytes of [0, -1, PAGE - 1, Number.NaN]) {
      expect(() => groups.create('x', bytes)).toThrow(expect.objectContaining(refusal));
    }
    for (let i = 1; i < 16; i++) groups.create(`g${i}`, PAGE);
    expect(() => groups.create('x', PAGE)).toThrow(expect.objectContaining(refusal));
  });
});

describe('swap', () => {
  it('that is full leaves what it holds intact, and kills instead of losing a page', () => {
    const { host, run } = makeBench({
      memoryBytes: 128 * PAGE,
      swapBytes: 64 * PAGE,
      mm: { overcommit: 'always' },
    });
    const { mm, ram } = host;
    mm.state.oomScoreAdj = -1000;
    const other = host.createProcess('other');
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 100 * PAGE, RW);
        yield* mm.fill(BASE, 100 * PAGE, 4);
        const hash = mm.hash(BASE, 100 * PAGE);
        yield* other.mm.mmap(BASE, 200 * PAGE, RW);
        const killed = yield* untilKilled(other.mm.fill(BASE, 200 * PAGE, 5));
        expect(killed?.process).toBe('other');
        expect(mm.hash(BASE, 100 * PAGE)).toBe(hash);
        yield* host.sleep(200 * MS);
        yield* mm.touch(BASE, 100, true);
        expect(mm.hash(BASE, 100 * PAGE)).toBe(hash);
        let swapped = 0;
        for (let i = 0; i < 100; i++) {
          if (isSwapPte(mm.state.table.get(BASE / PAGE + i))) swapped++;
        }
        expect(swapped).toBeLessThan(100);
      })(),
    );
    expect(ram.swap.usedSlots).toBeLessThanOrEqual(64);
    host.checkLeaks();
  });
});

describe('huge pages', () => {
  it('are swapped in pieces', () => {
    const { host, run } = makeBench({ memoryBytes: 2048 * PAGE, swapBytes: 4096 * PAGE });
    const { mm, ram } = host;
    const at = Math.ceil(BASE / 2 ** 21) * 2 ** 21;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(at, 1024 * PAGE, RW);
        yield* mm.madvise(at, 1024 * PAGE, 14);
        yield* mm.fill(at, 1024 * PAGE, 3);
        expect(mm.state.table.getHuge(at / PAGE)).not.toBe(0);
        const hash = mm.hash(at, 1024 * PAGE);
        yield* mm.mmap(OTHER, 3000 * PAGE, RW);
        yield* mm.fill(OTHER, 3000 * PAGE, 4);
        expect(present(mm, at, 1024)).toBeLessThan(512);
        expect(mm.hash(at, 1024 * PAGE)).toBe(hash);
        yield* mm.touch(at, 1024, true);
        expect(mm.hash(at, 1024 * PAGE)).toBe(hash);
      })(),
    );
    expect(ram.counters.pswpout).toBeGreaterThan(1000);
    host.checkLeaks();
  });
});

describe('a notifier client', () => {
  /** Fills memory over after `client` has come to 32 pages that the CPU does not touch again. */
  function swappedBeside(client: Omit<MmuNotifier, 'name'>): number {
    const { host, run } = makeBench();
    const { mm } = host;
    let swapped = 0;
    run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 32 * PAGE, RW);
        yield* mm.mmap(OTHER, 600 * PAGE, RW);
        yield* mm.fill(BASE, 32 * PAGE, 1);
        yield* mm.state.lock.lockWrite();
        mm.notifiers.register({ name: 'client', ...client });
        mm.state.lock.unlockWrite();
        yield* mm.fill(OTHER, 600 * PAGE, 2);
        swapped = 32 - present(mm, BASE, 32);
      })(),
    );
    host.checkLeaks();
    return swapped;
  }
  const isInside = (address: number): boolean => address < BASE + 32 * PAGE;

  it('that says a page was used keeps it in memory (agePage)', () => {
    const idle = swappedBeside({});
    const busy = swappedBeside({
      // biome-ignore lint/correctness/useYield: it never sleeps.
      *agePage(address): Sim<boolean> {
        return isInside(address);
      },
    });
    expect([idle, busy]).toEqual([32, 0]);
  });

  it('that refuses keeps the page, and nobody loses it', () => {
    const refusing = swappedBeside({
      // biome-ignore lint/correctness/useYield: it never sleeps.
      *invalidateRangeBegin(range): Sim<void> {
        if (range.cause === 'swap' && isInside(range.start)) range.refused = true;
      },
      *invalidateRangeEnd(): Sim<void> {},
    });
    expect(refusing).toBe(0);
  });
});
