/**
 * What mlock keeps from happening, and what it does not (S8).
 *
 * Memory of each kind is put under pressure until everything else is swapped, then moved to the other NUMA node.
 * Look at the pages swapped and moved, and at what the adapter of an on-demand region has to give up when: locked
 * memory is never swapped but moves, so with notifiers only migration reaches the adapter, while pinned
 * memory does not move either. A lock beyond RLIMIT_MEMLOCK, or beyond the share of memory that may be
 * locked, is refused.
 */
import {
  type HostProcess,
  type MemoryRegion,
  movePages,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  SystemCallError,
} from '../../kernel/index.ts';
import { ACCESS_LOCAL_WRITE, ACCESS_ON_DEMAND } from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const RAM_PAGES = 4096;
const SUBJECT_PAGES = 512;
const BASE = 0x7f0000000000;
const RW = PROT_READ | PROT_WRITE;

const KINDS = ['plain', 'on demand', 'mlocked', 'mlocked, on demand', 'pinned'] as const;
type Kind = (typeof KINDS)[number];

interface Outcome {
  readonly swapped: number;
  readonly moved: number;
  readonly refused: number;
  readonly invalidatedByReclaim: number;
  readonly invalidatedByMigration: number;
}

function makeStage(seed: number): Stage {
  return new Stage({
    seed,
    adapters: true,
    host: {
      memoryBytes: RAM_PAGES * PAGE_BYTES,
      memoryNodes: 2,
      swapBytes: 4 * RAM_PAGES * PAGE_BYTES,
      mm: { mlockShare: 0.5 },
    },
  });
}

function measure(kind: Kind, seed: number): Outcome {
  const stage = makeStage(seed);
  const { host } = stage;
  const subject = host.createProcess('subject');
  const other = host.createProcess('other');
  let outcome: Outcome | undefined;
  stage.run(
    (function* (): Sim<void> {
      const region = yield* prepare(subject, kind);
      const invalidated = (): number => region?.counters.page_invalidations ?? 0;
      const { mm } = other;
      yield* mm.mmap(BASE, 2 * RAM_PAGES * PAGE_BYTES, RW);
      yield* mm.fill(BASE, 2 * RAM_PAGES * PAGE_BYTES, 2);
      const swapped = SUBJECT_PAGES - subject.mm.residentBytes / PAGE_BYTES;
      const invalidatedByReclaim = invalidated();
      // Room on the other node.
      yield* mm.munmap(BASE, 2 * RAM_PAGES * PAGE_BYTES);
      yield* subject.mm.touch(BASE, SUBJECT_PAGES, false);
      const before = invalidated();
      const addresses = Array.from({ length: SUBJECT_PAGES }, (_, i) => BASE + i * PAGE_BYTES);
      const { state } = subject.mm;
      const from = yield* movePages(state, addresses);
      const status = yield* movePages(
        state,
        addresses,
        Array.from(from, (node) => 1 - node),
      );
      outcome = {
        swapped,
        moved: status.filter((node, i) => node === 1 - (from[i] ?? 0)).length,
        refused: status.filter((node) => node < 0).length,
        invalidatedByReclaim,
        invalidatedByMigration: invalidated() - before,
      };
    })(),
  );
  return outcome as Outcome;
}

/** Fills the subject's memory and makes it memory of that kind. */
function* prepare({ mm, verbs }: HostProcess, kind: Kind): Sim<MemoryRegion | undefined> {
  const bytes = SUBJECT_PAGES * PAGE_BYTES;
  yield* mm.mmap(BASE, bytes, RW);
  yield* mm.fill(BASE, bytes, 1);
  if (kind === 'mlocked' || kind === 'mlocked, on demand') yield* mm.mlock(BASE, bytes);
  if (kind === 'plain' || kind === 'mlocked') return undefined;
  const pd = yield* verbs.allocPd();
  const access = ACCESS_LOCAL_WRITE | (kind === 'pinned' ? 0 : ACCESS_ON_DEMAND);
  return yield* verbs.regMr(pd, BASE, bytes, access);
}

/** Errno of a lock beyond RLIMIT_MEMLOCK, and of one beyond the share of memory that may be locked. */
function refusals(seed: number): string[] {
  const stage = makeStage(seed);
  const { host } = stage;
  const found: string[] = [];
  const limited = host.createProcess('limited', { memlockBytes: 64 * PAGE_BYTES });
  const free = host.createProcess('free', { memlockBytes: Number.POSITIVE_INFINITY });
  stage.run(
    (function* (): Sim<void> {
      for (const [{ mm }, pages] of [
        [limited, 65],
        [free, RAM_PAGES / 2 + 1],
      ] as const) {
        yield* mm.mmap(BASE, pages * PAGE_BYTES, RW);
        try {
          yield* mm.mlock(BASE, pages * PAGE_BYTES);
          found.push('locked');
        } catch (error) {
          if (!(error instanceof SystemCallError)) throw error;
          found.push(error.errno);
        }
      }
    })(),
  );
  return found;
}

function run(seed: number): ExperimentResult {
  const outcomes = new Map(KINDS.map((kind) => [kind, measure(kind, seed)] as const));
  const of = (kind: Kind): Outcome => outcomes.get(kind) as Outcome;
  const rows: Cell[][] = KINDS.map((kind) => {
    const o = of(kind);
    return [kind, o.swapped, o.moved, o.refused, o.invalidatedByReclaim, o.invalidatedByMigration];
  });
  const [limit, share] = refusals(seed);
  const [both, locked, pinned] = [of('mlocked, on demand'), of('mlocked'), of('pinned')];
  return {
    columns: [
      'memory',
      'swapped_pages',
      'moved_pages',
      'refused_pages',
      'invalidated_by_reclaim_pages',
      'invalidated_by_migration_pages',
    ],
    rows,
    result:
      `of ${SUBJECT_PAGES} pages, mlocked: ${locked.swapped} swapped, ${locked.moved} moved; with an ` +
      `on-demand region ${both.invalidatedByReclaim} invalidated by reclaim, ` +
      `${both.invalidatedByMigration} by migration; pinned: ${pinned.swapped} swapped, ` +
      `${pinned.moved} moved; plain: ${of('plain').swapped} swapped; over RLIMIT_MEMLOCK: ${limit}, ` +
      `over the share: ${share}`,
    ok:
      locked.swapped + both.swapped + pinned.swapped === 0 &&
      locked.moved === SUBJECT_PAGES &&
      both.invalidatedByReclaim === 0 &&
      both.invalidatedByMigration === SUBJECT_PAGES &&
      pinned.refused === SUBJECT_PAGES &&
      of('plain').swapped > 0 &&
      of('on demand').invalidatedByReclaim > 0 &&
      limit !== 'locked' &&
      share !== 'locked',
  };
}

export const mlock: Experiment = {
  name: 'mlock',
  systems: ['S8'],
  title: 'What does mlock keep from happening, and what not?',
  run,
};
