/**
 * The storm over the memory of a host: several processes on little memory and swap, with every kind of
 * device at work on them, while the kernel reclaims, swaps, migrates, compacts and unplugs.
 *
 * What is checked does not come from the code under test: every byte against a model, callbacks against
 * their registrations, the adapter's tables against page tables, and that in the end nothing is left.
 *
 * SEED is the first seed and SEEDS how many storms there are.
 */
import { expect, it } from 'vitest';
import { Stage } from '../../harness/experiments/stage.ts';
import type { Hca } from '../../hca/index.ts';
import { Xpmem } from '../../kernel/clients/xpmem.ts';
import { type Host, type HostProcess, type Sim, untilKilled } from '../../kernel/index.ts';
import { MAP_NORESERVE } from '../../kernel/mm/address-space.ts';
import { RandomStream } from '../../transport/index.ts';
import { Actor, BASE, FILE_SLICE, WINDOW_BASE } from './memory-actor.ts';
import { Disturber } from './memory-disturber.ts';
import { PAGE, RW } from './memory-model.ts';
import { Window } from './memory-window.ts';

const FIRST = Number(process.env.SEED ?? 1);
const STORMS = Number(process.env.SEEDS ?? 16);
/** What each process does. */
const STEPS = Number(process.env.STEPS ?? 60);

/** Of so many frames that become free, one is looked for in the tables of the adapter. */
const FREED_PER_LOOK = 16;

/** A region of the adapter, as far as this test looks into it. */
interface Table {
  readonly entryPages: number;
  readonly table: {
    readonly length: number;
    get(index: number): number;
    nextUsed(from: number, end: number): number;
  };
}

/** Watches frames that become free: no table of the adapter may name one. */
function watchFrees({ frames }: Host['ram'], adapter: Hca): void {
  const { resources } = adapter as unknown as {
    resources: { mkeys: { rows: (Table | undefined)[] } };
  };
  const { onFree } = frames;
  let freed = 0;
  frames.onFree = (frame) => {
    onFree(frame);
    if (++freed % FREED_PER_LOOK > 0) return;
    for (const region of resources.mkeys.rows) {
      if (region === undefined || region.entryPages > 0) continue;
      const { table } = region;
      let at = table.nextUsed(0, table.length);
      for (; at < table.length; at = table.nextUsed(at + 1, table.length)) {
        if (table.get(at) >>> 2 !== frame) continue;
        throw new Error(`frame ${frame} becomes free while the adapter has it as page ${at}`);
      }
    }
  };
}

/** Touches more memory than there is until it is killed for it; then its memory must be back. */
function* hog(process: HostProcess, pageCount: number, done: Map<string, number>): Sim<void> {
  const { mm } = process;
  mm.state.oomScoreAdj = 1000;
  const killed = yield* untilKilled(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, pageCount * PAGE, RW, MAP_NORESERVE);
      yield* mm.touch(BASE, pageCount, true);
    })(),
  );
  done.set(killed === undefined ? 'hog survived' : 'hog killed', 1);
  yield* process.exit();
}

/** The XPMEM of the host, loaded before anybody is at work, and a window for each process. */
function share(stage: Stage, count: number): { xpmem: Xpmem; windows: Window[] } {
  const { host } = stage;
  const loading = Xpmem.load(host.ram);
  let loaded: Xpmem | undefined;
  host.spawn(
    'modprobe',
    (function* (): Sim<void> {
      loaded = yield* loading;
    })(),
  );
  stage.settle();
  const xpmem = loaded as unknown as Xpmem;
  const windows = Array.from({ length: count }, () => new Window(xpmem, WINDOW_BASE, count));
  return { xpmem, windows };
}

interface Outcome {
  /** What was done, by name. */
  readonly done: Map<string, number>;
  readonly digest: string;
}

function storm(seed: number): Outcome {
  const random = new RandomStream(seed, 'test', 'storm');
  const isTight = random.chance(500_000);
  const hasHog = random.chance(300_000);
  const swapPages = hasHog ? 1024 : 4096;
  const stage = new Stage({
    adapters: true,
    seed,
    profile: { dirtyTracking: true },
    host: {
      memoryBytes: (isTight ? 1024 : 3072) * PAGE,
      memoryNodes: 2,
      memorySectionBytes: 512 * PAGE,
      swapBytes: swapPages * PAGE,
      mm: { overcommit: 'always' },
      cpus: 1 + random.below(4),
      pinnedPages: random.chance(500_000) ? 'marked' : 'counted',
      movableNodes: random.chance(300_000) ? [1] : [],
    },
  });
  const { host } = stage;
  const { ram } = host;
  const file = ram.files.open('/data');
  const count = 2 + random.below(3);
  const actors: Actor[] = [];
  const { xpmem, windows } = share(stage, count);
  for (let i = 0; i < count; i++) {
    const process = i === 0 ? (host.processes[0] as HostProcess) : host.createProcess(`p${i}`);
    process.mm.state.homeNode = random.below(2);
    let isGrouped = false;
    // The hog is to die, whatever the others have.
    process.mm.state.oomScoreAdj = -1000;
    if (random.chance(250_000) && !hasHog && (isTight || i > 0)) {
      isGrouped = true;
      ram.groups.enter(process.mm.state, ram.groups.create(`group ${i}`, 160 * PAGE));
    }
    const hasHuge = i === 0 && !isTight;
    actors.push(
      new Actor(
        host,
        process,
        new RandomStream(seed, 'test', `actor ${i}`),
        file,
        i,
        hasHuge,
        xpmem,
        windows,
        !isTight && !isGrouped && !hasHog,
      ),
    );
  }
  const disturber = new Disturber(host, actors, new RandomStream(seed, 'test', 'disturber'));
  const threads = actors.map((actor, i) => host.spawn(`actor ${i}`, actor.run(STEPS)));
  const kernel = [
    host.spawn('migrator', disturber.migrator()),
    host.spawn('compactor', disturber.compactor()),
    host.spawn('unplugger', disturber.unplugger()),
    host.spawn('reclaimer', disturber.reclaimer()),
  ];
  const done = new Map<string, number>();
  if (hasHog) {
    const pages = 2 * (ram.frames.count + swapPages);
    kernel.push(host.spawn('hog', hog(host.createProcess('hog'), pages, done)));
  }
  watchFrees(ram, stage.adapters[0] as Hca);
  host.spawn(
    'end',
    (function* () {
      for (const thread of threads) yield thread.done;
      yield* xpmem.unload();
      disturber.isOver = true;
    })(),
  );
  stage.settle();
  for (const thread of [...threads, ...kernel]) {
    if (!thread.done.done) throw new Error(`stalled: ${host.scheduler.unfinished().join('; ')}`);
  }
  host.checkLeaks();
  for (const adapter of stage.adapters) adapter.checkLeaks();
  // Nothing is left but the page of zeros and what the page cache keeps of the file.
  let used = 0;
  for (let frame = 0; frame < ram.frames.count; frame++) if (ram.frames.references[frame]) used++;
  let cached = 0;
  for (const { pages } of ram.files.all()) cached += pages.size;
  expect(used).toBeLessThanOrEqual(1 + cached);
  expect(file.pages.size).toBeLessThanOrEqual(count * FILE_SLICE + 64);
  expect(ram.swap.usedSlots).toBe(0);
  host.dispose();
  expect(stage.pool.framesInUse).toBe(0);
  expect(stage.pool.burstsInUse).toBe(0);
  expect(stage.pool.blocks.blocksInUse).toBe(0);
  for (const { done: some } of [disturber, ...actors]) {
    for (const [name, times] of some) done.set(name, (done.get(name) ?? 0) + times);
  }
  const digest = [host.node, ...stage.adapters.map(({ node }) => node)]
    .map((node) => node.digest.toString())
    .join(' ');
  return { done, digest };
}

it(
  `${STORMS} storms from seed ${FIRST} on: every byte, every callback, nothing left over`,
  () => {
    const total = new Map<string, number>();
    for (let seed = FIRST; seed < FIRST + STORMS; seed++) {
      try {
        const { done, digest } = storm(seed);
        for (const [name, times] of done) total.set(name, (total.get(name) ?? 0) + times);
        if (seed === FIRST) expect(storm(seed).digest).toBe(digest);
      } catch (error) {
        const again = `SEED=${seed} SEEDS=1 npx vitest run test/storm/memory.test.ts`;
        process.stderr.write(`storm ${seed} failed; to reproduce: ${again}\n`);
        throw error;
      }
    }
    if (process.env.SHOW) process.stderr.write(`${JSON.stringify([...total])}\n`);
  },
  STORMS * 30_000,
);
