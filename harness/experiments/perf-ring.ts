/**
 * Events of memory through a perf ring (S18, C9): Dreier and Gunthorpe say that a ring loses events under
 * load, Zijlstra and Molnar that it is a question of buffering (seed 003).
 *
 * A program watches many ranges and looks at its events only every so often; in between, random ones of
 * them change. Look at where events get lost as the load between two looks grows, for rings of several
 * sizes: nothing but the ring's size and the reader's pace decides it. `missed` are changed ranges that the
 * reader does not learn of: with a reader that trusts LOST records there are some, because the record
 * comes only with the next event that fits; one that counts a full ring as a loss has none, and pays by
 * dropping everything it has cached (`flushes`). Gunthorpe's saturating counters lose nothing at all, and
 * neither does ummunotify. The last columns are what a change costs the program whose memory it is.
 */
import {
  ALL_ENTRIES,
  type Host,
  type InvalidationSource,
  PAGE_BYTES,
  type PerfOptions,
  type PerfReading,
  PerfSource,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  Ummunotify,
  UmmunotifySource,
} from '../../kernel/index.ts';
import { RandomStream } from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const BASE = 0x7f0000000000;
const RW = PROT_READ | PROT_WRITE;
/** Ranges that are watched; Dreier in seed 003: "for these 1000 address ranges". */
const RANGES = 1000;
const LOOKS = 2;
const LOADS = [32, 64, 128, 256, 512, 1024];

type Open = (host: Host) => Sim<InvalidationSource>;

const perf =
  (options: PerfOptions, reading?: PerfReading): Open =>
  ({ mm }) =>
    PerfSource.open(mm, { eventLimit: RANGES + 2, ...options }, reading);

/** The sources by the name of their columns. */
const SOURCES: Readonly<Record<string, Open>> = {
  drop_1: perf({ pageCount: 1, mode: 'drop' }),
  drop_4: perf({ pageCount: 4, mode: 'drop' }),
  drop_16: perf({ pageCount: 16, mode: 'drop' }),
  overwrite_1: perf({ pageCount: 1, mode: 'overwrite' }),
  trusting_1: perf({ pageCount: 1, mode: 'drop' }, 'trusting'),
  counters_1: perf({ pageCount: 1, mode: 'overwrite', records: 'tag' }, 'counters'),
  ummunotify: ({ mm }) => UmmunotifySource.open(new Ummunotify(), mm),
};

/** Those of which the cost of a change is shown. */
const COSTED = ['drop_1', 'counters_1', 'ummunotify'];

interface Outcome {
  readonly lost: number;
  readonly missed: number;
  readonly flushes: number;
  readonly changeNs: number;
}

/** One source under one load: changes between two looks. */
function measure(open: Open | undefined, load: number, seed: number): Outcome {
  const stage = new Stage({ seed });
  const { host } = stage;
  const { mm, node } = host;
  const random = new RandomStream(seed, 'experiment', 'perf-ring');
  let [missed, flushes, changePs, lost] = [0, 0, 0, 0];
  stage.run(
    (function* (): Sim<void> {
      const source = open ? yield* open(host) : undefined;
      yield* mm.mmap(BASE, RANGES * PAGE_BYTES, RW);
      yield* mm.touch(BASE, RANGES, true);
      for (let i = 0; i < RANGES && source; i++) {
        yield* source.watch(i, BASE + i * PAGE_BYTES, BASE + (i + 1) * PAGE_BYTES);
      }
      for (let look = 0; look < LOOKS; look++) {
        const changed = new Set<number>();
        for (let i = 0; i < load; i++) {
          const range = random.below(RANGES);
          changed.add(range);
          const at = BASE + range * PAGE_BYTES;
          const start = node.now;
          yield* mm.munmap(at, PAGE_BYTES);
          changePs += node.now - start;
          yield* mm.mmap(at, PAGE_BYTES, RW);
          yield* mm.touch(at, 1, true);
        }
        if (source === undefined) continue;
        const told = yield* source.collect();
        if (told === ALL_ENTRIES) flushes++;
        else for (const range of changed) if (!told.includes(range)) missed++;
      }
      if (source === undefined) return;
      lost = source.eventsLost;
      yield* source.close();
    })(),
  );
  return { lost, missed, flushes, changeNs: changePs / 1000 / (LOOKS * load) };
}

function run(seed: number): ExperimentResult {
  const rows: Cell[][] = [];
  const all = new Map<string, Outcome[]>();
  for (const load of LOADS) {
    const bare = measure(undefined, load, seed);
    const row: Cell[] = [load];
    const costs: Cell[] = [];
    for (const [name, open] of Object.entries(SOURCES)) {
      const o = measure(open, load, seed);
      all.set(name, [...(all.get(name) ?? []), o]);
      row.push(name === 'trusting_1' ? o.missed : o.lost);
      if (name === 'drop_1') row.push(o.flushes);
      if (COSTED.includes(name)) costs.push(Math.round(o.changeNs - bare.changeNs));
    }
    rows.push([...row, ...costs]);
  }
  const of = (name: string): Outcome[] => all.get(name) as Outcome[];
  const lostOf = (name: string): number => of(name).reduce((sum, { lost }) => sum + lost, 0);
  const missedOf = (name: string): number => of(name).reduce((sum, { missed }) => sum + missed, 0);
  const firstLoss = (name: string): number =>
    LOADS[of(name).findIndex(({ lost }) => lost > 0)] ?? 0;
  const names = Object.keys(SOURCES);
  const columns = ['changes_per_look'];
  for (const name of names) {
    columns.push(name === 'trusting_1' ? 'missed_trusting_1' : `lost_${name}`);
    if (name === 'drop_1') columns.push('flushes_drop_1');
  }
  for (const name of COSTED) columns.push(`change_${name}_ns`);
  const heaviest = rows.at(-1) as Cell[];
  const costOf = (column: string): Cell => heaviest[columns.indexOf(column)] as Cell;
  return {
    columns,
    rows,
    result:
      `a ring of 1 page loses events from ${firstLoss('drop_1')} changes between two looks on, of 4 ` +
      `pages from ${firstLoss('drop_4')}; counters and ummunotify lose ` +
      `${lostOf('counters_1') + lostOf('ummunotify')}; with ${RANGES} ranges a change costs ` +
      `${costOf('change_drop_1_ns')} ns through perf, ${costOf('change_ummunotify_ns')} ns through ummunotify`,
    ok:
      lostOf('drop_1') > 0 &&
      lostOf('overwrite_1') > 0 &&
      lostOf('drop_4') < lostOf('drop_1') &&
      missedOf('trusting_1') > 0 &&
      names.every((name) => name === 'trusting_1' || missedOf(name) === 0) &&
      lostOf('counters_1') + lostOf('ummunotify') === 0,
    plot: {
      x: 'changes_per_look',
      lines: columns.filter((column) => column.startsWith('lost_')),
      yTitle: 'events lost',
      logX: true,
    },
  };
}

export const perfRing: Experiment = {
  name: 'perf-ring',
  systems: ['S18'],
  claims: ['C9'],
  title: 'When does a ring of events lose some, and what does it cost to lose none?',
  run,
};
