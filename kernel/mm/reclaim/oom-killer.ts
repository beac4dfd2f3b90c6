/**
 * What happens when nothing can be reclaimed: a process is killed (mm/oom_kill.c).
 *
 * The victim is the process whose end gives most memory back: resident pages, swapped pages and page
 * tables, shifted by oom_score_adj. Its threads end when they next return to user mode. A kernel thread,
 * the OOM reaper, does not wait for that: it takes the victim's private memory at once, then ends the rest
 * of the process. When nobody is left to be killed, the machine panics.
 *
 * Simpler than Linux: threads that sleep in the victim are not woken; they end when they wake up by
 * themselves.
 */
import { Failure } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import { endMm } from '../calls/process-calls.ts';
import type { Memory } from '../memory.ts';
import { CAUSE_UNMAP } from '../notify/invalidation.ts';
import { lockTable, zapEntries } from '../page-range.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { isSwapPte } from '../virtual/page-table.ts';
import { VM_HUGETLB, VM_PFNMAP, VM_SHARED } from '../virtual/vma.ts';
import { ROOT_GROUP } from './memory-groups.ts';
import { ProcessKilled } from './process-killed.ts';

/** A process with this oom_score_adj is never killed (OOM_SCORE_ADJ_MIN). */
export const OOM_SCORE_ADJ_MIN = -1000;
/** Tries of the reaper to get the mmap lock, and the pause between them, 10 times a tenth of a second. */
const REAP_TRIES = 10;

/** One kill, as the kernel log tells it. */
export interface OomKill {
  readonly process: string;
  readonly group: number;
  readonly atPs: number;
  /** Pages: what the badness was made of. */
  readonly residentPages: number;
  readonly swapPages: number;
  readonly tablePages: number;
  /** NUMA nodes that reclaim had given up. */
  readonly nodesUnreclaimable: number;
  readonly reason: string;
}

export class OomKiller {
  /** Everybody who was killed, in order. */
  readonly kills: OomKill[] = [];
  /** Victims whose memory is not back yet. */
  private readonly dying: MmStruct[] = [];

  constructor(private readonly memory: Memory) {}

  /**
   * Kills somebody for memory in `group` (ROOT_GROUP: anywhere), or waits for the victim of before.
   * @throws Failure E_OPERATION when there is nobody to kill: a panic
   */
  *kill(group: number): Sim<void> {
    const { memory } = this;
    const { timers, costs } = memory;
    if (this.dying.some((mm) => group === ROOT_GROUP || mm.group === group)) {
      yield* timers.sleep(costs.reclaimThrottlePs);
      return;
    }
    const victim = this.choose(group);
    if (victim === undefined) throw this.panic(group);
    const swapPages = this.swapPages(victim);
    const { presentPages: residentPages, tablePages } = victim.table;
    const where = group === ROOT_GROUP ? 'Out of memory' : 'Memory cgroup out of memory';
    const reason =
      `${where}: killed process ${victim.id} (${victim.name}): ` +
      `total-vm ${victim.vmas.totalPages * 4} kB, rss ${residentPages * 4} kB, ` +
      `swap ${swapPages * 4} kB, page tables ${tablePages * 4} kB, pinned ${victim.pinnedPages * 4} kB; ` +
      this.situation();
    const { name } = victim;
    this.kills.push({
      process: name,
      group,
      atPs: memory.node.now,
      residentPages,
      swapPages,
      tablePages,
      nodesUnreclaimable: this.nodesUnreclaimable,
      reason,
    });
    memory.counters.oom_kill++;
    if (group !== ROOT_GROUP) memory.groups.group(group).oomKills++;
    victim.killed = new ProcessKilled(name, reason);
    this.dying.push(victim);
    memory.scheduler.spawn('oom_reaper', this.reap(victim));
  }

  /** Pages that the end of a process would give back, shifted by its oom_score_adj (oom_badness). */
  badness(mm: MmStruct): number {
    const { frames, swap } = this.memory;
    const pages = mm.table.presentPages + this.swapPages(mm) + mm.table.tablePages;
    return pages + (mm.oomScoreAdj * (frames.count + swap.slotCount)) / 1000;
  }

  /** True while the memory of a victim is on its way back. */
  isReaping(mm: MmStruct): boolean {
    return this.dying.includes(mm);
  }

  private choose(group: number): MmStruct | undefined {
    let victim: MmStruct | undefined;
    let most = Number.NEGATIVE_INFINITY;
    for (const mm of this.memory.mms) {
      if (mm === undefined || !mm.alive || mm.killed !== undefined) continue;
      if (mm.oomScoreAdj === OOM_SCORE_ADJ_MIN) continue;
      if (group !== ROOT_GROUP && mm.group !== group) continue;
      const points = this.badness(mm);
      if (points < most) continue;
      most = points;
      victim = mm;
    }
    return victim;
  }

  private *reap(mm: MmStruct): Sim<void> {
    const { timers, costs } = this.memory;
    for (let tries = 0; tries < REAP_TRIES && !(yield* this.reapOnce(mm)); tries++) {
      yield* timers.sleep(costs.oomReapRetryPs);
    }
    this.forget(mm);
    if (mm.endProcess !== undefined) yield* mm.endProcess();
    else if (mm.users > 0) {
      // Whoever calls exit from now on finds nothing left to do.
      mm.users = 0;
      yield* endMm(mm);
    }
  }

  /** Takes the private memory of a victim; false when a lock or a client was in the way of some of it. */
  private *reapOnce(mm: MmStruct): Sim<boolean> {
    if (!mm.lock.tryLockRead()) return false;
    let isWhole = true;
    for (const { start, end, flags, file } of [...mm.vmas.list()]) {
      const isShared = file !== undefined && (flags & VM_SHARED) !== 0;
      if (isShared || (flags & (VM_HUGETLB | VM_PFNMAP)) !== 0) continue;
      const range = yield* mm.notifiers.beginNonblock(start, end, CAUSE_UNMAP);
      if (range.refused) isWhole = false;
      else {
        yield* lockTable(mm);
        const zapped = zapEntries(mm, start / PAGE_BYTES, end / PAGE_BYTES);
        mm.tableLock.unlock();
        yield zapped * this.memory.costs.unmapPagePs;
      }
      yield* mm.notifiers.end(range);
    }
    mm.lock.unlockRead();
    return isWhole;
  }

  /** Its memory is back, or it is not going to come back: others may be killed. */
  private forget(mm: MmStruct): void {
    this.dying.splice(this.dying.indexOf(mm), 1);
  }

  private swapPages(mm: MmStruct): number {
    let pages = 0;
    for (const { start, end } of mm.vmas.list()) {
      mm.table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (_page, pte) => {
        if (isSwapPte(pte)) pages++;
      });
    }
    return pages;
  }

  private get nodesUnreclaimable(): number {
    return this.memory.nodes.filter((node) => node.allUnreclaimable).length;
  }

  private panic(group: number): Failure {
    const who =
      group === ROOT_GROUP ? 'the machine' : `cgroup ${this.memory.groups.group(group).name}`;
    return new Failure(
      'E_OPERATION',
      `kernel panic: ${who} is deadlocked on memory, and there is no process to kill: ${this.situation()}`,
      this.memory.node.name,
      'more memory or swap, or fewer pinned pages',
    );
  }

  /** The numbers that explain it (show_mem). */
  private situation(): string {
    const { frames, swap, nodes } = this.memory;
    let [reserved, pinned] = [0, 0];
    for (const { watermarks } of nodes) reserved += watermarks.min;
    for (let frame = 0; frame < frames.count; frame++) if (frames.pinCounts[frame] > 0) pinned++;
    return (
      `${frames.count} page frames, ${frames.freeCount} free (${reserved} reserved), ${pinned} pinned; ` +
      `${swap.slotCount - swap.usedSlots} of ${swap.slotCount} swap slots free; ` +
      `${this.nodesUnreclaimable} of ${nodes.length} nodes all_unreclaimable`
    );
  }
}
