/**
 * The memory of a host: frames, NUMA nodes, swap, files and the processes that share them. Built once,
 * handed to every mechanism of the memory manager.
 */
import type { BlockPool, Node } from '../../transport/index.ts';
import type { HostConfig } from '../config.ts';
import type { HostCosts } from '../costs.ts';
import type { Scheduler } from '../sched/scheduler.ts';
import type { Timers } from '../sched/timers.ts';
import { type MmCounters, newMmCounters } from './counters.ts';
import { PageCache } from './files/page-cache.ts';
import { Frames, PAGE_BYTES } from './physical/frames.ts';
import { LruLists } from './physical/lru.ts';
import { MemoryNode } from './physical/memory-node.ts';
import { PageLocks } from './physical/page-lock.ts';
import { Reclaim } from './reclaim/reclaim.ts';
import { Swap } from './reclaim/swap.ts';
import { type Limits, MmStruct } from './virtual/mm-struct.ts';
import { ReverseMap } from './virtual/reverse-map.ts';

/** Memory cgroups of a host at most, the root included. */
const GROUPS = 16;

export class Memory {
  readonly costs: HostCosts;
  readonly frames: Frames;
  readonly nodes: readonly MemoryNode[];
  readonly lru: LruLists;
  readonly pageLocks: PageLocks;
  readonly rmap: ReverseMap;
  readonly swap: Swap;
  readonly files: PageCache;
  readonly reclaim: Reclaim;
  readonly counters: MmCounters = newMmCounters();
  /** Processes by number; ended ones are undefined. */
  readonly mms: (MmStruct | undefined)[] = [undefined];

  constructor(
    config: HostConfig,
    /** The host's node of the simulation, for time, digest and errors; not a NUMA node. */
    readonly node: Node,
    blocks: BlockPool,
    readonly scheduler: Scheduler,
    readonly timers: Timers,
  ) {
    const { costs } = config;
    this.costs = costs;
    const frameCount = Math.floor(config.memoryBytes / PAGE_BYTES);
    const nodeCount = config.memoryNodes ?? 1;
    this.frames = new Frames(frameCount, blocks, nodeCount);
    const nodes: MemoryNode[] = [];
    for (let first = 0, id = 0; id < nodeCount; id++) {
      let end = first;
      while (end < frameCount && this.frames.nodeOf(end) === id) end++;
      nodes.push(new MemoryNode(id, first, end));
      first = end;
    }
    this.nodes = nodes;
    this.lru = new LruLists(this.frames, GROUPS);
    this.pageLocks = new PageLocks(this.frames);
    this.frames.onFree = (frame) => this.onFree(frame);
    this.rmap = new ReverseMap(this.frames);
    const slots = Math.floor(config.swapBytes / PAGE_BYTES);
    this.swap = new Swap(slots, blocks, costs.swapLatencyPs, costs.swapRateGbps);
    this.files = new PageCache(this);
    this.reclaim = new Reclaim(this);
  }

  /** A new process without mappings. */
  createMm(name: string, limits: Limits): MmStruct {
    const mm = new MmStruct(this, this.mms.length, name, limits);
    this.mms.push(mm);
    return mm;
  }

  /** The process with that number, which must be alive. */
  mmOf(id: number): MmStruct {
    return this.mms[id] as MmStruct;
  }

  private onFree(frame: number): void {
    this.lru.remove(frame);
    const node = this.nodes[this.frames.nodeOf(frame)] as MemoryNode;
    node.pagesScanned = 0;
    node.allUnreclaimable = false;
  }
}
