/**
 * ummunotify (S17, seed 003): what it costs to be told, and that nothing is ever lost.
 *
 * For more and more registered ranges, look at what a change of memory pays that hits none of them, and
 * one that hits a single one; at the fast path, which is a load however many ranges there are; and at a
 * reader that stays away while every range changes ten times over: each is reported, once, because it is
 * its own event slot. The result line has the driver's own self test (the counter goes from 0 to 1 when
 * the middle page is unmapped) and its limit, which fails when a range is registered and loses nothing
 * afterwards.
 */
import {
  type Host,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  SystemCallError,
  Ummunotify,
  UmmunotifySource,
} from '../../kernel/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const BASE = 0x7f0000000000;
/** Memory that nobody watches, above all ranges, so that a walk in order passes all of them. */
const ELSEWHERE = 0x7fff00000000;
const RW = PROT_READ | PROT_WRITE;
const RANGE_COUNTS = [0, 10, 100, 1000, 10_000];
/** How often all of the watched memory changes while nobody reads. */
const ROUNDS = 10;
const READ_BYTES = 4096;
const LIMIT = 100;

interface Costs {
  readonly ranges: number;
  readonly registerNs: number;
  readonly missNs: number;
  readonly hitNs: number;
  readonly fastPathNs: number;
  readonly readNs: number;
  readonly reported: number;
}

/** Simulated nanoseconds that a computation takes. */
function* timed({ node }: Host, body: Sim<unknown>): Sim<number> {
  const start = node.now;
  yield* body;
  return (node.now - start) / 1000;
}

/** Takes a page away and brings it back. */
function* change({ mm }: Host, address: number): Sim<number> {
  const { memory } = mm;
  const start = memory.node.now;
  yield* mm.munmap(address, PAGE_BYTES);
  const span = memory.node.now - start;
  yield* mm.mmap(address, PAGE_BYTES, RW);
  yield* mm.touch(address, 1, true);
  return span / 1000;
}

function* measure(host: Host, ranges: number, unwatchedNs: number): Sim<Costs> {
  const { mm } = host;
  const source = yield* UmmunotifySource.open(new Ummunotify(), mm);
  const length = Math.max(ranges, 1) * PAGE_BYTES;
  yield* mm.mmap(BASE, length, RW);
  yield* mm.touch(BASE, length / PAGE_BYTES, true);
  let registerNs = 0;
  for (let i = 0; i < ranges; i++) {
    const at = BASE + i * PAGE_BYTES;
    registerNs += yield* timed(host, source.watch(i, at, at + PAGE_BYTES));
  }
  const missNs = (yield* change(host, ELSEWHERE)) - unwatchedNs;
  const fastPathNs = yield* timed(host, source.collect());
  const hitNs = (yield* change(host, BASE + length - PAGE_BYTES)) - unwatchedNs;
  yield* source.collect();
  for (let round = 0; round < ROUNDS; round++) {
    yield* mm.munmap(BASE, length);
    yield* mm.mmap(BASE, length, RW);
    yield* mm.touch(BASE, length / PAGE_BYTES, true);
  }
  let reported = 0;
  const readNs = yield* timed(
    host,
    (function* (): Sim<void> {
      const changed = yield* source.collect();
      reported = changed.length;
    })(),
  );
  yield* source.close();
  const each = Math.max(ranges, 1);
  return {
    ranges,
    registerNs: registerNs / each,
    missNs,
    hitNs,
    fastPathNs,
    readNs: readNs / each,
    reported,
  };
}

/** The counter before and after the middle page of three is unmapped. */
function* selfTest({ mm }: Host): Sim<readonly [number, number]> {
  yield* mm.mmap(BASE, 3 * PAGE_BYTES, RW);
  yield* mm.touch(BASE, 3, true);
  const file = yield* new Ummunotify().open(mm);
  yield* file.registerRegion(BASE, BASE + 3 * PAGE_BYTES, 1);
  const before = file.generation;
  yield* mm.munmap(BASE + PAGE_BYTES, PAGE_BYTES);
  const after = file.generation;
  yield* file.close();
  return [before, after];
}

/** Ranges registered before one is refused, and of those how many are reported when all have changed. */
function* limit({ mm }: Host): Sim<readonly [number, number]> {
  const file = yield* new Ummunotify(LIMIT).open(mm);
  let registered = 0;
  yield* mm.mmap(BASE, 2 * LIMIT * PAGE_BYTES, RW);
  yield* mm.touch(BASE, 2 * LIMIT, true);
  try {
    for (; ; registered++) {
      const at = BASE + registered * PAGE_BYTES;
      yield* file.registerRegion(at, at + PAGE_BYTES, registered);
    }
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.errno !== 'ENOMEM') throw error;
  }
  yield* mm.munmap(BASE, 2 * LIMIT * PAGE_BYTES);
  const cookies = new Set<number>();
  while (file.isReadable()) {
    for (const event of yield* file.read(READ_BYTES)) {
      if (event.type === 0) cookies.add(event.userCookieCounter);
    }
  }
  yield* file.close();
  return [registered, cookies.size];
}

function run(seed: number): ExperimentResult {
  const costs: Costs[] = [];
  let [before, after, registered, kept] = [-1, -1, -1, -1];
  const stage = new Stage({ seed });
  const { host } = stage;
  stage.run(
    (function* (): Sim<void> {
      [before, after] = yield* selfTest(host);
      [registered, kept] = yield* limit(host);
      yield* host.mm.mmap(ELSEWHERE, PAGE_BYTES, RW);
      yield* host.mm.touch(ELSEWHERE, 1, true);
      const unwatchedNs = yield* change(host, ELSEWHERE);
      for (const ranges of RANGE_COUNTS) costs.push(yield* measure(host, ranges, unwatchedNs));
    })(),
  );
  const rows = costs.map((c): Cell[] => [
    c.ranges,
    Math.round(c.registerNs),
    Math.round(c.missNs),
    Math.round(c.hitNs),
    c.fastPathNs,
    Math.round(c.readNs),
    c.reported,
    c.ranges - c.reported,
  ]);
  const most = costs.at(-1) as Costs;
  return {
    columns: [
      'ranges',
      'register_ns',
      'change_elsewhere_ns',
      'change_of_one_ns',
      'fast_path_ns',
      'read_ns_per_event',
      'reported',
      'lost',
    ],
    rows,
    result:
      `counter ${before} to ${after} in the self test; ${kept} of ${registered} ranges reported at ` +
      `the limit of ${LIMIT}; with ${most.ranges} ranges the fast path takes ${most.fastPathNs} ns, a ` +
      `change ${(most.missNs / 1000).toFixed(1)} us more, and ${most.ranges - most.reported} are lost`,
    ok:
      before === 0 &&
      after === 1 &&
      registered === LIMIT &&
      kept === LIMIT &&
      costs.every((c) => c.reported === c.ranges && c.fastPathNs === most.fastPathNs),
    plot: {
      x: 'ranges',
      lines: ['change_elsewhere_ns', 'change_of_one_ns', 'fast_path_ns'],
      yTitle: 'ns',
    },
  };
}

export const ummunotify: Experiment = {
  name: 'ummunotify',
  systems: ['S17'],
  claims: ['C9'],
  title: 'What does it cost to be told of changes of memory, and is anything lost?',
  run,
};
