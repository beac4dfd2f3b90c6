/**
 * Getting page frames, and getting them back when they run short (mm/page_alloc.c, mm/vmscan.c).
 *
 * An allocation takes from the first node of its zonelist that has more than `low` frames free. When none
 * has, every node's kswapd is woken and what is above `min` may be used. When that is gone too the
 * allocating thread reclaims by itself (direct reclaim), and when nothing can be reclaimed somebody is
 * killed. The frames below `min` are for those who reclaim, and for those who are being killed.
 *
 * Owns the order of these steps. Who scans is `lru-scanner.ts`, who works ahead `kswapd.ts`, who is killed
 * `oom-killer.ts`, and what a memory cgroup may have `memory-groups.ts`.
 *
 * Simpler than Linux: one zone a node, one order of fallback, no per-CPU lists, no high-order
 * allocations but huge pages.
 */
import type { Sim } from '../../sched/completion.ts';
import type { Thread } from '../../sched/scheduler.ts';
import type { Memory } from '../memory.ts';
import { NO_FRAME } from '../physical/frames.ts';
import { HUGE_PAGES } from '../physical/free-lists.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { Kswapd } from './kswapd.ts';
import { LruScanner } from './lru-scanner.ts';
import { ROOT_GROUP } from './memory-groups.ts';
import { PageOut } from './page-out.ts';
import { ALL_GROUPS, DEF_PRIORITY, ScanControl, SWAP_CLUSTER_MAX } from './scan-control.ts';
import { type Shrinker, Shrinkers } from './shrinkers.ts';

/** Rounds of reclaim without a page freed before somebody is killed (MAX_RECLAIM_RETRIES). */
const MAX_RECLAIM_RETRIES = 16;

export class Reclaim {
  readonly shrinkers = new Shrinkers();
  readonly scanner: LruScanner;
  readonly pageOut: PageOut;
  readonly kswapds: readonly Kswapd[];
  /** Threads that reclaim just now: they may use the reserve, and do not reclaim in turn (PF_MEMALLOC). */
  private readonly reclaimers = new Set<Thread>();

  constructor(private readonly memory: Memory) {
    this.pageOut = new PageOut(memory);
    this.scanner = new LruScanner(memory, this.pageOut);
    const { scanner, pageOut, shrinkers } = this;
    this.kswapds = memory.nodes.map(
      (node) => new Kswapd(memory, node, scanner, pageOut, shrinkers),
    );
    for (const { thread } of this.kswapds) this.reclaimers.add(thread);
  }

  /** Adds somebody who can give memory back when asked. */
  registerShrinker(shrinker: Shrinker): void {
    this.shrinkers.register(shrinker);
  }

  /** Takes him off again. */
  unregisterShrinker(shrinker: Shrinker): void {
    this.shrinkers.unregister(shrinker);
  }

  /**
   * A zeroed frame with one reference, charged to the memory cgroup of `mm`, if one is to be had without
   * waiting, else -1. The process' own node comes first.
   */
  tryAllocate(mm: MmStruct): number {
    const { frames, nodes, groups } = this.memory;
    if (mm.group !== ROOT_GROUP && !groups.hasRoom(mm.group, 1)) {
      if (mm.killed === undefined) return NO_FRAME;
    }
    const home = nodes[mm.homeNode];
    const frame =
      frames.freeLists.freeCounts[home.id] > home.watermarks.low
        ? frames.allocate(home.id)
        : this.fallBack(mm);
    if (frame >= 0 && mm.group !== ROOT_GROUP) groups.charge(frame, mm.group);
    return frame;
  }

  /**
   * A zeroed frame with one reference, charged to the memory cgroup of `mm`; sleeps in direct reclaim when
   * there is none.
   * @throws ProcessKilled when `mm` has been killed for want of memory and there is nothing left for it
   * @throws Failure E_OPERATION when there is neither a frame nor a process to kill (panic)
   */
  *allocate(mm: MmStruct): Sim<number> {
    const { groups, scheduler, timers, costs } = this.memory;
    let fruitless = 0;
    for (;;) {
      const frame = this.tryAllocate(mm);
      if (frame >= 0) return frame;
      if (mm.killed !== undefined) {
        if (!this.memory.oom.isReaping(mm)) throw mm.killed;
        yield* timers.sleep(costs.reclaimThrottlePs);
        continue;
      }
      const thread = scheduler.current as Thread;
      if (this.reclaimers.has(thread)) {
        // Whoever reclaims must not reclaim in turn; others are giving memory back.
        yield* timers.sleep(costs.reclaimThrottlePs);
        continue;
      }
      const group = groups.hasRoom(mm.group, 1) ? ROOT_GROUP : mm.group;
      const freed = yield* this.reclaimDirectly(mm, group, thread);
      fruitless = freed > 0 ? 0 : fruitless + 1;
      const isHopeless =
        group === ROOT_GROUP ? this.isUnreclaimable : fruitless === MAX_RECLAIM_RETRIES;
      if (fruitless === 0 || !(isHopeless || fruitless === MAX_RECLAIM_RETRIES)) continue;
      // Somebody may have given memory back since: look once more before it costs a life.
      const last = this.tryAllocate(mm);
      if (last >= 0) return last;
      if (group !== ROOT_GROUP) groups.group(group).oom++;
      yield* this.memory.oom.kill(group);
      fruitless = 0;
    }
  }

  /**
   * The first of 512 zeroed frames that make a huge page, with one reference, charged like one; NO_FRAME
   * when there are none together and compaction does not help.
   */
  *allocateHuge(mm: MmStruct): Sim<number> {
    const { frames, nodes, groups } = this.memory;
    if (!groups.hasRoom(mm.group, HUGE_PAGES)) return NO_FRAME;
    for (let i = 0; i < nodes.length; i++) {
      const node = nodes[(mm.homeNode + i) % nodes.length];
      if (frames.freeLists.freeCounts[node.id] < node.watermarks.low + HUGE_PAGES) continue;
      let head = frames.allocateHuge(node.id);
      if (head < 0) {
        yield* this.memory.compaction.forAllocation(node.id);
        head = frames.allocateHuge(node.id);
      }
      if (head < 0) continue;
      for (let at = head; at < head + HUGE_PAGES; at++) groups.charge(at, mm.group);
      return head;
    }
    return NO_FRAME;
  }

  /**
   * Frees about `target` pages whether memory is short or not (memory.reclaim of cgroup v2), in group
   * `group` only if it is given; returns how many it freed.
   */
  *shrink(target: number, group = ALL_GROUPS): Sim<number> {
    const { nodes, scheduler } = this.memory;
    const thread = scheduler.current as Thread;
    const scan = new ScanControl(target, group, false);
    this.reclaimers.add(thread);
    try {
      const isEnough = (): boolean => scan.reclaimed + this.pageOut.inFlight >= target;
      for (let priority = DEF_PRIORITY; priority >= 0 && !isEnough(); priority--) {
        scan.priority = priority;
        for (const node of nodes) if (!isEnough()) yield* this.scanner.shrinkNode(node, scan);
      }
      // What is being written is free when it is met again. Others may go on swapping, so this has an end.
      let rounds = Math.ceil(target / SWAP_CLUSTER_MAX) + 1;
      for (; rounds > 0 && !scan.isDone && this.pageOut.inFlight > 0; rounds--) {
        yield* this.pageOut.waitForWrites();
        for (const node of nodes) yield* this.scanner.shrinkNode(node, scan);
      }
    } finally {
      this.reclaimers.delete(thread);
    }
    return scan.reclaimed;
  }

  /** True while no node is worth scanning. */
  get isUnreclaimable(): boolean {
    for (const node of this.memory.nodes) if (!node.allUnreclaimable) return false;
    return true;
  }

  /** The slow way of tryAllocate: other nodes, kswapd, the reserve. */
  private fallBack(mm: MmStruct): number {
    const { frames, nodes, scheduler } = this.memory;
    const { freeCounts } = frames.freeLists;
    for (let i = 1; i < nodes.length; i++) {
      const node = nodes[(mm.homeNode + i) % nodes.length];
      if (freeCounts[node.id] > node.watermarks.low) return frames.allocate(node.id);
    }
    for (const kswapd of this.kswapds) kswapd.wake();
    for (let i = 0; i < nodes.length; i++) {
      const node = nodes[(mm.homeNode + i) % nodes.length];
      if (freeCounts[node.id] > node.watermarks.min) return frames.allocate(node.id);
    }
    const { current } = scheduler;
    const isReclaimer = current !== undefined && this.reclaimers.has(current);
    if (!isReclaimer && mm.killed === undefined) return NO_FRAME;
    for (let i = 0; i < nodes.length; i++) {
      const node = nodes[(mm.homeNode + i) % nodes.length];
      // Victims get half of the reserve (ALLOC_OOM), reclaimers all of it (ALLOC_NO_WATERMARKS).
      const least = isReclaimer ? 0 : node.watermarks.min >> 1;
      if (freeCounts[node.id] > least) return frames.allocate(node.id);
    }
    return NO_FRAME;
  }

  /** Direct reclaim (try_to_free_pages), in one memory cgroup or everywhere; returns the pages freed. */
  private *reclaimDirectly(mm: MmStruct, group: number, thread: Thread): Sim<number> {
    const { counters, groups, timers, costs } = this.memory;
    if (group === ROOT_GROUP) counters.allocstall++;
    else groups.group(group).failcnt++;
    this.reclaimers.add(thread);
    try {
      const scan = new ScanControl(
        SWAP_CLUSTER_MAX,
        group === ROOT_GROUP ? ALL_GROUPS : group,
        false,
      );
      let given = 0;
      for (let priority = DEF_PRIORITY; priority >= 0 && !scan.isDone; priority--) {
        scan.priority = priority;
        yield* this.scanNodes(mm, scan);
        const returned = yield* this.shrinkers.run(priority);
        // Pages that a cache lets go of were met before, and found in use: they are worth another look.
        if (returned > 0) for (const node of this.memory.nodes) node.lookAgain();
        given += returned;
        if (this.pageOut.inFlight >= SWAP_CLUSTER_MAX) yield* this.pageOut.waitForWrites();
        if (scan.reclaimed + given > 0 && this.hasRoom(mm)) break;
      }
      let freed = scan.reclaimed + given;
      if (freed === 0 && this.pageOut.inFlight > 0) {
        yield* this.pageOut.waitForWrites();
        freed = this.hasRoom(mm) ? 1 : 0;
        if (freed === 0) {
          scan.priority = 0;
          yield* this.scanNodes(mm, scan);
          freed = scan.reclaimed;
        }
      }
      if (freed === 0) yield* timers.sleep(costs.reclaimThrottlePs);
      return freed;
    } finally {
      this.reclaimers.delete(thread);
    }
  }

  private *scanNodes(mm: MmStruct, scan: ScanControl): Sim<void> {
    const { nodes } = this.memory;
    for (let i = 0; i < nodes.length && !scan.isDone; i++) {
      const node = nodes[(mm.homeNode + i) % nodes.length];
      const isGivenUp = node.allUnreclaimable && scan.group === ALL_GROUPS;
      if (isGivenUp && scan.priority < DEF_PRIORITY) continue;
      yield* this.scanner.shrinkNode(node, scan);
    }
  }

  /** True when an ordinary allocation of `mm` would succeed now. */
  private hasRoom(mm: MmStruct): boolean {
    const { frames, nodes, groups } = this.memory;
    if (!groups.hasRoom(mm.group, 1)) return false;
    return nodes.some((node) => frames.freeLists.freeCounts[node.id] > node.watermarks.min);
  }
}
