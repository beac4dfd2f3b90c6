/**
 * What memory on demand costs the model, per CPU second: page faults of the adapter from the event to
 * the resume, and invalidations of ranges that the adapter has, or does not have.
 */
import { type MemoryRegion, PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_WRITE,
  ADVICE_PREFETCH_WRITE,
  ADVISE_FLUSH,
  SEND_SIGNALED,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { OneHost } from './one-host.ts';

const PAGE = 4096;
const BASE = 0x7f00_0000_0000;
const TARGET = 0x7e00_0000_0000;
const RW = PROT_READ | PROT_WRITE;
const RIGHTS = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE;
const QUEUE_PAIRS = 16;
/** Pages of one invalidated range: 64 KiB. */
const RANGE_PAGES = 16;

/**
 * Page faults served per CPU second. Sixteen queue pairs write a few bytes each from page after page
 * that the process has and the adapter does not; nothing is retransmitted, because it is the requester
 * that faults. What the writes themselves cost is part of it.
 */
export function faultsPerCpuSecond(pages: number): number {
  const world = new OneHost((pages + 1_024) * PAGE);
  const { host } = world;
  const { mm, verbs } = host;
  let source: MemoryRegion;
  let target: MemoryRegion;
  let pd = 0;
  const seconds = world.secondsOf(
    (function* (): Sim<void> {
      pd = yield* verbs.allocPd();
      yield* mm.mmap(BASE, pages * PAGE, RW);
      yield* mm.mmap(TARGET, PAGE, RW);
      source = yield* verbs.regMr(pd, BASE, pages * PAGE, RIGHTS | ACCESS_ON_DEMAND);
      target = yield* verbs.regMr(pd, TARGET, PAGE, RIGHTS);
      yield* mm.touch(BASE, pages, true);
    })(),
    function* (): Sim<void> {
      const each = pages / QUEUE_PAIRS;
      const writers = Array.from({ length: QUEUE_PAIRS }, (_, k) =>
        host.spawn('writer', writer(k * each, each)),
      );
      for (const { done } of writers) yield done;
    },
  );
  function* writer(first: number, count: number): Sim<void> {
    const cq = yield* verbs.createCq(64);
    const qp = yield* world.selfConnected(pd, cq);
    for (let page = first; page < first + count; page++) {
      yield* verbs.postSend(qp, {
        opcode: WR_RDMA_WRITE,
        wrId: 1,
        flags: SEND_SIGNALED,
        sges: [{ address: BASE + page * PAGE, length: 64, lkey: source.lkey }],
        remoteAddress: TARGET,
        rkey: target.rkey,
      });
      yield* cq.next();
    }
  }
  const [faulted] = verbs.memoryRegions;
  const served = faulted?.counters.page_faults_handled ?? 0;
  if (served !== pages) throw new Error(`${served} faults of ${pages}`);
  return served / seconds;
}

/** Invalidations of 64 KiB per CPU second; `isMapped`: the adapter has the pages, and loses them. */
export function invalidationsPerCpuSecond(ranges: number, isMapped: boolean): number {
  const pages = ranges * RANGE_PAGES;
  const world = new OneHost((pages + 1_024) * PAGE);
  const { mm, verbs } = world.host;
  const seconds = world.secondsOf(
    (function* (): Sim<void> {
      const pd = yield* verbs.allocPd();
      yield* mm.mmap(BASE, pages * PAGE, RW);
      const { lkey } = yield* verbs.regMr(pd, BASE, pages * PAGE, RIGHTS | ACCESS_ON_DEMAND);
      yield* mm.touch(BASE, pages, true);
      const range = { address: BASE, length: pages * PAGE, lkey };
      if (isMapped) yield* verbs.adviseMr(pd, ADVICE_PREFETCH_WRITE, ADVISE_FLUSH, [range]);
    })(),
    function* (): Sim<void> {
      for (let range = 0; range < ranges; range++) {
        yield* mm.madviseDontneed(BASE + range * RANGE_PAGES * PAGE, RANGE_PAGES * PAGE);
      }
    },
  );
  const counted = verbs.memoryRegions[0]?.counters.page_invalidations_handled;
  if (counted !== (isMapped ? ranges : 0)) throw new Error(`${counted} invalidations of ${ranges}`);
  return ranges / seconds;
}
