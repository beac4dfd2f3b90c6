/**
 * Compaction: making large free blocks by moving pages (mm/compaction.c).
 *
 * Two scanners run through a node towards each other. The one from below collects pages that can move, the
 * one from above free frames to move them to; where they meet, the node is done. An allocation of a huge
 * page that finds no free block waits for it (direct compaction); a program may ask for it too
 * (/proc/sys/vm/compact_memory). One pinned page spoils its block of 2 MiB.
 *
 * Owns the scanners and the decision when to give up. Simpler than Linux: synchronous only, one zone a
 * node, no kcompactd, no page block hints.
 */

import type { Sim } from '../../sched/completion.ts';
import { Mutex } from '../../sched/mutex.ts';
import type { Memory } from '../memory.ts';
import { FRAME_HUGE, FRAME_LRU, FRAME_PINNED, NO_FRAME } from '../physical/frames.ts';
import { HUGE_ORDER, HUGE_PAGES } from '../physical/free-lists.ts';
import type { MemoryNode } from '../physical/memory-node.ts';

/** Pages isolated and moved at a time (COMPACT_CLUSTER_MAX). */
const CLUSTER = 32;
/** After so many failures in a row 2^6 calls in a row are refused (COMPACT_MAX_DEFER_SHIFT). */
const MAX_DEFER_SHIFT = 6;

/** How a compaction ended. */
export type CompactResult =
  /** There is a free block of the size that was wanted. */
  | 'success'
  /** The scanners met: what could be moved has been. */
  | 'complete'
  /** Not begun: too little is free for it, or the last ones failed. */
  | 'skipped';

/** One run over one node. */
interface Run {
  readonly node: MemoryNode;
  /** Order of the block that is wanted; above HUGE_ORDER for all that can be done. */
  readonly order: number;
  /** Next frame that each scanner looks at; the free scanner takes blocks from above. */
  migrateAt: number;
  freeBlock: number;
  freeAt: number;
}

interface Deferral {
  shift: number;
  considered: number;
}

export class Compaction {
  private readonly lock: Mutex;
  private readonly deferrals = new Map<number, Deferral>();
  private readonly isolated: number[] = [];
  private readonly targets: number[] = [];
  private readonly status = new Int32Array(CLUSTER);

  constructor(private readonly memory: Memory) {
    this.lock = new Mutex('compaction');
  }

  /**
   * Why an allocation of 2^order frames would fail on a node, in thousandths: towards 0 for lack of memory,
   * towards 1000 for fragmentation; -1000 when it would not fail (fragmentation_index, extfrag_index).
   */
  fragmentationIndex(node: number, order: number): number {
    const { freeLists } = this.memory.frames;
    if (freeLists.blocksOf(node, order) > 0) return -1000;
    let blocks = 0;
    for (let at = 0; at < order; at++) {
      blocks += freeLists.blockCounts[node * (HUGE_ORDER + 1) + at];
    }
    if (blocks === 0) return 0;
    const free = freeLists.freeCounts[node];
    return 1000 - Math.floor((1000 + Math.floor((free * 1000) / 2 ** order)) / blocks);
  }

  /** Makes as many large blocks of a node as can be (echo 1 > compact_memory). */
  *compactNode(node: number): Sim<CompactResult> {
    yield this.memory.costs.systemCallPs;
    return yield* this.run(node, HUGE_ORDER + 1);
  }

  /**
   * Makes one free block of 2^order frames on a node for an allocation that waits. After failures it is
   * skipped for a growing number of calls.
   */
  *forAllocation(node: number, order = HUGE_ORDER): Sim<CompactResult> {
    const { frames, nodes, counters } = this.memory;
    const zone = nodes[node];
    // Compaction itself needs frames: compact_gap.
    const needed = (zone?.watermarks.low ?? 0) + 2 ** (order + 1);
    if (zone === undefined || frames.freeLists.freeCounts[node] < needed) return 'skipped';
    if (this.isDeferred(node)) return 'skipped';
    counters.compact_stall++;
    const result = yield* this.run(node, order);
    if (result === 'success') {
      counters.compact_success++;
      this.deferrals.delete(node);
    } else {
      counters.compact_fail++;
      const { shift = 0 } = this.deferrals.get(node) ?? {};
      this.deferrals.set(node, { shift: Math.min(shift + 1, MAX_DEFER_SHIFT), considered: 0 });
    }
    return result;
  }

  private isDeferred(node: number): boolean {
    const deferral = this.deferrals.get(node);
    if (deferral === undefined) return false;
    return ++deferral.considered < 1 << deferral.shift;
  }

  private *run(node: number, order: number): Sim<CompactResult> {
    const { frames, migration, nodes } = this.memory;
    const zone = nodes[node];
    if (zone === undefined) return 'skipped';
    yield* this.lock.lock();
    const lastBlock = Math.floor((zone.endFrame - 1) / HUGE_PAGES);
    const run: Run = {
      node: zone,
      order,
      migrateAt: zone.firstFrame,
      freeBlock: lastBlock,
      freeAt: lastBlock * HUGE_PAGES,
    };
    let result: CompactResult = 'complete';
    for (;;) {
      if (order <= HUGE_ORDER && frames.freeLists.blocksOf(node, order) > 0) {
        result = 'success';
        break;
      }
      const scanned = this.isolateMovable(run);
      yield scanned * this.memory.costs.scanFramePs;
      if (this.isolated.length === 0) break;
      yield* this.collectTargets(run);
      const staying = yield* migration.migrate(
        this.isolated,
        () => this.targets.pop() ?? NO_FRAME,
        this.status,
      );
      // The free scanner has come to the end: nothing of what is left can move.
      if (staying === this.isolated.length && this.hasMet(run)) break;
    }
    for (const frame of this.targets) frames.put(frame);
    this.targets.length = 0;
    this.lock.unlock();
    return result;
  }

  private hasMet(run: Run): boolean {
    return run.freeBlock * HUGE_PAGES < run.migrateAt;
  }

  /** Isolates up to a cluster of movable pages from below; returns how many frames it looked at. */
  private isolateMovable(run: Run): number {
    const { frames, migration, counters } = this.memory;
    this.isolated.length = 0;
    const first = run.migrateAt;
    while (this.isolated.length < CLUSTER && run.migrateAt < run.node.endFrame) {
      if (this.hasMet(run)) break;
      const frame = run.migrateAt;
      const order = frames.freeLists.orderAt(frame);
      if (order >= 0) run.migrateAt += 1 << order;
      else if ((frames.flags[frame] & FRAME_HUGE) !== 0) run.migrateAt += HUGE_PAGES;
      else {
        run.migrateAt++;
        if (this.isMovable(frame) && migration.isolate(frame)) this.isolated.push(frame);
      }
    }
    const scanned = run.migrateAt - first;
    counters.compact_migrate_scanned += scanned;
    counters.compact_isolated += this.isolated.length;
    return scanned;
  }

  /** What isolate_migratepages_block asks of a page before it takes it off its list. */
  private isMovable(frame: number): boolean {
    const { frames } = this.memory;
    const flags = frames.flags[frame];
    if ((flags & FRAME_LRU) === 0 || (flags & FRAME_PINNED) !== 0) return false;
    // An anonymous page that somebody holds would fail at the end: not even tried.
    return frames.files[frame] !== 0 || frames.extraReferences(frame) === 0;
  }

  /** Takes as many free frames from above as pages are isolated, while the scanners have not met. */
  private *collectTargets(run: Run): Sim<void> {
    const { frames, counters, costs } = this.memory;
    const { freeLists } = frames;
    let scanned = 0;
    while (this.targets.length < this.isolated.length && !this.hasMet(run)) {
      const end = Math.min((run.freeBlock + 1) * HUGE_PAGES, run.node.endFrame);
      // A block that is wholly free is what is being made.
      const isWhole = freeLists.orderAt(run.freeBlock * HUGE_PAGES) >= run.order;
      if (isWhole || run.freeAt >= end || run.freeBlock === this.blockOf(run.migrateAt)) {
        run.freeBlock--;
        run.freeAt = Math.max(run.freeBlock * HUGE_PAGES, run.node.firstFrame);
        continue;
      }
      const order = freeLists.orderAt(run.freeAt);
      scanned++;
      if (order < 0) run.freeAt++;
      else {
        frames.claim(run.freeAt);
        this.targets.push(run.freeAt++);
      }
    }
    counters.compact_free_scanned += scanned;
    yield scanned * costs.scanFramePs;
  }

  private blockOf(frame: number): number {
    return Math.floor(frame / HUGE_PAGES);
  }
}
