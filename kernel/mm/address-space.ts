/**
 * The memory of one process as its program sees it: the system calls, and accesses by the CPU.
 *
 * The docstrings here say what each call does and which errors it has; how it is done stands in `calls/`,
 * by group. All calls are simulated computations (`yield*`); a call that is refused throws SystemCallError with
 * an errno, an access that memory does not allow throws SignalError, and a program may catch either.
 *
 * Owns nothing: mappings, page table and locks are the MmStruct's.
 */
import { assert } from '../../transport/index.ts';
import type { Sim } from '../sched/completion.ts';
import { MADV_DONTNEED, madvise } from './calls/advice.ts';
import { applyToPageRange, remapPfnRange } from './calls/driver-calls.ts';
import { mlock, mlockall, munlock, munlockall } from './calls/lock-calls.ts';
import { brk, mmap, mprotect, munmap } from './calls/mapping-calls.ts';
import { exec, exit, fork } from './calls/process-calls.ts';
import { mremap, remapFilePages } from './calls/remap-calls.ts';
import { adopt, mapAtStart, type ResidentRun, residency } from './calls/set-up.ts';
import { pageUp, SystemCalls } from './calls/system-calls.ts';
import { FaultHandler } from './fault/fault-handler.ts';
import { type Range, UserAccess } from './fault/user-access.ts';
import { UserPages } from './fault/user-pages.ts';
import type { MappedFile } from './files/mapped-file.ts';
import type { Memory } from './memory.ts';
import type { MmuNotifiers } from './notify/mmu-notifiers.ts';
import { PAGE_BYTES } from './physical/frames.ts';
import type { MmStruct } from './virtual/mm-struct.ts';
import type { Vma } from './virtual/vma.ts';

export {
  MAP_HUGETLB,
  MAP_NORESERVE,
  MAP_POPULATE,
  MAP_SHARED,
} from './calls/mapping-calls.ts';

export class AddressSpace {
  readonly memory: Memory;
  private calls: SystemCalls;
  private userPages: UserPages;

  /** The system calls of the process whose memory is `mm`. */
  constructor(mm: MmStruct) {
    this.memory = mm.memory;
    const faults = new FaultHandler(mm);
    this.calls = new SystemCalls(mm, new UserAccess(mm, faults));
    this.userPages = new UserPages(mm, faults);
  }

  /** Its data; another one after exec. */
  get state(): MmStruct {
    return this.calls.mm;
  }

  /** Pages for drivers: pins and lookups. */
  get pages(): UserPages {
    return this.userPages;
  }

  get name(): string {
    return this.state.name;
  }

  get notifiers(): MmuNotifiers {
    return this.state.notifiers;
  }

  /**
   * Maps [address, address + length) in place of whatever is there (MAP_FIXED); address 0 lets the kernel
   * choose. Maps `file` from byte `fileOffset` on, anonymous memory without one. Returns the address.
   * @throws SystemCallError EINVAL (range, offset, protection), ENOMEM (no room, too many mappings, overcommit,
   * no huge pages left), EAGAIN (more locked memory than allowed), EPERM (no locked memory allowed)
   */
  mmap(
    address: number,
    length: number,
    prot: number,
    flags = 0,
    file?: MappedFile,
    fileOffset = 0,
  ): Sim<number> {
    return mmap(this.calls, address, length, prot, flags, file, fileOffset);
  }

  /**
   * Unmaps what is mapped of the range; holes are no error.
   * @throws SystemCallError EINVAL (range, part of a huge page), ENOMEM (a mapping would be cut in two too many)
   */
  munmap(address: number, length: number): Sim<void> {
    return munmap(this.calls, address, length);
  }

  /**
   * Resizes a mapping, and moves it with its pages when the new address is another one, in place of whatever
   * is there.
   * @throws SystemCallError EFAULT (not mapped as a whole), EINVAL (ranges, or old and new range of a move
   * overlap), ENOMEM (overcommit, too many mappings), EAGAIN (more locked memory than allowed)
   */
  mremap(oldAddress: number, oldLength: number, newAddress: number, newLength: number): Sim<void> {
    return mremap(this.calls, oldAddress, oldLength, newAddress, newLength);
  }

  /**
   * Moves the end of the heap; what is beyond it goes away.
   * @throws SystemCallError ENOMEM (below the start of the heap, into another mapping, overcommit)
   */
  brk(newEnd: number): Sim<void> {
    return brk(this.calls, newEnd);
  }

  /**
   * Changes rights. Pages stay, but devices must look their rights up again.
   * @throws SystemCallError EINVAL (range, protection), ENOMEM (a hole: what is before it is changed;
   * overcommit, too many mappings)
   */
  mprotect(address: number, length: number, prot: number): Sim<void> {
    return mprotect(this.calls, address, length, prot);
  }

  /**
   * Lets part of a shared mapping of a file show other pages of it, from `filePage` on.
   * @throws SystemCallError EINVAL (range, or not part of one such mapping), ENOMEM (too many mappings)
   */
  remapFilePages(address: number, length: number, filePage: number): Sim<void> {
    return remapFilePages(this.calls, address, length, filePage);
  }

  /**
   * Says how memory will be used: MADV_* of calls/advice.ts.
   * @throws SystemCallError EINVAL (range, unknown advice, or a mapping that it does not suit), ENOMEM (a hole:
   * the advice is carried out on what is mapped)
   */
  madvise(address: number, length: number, advice: number): Sim<void> {
    return madvise(this.calls, address, length, advice);
  }

  /** madvise(MADV_DONTNEED): the pages go, the mapping stays; anonymous ones read as zeros afterwards. */
  madviseDontneed(address: number, length: number): Sim<void> {
    return madvise(this.calls, address, length, MADV_DONTNEED);
  }

  /**
   * Makes the pages of a range present and keeps reclaim away from them.
   * @throws SystemCallError ENOMEM (a hole; RLIMIT_MEMLOCK, the share that may be locked, too many mappings),
   * EPERM (no locked memory allowed), EINVAL (range)
   */
  mlock(address: number, length: number): Sim<void> {
    return mlock(this.calls, address, length);
  }

  /**
   * Undoes mlock; locks do not nest.
   * @throws SystemCallError ENOMEM (a hole, too many mappings), EINVAL (range)
   */
  munlock(address: number, length: number): Sim<void> {
    return munlock(this.calls, address, length);
  }

  /**
   * Locks everything that is mapped (MCL_CURRENT 1), that will be (MCL_FUTURE 2), or both.
   * @throws SystemCallError EINVAL (flags), ENOMEM (RLIMIT_MEMLOCK, share), EPERM (no locked memory allowed)
   */
  mlockall(flags: number): Sim<void> {
    return mlockall(this.calls, flags);
  }

  /** Undoes mlock of everything, and mlockall. */
  munlockall(): Sim<void> {
    return munlockall(this.calls);
  }

  /**
   * Makes a child with the same mappings; private pages are copied when either writes. The child has no
   * locked memory and no notifiers.
   * @throws SystemCallError ENOMEM (memory ran out on the way; overcommit)
   */
  *fork(name: string): Sim<AddressSpace> {
    return new AddressSpace(yield* fork(this.calls, name));
  }

  /** Makes a child that shares this very memory until it calls exec or exit (vfork, clone with CLONE_VM). */
  *vfork(): Sim<AddressSpace> {
    yield* this.calls.enter('vfork');
    this.state.users++;
    this.state.lock.unlockWrite();
    return new AddressSpace(this.state);
  }

  /** Starts another program: fresh, empty memory; the old one goes unless others share it. */
  *exec(): Sim<void> {
    const fresh = yield* exec(this.calls);
    const faults = new FaultHandler(fresh);
    this.calls = new SystemCalls(fresh, new UserAccess(fresh, faults));
    this.userPages = new UserPages(fresh, faults);
  }

  /** Ends the process: notifiers are released first, then all of its memory goes at once. */
  exit(): Sim<void> {
    return exit(this.calls);
  }

  /**
   * A driver maps page frames from `frame` on, which it holds, over [address, address + length): they are not
   * counted, never reclaimed and cannot be pinned (remap_pfn_range).
   * @throws SystemCallError EINVAL (range), EFAULT (nothing is mapped there)
   */
  remapPfnRange(address: number, length: number, frame: number): Sim<void> {
    return remapPfnRange(this.calls, address, length, frame);
  }

  /** A driver changes flags of page table entries: `change` says the new entry of each page (apply_to_page_range). */
  applyToPageRange(
    address: number,
    length: number,
    change: (page: number, pte: number) => number,
  ): Sim<void> {
    return applyToPageRange(this.calls, address, length, change);
  }

  /** Accesses `pageCount` pages by the CPU, faulting them in as needed. */
  touch(address: number, pageCount: number, write: boolean): Sim<void> {
    return this.calls.access.touch(address, pageCount, write);
  }

  /**
   * The same without sleeping, as far as that goes: returns how many pages were accessed. For replays of many
   * small accesses; the CPU time is spent by `spendTouched`, or by the next access that may sleep.
   */
  tryTouch(address: number, pageCount: number, write: boolean): number {
    return this.calls.access.tryTouch(address, pageCount, write);
  }

  /** Spends the CPU time of tryTouch. */
  spendTouched(): Sim<void> {
    return this.calls.access.spend();
  }

  /** Writes `length` bytes of pattern `pattern` (see pattern.ts) by the CPU, faulting pages in. */
  fill(address: number, length: number, pattern: number): Sim<void> {
    return this.calls.access.fill(address, length, pattern);
  }

  /** The same on pages that are present and writable only; the others keep what they hold. */
  fillResident(address: number, length: number, pattern: number): Sim<void> {
    return this.calls.access.fillResident(address, length, pattern);
  }

  /** Writes bytes by the CPU, faulting pages in. */
  write(address: number, bytes: Uint8Array): Sim<void> {
    return this.calls.access.write(address, bytes);
  }

  /** The bytes the process sees there now, zeros where nothing is; takes no time. */
  read(address: number, length: number): Uint8Array {
    return this.calls.access.read(address, length);
  }

  /** MessageHash of the bytes the process sees there now; takes no time. */
  hash(address: number, length: number): number {
    return this.calls.access.hash([{ address, length }]);
  }

  /** The same of several ranges, one after the other. */
  hashRanges(ranges: readonly Range[]): number {
    return this.calls.access.hash(ranges);
  }

  /** Set-up: maps a range at time 0 without cost. */
  mapAtStart(
    address: number,
    length: number,
    prot: number,
    flags = 0,
    file?: MappedFile,
    fileOffset = 0,
  ): void {
    mapAtStart(this.calls, address, length, prot, flags, file, fileOffset);
  }

  /**
   * Set-up: makes pages resident without cost: zeroed ones of the process itself, as if the program had
   * written them before, or, where `anonymous` is false or the mapping is shared, pages of the file.
   * @throws Failure E_OPERATION where nothing is mapped or memory does not suffice
   */
  adopt(address: number, pageCount: number, anonymous?: boolean): void {
    adopt(this.calls, address, pageCount, anonymous);
  }

  /** Set-up: says where the heap ends, and where it starts if that is known; not a system call, takes no time. */
  setBrk(end: number, start = 0): void {
    assert(start <= end, 'a heap ends before it starts', this.memory.node);
    this.state.breakStart = start;
    this.state.breakEnd = pageUp(end);
  }

  /** True when every byte of the range is mapped. */
  isMapped(address: number, length: number): boolean {
    return this.state.vmas.covers(address, address + length);
  }

  /** The mappings in order of address. */
  mappings(): readonly Readonly<Vma>[] {
    return this.state.vmas.list();
  }

  /** The pages that are present, in order of address (/proc/self/pagemap). */
  residency(): ResidentRun[] {
    return residency(this.calls);
  }

  get residentBytes(): number {
    return this.state.residentBytes;
  }

  get residentPeakBytes(): number {
    return this.state.table.presentPeak * PAGE_BYTES;
  }

  get pinnedBytes(): number {
    return this.state.pinnedPages * PAGE_BYTES;
  }

  get pinnedPeakBytes(): number {
    return this.state.pinnedPeak * PAGE_BYTES;
  }
}
