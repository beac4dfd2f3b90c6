/** Runs one cell of the sweep on two adapters and hands back what happened. */
import type { HcaReport } from '../../hca/index.ts';
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_FLUSH_PERSISTENT,
  ACCESS_LOCAL_WRITE,
  ACCESS_MW_BIND,
  ACCESS_READ,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_WRITE,
  BlockPool,
  BUS_RECV_DOORBELL,
  BUS_SRQ_DOORBELL,
  FramePool,
  RandomStream,
  SEC,
  SEND_FENCE,
  SEND_SIGNALED,
  US,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
} from '../../transport/index.ts';
import type { BareCompletion, BareHost, BareWork } from '../fixtures/bare-host.ts';
import { REGION_KEY } from '../fixtures/bare-host.ts';
import { Pair } from '../fixtures/pair.ts';
import {
  type Job,
  type Plan,
  REGION_BYTES,
  type Receive,
  type SidePlan,
  SOURCE,
  TARGET,
  TARGET_BYTES,
} from './sweep-cells.ts';

const PAGE = 4096;
export const FIRST_QPN = 0x11;
const QKEY = 0x1234;
/** No cell lasts this long unless something hangs. */
const LIMIT_PS = 10 * SEC;
const MAX_EVENTS = 5_000_000;
const RIGHTS =
  ACCESS_LOCAL_WRITE |
  ACCESS_MW_BIND |
  ACCESS_REMOTE_WRITE |
  ACCESS_REMOTE_READ |
  ACCESS_REMOTE_ATOMIC |
  ACCESS_FLUSH_GLOBAL |
  ACCESS_FLUSH_PERSISTENT;

/** All cells share one pool, as long as each leaves it empty. */
const newPool = (): FramePool => new FramePool(new BlockPool(4096), 16_384, 4096);
let pool = newPool();

export interface SideOutcome {
  readonly completions: readonly BareCompletion[];
  readonly events: readonly { readonly event: number; readonly number: number }[];
  /** TARGET as it is in the end, and how often each of its bytes was written. */
  readonly target: Uint8Array;
  readonly landed: Uint8Array;
  readonly isSourceIntact: boolean;
  readonly report: HcaReport;
}

export interface Outcome {
  readonly sides: readonly [SideOutcome, SideOutcome];
  readonly digests: readonly string[];
  /** What was still in use, or had gone wrong, when nothing was left to happen. */
  readonly leaks: readonly string[];
}

/** What the two hosts do, once they are set up. */
export type Program = (hosts: readonly [BareHost, BareHost]) => void;

/** Runs a cell; without `program` the hosts do what the plan says. */
export function runPlan(plan: Plan, program?: Program): Outcome {
  if (pool.framesInUse + pool.burstsInUse + pool.blocks.blocksInUse > 0) pool = newPool();
  const common = {
    address: SOURCE,
    length: REGION_BYTES,
    access: RIGHTS,
    qpAccess: RIGHTS & ~ACCESS_MW_BIND,
    type: plan.type,
    queuePairs: plan.queuePairs,
    mtu: plan.mtu,
    sendPsn: plan.sendPsn,
    receivePsn: plan.sendPsn,
    timeout: plan.timeout,
    minRnrTimer: plan.minRnrTimer,
    maxRdAtomic: plan.maxRdAtomic,
    maxDestRdAtomic: plan.maxRdAtomic,
    present: !plan.isOnDemand,
    qkey: QKEY,
    srqEntries: plan.usesSharedReceives ? 256 : 0,
  };
  const pair = new Pair({
    seed: plan.seed,
    profile: plan.profile,
    latencyPs: plan.latencyPs,
    faults: plan.faults,
    bytes: REGION_BYTES,
    limitPs: LIMIT_PS,
    pool,
    setUpA: common,
    setUpB: common,
  });
  const hosts = [pair.a, pair.b] as const;
  const landed = hosts.map((host, side) => {
    writeSource(plan, host, side as 0 | 1);
    const counts = countLandings(host);
    if (plan.isOnDemand) serveFaults(plan, host, side as 0 | 1);
    schedule(plan, plan.sides[side as 0 | 1], host, 2 - side);
    return counts;
  });
  program?.(hosts);

  let left = MAX_EVENTS;
  while (left > 0 && pair.partition.advance(50_000)) left -= 50_000;

  const outcome = {
    sides: hosts.map(
      (host, side): SideOutcome => ({
        completions: host.completions,
        events: host.events,
        target: copyOut(host, TARGET, TARGET_BYTES),
        landed: landed[side] as Uint8Array,
        isSourceIntact:
          Buffer.compare(
            copyOut(host, SOURCE, TARGET - SOURCE),
            plan.sides[side as 0 | 1].source,
          ) === 0,
        report: (side === 0 ? pair.hcaA : pair.hcaB).report(),
      }),
    ) as unknown as Outcome['sides'],
    digests: pair.digests(),
    leaks: leaksOf(pair, left),
  };
  emptyPool(pair);
  return outcome;
}

function schedule(plan: Plan, side: SidePlan, host: BareHost, peerLid: number): void {
  const post = (type: typeof BUS_RECV_DOORBELL | typeof BUS_SRQ_DOORBELL, number: number) => {
    return ({ atPs, wrId, pieces }: Receive): void => {
      const sges = pieces.map((piece) => ({ ...piece, lkey: REGION_KEY }));
      host.at(atPs, () => host.postBuffer(type, number, wrId, sges));
    };
  };
  side.shared.forEach(post(BUS_SRQ_DOORBELL, 1));
  side.queues.forEach(({ jobs, receives }, queue) => {
    const qpn = FIRST_QPN + queue;
    receives.forEach(post(BUS_RECV_DOORBELL, qpn));
    for (const job of jobs) {
      const work = workOf(plan, job, peerLid);
      if (job.isInline) work.inline = Uint8Array.from(bytesOf(host, job));
      host.at(job.atPs, () => host.postSend(qpn, work));
    }
  });
}

function workOf(plan: Plan, job: Job, peerLid: number): BareWork {
  const isAtomic = job.opcode === WR_ATOMIC_CMP_AND_SWP || job.opcode === WR_ATOMIC_FETCH_AND_ADD;
  const work: BareWork = {
    opcode: job.opcode,
    wrId: job.wrId,
    length: job.length,
    rkey: REGION_KEY,
    remote: job.remote,
    immediate: job.immediate,
    flags: (job.isSignaled ? SEND_SIGNALED : 0) | (job.isFenced ? SEND_FENCE : 0),
  };
  if (job.local.length > 0) {
    work.sges = job.local.map((piece) => ({ ...piece, lkey: REGION_KEY }));
  }
  if (isAtomic) Object.assign(work, { compareAdd: job.compareAdd, swap: job.swap });
  if (plan.type === 4) work.ud = { qpn: FIRST_QPN + job.to, qkey: QKEY, dlid: peerLid };
  return work;
}

/** The bytes that a job sends, as they stand in memory now. */
function bytesOf(host: BareHost, job: Job): number[] {
  return job.local.flatMap(({ address, length }) => [...copyOut(host, address, length)]);
}

function writeSource(plan: Plan, host: BareHost, side: 0 | 1): void {
  for (let address = SOURCE; address < TARGET; address += PAGE) {
    const burst = pool.burstFromBytes(plan.sides[side].source, address - SOURCE, PAGE);
    host.land(burst, 0, PAGE, address / PAGE, 0);
    pool.releaseBurst(burst);
  }
}

/** Counts, from now on, how often each byte of TARGET is written by the adapter. */
function countLandings(host: BareHost): Uint8Array {
  const counts = new Uint8Array(TARGET_BYTES);
  const land = host.land.bind(host);
  host.land = (burst, offset, bytes, page, within) => {
    const at = page * PAGE + within - TARGET;
    for (let i = at; i < at + bytes; i++) if (i >= 0) counts[i] = (counts[i] as number) + 1;
    land(burst, offset, bytes, page, within);
  };
  return counts;
}

/** A driver that maps what is asked for, a while later, and takes pages away at random. */
function serveFaults(plan: Plan, host: BareHost, side: 0 | 1): void {
  const chance = new RandomStream(plan.seed, host.node.name, 'faults');
  const first = SOURCE / PAGE;
  const entry = (page: number): number => ((first + page) << 2) | ACCESS_WRITE | ACCESS_READ;
  host.onFault = (fault) => {
    const spanPs = [1, 5, 50, 300][chance.below(4)] as number;
    host.at(host.node.now + 1 + chance.below(spanPs * US), () => {
      const from = Math.floor(fault.address / PAGE) - first;
      const to = Math.floor((fault.address + Math.max(1, fault.bytes) - 1) / PAGE) - first;
      host.table(REGION_KEY, from, to - from + 1, entry);
      host.resumeFault(fault.token);
    });
  };
  for (const { atPs, page, count } of plan.sides[side].invalidations) {
    const end = Math.min(page + count, REGION_BYTES / PAGE);
    host.at(atPs, () => host.table(REGION_KEY, page, end - page, () => 0));
  }
}

function copyOut(host: BareHost, address: number, length: number): Uint8Array {
  const out = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const within = (address + done) % PAGE;
    const bytes = Math.min(PAGE - within, length - done);
    const from = (host.blocks[Math.floor((address + done) / PAGE)] as number) * PAGE + within;
    out.set(pool.blocks.bytes.subarray(from, from + bytes), done);
    done += bytes;
  }
  return out;
}

function leaksOf(pair: Pair, eventsLeft: number): string[] {
  const leaks: string[] = [];
  if (eventsLeft <= 0) leaks.push('it does not come to an end');
  if (pair.partition.finished() === false) leaks.push('something was still to happen');
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
  for (const host of [pair.a, pair.b]) {
    for (const [tag, { status }] of host.results) {
      if (status !== 0) leaks.push(`command ${tag} of ${host.node.name} failed with ${status}`);
    }
  }
  return leaks;
}

/** Gives the blocks of both hosts back, so that the next cell finds the pool as it should be. */
function emptyPool({ a, b }: Pair): void {
  for (const { blocks } of [a, b]) {
    for (const block of blocks) if (block !== 0) pool.blocks.release(block);
    blocks.fill(0);
  }
}
