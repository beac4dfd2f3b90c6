/**
 * What the memory manager knows of one process (struct mm_struct): mappings, page table, locks,
 * notifiers and accounts. The system calls over it are `address-space.ts`.
 *
 * Order of locks, outermost first: memory hotplug or compaction, mmap lock, page lock, lock of a file's
 * mappings, what a client of the notifiers takes when a range is announced (umem mutex, segment lock,
 * mmu_lock), page table lock, what a client takes for a single page (mmu_lock). Whoever holds a page lock
 * takes no mmap lock of a process that may wait for the page, and only tries for further page locks. The LRU
 * lock is held alone.
 */

import type { Sim } from '../../sched/completion.ts';
import { RwLock } from '../../sched/rw-lock.ts';
import { SpinLock } from '../../sched/spin-lock.ts';
import type { Memory } from '../memory.ts';
import { MmuNotifiers } from '../notify/mmu-notifiers.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import type { ProcessKilled } from '../reclaim/process-killed.ts';
import { splitAt } from './huge-pages.ts';
import { PageTable } from './page-table.ts';
import { VmaList } from './vma.ts';

/** Resource limits of a process (setrlimit). */
export interface Limits {
  /** RLIMIT_MEMLOCK in bytes: mlock, and pinning without CAP_IPC_LOCK; Infinity for none. */
  readonly memlockBytes: number;
}

export class MmStruct {
  readonly vmas = new VmaList();
  readonly table = new PageTable();
  /** The mmap lock. */
  readonly lock: RwLock;
  /** The page table lock: held around changes of entries that come with an atomic callback. */
  readonly tableLock: SpinLock;
  readonly notifiers: MmuNotifiers;
  /** NUMA node that its pages come from first. */
  homeNode = 0;
  /** Number of its memory cgroup; 0 is the root. */
  group = 0;
  /** Pages pinned by drivers (pinned_vm), now and at most so far; they count against RLIMIT_MEMLOCK. */
  pinnedPages = 0;
  pinnedPeak = 0;
  /** mlockall(MCL_FUTURE): new mappings are locked (def_flags). */
  locksFuture = false;
  /** Processes and threads that share it (mm_users): more than one after vfork. */
  users = 1;
  /** A driver has mapped memory of its own somewhere (VM_PFNMAP). */
  hasDeviceMemory = false;
  /** Huge pages of the pool that are promised to its mappings and not taken yet. */
  hugeReserved = 0;
  /** Start of the heap. */
  breakStart = 0;
  /** End of the heap. */
  breakEnd = 0;
  /** False once the process has ended. */
  alive = true;
  /** Set by the OOM killer: the process ends where its threads would return to user mode. */
  killed: ProcessKilled | undefined;
  /** Shifts its badness, in thousandths of all memory; -1000 keeps it from being killed. */
  oomScoreAdj = 0;
  /** Ends the process on behalf of the OOM killer: its memory, then its open files. */
  endProcess: (() => Sim<void>) | undefined;

  constructor(
    readonly memory: Memory,
    /** 1 and up: the reverse map names it. */
    readonly id: number,
    readonly name: string,
    readonly limits: Limits,
  ) {
    this.lock = new RwLock(`mmap ${name}`);
    this.tableLock = new SpinLock(memory.scheduler, `page table ${name}`);
    this.notifiers = new MmuNotifiers(this);
    // vma_adjust_trans_huge: no huge page lies in two areas.
    this.vmas.onCut = (address) => splitAt(this, address / PAGE_BYTES);
  }

  /** Counts `pageCount` more (or, negative, fewer) pinned pages. */
  accountPinned(pageCount: number): void {
    this.pinnedPages += pageCount;
    if (this.pinnedPages > this.pinnedPeak) this.pinnedPeak = this.pinnedPages;
  }

  /** Pages of mappings that are locked by mlock (locked_vm). */
  get lockedPages(): number {
    return this.vmas.lockedPages;
  }

  get residentBytes(): number {
    return this.table.presentPages * PAGE_BYTES;
  }
}
