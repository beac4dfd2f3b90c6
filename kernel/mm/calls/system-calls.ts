/**
 * What every system call on memory does: cost, lock, checks of its range, its record in the digest, and the
 * error that refuses it. The calls themselves are the other files of this folder.
 *
 * A call that is refused changes nothing, lets go of its lock, and throws SystemCallError: the program may
 * catch it and go on.
 */
import { RECORD_ADDRESS_SPACE } from '../../../transport/index.ts';
import { type Errno, SystemCallError } from '../../errno.ts';
import type { Sim } from '../../sched/completion.ts';
import { HUGE_BYTES } from '../fault/huge-fault.ts';
import type { UserAccess } from '../fault/user-access.ts';
import { lockMappings } from '../files/file-mappings.ts';
import type { Memory } from '../memory.ts';
import { CAUSE_UNMAP } from '../notify/invalidation.ts';
import { beginRange, lockTable, zapEntries, zapRange } from '../page-range.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { VM_HUGETLB, VM_SHARED, type Vma } from '../virtual/vma.ts';

/** What a digest record of kind RECORD_ADDRESS_SPACE is about: its first field. */
export const OP_MMAP = 1;
export const OP_MUNMAP = 2;
export const OP_MREMAP = 3;
export const OP_BRK = 4;
export const OP_MPROTECT = 5;
export const OP_DONTNEED = 6;
export const OP_MADVISE = 7;
export const OP_MLOCK = 8;
export const OP_MUNLOCK = 9;
export const OP_FORK = 10;
export const OP_EXEC = 11;
export const OP_EXIT = 12;
export const OP_REMAP_FILE_PAGES = 13;

/** End of a process' half of the address space on x86-64. */
export const ADDRESS_LIMIT = 2 ** 47;

export class SystemCalls {
  constructor(
    readonly mm: MmStruct,
    readonly access: UserAccess,
  ) {}

  get memory(): Memory {
    return this.mm.memory;
  }

  /** Begins a call that changes mappings: holds the mmap lock for writing when it returns. */
  *enter(call: string): Sim<void> {
    const { mm } = this;
    const { systemCallPs, vmaChangePs } = this.memory.costs;
    this.checkAlive(call);
    if (mm.lock.tryLockWrite()) {
      yield systemCallPs + vmaChangePs;
      return;
    }
    yield systemCallPs;
    yield* mm.lock.lockWrite();
    yield vmaChangePs;
    if (!mm.alive) {
      mm.lock.unlockWrite();
      this.checkAlive(call);
    }
  }

  /** Ends it. */
  leave(operation: number, start: number, length: number): void {
    this.mm.lock.unlockWrite();
    this.record(operation, start, length);
    if (this.mm.killed !== undefined) throw this.mm.killed;
  }

  /** Begins a call that leaves mappings as they are: holds the mmap lock for reading when it returns. */
  *enterRead(call: string): Sim<void> {
    this.checkAlive(call);
    yield this.memory.costs.systemCallPs;
    if (!this.mm.lock.tryLockRead()) yield* this.mm.lock.lockRead();
    if (!this.mm.alive) {
      this.mm.lock.unlockRead();
      this.checkAlive(call);
    }
  }

  /** Ends it. */
  leaveRead(operation: number, start: number, length: number): void {
    this.mm.lock.unlockRead();
    this.record(operation, start, length);
    if (this.mm.killed !== undefined) throw this.mm.killed;
  }

  /** A call on an empty range. */
  *nothingToDo(): Sim<void> {
    yield this.memory.costs.systemCallPs;
  }

  /** Lets go of the lock for writing and refuses the call. */
  fail(errno: Errno, call: string, what: string, expected: string): never {
    this.mm.lock.unlockWrite();
    throw this.refuse(errno, call, what, expected);
  }

  /** Says in the digest what was called. */
  record(operation: number, start: number, length: number): void {
    const { digest, now } = this.memory.node;
    if (!digest.enabled) return;
    digest.begin(RECORD_ADDRESS_SPACE, now);
    digest.add(operation);
    digest.addLong(start);
    digest.addLong(length);
    digest.end();
  }

  /**
   * Unmaps what is mapped of the range: announces it, lets go of the pages, then of the areas. Nobody is
   * told where nothing is mapped. The caller holds the mmap lock for writing.
   */
  *unmap(start: number, end: number): Sim<void> {
    const { mm } = this;
    const first = mm.vmas.findFrom(start);
    if (first === undefined || first.start >= end) return;
    const areas = mm.vmas.overlapping(start, end);
    const huge = areas.filter(({ flags }) => (flags & VM_HUGETLB) !== 0);
    if (huge.length === 0) yield* zapRange(mm, start, end, CAUSE_UNMAP);
    else yield* this.unmapHuge(huge, start, end);
    mm.vmas.remove(start, end);
    for (const { file, flags } of areas) {
      // Memory that processes shared without a name ends with its last mapping.
      if (file?.unnamed && (flags & VM_SHARED) !== 0) yield* this.memory.files.endIfUnmapped(file);
    }
  }

  /**
   * The same where huge pages of the pool are among the areas: these are announced again, in atomic context
   * under the lock of their file's mappings (unmap_hugepage_range; see file-mappings.ts about the lock).
   */
  private *unmapHuge(huge: readonly Vma[], start: number, end: number): Sim<void> {
    const { mm } = this;
    const { anonHugePages } = this.memory.files;
    this.returnHugePages(huge, start, end);
    const range = yield* beginRange(mm, start, end, CAUSE_UNMAP);
    for (const area of huge) {
      const [from, to] = [Math.max(start, area.start), Math.min(end, area.end)];
      const { mappingLock } = area.file ?? anonHugePages;
      const spins = yield* lockMappings(mm, mappingLock, from, to);
      yield* zapRange(mm, from, to, CAUSE_UNMAP, spins);
      if (spins) mappingLock.unlock();
    }
    yield* lockTable(mm);
    zapEntries(mm, start / PAGE_BYTES, end / PAGE_BYTES);
    mm.tableLock.unlock();
    yield* mm.notifiers.end(range);
  }

  /** Gives back the promise of huge pages that the areas have not taken. */
  private returnHugePages(areas: readonly Vma[], start: number, end: number): void {
    const { mm } = this;
    for (const area of areas) {
      let untaken = 0;
      const stop = Math.min(end, area.end);
      for (let at = Math.max(start, area.start); at < stop; at += HUGE_BYTES) {
        if (mm.table.getHuge(at / PAGE_BYTES) === 0) untaken++;
      }
      const returned = Math.min(untaken, mm.hugeReserved);
      mm.hugeReserved -= returned;
      this.memory.hugePool.unreserve(returned);
    }
  }

  /**
   * Page boundaries around a range, as Linux rounds: the start must be on one, the length goes up.
   * @throws SystemCallError EINVAL otherwise
   */
  range(call: string, address: number, length: number): [start: number, end: number] {
    const isRange = Number.isSafeInteger(address) && Number.isSafeInteger(length);
    const end = pageUp(address + length);
    if (
      !isRange ||
      address % PAGE_BYTES !== 0 ||
      length <= 0 ||
      address < 0 ||
      end > ADDRESS_LIMIT
    ) {
      const what = `0x${address.toString(16)} + ${length} is no range of pages`;
      throw this.refuse('EINVAL', call, what, 'a page boundary below 2^47 and a length above 0');
    }
    return [address, end];
  }

  /** Refuses ends of a range that lie within a huge page of the pool; the caller holds the lock for writing. */
  checkHuge(call: string, start: number, end: number): void {
    for (const address of [start, end]) {
      const area = address % HUGE_BYTES === 0 ? undefined : this.mm.vmas.find(address);
      // The end of the range may be the first byte of an area beyond it.
      if (area === undefined || (area.flags & VM_HUGETLB) === 0 || area.start >= address) continue;
      const what = `0x${address.toString(16)} lies within a huge page`;
      this.fail('EINVAL', call, what, 'a multiple of 2 MiB');
    }
  }

  /** Refuses a call that would cut areas beyond the limit on their number; the lock is held for writing. */
  checkMapCount(call: string, more: number): void {
    const { maxMapCount } = this.memory.settings;
    if (this.mm.vmas.count + more <= maxMapCount) return;
    this.fail('ENOMEM', call, 'too many mappings', `at most ${maxMapCount}`);
  }

  /** The same for a call that makes the ends of a range boundaries. */
  checkCuts(call: string, start: number, end: number): void {
    const more = this.mm.vmas.cuts(start, end);
    if (more > 0) this.checkMapCount(call, more);
  }

  /**
   * Refuses `pageCount` more accounted pages where the policy on overcommit does (__vm_enough_memory); the
   * lock is held for writing.
   */
  checkCommit(call: string, pageCount: number): void {
    const { settings, frames, swap, hugePool, mms } = this.memory;
    if (pageCount <= 0 || settings.overcommit === 'always') return;
    const total = frames.count + swap.slotCount;
    let limit = total;
    let promised = pageCount;
    if (settings.overcommit === 'never') {
      const ram = frames.count - hugePool.total * (HUGE_BYTES / PAGE_BYTES);
      limit = Math.floor((ram * settings.overcommitRatio) / 100) + swap.slotCount;
      for (const mm of mms) promised += mm?.vmas.accountedPages ?? 0;
    }
    if (promised <= limit) return;
    const what = `${promised} pages would be promised to processes`;
    this.fail('ENOMEM', call, what, `at most ${limit} (overcommit ${settings.overcommit})`);
  }

  /** Why `pageCount` more pages may not be locked in memory; undefined when they may. */
  lockObjection(pageCount: number): string | undefined {
    const { settings, frames, mms } = this.memory;
    const { limits, lockedPages } = this.mm;
    if ((lockedPages + pageCount) * PAGE_BYTES > limits.memlockBytes) return 'RLIMIT_MEMLOCK';
    let all = pageCount;
    for (const mm of mms) all += mm?.lockedPages ?? 0;
    if (all > settings.mlockShare * frames.count) return 'the share of memory that may be locked';
    return undefined;
  }

  notMapped(call: string, address: number): SystemCallError {
    const what = `nothing is mapped at 0x${address.toString(16)}`;
    return this.refuse('EFAULT', call, what, 'an address that the process has mapped');
  }

  refuse(errno: Errno, call: string, what: string, expected: string): SystemCallError {
    return new SystemCallError(errno, call, what, this.mm.name, expected);
  }

  private checkAlive(call: string): void {
    if (this.mm.killed !== undefined) throw this.mm.killed;
    if (!this.mm.alive)
      throw this.refuse('ESRCH', call, 'the process has ended', 'a living process');
  }
}

/** The page boundary at or above `address`. */
export function pageUp(address: number): number {
  return Math.ceil(address / PAGE_BYTES) * PAGE_BYTES;
}
