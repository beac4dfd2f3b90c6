/**
 * The memory of a host: frames, NUMA nodes, swap, files and the processes that share them. Built once,
 * handed to every mechanism of the memory manager.
 */
import type { BlockPool, Node } from '../../transport/index.ts';
import type { HostConfig } from '../config.ts';
import type { HostCosts } from '../costs.ts';
import type { Scheduler } from '../sched/scheduler.ts';
import { Srcu } from '../sched/srcu.ts';
import type { Timers } from '../sched/timers.ts';
import { type MmCounters, newMmCounters } from './counters.ts';
import { PageCache } from './files/page-cache.ts';
import { Compaction } from './migrate/compaction.ts';
import { MemoryHotplug } from './migrate/hotplug.ts';
import { PageMigration } from './migrate/page-migration.ts';
import { RmapNotifiers } from './notify/rmap-notifier.ts';
import { FRAME_PINNED, Frames, PAGE_BYTES } from './physical/frames.ts';
import { HugePool } from './physical/huge-pool.ts';
import { LruLists } from './physical/lru.ts';
import { MemoryNode } from './physical/memory-node.ts';
import { PageLocks } from './physical/page-lock.ts';
import { MemoryGroups } from './reclaim/memory-groups.ts';
import { OomKiller } from './reclaim/oom-killer.ts';
import { Reclaim } from './reclaim/reclaim.ts';
import { Swap } from './reclaim/swap.ts';
import { SwapCache } from './reclaim/swap-cache.ts';
import { defaultMmSettings, type MmSettings } from './settings.ts';
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
  /** Notifier lists of all processes are walked under it. */
  readonly srcu: Srcu;
  readonly rmapNotifiers: RmapNotifiers;
  readonly swap: Swap;
  readonly swapCache: SwapCache;
  readonly groups: MemoryGroups;
  readonly oom: OomKiller;
  readonly files: PageCache;
  readonly reclaim: Reclaim;
  readonly migration: PageMigration;
  readonly compaction: Compaction;
  readonly hotplug: MemoryHotplug;
  readonly settings: MmSettings;
  readonly counters: MmCounters = newMmCounters();
  /** The page of zeros that every anonymous page shows until it is written; nobody's, and never freed. */
  readonly zeroFrame: number;
  /** Huge pages set aside at boot. */
  readonly hugePool: HugePool;
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
    this.settings = { ...defaultMmSettings, ...config.mm };
    const frameCount = Math.floor(config.memoryBytes / PAGE_BYTES);
    const nodeCount = config.memoryNodes ?? 1;
    this.frames = new Frames(frameCount, blocks, nodeCount);
    const nodes: MemoryNode[] = [];
    for (let first = 0, id = 0; id < nodeCount; id++) {
      let end = first;
      while (end < frameCount && this.frames.nodeOf(end) === id) end++;
      nodes.push(new MemoryNode(id, first, end, scheduler));
      first = end;
    }
    for (const node of nodes) node.movable = config.movableNodes?.includes(node.id) ?? false;
    this.nodes = nodes;
    this.lru = new LruLists(this.frames, GROUPS);
    this.pageLocks = new PageLocks(this.frames);
    this.frames.onFree = (frame) => this.onFree(frame);
    if (config.pinnedPages === 'marked') this.markPins();
    this.rmap = new ReverseMap(this.frames);
    this.srcu = new Srcu(timers, costs.gracePeriodPs);
    this.rmapNotifiers = new RmapNotifiers(this);
    scheduler.onUnfinished = (thread) => {
      for (const mm of this.mms) mm?.notifiers.checkThread(thread);
    };
    this.zeroFrame = this.frames.allocate();
    this.hugePool = new HugePool(this.frames, this.settings.hugePages, node.name);
    const slots = Math.floor(config.swapBytes / PAGE_BYTES);
    this.swap = new Swap(slots, blocks, costs.swapLatencyPs, costs.swapRateGbps);
    this.swapCache = new SwapCache(this);
    this.groups = new MemoryGroups(this.frames, GROUPS);
    this.oom = new OomKiller(this);
    this.files = new PageCache(this);
    this.reclaim = new Reclaim(this);
    this.migration = new PageMigration(this);
    this.compaction = new Compaction(this);
    this.hotplug = new MemoryHotplug(this, config.memorySectionBytes);
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

  /** Pinned pages leave the LRU lists until their last pin goes (Lameter, van Riel in seed 000). */
  private markPins(): void {
    const { frames, lru } = this;
    frames.onPinned = (frame) => {
      lru.remove(frame);
      frames.flags[frame] |= FRAME_PINNED;
    };
    frames.onUnpinned = (frame) => {
      frames.flags[frame] &= ~FRAME_PINNED;
      if (frames.isOwned(frame) && this.isListed(frame)) lru.add(frame, false);
    };
  }

  /** True for a page that belongs on an LRU list: none of the huge page pool, and none that is its device's. */
  private isListed(frame: number): boolean {
    const { frames, files, hugePool } = this;
    if (hugePool.owns(frame)) return false;
    const file = frames.files[frame];
    return file === 0 || (files.file(file).kind !== 'xip' && !files.file(file).huge);
  }

  private onFree(frame: number): void {
    if (this.frames.externalEntries[frame] !== 0) {
      for (const mm of this.mms) mm?.notifiers.references.checkFreed(frame);
    }
    this.lru.remove(frame);
    this.groups.uncharge(frame);
    const node = this.nodes[this.frames.nodeOf(frame)] as MemoryNode;
    node.pagesScanned = 0;
    node.allUnreclaimable = false;
  }
}
