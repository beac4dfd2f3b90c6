/**
 * Walking through the LRU lists of a node for pages to free (mm/vmscan.c: shrink_node, shrink_lruvec,
 * shrink_inactive_list, shrink_active_list, get_scan_count).
 *
 * Pages are taken off a list in batches of 32 under the LRU lock of the node, judged without it, and put
 * back under it, so several CPUs that scan meet at that lock. Pages that stay cost the same as pages that
 * go, and are met again. Owns the order of the work; what becomes of a page is `page-out.ts`.
 *
 * Simpler than Linux: how lists share the work follows from swappiness and their lengths, not from how
 * often pages came back; no generations (MGLRU).
 */
import type { Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import {
  LRU_ACTIVE_ANON,
  LRU_ACTIVE_FILE,
  LRU_INACTIVE_ANON,
  LRU_INACTIVE_FILE,
} from '../physical/lru.ts';
import type { MemoryNode } from '../physical/memory-node.ts';
import {
  type PageOut,
  VERDICT_ACTIVATE,
  VERDICT_ASK,
  VERDICT_FREE,
  VERDICT_KEEP,
  VERDICT_TRY,
} from './page-out.ts';
import { ALL_GROUPS, type ScanControl, SWAP_CLUSTER_MAX } from './scan-control.ts';

/** vm.swappiness: how much of the work goes to anonymous pages, of 200. */
const SWAPPINESS = 60;
/** Pages scanned without one freed after which a node is given up, in times of what it has (2.6.24). */
const UNRECLAIMABLE_SCANS = 6;

export class LruScanner {
  constructor(
    private readonly memory: Memory,
    private readonly pageOut: PageOut,
  ) {}

  /** Looks through 2^-priority of the node's pages; counts into `scan`. */
  *shrinkNode(node: MemoryNode, scan: ScanControl): Sim<void> {
    const { groups } = this.memory;
    if (scan.group !== ALL_GROUPS) yield* this.shrinkLists(node, scan.group, scan);
    else {
      // Each run begins with another group, since it ends as soon as it has enough (mem_cgroup_iter).
      const first = node.nextGroup++ % groups.count;
      for (let i = 0; i < groups.count && (scan.byKswapd || !scan.isDone); i++) {
        yield* this.shrinkLists(node, (first + i) % groups.count, scan);
      }
    }
    yield* scan.spend();
    if (node.isolatedPages > 0) return;
    // It may also come back without a page freed: when swap has room again.
    const limit = this.reclaimablePages(node) * UNRECLAIMABLE_SCANS;
    node.allUnreclaimable = node.pagesScanned >= limit;
  }

  /** Pages of the node that reclaim could look at (zone_reclaimable_pages). */
  reclaimablePages(node: MemoryNode): number {
    const { lru, groups } = this.memory;
    const { canSwap } = this.pageOut;
    let pages = 0;
    for (let group = 0; group < groups.count; group++) {
      pages += lru.count(node.id, group, LRU_INACTIVE_FILE);
      pages += lru.count(node.id, group, LRU_ACTIVE_FILE);
      if (!canSwap) continue;
      pages += lru.count(node.id, group, LRU_INACTIVE_ANON);
      pages += lru.count(node.id, group, LRU_ACTIVE_ANON);
    }
    return pages;
  }

  private *shrinkLists(node: MemoryNode, group: number, scan: ScanControl): Sim<void> {
    const { canSwap } = this.pageOut;
    let anon = this.share(node, group, LRU_INACTIVE_ANON, scan, canSwap);
    let activeAnon = this.share(node, group, LRU_ACTIVE_ANON, scan, canSwap);
    let file = this.share(node, group, LRU_INACTIVE_FILE, scan, canSwap);
    let activeFile = this.share(node, group, LRU_ACTIVE_FILE, scan, canSwap);
    while (anon > 0 || file > 0 || activeFile > 0) {
      if (activeAnon > 0) yield* this.deactivate(node, group, LRU_ACTIVE_ANON, activeAnon, scan);
      if (anon > 0) yield* this.shrinkInactive(node, group, LRU_INACTIVE_ANON, anon, scan);
      if (activeFile > 0) yield* this.deactivate(node, group, LRU_ACTIVE_FILE, activeFile, scan);
      if (file > 0) yield* this.shrinkInactive(node, group, LRU_INACTIVE_FILE, file, scan);
      anon -= SWAP_CLUSTER_MAX;
      activeAnon -= SWAP_CLUSTER_MAX;
      file -= SWAP_CLUSTER_MAX;
      activeFile -= SWAP_CLUSTER_MAX;
      // What is on its way to the device will be free: more of it would only be swapped for nothing.
      if (scan.reclaimed + this.pageOut.inFlight >= scan.target) return;
    }
    if (canSwap) yield* this.deactivate(node, group, LRU_ACTIVE_ANON, SWAP_CLUSTER_MAX, scan);
  }

  /** How many pages of a list this round looks at (get_scan_count). */
  private share(
    node: MemoryNode,
    group: number,
    kind: number,
    scan: ScanControl,
    canSwap: boolean,
  ): number {
    const { lru } = this.memory;
    const isFile = kind === LRU_INACTIVE_FILE || kind === LRU_ACTIVE_FILE;
    if (!isFile && !canSwap) return 0;
    const pages = lru.count(node.id, group, kind) >>> scan.priority;
    if (scan.priority === 0 || !canSwap) return pages;
    const files =
      lru.count(node.id, group, LRU_INACTIVE_FILE) + lru.count(node.id, group, LRU_ACTIVE_FILE);
    if (files === 0) return pages;
    return Math.ceil((pages * (isFile ? 200 - SWAPPINESS : SWAPPINESS)) / 200);
  }

  /** Judges up to `count` of the oldest pages of an inactive list, and frees what can go. */
  private *shrinkInactive(
    node: MemoryNode,
    group: number,
    kind: number,
    count: number,
    scan: ScanControl,
  ): Sim<void> {
    const { frames, counters } = this.memory;
    const { pageOut } = this;
    const { batch, verdicts } = scan;
    const taken = yield* this.isolate(node, group, kind, count, scan);
    if (scan.byKswapd) counters.pgscan_kswapd += taken;
    else counters.pgscan_direct += taken;
    let freed = 0;
    for (let i = 0; i < taken; i++) {
      const frame = batch[i];
      let verdict = pageOut.judge(frame, scan);
      if (verdict === VERDICT_ASK) verdict = yield* pageOut.judgeWithClients(frame, scan);
      if (verdict === VERDICT_TRY) verdict = yield* pageOut.reclaim(frame, scan);
      verdicts[i] = verdict;
      if (verdict !== VERDICT_FREE) continue;
      frames.put(frame);
      freed++;
    }
    scan.reclaimed += freed;
    if (scan.byKswapd) counters.pgsteal_kswapd += freed;
    else counters.pgsteal_direct += freed;
    yield* this.putBack(node, taken, scan);
  }

  /** Moves old active pages to the inactive list while that is the shorter one (shrink_active_list). */
  private *deactivate(
    node: MemoryNode,
    group: number,
    kind: number,
    count: number,
    scan: ScanControl,
  ): Sim<void> {
    const { lru, counters, costs } = this.memory;
    const { batch, verdicts } = scan;
    const { age } = this.pageOut;
    const active = lru.count(node.id, group, kind);
    const inactive = lru.count(node.id, group, kind - 1);
    if (active === 0 || inactive * this.inactiveRatio(active + inactive) >= active) return;
    const taken = yield* this.isolate(node, group, kind, count, scan);
    for (let i = 0; i < taken; i++) {
      scan.pendingPs += costs.reclaimScanPs + age.look(batch[i]);
      if (age.needsClients) {
        yield* scan.spend();
        yield* age.askClients(batch[i]);
      }
      verdicts[i] = VERDICT_KEEP;
    }
    counters.pgdeactivate += taken;
    yield* this.putBack(node, taken, scan);
  }

  /** inactive_is_low: the more memory, the smaller the share of it that is looked at closely. */
  private inactiveRatio(pages: number): number {
    const gibibytes = Math.floor((pages * PAGE_BYTES) / 2 ** 30);
    return gibibytes > 0 ? Math.floor(Math.sqrt(10 * gibibytes)) : 1;
  }

  /** Takes old pages of a list into the batch. */
  private *isolate(
    node: MemoryNode,
    group: number,
    kind: number,
    count: number,
    scan: ScanControl,
  ): Sim<number> {
    const { lru, costs } = this.memory;
    yield* scan.spend();
    yield* node.lruLock.lock();
    const wanted = Math.min(count, SWAP_CLUSTER_MAX);
    const taken = lru.isolate(node.id, group, kind, scan.batch, wanted);
    node.isolatedPages += taken;
    node.pagesScanned += taken;
    scan.scanned += taken;
    yield taken * costs.lruMovePs;
    node.lruLock.unlock();
    return taken;
  }

  /** Puts the pages of the batch that stay back onto the lists that they belong to. */
  private *putBack(node: MemoryNode, taken: number, scan: ScanControl): Sim<void> {
    const { frames, lru, counters, costs } = this.memory;
    const { batch, verdicts } = scan;
    yield* scan.spend();
    yield* node.lruLock.lock();
    let moved = 0;
    for (let i = 0; i < taken; i++) {
      if (verdicts[i] === VERDICT_FREE) continue;
      const frame = batch[i];
      const isActive = verdicts[i] === VERDICT_ACTIVATE;
      if (frames.isOwned(frame)) lru.add(frame, isActive);
      if (isActive) counters.pgactivate++;
      frames.put(frame);
      moved++;
    }
    node.isolatedPages -= taken;
    yield moved * costs.lruMovePs;
    node.lruLock.unlock();
  }
}
