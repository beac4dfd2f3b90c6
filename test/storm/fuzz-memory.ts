/**
 * The memory of the fuzzed host: which pages belong to which region, who may do what with them, and
 * whether a run has kept to it.
 */
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
  type FramePool,
} from '../../transport/index.ts';
import type { BareHost } from '../fixtures/bare-host.ts';

export const PAGE = 4096;
export const PAGES = 80;
/** What stands in memory that the peer may not read. */
export const SECRET = 0xa5;

const ALL =
  ACCESS_LOCAL_WRITE |
  ACCESS_REMOTE_WRITE |
  ACCESS_REMOTE_READ |
  ACCESS_REMOTE_ATOMIC |
  ACCESS_FLUSH_GLOBAL |
  ACCESS_FLUSH_PERSISTENT;

export interface FuzzRegion {
  readonly first: number;
  readonly count: number;
  readonly pd: number;
  readonly access: number;
  /** Whether the peer may see what is in it: by READ, as the old value of an atomic, or in a SEND. */
  readonly isOpen: boolean;
}

/** In the order of their keys. All queue pairs belong to domain 1. */
export const regions = {
  all: { first: 16, count: 12, pd: 1, access: ALL, isOpen: true },
  readable: { first: 30, count: 4, pd: 1, access: ACCESS_REMOTE_READ, isOpen: true },
  writable: {
    first: 36,
    count: 4,
    pd: 1,
    access: ACCESS_REMOTE_WRITE | ACCESS_LOCAL_WRITE,
    isOpen: false,
  },
  /** Receives, and what this host reads. */
  local: { first: 42, count: 12, pd: 1, access: ACCESS_LOCAL_WRITE, isOpen: false },
  foreign: { first: 56, count: 4, pd: 2, access: ALL, isOpen: false },
  /** What this host sends. */
  out: { first: 61, count: 4, pd: 1, access: 0, isOpen: true },
  /** Reached through memory windows only, and there between the two addresses of `window`. */
  bound: {
    first: 66,
    count: 4,
    pd: 1,
    access: ACCESS_LOCAL_WRITE | ACCESS_MW_BIND,
    isOpen: true,
  },
  atomic: {
    first: 72,
    count: 2,
    pd: 1,
    access: ACCESS_LOCAL_WRITE | ACCESS_REMOTE_ATOMIC,
    isOpen: true,
  },
} as const satisfies Record<string, FuzzRegion>;

export type RegionName = keyof typeof regions;
export const regionList: readonly FuzzRegion[] = Object.values(regions);
export const keyOf = (name: RegionName): number =>
  ((Object.keys(regions).indexOf(name) + 1) << 8) | 7;
export const addressOf = (name: RegionName): number => regions[name].first * PAGE;
/** The part of `bound` that windows are bound to, from and to. */
export const window = { from: 66 * PAGE + 128, to: 68 * PAGE + 1000 } as const;

/** A page table entry that lets page `page` be read and written. */
export const entry = (page: number): number => (page << 2) | ACCESS_WRITE | ACCESS_READ;

/** Pages that may change: 1 all of it, 2 as `window` says. */
const mayChange = new Uint8Array(PAGES);
for (const [name, how] of [
  ['all', 1],
  ['writable', 1],
  ['local', 1],
  ['atomic', 1],
  ['bound', 2],
] as const) {
  const { first, count } = regions[name];
  mayChange.fill(how, first, first + count);
}

/** Secrets everywhere but where the peer may read. */
export function fill(host: BareHost, pool: FramePool): void {
  for (let page = 0; page < PAGES; page++) {
    const isOpen = regionList.some((r) => r.isOpen && page >= r.first && page < r.first + r.count);
    const bytes = new Uint8Array(PAGE).fill(isOpen ? page : SECRET);
    const burst = pool.burstFromBytes(bytes, 0, PAGE);
    host.land(burst, 0, PAGE, page, 0);
    pool.releaseBurst(burst);
  }
}

/** All of the host's memory. */
export function copyOf(host: BareHost, pool: FramePool): Uint8Array {
  const out = new Uint8Array(PAGES * PAGE);
  for (let page = 0; page < PAGES; page++) {
    const block = (host.blocks[page] as number) * PAGE;
    out.set(pool.blocks.bytes.subarray(block, block + PAGE), page * PAGE);
  }
  return out;
}

/** Stops the run at the first DMA write that goes where none may. */
export function guard(host: BareHost): void {
  const land = host.land.bind(host);
  host.land = (burst, offset, bytes, page, within) => {
    const how = mayChange[page];
    const at = page * PAGE + within;
    const isInWindow = at >= window.from && at + bytes <= window.to;
    if (within + bytes > PAGE || !(how === 1 || (how === 2 && isInWindow)))
      throw new Error(`${bytes} bytes are written to page ${page}, offset ${within}`);
    land(burst, offset, bytes, page, within);
  };
}

/** Nothing at all has changed. */
export function expectSame(before: Uint8Array, after: Uint8Array): void {
  for (let page = 0; page < PAGES; page++) {
    const [was, is] = [before, after].map((b) => b.subarray(page * PAGE, page * PAGE + PAGE));
    if (Buffer.compare(was as Uint8Array, is as Uint8Array) !== 0)
      throw new Error(`page ${page} of a domain that stands still has changed`);
  }
}

/** Only what may change has changed. */
export function expectKept(before: Uint8Array, after: Uint8Array): void {
  const check = (from: number, to: number): void => {
    if (Buffer.compare(before.subarray(from, to), after.subarray(from, to)) !== 0)
      throw new Error(`memory between ${from} and ${to}, which nobody may write, has changed`);
  };
  for (let page = 0; page < PAGES; page++) {
    if (mayChange[page] === 0) check(page * PAGE, (page + 1) * PAGE);
  }
  const { first, count } = regions.bound;
  check(first * PAGE, window.from);
  check(window.to, (first + count) * PAGE);
}
