/**
 * The prototype of 2011 (S21, C12; seed 004): every page taken from the adapter costs a flush of the
 * hardware of tens of milliseconds, inside the callback. May such an invalidation be put off, so that one
 * flush does for many pages, and may it be refused?
 *
 * Look first at swap-out: the pages a second that reclaim gets when it waits for each flush, and with
 * batches of more and more pages. The page stays in memory until its batch is flushed; reclaim comes back
 * for it, and if flushes are too slow for its patience, the OOM killer does. Then at munmap: put off too, it returns at once, and the adapter goes on writing into a page
 * that is no longer the program's (`lost_messages`, counted by the bytes that the program sees;
 * `late_writes`, counted by the driver). Refusing is pinning by another name: reclaim gets nothing.
 */
import {
  batchingPolicy,
  immediatePolicy,
  PAGE_BYTES,
  type PostponedPolicy,
  PostponedUmem,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  untilKilled,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_WRITE,
  assert,
  MS,
} from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Loopback } from './loopback.ts';
import { Stage } from './stage.ts';

const RW = PROT_READ | PROT_WRITE;
const WRITABLE = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE;
const REGION = 0x7f0000000000;
const OTHER = 0x7e0000000000;
const SOURCE = 0x7d0000000000;
const RAM_PAGES = 1536;
const REGION_PAGES = 1024;
/** Memory that is then locked for something else, so that pages of the region have to go. */
const OTHER_PAGES = 1024;
const FLUSHES_MS = [1, 10];
/** The one that the result line is about. */
const SHOWN_FLUSH_MS = 10;
const BATCHES = [4, 16, 64, 256];
const MESSAGES = 20;
const MESSAGE_BYTES = 16 * 1024;

interface Swapped {
  readonly flushes: number;
  readonly pages: number;
  readonly ms: number;
  readonly refused: number;
  readonly kills: number;
  readonly intact: boolean;
}

/** Makes a region that the adapter has in its table, and needs memory for something else. */
function swapOut(postponed: PostponedPolicy, seed: number): Swapped {
  const stage = stageWith(postponed, seed);
  const { host } = stage;
  const { mm, node } = host;
  let result: Swapped | undefined;
  stage.run(
    (function* (): Sim<void> {
      const pd = yield* host.verbs.allocPd();
      yield* mm.mmap(REGION, REGION_PAGES * PAGE_BYTES, RW);
      yield* mm.mmap(OTHER, OTHER_PAGES * PAGE_BYTES, RW);
      yield* mm.fill(REGION, REGION_PAGES * PAGE_BYTES, 1);
      const hash = mm.hash(REGION, REGION_PAGES * PAGE_BYTES);
      const access = ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND;
      const region = yield* host.verbs.regMr(pd, REGION, REGION_PAGES * PAGE_BYTES, access);
      const umem = umemOf(region.odp);
      const { counters } = mm.memory;
      const before = counters.pswpout;
      const start = node.now;
      yield* untilKilled(mm.mlock(OTHER, OTHER_PAGES * PAGE_BYTES));
      const ms = (node.now - start) / 1e9;
      const pages = counters.pswpout - before;
      const { flushes, refused } = umem.postponedCounters;
      const intact = mm.hash(REGION, REGION_PAGES * PAGE_BYTES) === hash;
      const kills = mm.memory.oom.kills.length;
      result = { flushes, pages, ms, refused, kills, intact };
      // A killed process is taken apart by the kernel.
      if (kills === 0) yield* host.verbs.deregMr(region);
    })(),
  );
  return result as Swapped;
}

interface Unmapped {
  readonly munmapUs: number;
  readonly lostMessages: number;
  readonly lateWrites: number;
}

/** Messages into a buffer that the program has just given back and got again with other pages. */
function unmap(postponed: PostponedPolicy, seed: number): Unmapped {
  const stage = stageWith(postponed, seed);
  const { host } = stage;
  const { mm, node } = host;
  let result: Unmapped | undefined;
  stage.run(
    (function* (): Sim<void> {
      const loopback = yield* Loopback.open(host);
      const { verbs } = host;
      yield* mm.mmap(SOURCE, MESSAGE_BYTES, RW);
      yield* mm.mmap(REGION, MESSAGE_BYTES, RW);
      yield* mm.fill(REGION, MESSAGE_BYTES, 0);
      const source = yield* verbs.regMr(loopback.pd, SOURCE, MESSAGE_BYTES, ACCESS_LOCAL_WRITE);
      const access = WRITABLE | ACCESS_ON_DEMAND;
      const target = yield* verbs.regMr(loopback.pd, REGION, MESSAGE_BYTES, access);
      const umem = umemOf(target.odp);
      let lostMessages = 0;
      let munmapPs = 0;
      for (let i = 1; i <= MESSAGES; i++) {
        const start = node.now;
        yield* mm.munmap(REGION, MESSAGE_BYTES);
        munmapPs += node.now - start;
        yield* mm.mmap(REGION, MESSAGE_BYTES, RW);
        yield* mm.fill(SOURCE, MESSAGE_BYTES, i);
        yield* loopback.write(source, SOURCE, target, REGION, MESSAGE_BYTES);
        if (mm.hash(REGION, MESSAGE_BYTES) !== mm.hash(SOURCE, MESSAGE_BYTES)) lostMessages++;
        // Long enough for a batch to be flushed: each message has its own chance.
        yield* host.sleep(100 * MS);
      }
      const { lateWrites } = umem.postponedCounters;
      result = { munmapUs: munmapPs / MESSAGES / 1e6, lostMessages, lateWrites };
      yield* verbs.deregMr(target);
      yield* verbs.deregMr(source);
    })(),
  );
  host.checkLeaks();
  return result as Unmapped;
}

function swapCells({ flushes, pages, ms, refused, kills }: Swapped): Cell[] {
  return [flushes, pages, ms.toFixed(1), Math.round((pages / ms) * 1000), refused, kills];
}

function stageWith(postponed: PostponedPolicy, seed: number): Stage {
  const bytes = RAM_PAGES * PAGE_BYTES;
  const host = { memoryBytes: bytes, swapBytes: 4 * bytes, postponed };
  return new Stage({ seed, adapters: true, host });
}

function umemOf(umem: unknown): PostponedUmem {
  assert(umem instanceof PostponedUmem, 'a region of the experiment is not one of 2011');
  return umem;
}

function run(seed: number): ExperimentResult {
  const rows: Cell[][] = [];
  let [allIntact, best, waitingRate] = [true, 0, 0];
  for (const flushMs of FLUSHES_MS) {
    const deviceFlushPs = flushMs * MS;
    let waiting = 0;
    for (const batchPages of [0, ...BATCHES]) {
      const isAtOnce = batchPages === 0;
      const policy: PostponedPolicy = isAtOnce
        ? { ...immediatePolicy, deviceFlushPs }
        : { ...batchingPolicy, deviceFlushPs, batchPages };
      const o = swapOut(policy, seed);
      const rate = (o.pages / o.ms) * 1000;
      if (isAtOnce) waiting = rate;
      if (o.kills === 0) allIntact &&= o.intact;
      if (flushMs === SHOWN_FLUSH_MS) {
        if (isAtOnce) waitingRate = rate;
        if (o.kills === 0) best = Math.max(best, rate / waiting);
      }
      const name = isAtOnce ? 'swap, at once' : 'swap, postponed';
      const speedUp = o.kills === 0 ? (rate / waiting).toFixed(1) : '';
      rows.push([name, flushMs, batchPages, ...swapCells(o), speedUp, '', '', '']);
    }
  }
  const refusing = swapOut({ ...immediatePolicy, refuse: ['swap'] }, seed);
  rows.push(['swap, refused', SHOWN_FLUSH_MS, 0, ...swapCells(refusing), '', '', '', '']);
  const right = unmap(batchingPolicy, seed);
  const wrong = unmap({ ...batchingPolicy, postpone: ['swap', 'migrate', 'unmap'] }, seed);
  const unmapped = { 'munmap, at once': right, 'munmap, postponed': wrong };
  for (const [name, o] of Object.entries(unmapped)) {
    const before = [name, SHOWN_FLUSH_MS, batchingPolicy.batchPages, '', '', '', '', '', '', ''];
    rows.push([...before, o.munmapUs.toFixed(1), o.lostMessages, o.lateWrites]);
  }
  return {
    columns: [
      'invalidation',
      'flush_ms',
      'batch_pages',
      'flushes',
      'swapped_pages',
      'total_ms',
      'pages_per_s',
      'refused',
      'oom_kills',
      'speed_up',
      'munmap_us',
      'lost_messages',
      'late_writes',
    ],
    rows,
    result:
      `with a flush of ${SHOWN_FLUSH_MS} ms reclaim gets ${Math.round(waitingRate)} pages a second ` +
      `waiting for each, ` +
      `${best.toFixed(1)} times as many in batches; munmap put off loses ${wrong.lostMessages} of ` +
      `${MESSAGES} messages, at once ${right.lostMessages}; refusing everything ends in ` +
      `${refusing.kills} OOM kill, as pinning does`,
    ok:
      allIntact &&
      best > 2 &&
      right.lostMessages === 0 &&
      right.lateWrites === 0 &&
      wrong.lostMessages > 0 &&
      wrong.lateWrites > 0 &&
      refusing.refused > 0 &&
      refusing.flushes === 0 &&
      refusing.kills > 0,
  };
}

export const postponedInvalidation: Experiment = {
  name: 'postponed-invalidation',
  systems: ['S21'],
  claims: ['C12'],
  title: 'May an adapter put off an invalidation, or refuse it?',
  run,
};
