/**
 * Draws one cell of the sweep from its seed: an operation, what is wrong with the wire, a path MTU
 * and a memory mode, and all the work of both hosts as plain data.
 *
 * Bytes come from SOURCE, which nobody writes; every message has a place of its own in TARGET, which
 * starts as zeros while no source byte is zero. So each byte of TARGET tells whether it was delivered,
 * and who counts the writes tells how often. Atomics meet in cells: one for each queue pair and
 * direction, whose every value is foretold, and one for each host that all queue pairs count up.
 */
import {
  MS,
  NS,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  RandomStream,
  US,
  type WireFaults,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_FLUSH,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
} from '../../transport/index.ts';

const PAGE = 4096;
/** The region of each host: SOURCE, then TARGET. */
export const REGION = 16 * PAGE;
export const SOURCE = REGION;
export const SOURCE_BYTES = 24 * PAGE;
export const TARGET = SOURCE + SOURCE_BYTES;
export const TARGET_BYTES = 488 * PAGE;
export const REGION_BYTES = SOURCE_BYTES + TARGET_BYTES;
/** When everything is set up, ps. */
export const START_PS = 400 * US;
/** IBTA 11.6.2.1: receives of datagrams start with 40 bytes for a GRH. */
export const GRH_BYTES = 40;

export interface Piece {
  readonly address: number;
  readonly length: number;
}

export interface Job {
  readonly atPs: number;
  readonly wrId: number;
  /** WR_*. */
  readonly opcode: number;
  readonly length: number;
  /** Scatter/gather entries: where the bytes come from, or (READ, atomics) go. */
  readonly local: readonly Piece[];
  readonly remote: number;
  readonly immediate: number;
  readonly isSignaled: boolean;
  readonly isFenced: boolean;
  readonly isInline: boolean;
  readonly compareAdd: bigint;
  readonly swap: bigint;
  /** What an atomic, or a READ of a cell, brings; undefined where others count in the same cell. */
  readonly result: bigint | undefined;
  /** Queue pair of the peer that a datagram goes to, by number from 0. */
  readonly to: number;
}

export interface Receive {
  readonly atPs: number;
  readonly wrId: number;
  readonly pieces: readonly Piece[];
  readonly length: number;
}

/** What one host does with one queue pair. */
export interface Queue {
  readonly jobs: Job[];
  readonly receives: Receive[];
  /** Address, at the peer, of the cell of this queue pair, and what is in it in the end. */
  cell: number;
  cellValue: bigint;
}

export interface SidePlan {
  /** The bytes of SOURCE. */
  readonly source: Uint8Array;
  /** Bytes of TARGET that are given to somebody, from its start. */
  used: number;
  readonly queues: Queue[];
  /** Receives of the shared receive queue. */
  readonly shared: Receive[];
  /** Address of the cell that the peer's queue pairs count up, and how often they do. */
  counter: number;
  count: number;
  /** Stretches whose pages are taken away from the adapter, and when. */
  readonly invalidations: readonly { atPs: number; page: number; count: number }[];
}

export interface Cell {
  readonly seed: number;
  readonly operation: Operation;
  readonly faultName: string;
  readonly faults: WireFaults;
  readonly mtu: number;
  readonly isOnDemand: boolean;
}

export interface Plan extends Cell {
  readonly type: number;
  readonly usesSharedReceives: boolean;
  readonly queuePairs: number;
  readonly timeout: number;
  readonly minRnrTimer: number;
  readonly maxRdAtomic: number;
  readonly sendPsn: number;
  readonly latencyPs: number;
  readonly profile: Readonly<Record<string, number>>;
  readonly sides: readonly [SidePlan, SidePlan];
}

/** Kinds of jobs; a cell of the chain is read back with a fence behind it. */
type Kind =
  | 'send'
  | 'sendImm'
  | 'write'
  | 'writeImm'
  | 'read'
  | 'compareSwap'
  | 'fetchAdd'
  | 'count'
  | 'atomicWrite'
  | 'readBack'
  | 'flush';

interface Shape {
  readonly type: number;
  readonly kinds: readonly Kind[];
  readonly usesSharedReceives?: boolean;
}

const ALL: readonly Kind[] = [
  'send',
  'sendImm',
  'write',
  'writeImm',
  'read',
  'compareSwap',
  'fetchAdd',
  'count',
  'atomicWrite',
  'readBack',
  'flush',
];

const shapes = {
  SEND: { type: QPT_RC, kinds: ['send'] },
  SEND_WITH_IMM: { type: QPT_RC, kinds: ['sendImm'] },
  RDMA_WRITE: { type: QPT_RC, kinds: ['write'] },
  RDMA_WRITE_WITH_IMM: { type: QPT_RC, kinds: ['writeImm'] },
  RDMA_READ: { type: QPT_RC, kinds: ['read'] },
  CMP_AND_SWP: { type: QPT_RC, kinds: ['compareSwap'] },
  FETCH_AND_ADD: { type: QPT_RC, kinds: ['fetchAdd', 'count'] },
  ATOMIC_WRITE: { type: QPT_RC, kinds: ['atomicWrite', 'atomicWrite', 'readBack'] },
  FLUSH: { type: QPT_RC, kinds: ['write', 'flush'] },
  'everything on RC': { type: QPT_RC, kinds: ALL },
  'RC with an SRQ': {
    type: QPT_RC,
    kinds: ['send', 'sendImm', 'writeImm'],
    usesSharedReceives: true,
  },
  'memory windows': { type: QPT_RC, kinds: [] },
  'UC SEND': { type: QPT_UC, kinds: ['send', 'sendImm'] },
  'UC RDMA_WRITE': { type: QPT_UC, kinds: ['write', 'writeImm'] },
  'UD SEND': { type: QPT_UD, kinds: ['send', 'sendImm'] },
} as const satisfies Record<string, Shape>;

export type Operation = keyof typeof shapes;
export const operations = Object.keys(shapes) as readonly Operation[];

/** What can be wrong with a wire, as the sweep has it. */
export const faultKinds: Readonly<Record<string, WireFaults>> = {
  'no faults': { lossPpm: 0 },
  '0.1 % lost': { lossPpm: 1_000 },
  '1 % lost': { lossPpm: 10_000 },
  '3 % lost': { lossPpm: 30_000 },
  '10 % lost': { lossPpm: 100_000 },
  '5 % lost in runs of 3': { lossPpm: 50_000, lossBurstPackets: 3 },
  '5 % behind the next 1': faultsOfOrder(50_000, 1, 50 * US),
  '3 % behind the next 6': faultsOfOrder(30_000, 6, 200 * US),
  '2 % later than a time-out': faultsOfOrder(20_000, 0, 3 * MS),
  '10 % twice': { lossPpm: 0, duplicatePpm: 100_000 },
  '5 % again after 0.3 ms': { lossPpm: 0, duplicatePpm: 50_000, duplicateDelayPs: 300 * US },
  '3 % damaged': { lossPpm: 0, corruptPpm: 30_000 },
  'all of it': {
    lossPpm: 20_000,
    lossBurstPackets: 2,
    duplicatePpm: 20_000,
    duplicateDelayPs: 40 * US,
    reorderPpm: 20_000,
    reorderPackets: 3,
    reorderDelayPs: 100 * US,
    corruptPpm: 10_000,
  },
};

function faultsOfOrder(
  reorderPpm: number,
  reorderPackets: number,
  reorderDelayPs: number,
): WireFaults {
  return { lossPpm: 0, reorderPpm, reorderPackets, reorderDelayPs };
}

/** SOURCE of one host: bytes that depend on their address, none of them zero. */
function drawSource(seed: number, side: number): Uint8Array {
  const salt = Math.imul(seed * 2 + side + 1, 0x9e3779b1);
  const source = new Uint8Array(SOURCE_BYTES);
  for (let i = 0; i < SOURCE_BYTES; i++) {
    let hash = Math.imul(i ^ salt, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35);
    source[i] = 1 + (((hash ^ (hash >>> 13)) >>> 8) % 255);
  }
  return source;
}

/** Draws the work of a cell. */
export function drawPlan(cell: Cell): Plan {
  const { seed, operation, faultName, mtu, isOnDemand } = cell;
  const name = `${operation}, ${faultName}, ${mtu}, ${isOnDemand}`;
  const chance = new RandomStream(seed, 'sweep', name);
  const pick = <T>(...of: T[]): T => of[chance.below(of.length)] as T;
  const { type, kinds, usesSharedReceives = false }: Shape = shapes[cell.operation];
  const queuePairs = 1 + chance.below(3);
  const windowPackets = pick(8, 64, 256);
  const plan: Plan = {
    ...cell,
    type,
    usesSharedReceives,
    queuePairs,
    timeout: 7 + chance.below(3),
    minRnrTimer: 1 + chance.below(8),
    maxRdAtomic: pick(1, 2, 4, 16),
    sendPsn: pick(0, 100, 0xffffff, 0xfffff0, 0x7ffff8),
    latencyPs: pick(300, 1000, 5000) * NS,
    profile: {
      rnrWaitPercent: 100,
      rnrWaitMinPs: 0,
      ackTimeoutMinExponent: 0,
      ackTimeoutFactor: 1,
      readRetryPs: pick(20, 100) * US,
      faultRaisePs: pick(1, 20) * US,
      faultResumePs: pick(1, 20) * US,
      translationCacheEntries: pick(4, 64, 16_384),
      gatherBursts: pick(1, 4),
      windowPackets,
      ackRequestPackets: Math.min(windowPackets, pick(1, 4, 16)),
    },
    sides: [drawSide(cell, 0, queuePairs, chance), drawSide(cell, 1, queuePairs, chance)],
  };
  const artists = [new Places(), new Places()] as const;
  for (const side of [0, 1] as const) plan.sides[side].counter = artists[side].take(8, 8);
  for (const side of [0, 1] as const) {
    for (let queue = 0; queue < queuePairs && kinds.length > 0; queue++) {
      const artist = new QueueArtist(plan, side, queue, kinds, artists, chance);
      artist.draw(Math.floor((6 + chance.below(24)) / queuePairs) + 2);
    }
  }
  for (const side of [0, 1] as const) plan.sides[side].used = artists[side].used;
  return plan;
}

function drawSide(cell: Cell, side: number, queuePairs: number, chance: RandomStream): SidePlan {
  const pages = REGION_BYTES / PAGE;
  return {
    source: drawSource(cell.seed, side),
    used: 0,
    queues: Array.from({ length: queuePairs }, () => ({
      jobs: [],
      receives: [],
      cell: 0,
      cellValue: 0n,
    })),
    shared: [],
    counter: 0,
    count: 0,
    invalidations: Array.from({ length: cell.isOnDemand ? chance.below(12) : 0 }, () => ({
      atPs: START_PS + chance.below(1 * MS),
      page: chance.below(pages),
      count: 1 + chance.below(24),
    })),
  };
}

/** Hands out TARGET of one host, every byte once. */
export class Places {
  private next = TARGET;

  /** Bytes from the start of TARGET to the end of the last place, and a margin. */
  get used(): number {
    return Math.min(TARGET_BYTES, this.next - TARGET + PAGE);
  }

  take(length: number, align = 1): number {
    const at = Math.ceil(this.next / align) * align;
    this.next = at + length;
    if (this.next > TARGET + TARGET_BYTES) throw new Error('TARGET is too small for the plan');
    return at;
  }

  /** Leaves a gap, which must stay as it is. */
  skip(bytes: number): void {
    this.next += bytes;
  }
}

/** Draws the jobs of one host on one queue pair, and the receives that its peer posts for them. */
class QueueArtist {
  private atPs = START_PS;
  private receivePs = START_PS - 100 * US;
  private isFenceDue = false;
  private value = 0n;
  /** The stretch that was written last: what a FLUSH asks for. */
  private written = { address: REGION, length: 8 };
  private readonly mine: Queue;

  constructor(
    private readonly plan: Plan,
    private readonly side: 0 | 1,
    private readonly queue: number,
    private readonly kinds: readonly Kind[],
    private readonly places: readonly [Places, Places],
    private readonly chance: RandomStream,
  ) {
    this.mine = plan.sides[side].queues[queue] as Queue;
    this.mine.cell = places[1 - side].take(8, 8);
  }

  draw(count: number): void {
    for (let i = 0; i < count; i++) {
      this.mine.jobs.push(this.job(i, i === count - 1));
    }
    this.mine.cellValue = this.value;
  }

  private job(i: number, isLast: boolean): Job {
    const { chance, plan, side } = this;
    const kind = this.kinds[chance.below(this.kinds.length)] as Kind;
    this.atPs += chance.below(3) === 0 ? chance.below(100 * US) : 0;
    const job = {
      atPs: this.atPs,
      // Of two queue pairs no two work requests have the same number.
      wrId: (this.queue << 16) | i,
      opcode: WR_SEND as number,
      length: 8,
      local: [] as readonly Piece[],
      remote: 0,
      immediate: chance.next() | 0,
      isSignaled: isLast || chance.below(3) > 0,
      isFenced: this.isFenceDue || chance.below(8) === 0,
      isInline: false,
      compareAdd: 0n,
      swap: 0n,
      result: undefined as bigint | undefined,
      to: this.queue,
    };
    this.isFenceDue = false;
    switch (kind) {
      case 'send':
      case 'sendImm':
        job.opcode = kind === 'send' ? WR_SEND : WR_SEND_WITH_IMM;
        job.length = this.length();
        if (plan.type === QPT_UD) job.to = chance.below(plan.queuePairs);
        this.receive(job.to, job.length);
        break;
      case 'write':
      case 'writeImm':
        job.opcode = kind === 'write' ? WR_RDMA_WRITE : WR_RDMA_WRITE_WITH_IMM;
        job.length = this.length();
        job.remote = this.place(1 - side, job.length);
        if (kind === 'writeImm') this.receive(this.queue, 0);
        this.written = { address: job.remote, length: Math.max(1, job.length) };
        break;
      case 'read':
        job.opcode = WR_RDMA_READ;
        job.length = this.length();
        job.remote = this.source(job.length);
        break;
      case 'flush':
        job.opcode = WR_FLUSH;
        job.length = this.written.length;
        job.remote = this.written.address;
        // Placement type global visibility, selectivity a range.
        job.immediate = 1;
        return job;
      default:
        Object.assign(job, this.onCell(kind));
    }
    const isGathered = kind !== 'read' && job.result === undefined && kind !== 'count';
    if (isGathered && kind !== 'atomicWrite') {
      job.local = this.split(job.length, (length) => this.source(length));
      job.isInline = job.length <= 64 && chance.below(4) === 0;
    } else if (kind !== 'atomicWrite') {
      const isCell = job.opcode !== WR_RDMA_READ;
      const take = (length: number): number => this.place(side, length, isCell ? 8 : 1);
      job.local = isCell ? [{ address: take(8), length: 8 }] : this.split(job.length, take);
    }
    return job;
  }

  /** A job on the cell of this queue pair, or on the counter. */
  private onCell(kind: Kind): Partial<Job> {
    const { chance, plan, mine } = this;
    const random = (): bigint => (BigInt(chance.next()) << 32n) | BigInt(chance.next());
    const result = this.value;
    if (kind === 'readBack') {
      this.isFenceDue = true;
      return { opcode: WR_RDMA_READ, remote: mine.cell, result };
    }
    if (kind === 'atomicWrite') {
      // The value is eight bytes of SOURCE, so that it can be told which were written.
      const address = this.source(8);
      this.value = 0n;
      for (let i = 7; i >= 0; i--) {
        const { source } = plan.sides[this.side];
        this.value = (this.value << 8n) | BigInt(source[address - SOURCE + i] as number);
      }
      return { opcode: WR_ATOMIC_WRITE, remote: mine.cell, local: [{ address, length: 8 }] };
    }
    if (kind === 'count') {
      const peer = plan.sides[1 - this.side] as SidePlan;
      peer.count++;
      return { opcode: WR_ATOMIC_FETCH_AND_ADD, remote: peer.counter, compareAdd: 1n };
    }
    if (kind === 'fetchAdd') {
      const compareAdd = random();
      this.value = BigInt.asUintN(64, this.value + compareAdd);
      return { opcode: WR_ATOMIC_FETCH_AND_ADD, remote: mine.cell, compareAdd, result };
    }
    const compareAdd = chance.below(4) === 0 ? random() : this.value;
    const swap = random();
    if (compareAdd === this.value) this.value = swap;
    return { opcode: WR_ATOMIC_CMP_AND_SWP, remote: mine.cell, compareAdd, swap, result };
  }

  /** A receive of the peer for a message of `length` bytes. */
  private receive(queue: number, length: number): void {
    const { plan, chance, side } = this;
    const { mtu, type, usesSharedReceives } = plan;
    const peer = plan.sides[1 - side] as SidePlan;
    const list = usesSharedReceives ? peer.shared : (peer.queues[queue] as Queue).receives;
    const isReliable = type === QPT_RC;
    // Now and then the receive comes late, and so do all behind it. Only RC waits for it.
    if (isReliable && chance.below(6) === 0) {
      this.receivePs = Math.max(this.receivePs, this.atPs) + chance.below(300 * US);
    }
    // Where it is open which message comes, there is room for any.
    const most = type === QPT_UD ? mtu + GRH_BYTES : 7 * mtu;
    const room = isReliable && !usesSharedReceives ? length + chance.below(3) * 50 : most;
    const pieces = this.split(room, (bytes) => this.place(1 - side, bytes));
    const wrId = 0x1000000 | (queue << 16) | list.length;
    list.push({ atPs: this.receivePs, wrId, pieces, length: room });
  }

  /** A place of its own in TARGET of `side`, with a gap behind it now and then. */
  private place(side: number, length: number, align = 1): number {
    const places = this.places[side as 0 | 1];
    if (this.chance.below(3) === 0) places.skip(this.chance.below(300));
    return places.take(length, align);
  }

  private source(length: number): number {
    return SOURCE + this.chance.below(SOURCE_BYTES - length);
  }

  private split(length: number, take: (length: number) => number): readonly Piece[] {
    const { chance } = this;
    if (length === 0) return [];
    if (length < 16 || chance.below(2) === 0) return [{ address: take(length), length }];
    const pieces: Piece[] = [];
    let left = length;
    while (left > 0) {
      const piece = pieces.length === 5 ? left : Math.min(left, 1 + chance.below(length));
      pieces.push({ address: take(piece), length: piece });
      left -= piece;
    }
    return pieces;
  }

  private length(): number {
    const { chance, plan } = this;
    const { mtu, type } = plan;
    // What may be lost must be told apart by its bytes.
    const least = type === QPT_RC ? 0 : 12;
    const most = type === QPT_UD ? mtu : 7 * mtu;
    const drawn = [
      () => chance.below(9),
      () => mtu * chance.below(6),
      () => mtu * (1 + chance.below(4)) + chance.below(3) - 1,
      () => chance.below(mtu),
      () => chance.below(7 * mtu),
    ][chance.below(5)] as () => number;
    return Math.min(most, Math.max(least, drawn()));
  }
}
