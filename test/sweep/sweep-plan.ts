/**
 * Draws one cell of the sweep from its seed: what is chance in it, as plain data.
 */
import { MS, NS, RandomStream, US } from '../../transport/index.ts';
import { JobArtist, Places } from './job-artist.ts';
import {
  type Cell,
  type Plan,
  REGION_BYTES,
  type Shape,
  type SidePlan,
  SOURCE_BYTES,
  START_PS,
  shapes,
} from './sweep-cells.ts';

const PAGE = 4096;

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
      coalesceAcks: pick(0, 1) === 1,
      endToEndCredits: pick(0, 0, 1) === 1,
    },
    sides: [drawSide(cell, 0, queuePairs, chance), drawSide(cell, 1, queuePairs, chance)],
  };
  const artists = [new Places(), new Places()] as const;
  for (const side of [0, 1] as const) plan.sides[side].counter = artists[side].take(8, 8);
  for (const side of [0, 1] as const) {
    for (let queue = 0; queue < queuePairs && kinds.length > 0; queue++) {
      const artist = new JobArtist(plan, side, queue, kinds, artists, chance);
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
