/**
 * What a sweep runs over, and the shape of a plan as plain data: operations, kinds of bad wire, the
 * layout of both hosts' memory.
 *
 * Bytes come from SOURCE, which nobody writes; every message has a place of its own in TARGET, which
 * starts as zeros while no source byte is zero. So each byte of TARGET tells whether it was delivered,
 * and who counts the writes tells how often. Atomics meet in cells: one for each queue pair and
 * direction, whose every value is foretold, and one for each host that all queue pairs count up.
 */
import type { HcaProfile } from '../../hca/index.ts';
import { MS, QPT_RC, QPT_UC, QPT_UD, US, type WireFaults } from '../../transport/index.ts';

const PAGE = 4096;
/** The region of each host: SOURCE, then TARGET. */
export const SOURCE = 16 * PAGE;
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
  readonly profile: Partial<HcaProfile>;
  readonly sides: readonly [SidePlan, SidePlan];
}

/** Kinds of jobs; a cell of the chain is read back with a fence behind it. */
export type Kind =
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

export interface Shape {
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

export const shapes = {
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
