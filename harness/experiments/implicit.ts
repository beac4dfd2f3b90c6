/**
 * One key over the whole address space (S19), against a registration for each buffer.
 *
 * A program maps a buffer, sends it, unmaps it, and so on, at addresses that the kernel chooses; half-way its
 * pages are moved to other frames. Look at how often each way registers, what is pinned at most, and that
 * every byte arrives, also after the move, which pinned pages refuse.
 */
import {
  type MemoryRegion,
  movePages,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_WRITE,
  SIZE_MAX,
  US,
} from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Loopback } from './loopback.ts';
import { Stage } from './stage.ts';

const MESSAGES = 64;
const PAGES = 16;
const BYTES = PAGES * PAGE_BYTES;
const RW = PROT_READ | PROT_WRITE;
const RIGHTS = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE;
/** The receiver's memory, and the NUMA node that it moves to half-way. */
const TARGET = 0x7e0000000000;
const AWAY = 1;

type Way = 'pinned, each buffer' | 'on demand, each buffer' | 'one implicit key';
const ways: readonly Way[] = ['pinned, each buffer', 'on demand, each buffer', 'one implicit key'];

interface Figures {
  readonly registrations: number;
  readonly pinnedPeakPages: number;
  readonly pageFaults: number;
  readonly invalidations: number;
  /** Pages of the receiver that moved half-way. */
  readonly moved: number;
  readonly intact: number;
  readonly usPerMessage: number;
}

function send(way: Way, seed: number): Figures {
  const stage = new Stage({ seed, adapters: true, host: { memoryNodes: 2 } });
  const { host } = stage;
  const { mm, verbs, node } = host;
  const isImplicit = way === 'one implicit key';
  const access = RIGHTS | (way === 'pinned, each buffer' ? 0 : ACCESS_ON_DEMAND);
  let [registrations, intact, moved, spentPs] = [0, 0, 0, 0];
  const register = function* (pd: number, address: number): Sim<MemoryRegion> {
    registrations++;
    return yield* verbs.regMr(pd, isImplicit ? 0 : address, isImplicit ? SIZE_MAX : BYTES, access);
  };
  stage.run(
    (function* (): Sim<void> {
      const loop = yield* Loopback.open(host);
      yield* mm.mmap(TARGET, BYTES, RW);
      const target = yield* register(loop.pd, TARGET);
      for (let message = 1; message <= MESSAGES; message++) {
        const buffer = yield* mm.mmap(0, BYTES, RW);
        yield* mm.fill(buffer, BYTES, seed + message);
        const startPs = node.now;
        const source = isImplicit ? target : yield* register(loop.pd, buffer);
        yield* loop.write(source, buffer, target, TARGET, BYTES);
        if (!isImplicit) yield* verbs.deregMr(source);
        spentPs += node.now - startPs;
        if (mm.hash(buffer, BYTES) === mm.hash(TARGET, BYTES)) intact++;
        yield* mm.munmap(buffer, BYTES);
        if (message === MESSAGES / 2) {
          const pages = Array.from({ length: PAGES }, (_, i) => TARGET + i * PAGE_BYTES);
          const status: Int32Array = yield* movePages(
            mm.state,
            pages,
            pages.map(() => AWAY),
          );
          moved = status.filter((where) => where === AWAY).length;
        }
      }
      yield* verbs.deregMr(target);
    })(),
  );
  host.checkLeaks();
  const sum = (of: 'page_faults' | 'page_invalidations'): number =>
    verbs.memoryRegions.reduce((total, { counters }) => total + counters[of], 0);
  return {
    registrations,
    pinnedPeakPages: mm.pinnedPeakBytes / PAGE_BYTES,
    pageFaults: sum('page_faults'),
    invalidations: sum('page_invalidations'),
    moved,
    intact,
    usPerMessage: spentPs / US / MESSAGES,
  };
}

function run(seed: number): ExperimentResult {
  const figures = ways.map((way) => send(way, seed));
  const [pinned, , implicit] = figures as [Figures, Figures, Figures];
  const rows: Cell[][] = ways.map((way, i) => {
    const f = figures[i] as Figures;
    return [
      way,
      f.registrations,
      f.pinnedPeakPages,
      f.pageFaults,
      f.invalidations,
      f.moved,
      f.intact,
      f.usPerMessage,
    ];
  });
  const ok =
    figures.every(({ intact }) => intact === MESSAGES) &&
    implicit.registrations === 1 &&
    implicit.pinnedPeakPages === 0 &&
    implicit.moved === PAGES &&
    pinned.moved === 0;
  return {
    columns: [
      'registration',
      'registrations',
      'pinned_peak_pages',
      'page_faults',
      'page_invalidations',
      'pages_moved',
      'messages_intact',
      'us_per_message',
    ],
    rows,
    result:
      `${MESSAGES} buffers under one key: ${implicit.registrations} registration, ${implicit.pinnedPeakPages} pages pinned, ` +
      `${implicit.moved} of ${PAGES} pages moved under it (pinned: ${pinned.moved}); ` +
      `${implicit.usPerMessage.toFixed(0)} us a message, ${pinned.usPerMessage.toFixed(0)} with a pinned registration each`,
    ok,
  };
}

export const implicit: Experiment = {
  name: 'implicit',
  systems: ['S19'],
  title: 'What does one key over the whole address space save, and cost?',
  run,
};
