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
import type { HostProcess } from '../../kernel/index.ts';
import { RandomStream } from '../../transport/index.ts';
import { Actor, FILE_SLICE } from './memory-actor.ts';
import { Disturber } from './memory-disturber.ts';
import { PAGE } from './memory-model.ts';

const FIRST = Number(process.env.SEED ?? 1);
const STORMS = Number(process.env.SEEDS ?? 12);

/** Runs one storm; returns what was done in it, by name. */
function storm(seed: number): Map<string, number> {
  const random = new RandomStream(seed, 'test', 'storm');
  const isTight = random.chance(500_000);
  const stage = new Stage({
    adapters: true,
    seed,
    profile: { dirtyTracking: true },
    host: {
      memoryBytes: (isTight ? 1024 : 3072) * PAGE,
      memoryNodes: 2,
      memorySectionBytes: 512 * PAGE,
      swapBytes: 4096 * PAGE,
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
  for (let i = 0; i < count; i++) {
    const process = i === 0 ? (host.processes[0] as HostProcess) : host.createProcess(`p${i}`);
    process.mm.state.homeNode = random.below(2);
    if (random.chance(250_000)) {
      ram.groups.enter(process.mm.state, ram.groups.create(`group ${i}`, 160 * PAGE));
    }
    actors.push(new Actor(host, process, new RandomStream(seed, 'test', `actor ${i}`), file, i));
  }
  const disturber = new Disturber(host, actors, new RandomStream(seed, 'test', 'disturber'));
  const threads = actors.map((actor, i) => host.spawn(`actor ${i}`, actor.run(60)));
  const kernel = [
    host.spawn('migrator', disturber.migrator()),
    host.spawn('compactor', disturber.compactor()),
    host.spawn('unplugger', disturber.unplugger()),
    host.spawn('reclaimer', disturber.reclaimer()),
  ];
  host.spawn(
    'end',
    (function* () {
      for (const thread of threads) yield thread.done;
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
  expect(used).toBeLessThanOrEqual(1 + file.pages.size);
  expect(file.pages.size).toBeLessThanOrEqual(count * FILE_SLICE + 64);
  expect(ram.swap.usedSlots).toBe(0);
  host.dispose();
  expect(stage.pool.framesInUse).toBe(0);
  expect(stage.pool.burstsInUse).toBe(0);
  expect(stage.pool.blocks.blocksInUse).toBe(0);
  const done = new Map(disturber.done);
  for (const actor of actors) {
    for (const [name, times] of actor.done) done.set(name, (done.get(name) ?? 0) + times);
  }
  return done;
}

it(
  `${STORMS} storms from seed ${FIRST} on: every byte, every callback, nothing left over`,
  () => {
    const total = new Map<string, number>();
    for (let seed = FIRST; seed < FIRST + STORMS; seed++) {
      try {
        for (const [name, times] of storm(seed)) total.set(name, (total.get(name) ?? 0) + times);
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
