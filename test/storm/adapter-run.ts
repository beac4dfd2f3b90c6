/** Runs one storm of `adapter-plan.ts` on two adapters and hands back what happened. */
import type { HcaReport } from '../../hca/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_READ,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_WRITE,
  BlockPool,
  CMD_ALLOC_PD,
  CMD_CREATE_CQ,
  CMD_CREATE_MKEY,
  CMD_CREATE_QP,
  CMD_MODIFY_QP,
  FramePool,
  type LoggedRecord,
  QPS_ERR,
  QPS_INIT,
  QPS_RTR,
  QPS_RTS,
  QPT_RC,
  SEC,
  SEND_SIGNALED,
} from '../../transport/index.ts';
import type { BareCompletion, BareHost } from '../fixtures/bare-host.ts';
import { modify } from '../fixtures/bare-host.ts';
import { Pair } from '../fixtures/pair.ts';
import {
  AREA_PAGES,
  AREAS,
  contentOf,
  FIRST_PAGE,
  type HostPlan,
  isAtomic,
  keyOf,
  PAGE,
  type Plan,
  pagesOf,
  pdOf,
  STATIC_PAGES,
  staticAddress,
} from './adapter-plan.ts';
import { type PagedRegion, Paging } from './paging.ts';

const SPARE_FRAMES = 96;
const FIRST_QPN = 0x11;
/** No storm lasts this long unless something hangs. */
const LIMIT_PS = 2 * SEC;
const MAX_EVENTS = 20_000_000;
const ALL_RIGHTS =
  ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ | ACCESS_REMOTE_ATOMIC;

export interface HostOutcome {
  readonly completions: readonly BareCompletion[];
  readonly faults: number;
  readonly refused: number;
  readonly before: Uint8Array;
  readonly after: Uint8Array;
  /** Pages that belong to nobody and were written, and pages behind keys of fewer rights likewise. */
  readonly spoilt: readonly number[];
  readonly frozen: readonly { first: number; bytes: Uint8Array }[];
  readonly report: HcaReport;
}

export interface Outcome {
  readonly hosts: readonly [HostOutcome, HostOutcome];
  readonly digests: readonly string[];
  readonly trains: number;
  /** What was still in use when nothing was left to happen. */
  readonly leaks: readonly string[];
}

export function runPlan(plan: Plan, trains: boolean, log?: LoggedRecord[]): Outcome {
  const pages = pagesOf(plan.queuePairs);
  const pair = new Pair({
    seed: plan.seed,
    profile: plan.profile,
    pdSuspend: plan.pdSuspend,
    rateGbps: plan.rateGbps,
    latencyPs: plan.latencyPs,
    faults: plan.faults,
    trains,
    pages: FIRST_PAGE + pages + SPARE_FRAMES + 2 + STATIC_PAGES,
    isBare: true,
    limitPs: LIMIT_PS,
    pool: new FramePool(new BlockPool(4096), 8192, 2048),
  });
  if (log !== undefined) for (const node of pair.nodes) node.digest.attach(log);
  const firstSpare = staticAddress(plan) / PAGE + STATIC_PAGES;
  const spares = Array.from({ length: SPARE_FRAMES }, (_, i) => firstSpare + i);
  const sides = [pair.a, pair.b].map((host, i) => {
    const hostPlan = plan.hosts[i as 0 | 1];
    const regions = regionsOf(plan);
    const { refusePpm } = hostPlan;
    const paging = new Paging(host, pair.pool, regions, pages, spares, refusePpm, plan.seed);
    const before = fill(plan.seed, host, paging, pages);
    host.at(1000, () => setUpHost(plan, host, regions, i === 0 ? 2 : 1));
    host.at(1001, () => paging.populate(hostPlan.presentPermille));
    schedule(hostPlan, host, paging);
    return { host, regions, paging, before };
  });

  let left = MAX_EVENTS;
  while (left > 0 && pair.partition.advance(100_000)) left -= 100_000;

  const reports = [pair.hcaA.report(), pair.hcaB.report()];
  const hosts = sides.map(
    ({ host, regions, paging, before }, i): HostOutcome => ({
      completions: host.completions,
      faults: host.faults.length,
      refused: paging.refused,
      before,
      after: paging.memory(),
      spoilt: [...paging.spoilt(), ...writtenStatics(plan, host)],
      frozen: regions.flatMap(({ first, frozen }) => (frozen ? [{ first, bytes: frozen }] : [])),
      report: reports[i] as HcaReport,
    }),
  );
  return {
    hosts: hosts as unknown as Outcome['hosts'],
    digests: pair.digests(),
    trains: pair.hcaA.trainsSent + pair.hcaB.trainsSent,
    leaks: leaksOf(pair, left),
  };
}

function regionsOf(plan: Plan): PagedRegion[] {
  const pagesOfQueues = (count: number): number => count * AREAS.length * AREA_PAGES;
  const first = pagesOfQueues(plan.split);
  const region = (pd: number, from: number, count: number): PagedRegion => ({
    mkey: keyOf(pd, 0),
    pd,
    first: from,
    count,
    isAlive: true,
    isSuspended: false,
    frozen: undefined,
  });
  const second = pagesOfQueues(plan.queuePairs - plan.split);
  const regions = [region(1, 0, first)];
  if (second > 0) regions.push(region(2, first + 1, second));
  return regions;
}

/** Both domains with their keys, and the queue pairs towards the peer's of the same number. */
function setUpHost(
  plan: Plan,
  host: BareHost,
  regions: readonly PagedRegion[],
  peerLid: number,
): void {
  host.command(CMD_CREATE_CQ, [1024]);
  for (const pd of [1, 2]) {
    host.command(CMD_ALLOC_PD);
    const region = regions.find((r) => r.pd === pd);
    const first = FIRST_PAGE + (region?.first ?? 0);
    const range = region ? [first * PAGE, region.count * PAGE] : [PAGE, PAGE];
    host.command(CMD_CREATE_MKEY, [pd, ALL_RIGHTS, 7], range);
    const statics = staticAddress(plan);
    for (const [kind, access] of [
      [1, ACCESS_LOCAL_WRITE | ACCESS_REMOTE_READ],
      [2, ACCESS_REMOTE_READ],
    ] as const) {
      host.command(CMD_CREATE_MKEY, [pd, access, 7], [statics, STATIC_PAGES * PAGE]);
      const entry = (i: number): number => ((statics / PAGE + i) << 2) | ACCESS_WRITE | ACCESS_READ;
      host.table(keyOf(pd, kind), 0, STATIC_PAGES, entry);
    }
  }
  const options = {
    address: 0,
    length: 0,
    access: 0,
    peerLid,
    mtu: plan.mtu,
    sendPsn: plan.sendPsn,
    receivePsn: plan.sendPsn,
    timeout: plan.timeout,
    minRnrTimer: plan.minRnrTimer,
    maxRdAtomic: plan.maxRdAtomic,
  };
  for (let queue = 0; queue < plan.queuePairs; queue++) {
    host.command(CMD_CREATE_QP, [pdOf(plan, queue), 64, 64, 1, 1, QPT_RC]);
    modify(host, FIRST_QPN + queue, options, [QPS_INIT, QPS_RTR, QPS_RTS]);
  }
}

function schedule(plan: HostPlan, host: BareHost, paging: Paging): void {
  for (const disturbance of plan.disturbances) {
    host.at(disturbance.atPs, () => paging.disturb(disturbance));
  }
  plan.queues.forEach(({ works, receives, killPs }, queue) => {
    const qpn = FIRST_QPN + queue;
    for (const { atPs, wrId, lkey, address, length } of receives) {
      host.at(atPs, () => host.postReceive(qpn, wrId, lkey, address, length));
    }
    for (const work of works) {
      const flags = work.isSignaled ? SEND_SIGNALED : 0;
      const { compareAdd, swap, ...rest } = work;
      const operands = isAtomic(work) ? { compareAdd, swap } : {};
      const posted = { ...rest, ...operands, address: work.local, flags };
      host.at(work.atPs, () => host.postSend(qpn, posted));
    }
    if (killPs > 0) host.at(killPs, () => host.command(CMD_MODIFY_QP, [qpn, QPS_ERR]));
  });
}

/** Fills every page that is in the plan with bytes of its own, and returns them all. */
function fill(seed: number, host: BareHost, paging: Paging, pages: number): Uint8Array {
  const bytes = contentOf(seed, host.node.name[0] as string, pages);
  for (let page = 0; page < pages; page++) {
    paging.write(FIRST_PAGE + page, bytes.subarray(page * PAGE, page * PAGE + PAGE));
  }
  return bytes;
}

/** Pages behind keys that allow no writing, and that something has been written to. */
function writtenStatics(plan: Plan, host: BareHost): number[] {
  const first = staticAddress(plan) / PAGE;
  return Array.from({ length: STATIC_PAGES }, (_, i) => first + i).filter((frame) =>
    host.read(frame * PAGE, PAGE).some((byte) => byte !== 0),
  );
}

function leaksOf(pair: Pair, eventsLeft: number): string[] {
  const leaks: string[] = [];
  const { pool } = pair;
  if (eventsLeft <= 0) leaks.push('it does not come to an end');
  if (pool.framesInUse > 0) leaks.push(`${pool.framesInUse} frames`);
  if (pool.burstsInUse > 0) leaks.push(`${pool.burstsInUse} bursts`);
  const held = new Set([...pair.a.blocks, ...pair.b.blocks]);
  held.delete(0);
  if (pool.blocks.blocksInUse !== held.size) {
    leaks.push(`${pool.blocks.blocksInUse - held.size} blocks that no host holds`);
  }
  for (const hca of [pair.hcaA, pair.hcaB]) {
    try {
      hca.checkLeaks();
    } catch (error) {
      leaks.push(String(error));
    }
  }
  return leaks;
}
