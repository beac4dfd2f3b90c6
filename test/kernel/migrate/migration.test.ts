/** Page migration: what moves, what stays, and what processes and devices see of it. */
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../../kernel/index.ts';
import { MAP_SHARED } from '../../../kernel/mm/address-space.ts';
import { MADV_HUGEPAGE } from '../../../kernel/mm/calls/advice.ts';
import {
  migratePages,
  movePages,
  PAGE_NOT_MAPPED,
  PAGE_NOT_PRESENT,
  PAGE_SHARED,
} from '../../../kernel/mm/migrate/move-pages.ts';
import { MIGRATE_BUSY, MIGRATE_NO_MEMORY } from '../../../kernel/mm/migrate/page-migration.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ADVICE_PREFETCH_WRITE,
  ADVISE_FLUSH,
  US,
} from '../../../transport/index.ts';
import { BASE, makeBench, PAGE } from '../bench.ts';

const RW = PROT_READ | PROT_WRITE;
/** Two nodes of 512 frames. */
const TWO_NODES = { memoryBytes: 1024 * PAGE, memoryNodes: 2 };

function addresses(count: number, first = 0): number[] {
  return Array.from({ length: count }, (_, i) => BASE + (first + i) * PAGE);
}

function nodesOf(values: Int32Array): number[] {
  return [...new Set(values)];
}

describe('move_pages', () => {
  it('moves pages to another node; what they hold, rights and dirt go with them', () => {
    const { host, run } = makeBench(TWO_NODES);
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 40 * PAGE, RW);
        yield* mm.fill(BASE, 40 * PAGE, 7);
        const before = mm.hash(BASE, 40 * PAGE);
        expect(nodesOf(yield* movePages(mm.state, addresses(40)))).toEqual([0]);
        const status = yield* movePages(mm.state, addresses(40), new Array<number>(40).fill(1));
        expect(nodesOf(status)).toEqual([1]);
        expect(nodesOf(yield* movePages(mm.state, addresses(40)))).toEqual([1]);
        expect(mm.hash(BASE, 40 * PAGE)).toBe(before);
        yield* mm.fill(BASE, 3 * PAGE, 9);
      })(),
    );
    expect(done).toBe(true);
    expect(host.ram.counters.pgmigrate_success).toBe(40);
    expect(host.ram.counters.pgmigrate_fail).toBe(0);
    // No page was faulted in anew.
    expect(host.ram.counters.pgfault).toBe(40);
    host.checkLeaks();
  });

  it('says of each page why it stays, and leaves it usable', () => {
    const { host, run } = makeBench(TWO_NODES);
    const { mm, verbs } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 8 * PAGE, RW);
        yield* mm.fill(BASE, 6 * PAGE, 7);
        const before = mm.hash(BASE, 8 * PAGE);
        const mr = yield* verbs.regMr(1, BASE + 2 * PAGE, 2 * PAGE, ACCESS_LOCAL_WRITE);
        const list = addresses(9);
        const status = yield* movePages(mm.state, list, new Array<number>(9).fill(1));
        const busy = MIGRATE_BUSY;
        const [gone, none] = [PAGE_NOT_PRESENT, PAGE_NOT_MAPPED];
        expect([...status]).toEqual([1, 1, busy, busy, 1, 1, gone, gone, none]);
        expect(mm.hash(BASE, 8 * PAGE)).toBe(before);
        yield* mm.fill(BASE, 8 * PAGE, 8);
        yield* verbs.deregMr(mr);
        // Nothing holds it any more.
        expect([...(yield* movePages(mm.state, [list[2]], [1]))]).toEqual([1]);
      })(),
    );
    expect(done).toBe(true);
    expect(host.ram.counters.pgmigrate_fail).toBe(2);
    host.checkLeaks();
  });

  it('stops where the target node is full', () => {
    const { host, run } = makeBench(TWO_NODES);
    const { mm, ram } = host;
    const done = run(
      (function* (): Sim<void> {
        mm.state.homeNode = 1;
        mm.mapAtStart(BASE, 480 * PAGE, RW);
        mm.adopt(BASE, 470);
        mm.state.homeNode = 0;
        yield* mm.mmap(BASE + 600 * PAGE, 100 * PAGE, RW);
        yield* mm.fill(BASE + 600 * PAGE, 100 * PAGE, 3);
        const list = addresses(100, 600);
        const status = yield* movePages(mm.state, list, new Array<number>(100).fill(1));
        const room = 512 - 470 - (ram.nodes[1]?.watermarks.min ?? 0);
        expect(status.filter((s) => s === 1)).toHaveLength(room);
        expect(status.filter((s) => s === MIGRATE_NO_MEMORY)).toHaveLength(100 - room);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('takes pages from an adapter that can fault, and gives it the new ones', () => {
    const { host, adapter, run } = makeBench(TWO_NODES);
    const { mm, verbs } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 32 * PAGE, RW);
        yield* mm.fill(BASE, 32 * PAGE, 7);
        const access = ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND;
        const mr = yield* verbs.regMr(1, BASE, 32 * PAGE, access);
        const table = adapter.tables.get(mr.lkey) as Map<number, number>;
        expect(table.size).toBe(32);
        expect(yield* migratePages(mm.state, 0, 1)).toBe(0);
        expect(table.size).toBe(0);
        const range = { address: BASE, length: 32 * PAGE, lkey: mr.lkey };
        yield* verbs.adviseMr(1, ADVICE_PREFETCH_WRITE, ADVISE_FLUSH, [range]);
        for (const entry of table.values()) expect(host.ram.frames.nodeOf(entry >>> 2)).toBe(1);
        yield* verbs.deregMr(mr);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it.each([
    ['a node that is not there', [BASE], [2], 'ENODEV'],
    ['a negative node', [BASE], [-1], 'ENODEV'],
    ['a list too short', [BASE, BASE], [1], 'EINVAL'],
  ])('refuses %s', (_, list, nodes, errno) => {
    const { host, run } = makeBench(TWO_NODES);
    const call = (): unknown =>
      run(
        (function* (): Sim<void> {
          yield* movePages(host.mm.state, list, nodes);
        })(),
      );
    expect(call).toThrow(expect.objectContaining({ code: 'E_OPERATION', errno }));
  });
});

describe('pages of other kinds', () => {
  it('shared by parent and child: only with `all`, and both see them afterwards', () => {
    const { host, run } = makeBench(TWO_NODES);
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 8 * PAGE, RW);
        yield* mm.fill(BASE, 8 * PAGE, 7);
        const before = mm.hash(BASE, 8 * PAGE);
        const child = yield* mm.fork('child');
        const to = new Array<number>(8).fill(1);
        expect(nodesOf(yield* movePages(mm.state, addresses(8), to))).toEqual([PAGE_SHARED]);
        expect(nodesOf(yield* movePages(mm.state, addresses(8), to, true))).toEqual([1]);
        expect(nodesOf(yield* movePages(child.state, addresses(8)))).toEqual([1]);
        expect(child.hash(BASE, 8 * PAGE)).toBe(before);
        // Still shared: a write copies, and the child keeps what it had.
        yield* mm.fill(BASE, 8 * PAGE, 8);
        expect(child.hash(BASE, 8 * PAGE)).toBe(before);
        yield* child.exit();
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('of a file: mappings and page cache find them where they went', () => {
    const { host, run } = makeBench(TWO_NODES);
    const { mm, ram } = host;
    const file = ram.files.open('/data');
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 8 * PAGE, RW, MAP_SHARED, file);
        yield* mm.fill(BASE, 8 * PAGE, 7);
        const before = mm.hash(BASE, 8 * PAGE);
        const status = yield* movePages(mm.state, addresses(8), new Array<number>(8).fill(1));
        expect(nodesOf(status)).toEqual([1]);
        for (let page = 0; page < 8; page++) expect(ram.frames.nodeOf(file.frameOf(page))).toBe(1);
        yield* mm.munmap(BASE, 8 * PAGE);
        yield* mm.mmap(BASE, 8 * PAGE, RW, MAP_SHARED, file);
        expect(mm.hash(BASE, 8 * PAGE)).toBe(before);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it.each([
    ['as a whole where there is room for one', false],
    ['in pieces where there is none', true],
  ])('huge: %s', (_, isScattered) => {
    const { host, run } = makeBench({ memoryBytes: 4096 * PAGE, memoryNodes: 2 });
    const { mm, ram } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 512 * PAGE, RW);
        yield* mm.madvise(BASE, 512 * PAGE, MADV_HUGEPAGE);
        yield* mm.fill(BASE, 512 * PAGE, 7);
        const before = mm.hash(BASE, 512 * PAGE);
        expect(mm.state.table.getHuge(BASE / PAGE)).not.toBe(0);
        // Every block of node 1 has a page that is taken.
        const taken: number[] = [];
        while (isScattered && ram.frames.freeLists.blocksOf(1, 9) > 0) {
          const head = ram.frames.allocateHuge(1);
          ram.frames.splitHuge(head);
          for (let i = 1; i < 512; i++) ram.frames.put(head + i);
          taken.push(head);
        }
        yield* migratePages(mm.state, 0, 1);
        // The rest of a page that was split goes in the next round, if not in the first.
        expect(yield* migratePages(mm.state, 0, 1)).toBe(0);
        expect(nodesOf(yield* movePages(mm.state, addresses(512)))).toEqual([1]);
        expect(mm.state.table.getHuge(BASE / PAGE) !== 0).toBe(!isScattered);
        expect(mm.hash(BASE, 512 * PAGE)).toBe(before);
        for (const frame of taken) ram.frames.put(frame);
      })(),
    );
    expect(done).toBe(true);
    expect(ram.counters.pgmigrate_success).toBe(512);
    host.checkLeaks();
  });
});

it('lets accesses that meet a page on its way wait, and reach it where it went', () => {
  // The CPU and the adapter keep using pages that wander between the nodes.
  const { host, adapter, run } = makeBench({ ...TWO_NODES, cpus: 4 });
  const { mm, verbs } = host;
  let rounds = 0;
  const done = run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, 16 * PAGE, RW);
      yield* mm.fill(BASE, 16 * PAGE, 1);
      const mr = yield* verbs.regMr(1, BASE, 16 * PAGE, ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND);
      let stop = false;
      const mover = host.spawn(
        'mover',
        (function* (): Sim<void> {
          for (let to = 1; !stop; to = 1 - to, rounds++) {
            yield* movePages(mm.state, addresses(16), new Array<number>(16).fill(to));
          }
        })(),
      );
      for (let pattern = 2; pattern < 300; pattern++) {
        const bytes = new Uint8Array(16 * PAGE).fill(pattern);
        yield* mm.write(BASE, bytes);
        if (pattern % 16 === 0) adapter.fault(mr.lkey, BASE + (pattern % 5) * PAGE, PAGE, 2);
        yield* host.sleep((pattern % 7) * US);
        expect(Buffer.compare(mm.read(BASE, 16 * PAGE), bytes)).toBe(0);
      }
      stop = true;
      yield mover.done;
      yield* verbs.deregMr(mr);
    })(),
  );
  expect(done).toBe(true);
  expect(rounds).toBeGreaterThan(5);
  host.checkLeaks();
});
