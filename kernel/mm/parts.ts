/**
 * What the mechanisms of the memory manager share: built once, handed to each of them.
 */
import type { BlockPool, Node } from '../../transport/index.ts';
import type { HostConfig } from '../config.ts';
import type { HostCosts } from '../costs.ts';
import type { Scheduler } from '../sched/scheduler.ts';
import type { Timers } from '../sched/timers.ts';
import { Frames, PAGE_BYTES } from './frames.ts';
import { LruLists } from './lru.ts';
import { MmuNotifiers } from './mmu-notifier.ts';
import { PageTable } from './page-table.ts';
import { Swap } from './swap.ts';

/** Event counts, named as in /proc/vmstat. */
export interface MmCounters {
  pgfault: number;
  pgmajfault: number;
  pswpin: number;
  pswpout: number;
  pgscan: number;
  pgsteal: number;
  allocstall: number;
}

export interface MmParts {
  readonly node: Node;
  readonly scheduler: Scheduler;
  readonly timers: Timers;
  readonly costs: HostCosts;
  readonly frames: Frames;
  readonly lru: LruLists;
  readonly table: PageTable;
  readonly notifiers: MmuNotifiers;
  readonly swap: Swap;
  readonly counters: MmCounters;
}

export function createMmParts(
  config: HostConfig,
  node: Node,
  blocks: BlockPool,
  scheduler: Scheduler,
  timers: Timers,
): MmParts {
  const { costs } = config;
  const frames = new Frames(Math.floor(config.memoryBytes / PAGE_BYTES), blocks);
  const slots = Math.floor(config.swapBytes / PAGE_BYTES);
  return {
    node,
    scheduler,
    timers,
    costs,
    frames,
    lru: new LruLists(frames),
    table: new PageTable(),
    notifiers: new MmuNotifiers(node),
    swap: new Swap(slots, blocks, costs.swapLatencyPs, costs.swapRateGbps),
    counters: {
      pgfault: 0,
      pgmajfault: 0,
      pswpin: 0,
      pswpout: 0,
      pgscan: 0,
      pgsteal: 0,
      allocstall: 0,
    },
  };
}
