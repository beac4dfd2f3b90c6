/**
 * The address space of a host's one process: its system calls, and the way to its memory.
 *
 * Each call that takes pages away or lowers rights announces it to the notifiers first, sleeps until
 * every device has let go, changes the page table, and says so (mm/memory.c, mm/mmap.c). Only then are
 * the frames freed. Addresses are chosen by the caller: programs are replayed from recordings.
 *
 * Owns the mmap lock, the list of mappings and the program break.
 */
import { Failure, RECORD_ADDRESS_SPACE } from '../../transport/index.ts';
import type { Sim } from '../sched/completion.ts';
import { RwLock } from '../sched/rw-lock.ts';
import { FaultHandler } from './fault-handler.ts';
import { PAGE_BYTES } from './frames.ts';
import { moveRange, protectRange, zapRange } from './page-range.ts';
import { makePte, PTE_DIRTY, PTE_PRESENT, PTE_WRITE } from './page-table.ts';
import type { MmParts } from './parts.ts';
import { Reclaim } from './reclaim.ts';
import { type Range, UserAccess } from './user-access.ts';
import { UserPages } from './user-pages.ts';
import { PROT_READ, PROT_WRITE, type Vma, VmaList } from './vma.ts';

/** mmap flag: make the pages present at once (MAP_POPULATE). */
export const MAP_POPULATE = 0x8000;

/** What a digest record of kind RECORD_ADDRESS_SPACE is about: its first field. */
const OP_MMAP = 1;
const OP_MUNMAP = 2;
const OP_MREMAP = 3;
const OP_BRK = 4;
const OP_MPROTECT = 5;
const OP_DONTNEED = 6;

/** End of a process' half of the address space on x86-64. */
const ADDRESS_LIMIT = 2 ** 47;

export class AddressSpace {
  /** Pages for drivers: pins and lookups. */
  readonly pages: UserPages;
  readonly reclaim: Reclaim;
  /** pinned_vm: pages that count against RLIMIT_MEMLOCK, now and at most so far. */
  pinnedPages = 0;
  pinnedPeak = 0;
  private readonly vmas = new VmaList();
  private readonly lock = new RwLock('mmap');
  private readonly access: UserAccess;
  private breakEnd = 0;

  constructor(readonly parts: MmParts) {
    this.reclaim = new Reclaim(parts);
    const faults = new FaultHandler(parts, this.reclaim);
    this.access = new UserAccess(parts, this.vmas, this.lock, faults);
    this.pages = new UserPages(parts, this.vmas, this.lock, faults);
  }

  /** Maps [address, address + length) anonymously, in place of whatever is there (MAP_FIXED). */
  *mmap(address: number, length: number, prot: number, flags = 0): Sim<void> {
    const [start, end] = this.range(address, length);
    yield* this.enter();
    yield* this.unmapRange(start, end);
    this.vmas.insert(start, end, prot);
    this.leave(OP_MMAP, start, end - start);
    if (flags & MAP_POPULATE) {
      yield* this.access.populate(start, (end - start) / PAGE_BYTES, (prot & PROT_WRITE) !== 0);
    }
  }

  /** Unmaps what is mapped of the range; holes are no error. */
  *munmap(address: number, length: number): Sim<void> {
    const [start, end] = this.range(address, length);
    yield* this.enter();
    yield* this.unmapRange(start, end);
    this.leave(OP_MUNMAP, start, end - start);
  }

  /**
   * Resizes a mapping, and moves it with its pages when the new address is another one.
   * @throws Failure E_OPERATION when it is not mapped as a whole (EFAULT) or old and new range of a
   * move overlap (EINVAL)
   */
  *mremap(oldAddress: number, oldLength: number, newAddress: number, newLength: number): Sim<void> {
    const [oldStart, oldEnd] = this.range(oldAddress, oldLength);
    const [newStart, newEnd] = this.range(newAddress, newLength);
    if (newStart !== oldStart && newStart < oldEnd && oldStart < newEnd) {
      throw this.badRange(newAddress, newLength, 'an address outside the range that moves there');
    }
    yield* this.enter();
    const vma = this.vmas.find(oldStart);
    if (vma === undefined || vma.end < oldEnd) {
      this.lock.unlockWrite();
      throw this.badAddress('mremap', oldAddress);
    }
    const { prot } = vma;
    if (newStart === oldStart) {
      if (newEnd < oldEnd) yield* this.unmapRange(newEnd, oldEnd);
      else if (newEnd > oldEnd) {
        yield* this.unmapRange(oldEnd, newEnd);
        this.vmas.insert(oldEnd, newEnd, prot);
      }
    } else {
      yield* this.unmapRange(newStart, newEnd);
      const moved = Math.min(oldEnd - oldStart, newEnd - newStart);
      if (oldStart + moved < oldEnd) yield* this.unmapRange(oldStart + moved, oldEnd);
      this.vmas.insert(newStart, newEnd, prot);
      yield* moveRange(this.parts, oldStart, oldStart + moved, newStart);
      this.vmas.remove(oldStart, oldEnd);
    }
    this.leave(OP_MREMAP, newStart, newEnd - newStart);
  }

  /** Says where the heap ends when the program starts; not a system call, takes no time. */
  setBrk(end: number): void {
    this.breakEnd = pageUp(end);
  }

  /** Moves the end of the heap; what is beyond it goes away. */
  *brk(newEnd: number): Sim<void> {
    const end = pageUp(newEnd);
    yield* this.enter();
    const old = this.breakEnd;
    if (end < old) yield* this.unmapRange(end, old);
    else if (end > old) {
      yield* this.unmapRange(old, end);
      this.vmas.insert(old, end, PROT_READ | PROT_WRITE);
    }
    this.breakEnd = end;
    this.leave(OP_BRK, end, Math.abs(end - old));
  }

  /** Changes rights. Pages stay, but devices must look their rights up again. */
  *mprotect(address: number, length: number, prot: number): Sim<void> {
    const [start, end] = this.range(address, length);
    yield* this.enter();
    this.vmas.protect(start, end, prot);
    yield* protectRange(this.parts, start, end, prot);
    this.leave(OP_MPROTECT, start, end - start);
  }

  /** madvise(MADV_DONTNEED): the pages go, the mapping stays; they read as zeros afterwards. */
  *madviseDontneed(address: number, length: number): Sim<void> {
    const [start, end] = this.range(address, length);
    yield this.parts.costs.systemCallPs;
    yield* this.lock.lockRead();
    yield* zapRange(this.parts, start, end);
    this.lock.unlockRead();
    this.record(OP_DONTNEED, start, end - start);
  }

  /** Accesses `pageCount` pages by the CPU, faulting them in as needed. */
  touch(address: number, pageCount: number, write: boolean): Sim<void> {
    return this.access.touch(address, pageCount, write);
  }

  /** Writes `length` bytes of pattern `pattern` (see pattern.ts) by the CPU, faulting pages in. */
  fill(address: number, length: number, pattern: number): Sim<void> {
    return this.access.fill(address, length, pattern);
  }

  /** The same on pages that are present and writable only; the others keep what they hold. */
  fillResident(address: number, length: number, pattern: number): Sim<void> {
    return this.access.fillResident(address, length, pattern);
  }

  /** Writes bytes by the CPU, faulting pages in. */
  write(address: number, bytes: Uint8Array): Sim<void> {
    return this.access.write(address, bytes);
  }

  /** The bytes the process sees there now, zeros where nothing is; takes no time. */
  read(address: number, length: number): Uint8Array {
    return this.access.read(address, length);
  }

  /** MessageHash of the bytes the process sees there now; takes no time. */
  hash(address: number, length: number): number {
    return this.access.hash([{ address, length }]);
  }

  /** The same of several ranges, one after the other. */
  hashRanges(ranges: readonly Range[]): number {
    return this.access.hash(ranges);
  }

  /** Set-up: maps a range at time 0 without cost. */
  mapAtStart(address: number, length: number, prot: number): void {
    const [start, end] = this.range(address, length);
    this.vmas.insert(start, end, prot);
  }

  /**
   * Set-up: makes zeroed pages resident without cost, as if the program had written them before.
   * @throws Failure E_OPERATION where nothing is mapped or memory does not suffice
   */
  adopt(address: number, pageCount: number): void {
    const { frames, table, lru, node } = this.parts;
    const first = Math.floor(address / PAGE_BYTES);
    for (let page = first; page < first + pageCount; page++) {
      const vma = this.vmas.find(page * PAGE_BYTES);
      if (vma === undefined) throw this.badAddress('adopt', page * PAGE_BYTES);
      if (table.get(page) & PTE_PRESENT) continue;
      if (frames.freeCount <= this.reclaim.watermarks.min) {
        throw new Failure('E_OPERATION', 'the initial pages do not fit into memory', node.name);
      }
      const frame = frames.allocate();
      const write = (vma.prot & PROT_WRITE) !== 0 ? PTE_WRITE : 0;
      table.set(page, makePte(frame, PTE_PRESENT | PTE_DIRTY | write));
      frames.map(frame, page);
      lru.add(frame, false);
    }
  }

  /** True when every byte of the range is mapped. */
  isMapped(address: number, length: number): boolean {
    return this.vmas.covers(address, address + length);
  }

  /** The mappings in order of address. */
  mappings(): readonly Readonly<Vma>[] {
    return this.vmas.list();
  }

  get residentBytes(): number {
    return this.parts.table.presentPages * PAGE_BYTES;
  }

  get residentPeakBytes(): number {
    return this.parts.table.presentPeak * PAGE_BYTES;
  }

  get pinnedBytes(): number {
    return this.pinnedPages * PAGE_BYTES;
  }

  get pinnedPeakBytes(): number {
    return this.pinnedPeak * PAGE_BYTES;
  }

  /** Counts `pageCount` more (or, negative, fewer) pinned pages. */
  accountPinned(pageCount: number): void {
    this.pinnedPages += pageCount;
    if (this.pinnedPages > this.pinnedPeak) this.pinnedPeak = this.pinnedPages;
  }

  private *unmapRange(start: number, end: number): Sim<void> {
    yield* zapRange(this.parts, start, end);
    this.vmas.remove(start, end);
  }

  private *enter(): Sim<void> {
    yield this.parts.costs.systemCallPs;
    yield* this.lock.lockWrite();
    yield this.parts.costs.vmaChangePs;
  }

  private leave(operation: number, start: number, length: number): void {
    this.lock.unlockWrite();
    this.record(operation, start, length);
  }

  private record(operation: number, start: number, length: number): void {
    const { digest, now } = this.parts.node;
    if (!digest.enabled) return;
    digest.begin(RECORD_ADDRESS_SPACE, now);
    digest.add(operation);
    digest.addLong(start);
    digest.addLong(length);
    digest.end();
  }

  /** Page boundaries around a range, as Linux rounds: the start must be on one, the length goes up. */
  private range(address: number, length: number): [start: number, end: number] {
    const end = pageUp(address + length);
    if (address % PAGE_BYTES !== 0 || length <= 0 || address < 0 || end > ADDRESS_LIMIT) {
      throw this.badRange(address, length, 'a page boundary below 2^47 and a length above 0');
    }
    return [address, end];
  }

  private badRange(address: number, length: number, expected: string): Failure {
    return new Failure(
      'E_OPERATION',
      `0x${address.toString(16)} + ${length} is no range of pages (EINVAL)`,
      this.parts.node.name,
      expected,
    );
  }

  private badAddress(call: string, address: number): Failure {
    return new Failure(
      'E_OPERATION',
      `${call}: nothing is mapped at 0x${address.toString(16)} (EFAULT)`,
      this.parts.node.name,
    );
  }
}

function pageUp(address: number): number {
  return Math.ceil(address / PAGE_BYTES) * PAGE_BYTES;
}
