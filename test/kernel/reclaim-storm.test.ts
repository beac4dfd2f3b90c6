/**
 * Several processes on too little memory: with cgroups, pins, mlock, fork, files, swap that fills up,
 * reclaim and migration all the time, and the OOM killer. In the end and on the way every page holds what a model
 * says, no pinned page has moved, no locked page was swapped, no cgroup is above its limit, and nothing is
 * left over.
 *
 * SEED=n says which storm is the first, SEEDS=n how many there are.
 */
import { describe, expect, it } from 'vitest';
import {
  type AddressSpace,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  SystemCallError,
} from '../../kernel/index.ts';
import { MAP_SHARED } from '../../kernel/mm/address-space.ts';
import type { MappedFile } from '../../kernel/mm/files/mapped-file.ts';
import { patternByte } from '../../kernel/mm/physical/pattern.ts';
import { untilKilled } from '../../kernel/mm/reclaim/process-killed.ts';
import { isSwapPte, PTE_PRESENT, pteNumber } from '../../kernel/mm/virtual/page-table.ts';
import { MS, RandomStream, US } from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const FILE_BASE = BASE + 2 ** 32;
const PROCESSES = 4;
const SPAN = 96;
/** Pages of the file that each process writes; all may read all. */
const SLICE = 16;

/** What a page should hold: bytes of pattern `seed` from page `index` of it on; seed 0 is zeros. */
interface Content {
  readonly seed: number;
  readonly index: number;
}

/** One process with the model of its memory. */
class Actor {
  readonly pages = new Map<number, Content>();
  readonly locked = new Set<number>();
  readonly pinned = new Map<number, number>();
  isDead = false;

  constructor(
    readonly mm: AddressSpace,
    readonly slice: number,
    readonly filePages: Map<number, Content>,
  ) {}

  /** Compares first and last bytes of every page with the model; the reaper takes those of a dying process. */
  check(): void {
    if (this.mm.state.killed !== undefined) return;
    for (let page = 0; page < SPAN; page++) {
      compare(this.mm, BASE + page * PAGE, this.pages.get(page) ?? { seed: 0, index: 0 });
    }
    for (const [page, content] of this.filePages) {
      const slice = Math.floor(page / SLICE);
      if (slice === this.slice) compare(this.mm, FILE_BASE + page * PAGE, content);
    }
  }

  /** What must hold at any moment. */
  checkPlaces(): void {
    if (this.mm.state.killed !== undefined || this.isDead) return;
    const { table } = this.mm.state;
    for (const page of this.locked) {
      expect(isSwapPte(table.get(BASE / PAGE + page)), 'a locked page is swapped').toBe(false);
    }
    for (const [page, frame] of this.pinned) {
      const pte = table.get(BASE / PAGE + page);
      expect(pte & PTE_PRESENT, 'a pinned page is gone').toBe(PTE_PRESENT);
      expect(pteNumber(pte), 'a pinned page has moved').toBe(frame);
    }
  }

  unpinAll(): void {
    const frames = Int32Array.from(this.pinned.values());
    this.mm.pages.unpin(frames, frames.length, true);
    this.pinned.clear();
  }
}

function compare(mm: AddressSpace, address: number, { seed, index }: Content): void {
  const bytes = mm.read(address, PAGE);
  for (const at of [0, 1, 2, 3, PAGE - 2, PAGE - 1]) {
    const wanted = seed === 0 ? 0 : patternByte(seed, index * PAGE + at);
    if (bytes[at] !== wanted) {
      expect.fail(
        `${mm.name}: byte ${at} of 0x${address.toString(16)}: ${bytes[at]}, not ${wanted}`,
      );
    }
  }
}

interface Outcome {
  readonly endPs: number;
  readonly scanned: number;
  readonly kills: number;
  readonly swapped: number;
  readonly groupStalls: number;
}

function storm(seed: number): Outcome {
  const random = new RandomStream(seed, 'test', 'storm');
  const frameCount = 120 + random.below(120);
  const bench = makeBench({
    seed,
    memoryBytes: frameCount * PAGE,
    memoryNodes: 1,
    swapBytes: (random.below(4) === 0 ? 0 : 20 + random.below(300)) * PAGE,
    cpus: 1 + random.below(4),
    pinnedPages: random.chance(500_000) ? 'counted' : 'marked',
    mm: { overcommit: 'always' },
  });
  const { host } = bench;
  const { ram } = host;
  const file: MappedFile = ram.files.open('/data');
  const filePages = new Map<number, Content>();
  const groups = [
    ram.groups.create('g1', (24 + random.below(40)) * PAGE),
    ram.groups.create('g2', (24 + random.below(40)) * PAGE),
  ];
  const actors: Actor[] = [];
  let patterns = 1;
  let running = 0;

  function* step(actor: Actor, mayFork: boolean): Sim<void> {
    const { mm, pages, locked, pinned } = actor;
    const page = random.below(SPAN);
    const count = 1 + random.below(Math.min(24, SPAN - page));
    const at = BASE + page * PAGE;
    const range = Array.from({ length: count }, (_, i) => page + i);
    switch (random.below(14)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const pattern = patterns++;
        // A process that is killed on the way leaves pages in between.
        yield* mm.fill(at, count * PAGE, pattern);
        for (let i = 0; i < count; i++) pages.set(page + i, { seed: pattern, index: i });
        break;
      }
      case 4:
      case 5:
        yield* mm.touch(at, count, random.chance(300_000));
        break;
      case 6:
        if (range.some((p) => pinned.has(p) || locked.has(p))) break;
        yield* mm.madvise(at, count * PAGE, 4);
        for (const p of range) pages.delete(p);
        break;
      case 7:
        if (locked.size + count > 16) break;
        yield* mm.mlock(at, count * PAGE);
        for (const p of range) locked.add(p);
        break;
      case 8:
        for (const p of range) locked.delete(p);
        yield* mm.munlock(at, count * PAGE);
        break;
      case 9: {
        if (pinned.size + count > 12 || range.some((p) => pinned.has(p))) break;
        const frames = new Int32Array(count);
        const got = yield* mm.pages.pin(at / PAGE, count, true, frames, 0);
        for (let i = 0; i < got; i++) pinned.set(page + i, frames[i]);
        break;
      }
      case 10:
        actor.unpinAll();
        break;
      case 11: {
        if (actor.slice < 0) break;
        const first = actor.slice * SLICE + random.below(SLICE - 4);
        const pattern = patterns++;
        yield* mm.fill(FILE_BASE + first * PAGE, 4 * PAGE, pattern);
        for (let i = 0; i < 4; i++) filePages.set(first + i, { seed: pattern, index: i });
        break;
      }
      case 12:
        yield* mm.touch(FILE_BASE + random.below(SLICE * PROCESSES - 8) * PAGE, 8, false);
        break;
      default:
        if (mayFork) yield* forkChild(actor);
    }
    actor.check();
  }

  function* forkChild(parent: Actor): Sim<void> {
    const before = new Map(parent.pages);
    let mm: AddressSpace;
    try {
      mm = yield* parent.mm.fork(`${parent.mm.name}'`);
    } catch (error) {
      // Pinned pages are copied at once, and there may be no memory for that.
      if (error instanceof SystemCallError && error.errno === 'ENOMEM') return;
      throw error;
    }
    const child = new Actor(host.addProcess(mm.name, mm).mm, -1, filePages);
    for (const [page, content] of before) child.pages.set(page, content);
    actors.push(child);
    start(child, 4, false);
  }

  function start(actor: Actor, steps: number, mayFork: boolean): void {
    running++;
    const program = function* (): Sim<void> {
      yield* untilKilled(
        (function* (): Sim<void> {
          for (let i = 0; i < steps; i++) {
            yield* step(actor, mayFork);
            yield* host.sleep(random.below(200 * US));
          }
          actor.check();
        })(),
      );
      actor.isDead = true;
      // What closing the device does.
      actor.unpinAll();
      const process = host.processes.find(({ mm }) => mm === actor.mm);
      if (process !== undefined && actor.mm.state.killed === undefined) yield* process.exit();
      running--;
    };
    host.spawn(actor.mm.name, program());
  }

  const ended = bench.run(
    (function* (): Sim<void> {
      for (let i = 0; i < PROCESSES; i++) {
        const { mm } = host.createProcess(`p${i}`);
        const actor = new Actor(mm, i, filePages);
        if (i > 0 && i <= groups.length) ram.groups.enter(mm.state, groups[i - 1]);
        mm.state.oomScoreAdj = random.below(300);
        yield* mm.mmap(BASE, SPAN * PAGE, RW);
        yield* mm.mmap(FILE_BASE, SLICE * PROCESSES * PAGE, RW, MAP_SHARED, file);
        actors.push(actor);
        start(actor, 30, true);
      }
      while (running > 0) {
        yield* host.sleep(random.below(300 * US));
        for (const actor of actors) actor.checkPlaces();
        for (const group of groups) {
          const isDying = actors.some(
            ({ mm }) => mm.state.group === group.id && mm.state.killed !== undefined,
          );
          if (!isDying) expect(group.pageCount).toBeLessThanOrEqual(group.maxPages);
        }
        if (random.chance(100_000)) yield* ram.reclaim.shrink(1 + random.below(20));
        if (random.chance(30_000)) yield* ram.compaction.compactNode(0);
      }
      yield* host.sleep(2000 * MS);
    })(),
  );
  expect(ended, host.scheduler.unfinished().join('; ')).toBe(true);
  host.checkLeaks();
  // Nothing is left but the page of zeros, the pages of the file, and no slot.
  expect(ram.frames.freeCount + file.pages.size + 1).toBe(frameCount);
  expect([ram.swap.usedSlots, ram.swapCache.count]).toEqual([0, 0]);
  host.dispose();
  expect(bench.pool.blocks.blocksInUse).toBe(0);
  return {
    endPs: host.node.now,
    scanned: ram.counters.pgscan_direct + ram.counters.pgscan_kswapd,
    kills: ram.counters.oom_kill,
    swapped: ram.counters.pswpout,
    groupStalls: groups[0].failcnt + groups[1].failcnt,
  };
}

describe('a storm on too little memory', () => {
  const { SEED, SEEDS } = process.env;
  const first = Number(SEED ?? 1);
  const count = Number(SEEDS ?? (SEED === undefined ? 15 : 1));
  it('leaves every page as it should be and nothing behind', () => {
    let [kills, swapped, groupStalls] = [0, 0, 0];
    for (let seed = first; seed < first + count; seed++) {
      try {
        const outcome = storm(seed);
        kills += outcome.kills;
        swapped += outcome.swapped;
        groupStalls += outcome.groupStalls;
      } catch (error) {
        throw new Error(`storm ${seed}`, { cause: error });
      }
    }
    if (count < 15) return;
    // All of it did happen.
    expect(kills).toBeGreaterThan(0);
    expect(swapped).toBeGreaterThan(100);
    expect(groupStalls).toBeGreaterThan(10);
  }, 3_600_000);

  it('goes the same way twice', () => {
    expect(storm(2)).toEqual(storm(2));
  });
});
