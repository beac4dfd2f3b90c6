/**
 * What pinning does to page reclaim (S7; Lameter in seed 000: "we will continually be reclaiming the page").
 *
 * A process holds a share of memory pinned; others write through more memory than is left, so that
 * every page of theirs has to be reclaimed. Look at how many pages are looked at for each one freed as the share
 * grows, and what several CPUs make of it (they meet at the LRU lock); then at the end of it:
 * pins that take nearly everything, which end in all_unreclaimable and the OOM killer although swap is empty.
 * With marked pages, which are off the lists, the work stays what it is without pins.
 */
import {
  type AddressSpace,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  untilKilled,
} from '../../kernel/index.ts';
import { US } from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const RAM_PAGES = 4096;
/** Pages that the writers write in all beyond what there is room for: so many have to be reclaimed. */
const EXCESS_PAGES = 3072;
const BASE = 0x7f0000000000;
const RW = PROT_READ | PROT_WRITE;
/** CPUs, and as many writers, where nothing else is said. */
const CPUS = 4;

type Pins = 'counted' | 'marked';

interface Outcome {
  readonly scanned: number;
  readonly freed: number;
  /** CPU time of the writers for each page that they wrote. */
  readonly cpuPerPageUs: number;
  /** Share of the CPUs that waits for the LRU lock. */
  readonly lockWaitPercent: number;
  readonly isUnreclaimable: boolean;
  readonly kills: number;
}

/** One run: `pinnedPercent` of RAM pinned, 100 being all that is not kept for emergencies. */
function measure(pins: Pins, pinnedPercent: number, cpus: number, seed: number): Outcome {
  const stage = new Stage({
    seed,
    host: {
      memoryBytes: RAM_PAGES * PAGE_BYTES,
      swapBytes: 4 * RAM_PAGES * PAGE_BYTES,
      cpus,
      pinnedPages: pins,
    },
  });
  const { host } = stage;
  const { ram } = host;
  const { counters } = ram;
  const available = ram.frames.freeCount - ram.nodes[0].watermarks.min;
  const pinned = Math.min(available, Math.floor((RAM_PAGES * pinnedPercent) / 100));
  const written = Math.floor((RAM_PAGES - pinned + EXCESS_PAGES) / cpus);
  const holder = host.createProcess('holder');
  // Pins are held by somebody who must not die: a server.
  holder.mm.state.oomScoreAdj = -1000;
  let [cpuPs, spanPs] = [0, 0];
  stage.run(
    (function* (): Sim<void> {
      yield* holder.mm.mmap(BASE, RAM_PAGES * PAGE_BYTES, RW);
      yield* holder.mm.pages.pin(BASE / PAGE_BYTES, pinned, true, new Int32Array(pinned), 0);
      const startPs = host.node.now;
      const threads = Array.from({ length: cpus }, (_, i) => {
        const { mm } = host.createProcess(`writer ${i}`);
        return host.spawn(`writer ${i}`, write(mm, written));
      });
      for (const thread of threads) {
        yield thread.done;
        cpuPs += thread.cpuPs;
      }
      spanPs = (host.node.now - startPs) * cpus;
    })(),
  );
  const { kills } = ram.oom;
  return {
    scanned: counters.pgscan_direct + counters.pgscan_kswapd,
    freed: counters.pgsteal_direct + counters.pgsteal_kswapd,
    cpuPerPageUs: cpuPs / (written * cpus) / US,
    lockWaitPercent: (100 * ram.nodes[0].lruLock.waitedPs) / spanPs,
    isUnreclaimable: kills.some(({ nodesUnreclaimable }) => nodesUnreclaimable > 0),
    kills: kills.length,
  };
}

/** Writes `pageCount` pages once each, or until it is killed. */
function* write(mm: AddressSpace, pageCount: number): Sim<void> {
  yield* mm.mmap(BASE, pageCount * PAGE_BYTES, RW);
  yield* untilKilled(mm.fill(BASE, pageCount * PAGE_BYTES, 1));
}

/** What is run: percent of RAM pinned, CPUs. */
const RUNS: readonly (readonly [percent: number, cpus: number])[] = [
  [0, CPUS],
  [50, CPUS],
  [75, CPUS],
  [90, CPUS],
  [95, CPUS],
  [90, 1],
  [90, 2],
  [90, 8],
  [100, CPUS],
];

function run(seed: number): ExperimentResult {
  const rows: Cell[][] = [];
  const found = new Map<string, Outcome>();
  for (const pins of ['counted', 'marked'] as const) {
    for (const [percent, cpus] of RUNS) {
      const outcome = measure(pins, percent, cpus, seed);
      const { scanned, freed, cpuPerPageUs, lockWaitPercent, isUnreclaimable, kills } = outcome;
      found.set(`${pins} ${percent} ${cpus}`, outcome);
      rows.push([
        pins,
        percent,
        cpus,
        scanned,
        freed,
        freed === 0 ? '-' : round(scanned / freed),
        round(cpuPerPageUs),
        round(lockWaitPercent),
        isUnreclaimable ? 'yes' : 'no',
        kills,
      ]);
    }
  }
  const of = (name: string): Outcome => found.get(name) as Outcome;
  const work = (name: string): number => of(name).scanned / of(name).freed;
  const waits = [1, 2, 4, 8].map((cpus) => of(`counted 90 ${cpus}`).lockWaitPercent);
  const full = of(`counted 100 ${CPUS}`);
  const [free, tight] = [work(`counted 0 ${CPUS}`), work(`counted 95 ${CPUS}`)];
  const marked = work(`marked 95 ${CPUS}`);
  return {
    columns: [
      'pins',
      'pinned_percent',
      'cpus',
      'pages_scanned',
      'pages_freed',
      'scanned_per_page',
      'cpu_per_page_us',
      'lock_wait_percent',
      'all_unreclaimable',
      'oom_kills',
    ],
    rows,
    result:
      `pages scanned for each one freed: ${round(free)} without pins, ${round(tight)} with 95 % of RAM ` +
      `pinned (${round(marked)} if pins are marked); LRU lock wait with 1, 2, 4, 8 CPUs: ` +
      `${waits.map((wait) => `${round(wait)} %`).join(', ')}; all pinned: all_unreclaimable, ` +
      `${full.kills} of ${CPUS} writers killed with swap empty`,
    ok:
      tight > 5 * free &&
      marked < 1.5 * free &&
      waits.every((wait, i) => i === 0 || wait > (waits[i - 1] ?? 0)) &&
      full.isUnreclaimable &&
      full.kills === CPUS,
    plot: {
      x: 'pinned_percent',
      lines: ['scanned_per_page'],
      by: 'pins',
      only: { cpus: CPUS },
      yTitle: 'pages scanned for each one freed',
      logY: true,
    },
  };
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

export const pinReclaim: Experiment = {
  name: 'pin-reclaim',
  systems: ['S7'],
  title: 'What does pinned memory cost page reclaim?',
  run,
};
