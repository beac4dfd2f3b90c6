/**
 * Draws one storm from its seed: the shape of the two hosts, every work request and every
 * disturbance, as plain data. What happens is the run's business (`adapter-run.ts`), what must have
 * happened the oracle's (`adapter-oracle.ts`).
 *
 * Each queue pair owns five areas on each host: SOURCE is never written, TARGET takes the peer's
 * writes and, in its first eight bytes, its atomics, RECEIVE its sends, READ and READ_BACK what this host reads from the peer's SOURCE and
 * TARGET. So queue pairs never meet in memory, while the work requests of one do, in their order.
 */
import type { HcaProfile } from '../../hca/index.ts';
import {
  MS,
  NS,
  RandomStream,
  US,
  WC_LOC_LEN_ERR,
  WC_LOC_PROT_ERR,
  WC_LOC_QP_OP_ERR,
  WC_REM_ACCESS_ERR,
  WC_REM_INV_REQ_ERR,
  type WireFaults,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
} from '../../transport/index.ts';

export const PAGE = 4096;
export const FIRST_PAGE = 16;
export const AREA_PAGES = 40;
export const AREA_BYTES = AREA_PAGES * PAGE;
export const AREAS = ['source', 'target', 'receive', 'read', 'readBack'] as const;
export type Area = (typeof AREAS)[number];
export const STATIC_PAGES = 4;
/** When everything is set up, ps. */
export const START_PS = 400 * US;
/** Work is posted, and disturbances come, within this span. */
const SPAN_PS = 4 * MS;

export interface Work {
  readonly atPs: number;
  readonly wrId: number;
  readonly opcode: number;
  readonly length: number;
  readonly local: number;
  readonly remote: number;
  readonly lkey: number;
  readonly rkey: number;
  readonly immediate: number;
  readonly isSignaled: boolean;
  /** Operands of an atomic; what it brings, and what it leaves in the cell. */
  readonly compareAdd: bigint;
  readonly swap: bigint;
  readonly before: bigint;
  readonly after: bigint;
  /** The status it must fail with, 0 if nothing is wrong with it. */
  readonly mustFail: number;
}

export interface Receive {
  readonly atPs: number;
  readonly wrId: number;
  readonly lkey: number;
  readonly address: number;
  readonly length: number;
}

/** What one host does with one queue pair. */
export interface Queue {
  readonly works: Work[];
  readonly receives: Receive[];
  /** Taken to ERR by its own driver at this time; 0: never. */
  killPs: number;
}

export interface Disturbance {
  readonly atPs: number;
  readonly kind: 'invalidate' | 'protect' | 'prefetch' | 'suspend' | 'destroy';
  /** First page and count, or a protection domain and how long it stands still. */
  readonly page: number;
  readonly count: number;
  readonly pd: number;
  readonly spanPs: number;
}

export interface HostPlan {
  readonly queues: Queue[];
  readonly disturbances: Disturbance[];
  /** Pages that are there from the start, in a thousand. */
  readonly presentPermille: number;
  /** Page faults that the driver refuses, in a million. */
  readonly refusePpm: number;
}

export interface Plan {
  readonly seed: number;
  readonly queuePairs: number;
  /** Queue pairs from this one on belong to the second protection domain. */
  readonly split: number;
  readonly mtu: number;
  readonly faults: WireFaults;
  readonly rateGbps: number;
  readonly latencyPs: number;
  readonly timeout: number;
  readonly minRnrTimer: number;
  readonly sendPsn: number;
  readonly maxRdAtomic: number;
  readonly profile: Partial<HcaProfile>;
  readonly pdSuspend: 'silent' | 'announced';
  readonly hosts: readonly [HostPlan, HostPlan];
}

/** Pages of the queue pairs' areas and of the guard page between the two domains. */
export function pagesOf(queuePairs: number): number {
  return queuePairs * AREAS.length * AREA_PAGES + 1;
}

/** Address of an area of a queue pair; a page that nobody may touch stands between the domains. */
export function areaAddress(plan: Pick<Plan, 'split'>, queue: number, area: Area): number {
  const guard = queue >= plan.split ? 1 : 0;
  const page = (queue * AREAS.length + AREAS.indexOf(area)) * AREA_PAGES + guard;
  return (FIRST_PAGE + page) * PAGE;
}

/** First address behind everything: pages that never move, behind keys with fewer rights. */
export function staticAddress(plan: Pick<Plan, 'queuePairs'>): number {
  return (FIRST_PAGE + pagesOf(plan.queuePairs) + 1) * PAGE;
}

/** Protection domain of a queue pair. */
export function pdOf(plan: Pick<Plan, 'split'>, queue: number): number {
  return queue < plan.split ? 1 : 2;
}

/** Keys, in the order in which the run creates them: for each domain all rights, read, nothing local. */
export const keyOf = (pd: number, kind: 0 | 1 | 2): number => ((3 * (pd - 1) + kind + 1) << 8) | 7;

export function isAtomic({ opcode }: Pick<Work, 'opcode'>): boolean {
  return opcode === WR_ATOMIC_CMP_AND_SWP || opcode === WR_ATOMIC_FETCH_AND_ADD;
}

/** Draws the storm of `seed`. */
export function drawPlan(seed: number): Plan {
  const chance = new RandomStream(seed, 'storm', 'plan');
  const pick = <T>(...of: T[]): T => of[chance.below(of.length)] as T;
  const queuePairs = 1 + chance.below(4);
  const shape = {
    seed,
    queuePairs,
    split: 1 + chance.below(queuePairs),
    mtu: pick(256, 512, 1024, 2048, 4096),
    faults: drawFaults(chance),
    rateGbps: pick(25, 100, 100, 400),
    latencyPs: pick(300, 1000, 5000) * NS,
    timeout: 7 + chance.below(5),
    minRnrTimer: 1 + chance.below(12),
    sendPsn: pick(0, 100, 0xffffff, 0xfffff0, 0x7fffff),
    maxRdAtomic: pick(1, 2, 16),
    profile: {
      rnrWaitPercent: pick(100, 100, 350),
      rnrWaitMinPs: 0,
      ackTimeoutMinExponent: 0,
      ackTimeoutFactor: 1,
      readRetryPs: pick(20, 100, 500) * US,
      faultRaisePs: pick(1, 20, 130) * US,
      peerSuspendPs: pick(50, 1000) * US,
      faultResumePs: pick(1, 20, 78) * US,
      translationCacheEntries: pick(4, 64, 16_384),
      gatherBursts: pick(1, 2, 4),
      windowPackets: pick(4, 32, 256),
      ackRequestPackets: pick(1, 4, 16),
      coalesceAcks: pick(0, 1) === 1,
      endToEndCredits: pick(0, 0, 1) === 1,
    },
    pdSuspend: pick<'silent' | 'announced'>('silent', 'silent', 'announced'),
  };
  // A window without an ACK in it would live on time-outs.
  shape.profile.ackRequestPackets = Math.min(
    shape.profile.ackRequestPackets,
    shape.profile.windowPackets,
  );
  const isQuiet = chance.below(4) === 0;
  const host = (): HostPlan => ({
    queues: Array.from({ length: queuePairs }, () => ({ works: [], receives: [], killPs: 0 })),
    disturbances: [],
    presentPermille: isQuiet ? 1000 : pick(0, 500, 1000),
    refusePpm: !isQuiet && chance.below(10) === 0 ? 100_000 : 0,
  });
  const plan: Plan = { ...shape, hosts: [host(), host()] };
  for (let queue = 0; queue < queuePairs; queue++) {
    const doomed = chance.below(5);
    for (const side of [0, 1] as const) {
      drawQueue(plan, side, queue, chance, doomed === side);
      if (doomed === side + 2 && chance.below(2) === 0) {
        (plan.hosts[side].queues[queue] as Queue).killPs = START_PS + chance.below(SPAN_PS);
      }
    }
  }
  if (!isQuiet)
    for (const { disturbances } of plan.hosts) drawDisturbances(plan, disturbances, chance);
  return plan;
}

/** Nothing wrong with the wire, losses, or some of everything. */
function drawFaults(chance: RandomStream): WireFaults {
  const kind = chance.below(4);
  if (kind < 2) return { lossPpm: 0 };
  const share = (most: number): number => 1 + chance.below(most);
  if (kind === 2) return { lossPpm: share(100_000) };
  const maybe = (most: number): number => (chance.below(2) === 0 ? 0 : share(most));
  return {
    lossPpm: maybe(40_000),
    lossBurstPackets: chance.below(5),
    duplicatePpm: maybe(100_000),
    duplicateDelayPs: maybe(100 * US),
    reorderPpm: maybe(50_000),
    reorderPackets: chance.below(6),
    reorderDelayPs: share(30 * US),
    corruptPpm: maybe(20_000),
  };
}

/** Most of them come while something is on its way. */
function drawDisturbances(plan: Plan, list: Disturbance[], chance: RandomStream): void {
  const { queuePairs, split } = plan;
  const posts = plan.hosts.flatMap(({ queues }) =>
    queues.flatMap(({ works }) => works.map((work) => work.atPs)),
  );
  const add = (kind: Disturbance['kind'], count: number, pd = 0, spanPs = 0): void => {
    const page = chance.below(pagesOf(queuePairs));
    const soonPs = (posts[chance.below(posts.length)] as number) + chance.below(30 * US);
    const atPs = chance.below(3) > 0 ? soonPs : START_PS + chance.below(SPAN_PS);
    list.push({ kind, atPs, page, count, pd, spanPs });
  };
  for (let i = chance.below(40); i > 0; i--) add('invalidate', 1 + chance.below(AREA_PAGES));
  for (let i = chance.below(10); i > 0; i--) add('protect', 1 + chance.below(AREA_PAGES));
  for (let i = chance.below(10); i > 0; i--) add('prefetch', 1 + chance.below(AREA_PAGES));
  const pd = (): number => (split < queuePairs && chance.below(2) === 1 ? 2 : 1);
  const span = (): number => 1 + chance.below(chance.below(2) === 0 ? 20 * US : 2 * MS);
  for (let i = chance.below(6); i > 0; i--) add('suspend', 0, pd(), span());
  if (chance.below(20) === 0) add('destroy', 0, pd());
  list.sort((a, b) => a.atPs - b.atPs);
}

/** The work of host `side` on one queue pair, and the receives that the peer must post for it. */
function drawQueue(
  plan: Plan,
  side: 0 | 1,
  queue: number,
  chance: RandomStream,
  isDoomed: boolean,
): void {
  const { works } = plan.hosts[side].queues[queue] as Queue;
  const { receives } = plan.hosts[1 - side].queues[queue] as Queue;
  const pd = pdOf(plan, queue);
  const at = (area: Area): number => areaAddress(plan, queue, area);
  const inside = (area: Area, length: number): number =>
    at(area) + 64 + chance.below(AREA_BYTES - 128 - length);
  const used = { receive: 64, readBack: 64 };
  // What the atomics of this queue pair have made of the peer's cell.
  let value = drawnCell(plan, 1 - side, queue);
  /** The next stretch of an area whose stretches never overlap, or 0 when it is full. */
  const stretch = (area: 'receive' | 'readBack', length: number): number => {
    const start = used[area] + chance.below(200);
    if (start + length > AREA_BYTES - 64) return 0;
    used[area] = start + length;
    return at(area) + start;
  };
  const count = 1 + chance.below(14);
  const bad = isDoomed ? chance.below(count) : -1;
  let atPs = START_PS;
  let receivePs = START_PS - 100 * US;
  for (let i = 0; i < count; i++) {
    atPs += chance.below(3) === 0 ? chance.below(SPAN_PS / count) : 0;
    const length = drawLength(chance);
    const work = {
      atPs,
      wrId: i,
      opcode: WR_RDMA_WRITE as number,
      length,
      local: inside('source', length),
      remote: inside('target', length),
      lkey: keyOf(pd, 0),
      rkey: keyOf(pd, 0),
      immediate: 0,
      isSignaled: chance.below(4) !== 0,
      compareAdd: 0n,
      swap: 0n,
      before: 0n,
      after: 0n,
      mustFail: 0,
    };
    const kind = chance.below(12);
    const isSend = kind === 2 || kind === 3;
    let slack = chance.below(3) * 100;
    if (i === bad) {
      spoil(plan, work, queue, chance, isSend);
      if (work.mustFail === WC_REM_INV_REQ_ERR) slack = -1 - chance.below(work.length);
    } else if (kind >= 10) {
      const operand = BigInt(chance.next()) * 0x1_0000_0001n;
      const isAdd = kind === 10;
      const isEqual = chance.below(4) > 0;
      const swapped = isEqual ? operand : value;
      const after = isAdd ? BigInt.asUintN(64, value + operand) : swapped;
      Object.assign(work, {
        opcode: isAdd ? WR_ATOMIC_FETCH_AND_ADD : WR_ATOMIC_CMP_AND_SWP,
        length: 8,
        local: inside('read', 8),
        remote: at('target'),
        compareAdd: isAdd ? operand : isEqual ? value : value ^ 1n,
        swap: operand,
        before: value,
        after,
      });
      value = after;
    } else if (kind >= 8) {
      const place = stretch('readBack', length);
      if (place > 0) Object.assign(work, { opcode: WR_RDMA_READ, local: place });
    } else if (kind >= 5) {
      work.opcode = WR_RDMA_READ;
      work.local = inside('read', length);
      work.remote = inside('source', length);
    } else if (isSend && length < 30_000) work.opcode = kind === 2 ? WR_SEND : WR_SEND_WITH_IMM;
    else if (kind === 4) work.opcode = WR_RDMA_WRITE_WITH_IMM;

    const isSent = work.opcode === WR_SEND || work.opcode === WR_SEND_WITH_IMM;
    if (isSent || work.opcode === WR_RDMA_WRITE_WITH_IMM) {
      const room = isSent ? work.length + slack : 0;
      const address = stretch('receive', room);
      if (address === 0) {
        // No room for another receive: a plain write instead.
        Object.assign(work, { opcode: WR_RDMA_WRITE, mustFail: 0, lkey: keyOf(pd, 0) });
      } else {
        work.immediate = chance.next() | 0;
        if (chance.below(4) === 0) receivePs = Math.max(receivePs, atPs + chance.below(MS));
        const wrId = 1000 + receives.length;
        receives.push({ atPs: receivePs, wrId, lkey: keyOf(pd, 0), address, length: room });
      }
    }
    works.push(work);
  }
}

/** What stands in the cell of a queue pair at the start: the first bytes of TARGET. */
function drawnCell(plan: Plan, side: number, queue: number): bigint {
  const host = ['a', 'b'][side] as string;
  const page = areaAddress(plan, queue, 'target') / PAGE - FIRST_PAGE;
  return new DataView(contentOf(plan.seed, host, page + 1).buffer).getBigUint64(page * PAGE, true);
}

/** The first `pages` pages of a host at the start: bytes of their own for each. */
export function contentOf(seed: number, host: string, pages: number): Uint8Array {
  const chance = new RandomStream(seed, `${host}.host`, 'content');
  const bytes = new Uint8Array(pages * PAGE);
  const words = new Uint32Array(bytes.buffer);
  for (let page = 0; page < pages; page++) {
    let word = chance.next();
    for (let i = page * 1024; i < page * 1024 + 1024; i++) {
      word = (Math.imul(word, 0x915f77f5) + 0x3c6ef35f) >>> 0;
      words[i] = word ^ (word >>> 15);
    }
  }
  return bytes;
}

function drawLength(chance: RandomStream): number {
  const kind = chance.below(20);
  if (kind < 2) return 0;
  if (kind < 4) return 1 + chance.below(8);
  if (kind < 10) return 1 + chance.below(3000);
  if (kind < 17) return 1 + chance.below(20_000);
  return 1 + chance.below(AREA_BYTES - 200);
}

interface Spoilt {
  opcode: number;
  length: number;
  local: number;
  remote: number;
  lkey: number;
  rkey: number;
  mustFail: number;
}

/** Makes a work request one that must be refused; it stays a WRITE unless something else is said. */
function spoil(
  plan: Plan,
  work: Spoilt,
  queue: number,
  chance: RandomStream,
  isSend: boolean,
): void {
  const pd = pdOf(plan, queue);
  if (work.length === 0) work.length = 1;
  const spare = staticAddress(plan);
  const other = 3 - pd;
  const kinds: (() => Partial<Spoilt>)[] = [
    () => ({ rkey: work.rkey ^ 0x10000, mustFail: WC_REM_ACCESS_ERR }),
    () => ({ rkey: work.rkey ^ 1, mustFail: WC_REM_ACCESS_ERR }),
    // A good key for a good range, of the other domain.
    () => ({
      opcode: WR_RDMA_READ,
      local: areaAddress(plan, queue, 'read'),
      rkey: keyOf(other, 1),
      remote: spare,
      length: 1 + chance.below(8000),
      mustFail: WC_REM_ACCESS_ERR,
    }),
    // The region of the domain ends at most this far on.
    () => ({ remote: spare - 1, mustFail: WC_REM_ACCESS_ERR }),
    () => ({ remote: FIRST_PAGE * PAGE - 1, mustFail: WC_REM_ACCESS_ERR }),
    () => ({ rkey: keyOf(pd, 1), remote: spare, length: 100, mustFail: WC_REM_ACCESS_ERR }),
    () => ({ lkey: work.lkey ^ 0x20000, mustFail: WC_LOC_PROT_ERR }),
    () => ({ local: spare - 1, mustFail: WC_LOC_PROT_ERR }),
    () => ({ opcode: 12, mustFail: WC_LOC_QP_OP_ERR }),
    () => ({ length: 2 ** 30 + 1 + chance.below(1000), mustFail: WC_LOC_LEN_ERR }),
    () => ({
      opcode: WR_RDMA_READ,
      lkey: keyOf(pd, 2),
      local: spare,
      length: 1 + chance.below(8000),
      mustFail: WC_LOC_PROT_ERR,
    }),
  ];
  const change = isSend
    ? { opcode: WR_SEND, length: Math.min(work.length, 20_000), mustFail: WC_REM_INV_REQ_ERR }
    : (kinds[chance.below(kinds.length)] as () => Partial<Spoilt>)();
  Object.assign(work, change);
}
