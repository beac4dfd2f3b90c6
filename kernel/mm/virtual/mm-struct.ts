/**
 * What the memory manager knows of one process (struct mm_struct): mappings, page table, locks,
 * notifiers and accounts. The system calls over it are `address-space.ts`.
 */
import { RwLock } from '../../sched/rw-lock.ts';
import type { Memory } from '../memory.ts';
import { MmuNotifiers } from '../notify/mmu-notifiers.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
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
  readonly notifiers: MmuNotifiers;
  /** NUMA node that its pages come from first. */
  homeNode = 0;
  /** Number of its memory cgroup; 0 is the root. */
  group = 0;
  /** Pages pinned by drivers (pinned_vm), now and at most so far; they count against RLIMIT_MEMLOCK. */
  pinnedPages = 0;
  pinnedPeak = 0;
  /** Pages of mappings that are locked by mlock (locked_vm). */
  lockedPages = 0;
  /** End of the heap. */
  breakEnd = 0;
  /** False once the process has ended. */
  alive = true;

  constructor(
    readonly memory: Memory,
    /** 1 and up: the reverse map names it. */
    readonly id: number,
    readonly name: string,
    readonly limits: Limits,
  ) {
    this.lock = new RwLock(`mmap ${name}`);
    this.notifiers = new MmuNotifiers(memory.node, memory.frames);
  }

  /** Counts `pageCount` more (or, negative, fewer) pinned pages. */
  accountPinned(pageCount: number): void {
    this.pinnedPages += pageCount;
    if (this.pinnedPages > this.pinnedPeak) this.pinnedPeak = this.pinnedPages;
  }

  get residentBytes(): number {
    return this.table.presentPages * PAGE_BYTES;
  }
}
