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
import { type Errno, SystemCallError } from '../errno.ts';
import type { Sim } from '../sched/completion.ts';
import { FaultHandler } from './fault/fault-handler.ts';
import { type Range, UserAccess } from './fault/user-access.ts';
import { UserPages } from './fault/user-pages.ts';
import type { MappedFile } from './files/mapped-file.ts';
import type { Memory } from './memory.ts';
import { CAUSE_CLEAR, CAUSE_UNMAP } from './notify/invalidation.ts';
import type { MmuNotifiers } from './notify/mmu-notifiers.ts';
import { moveRange, protectRange, zapRange } from './page-range.ts';
import { FRAME_SWAP_BACKED, ORIGIN_START, PAGE_BYTES } from './physical/frames.ts';
import type { MmStruct } from './virtual/mm-struct.ts';
import { makePte, PTE_DIRTY, PTE_PRESENT, PTE_WRITE } from './virtual/page-table.ts';
import { PROT_READ, PROT_WRITE, VM_SHARED, type Vma, type VmaKind } from './virtual/vma.ts';

/** mmap flags: writes are seen by everybody who maps the same (MAP_SHARED). */
export const MAP_SHARED = 0x1;
/** Make the pages present at once. */
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
/** Below it mappings are placed from the top down: 8 MiB of stack and a gap are left free. */
const MMAP_BASE = 0x7ffff7fff000;

export class AddressSpace {
  /** Pages for drivers: pins and lookups. */
  readonly pages: UserPages;
  readonly memory: Memory;
  private readonly access: UserAccess;

  /** The system calls of the process `state`. */
  constructor(readonly state: MmStruct) {
    this.memory = state.memory;
    const faults = new FaultHandler(state);
    this.access = new UserAccess(state, faults);
    this.pages = new UserPages(state, faults);
  }

  get name(): string {
    return this.state.name;
  }

  get notifiers(): MmuNotifiers {
    return this.state.notifiers;
  }

  /**
   * Maps [address, address + length) in place of whatever is there (MAP_FIXED); address 0 lets the
   * kernel choose. Maps `file` from byte `fileOffset` on, anonymous memory without one. Returns the
   * address.
   */
  *mmap(
    address: number,
    length: number,
    prot: number,
    flags = 0,
    file?: MappedFile,
    fileOffset = 0,
  ): Sim<number> {
    const at = address === 0 ? this.choose(length) : address;
    const [start, end] = this.range('mmap', at, length);
    yield* this.enter();
    yield* this.unmapRange(start, end);
    this.state.vmas.insert(start, end, this.kindOf(prot, flags, file), fileOffset);
    this.leave(OP_MMAP, start, end - start);
    if (flags & MAP_POPULATE) {
      yield* this.access.populate(start, (end - start) / PAGE_BYTES, (prot & PROT_WRITE) !== 0);
    }
    return start;
  }

  /** Unmaps what is mapped of the range; holes are no error. */
  *munmap(address: number, length: number): Sim<void> {
    const [start, end] = this.range('munmap', address, length);
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
    const [oldStart, oldEnd] = this.range('mremap', oldAddress, oldLength);
    const [newStart, newEnd] = this.range('mremap', newAddress, newLength);
    if (newStart !== oldStart && newStart < oldEnd && oldStart < newEnd) {
      const where = `0x${newAddress.toString(16)} + ${newLength} overlaps the range that moves there`;
      throw this.refuse('EINVAL', 'mremap', where, 'an address outside of it');
    }
    yield* this.enter();
    const { vmas, lock } = this.state;
    const vma = vmas.find(oldStart);
    if (vma === undefined || vma.end < oldEnd) {
      lock.unlockWrite();
      throw this.notMapped('mremap', oldAddress);
    }
    const kind = { prot: vma.prot, flags: vma.flags, file: vma.file };
    const offset = vma.fileOffset + oldStart - vma.start;
    if (newStart === oldStart) {
      if (newEnd < oldEnd) yield* this.unmapRange(newEnd, oldEnd);
      else if (newEnd > oldEnd) {
        yield* this.unmapRange(oldEnd, newEnd);
        vmas.insert(oldEnd, newEnd, kind, offset + oldEnd - oldStart);
      }
    } else {
      yield* this.unmapRange(newStart, newEnd);
      const moved = Math.min(oldEnd - oldStart, newEnd - newStart);
      if (oldStart + moved < oldEnd) yield* this.unmapRange(oldStart + moved, oldEnd);
      vmas.insert(newStart, newEnd, kind, offset);
      yield* moveRange(this.state, oldStart, oldStart + moved, newStart);
      vmas.remove(oldStart, oldEnd);
    }
    this.leave(OP_MREMAP, newStart, newEnd - newStart);
  }

  /** Says where the heap ends when the program starts; not a system call, takes no time. */
  setBrk(end: number): void {
    this.state.breakEnd = pageUp(end);
  }

  /** Moves the end of the heap; what is beyond it goes away. */
  *brk(newEnd: number): Sim<void> {
    const end = pageUp(newEnd);
    yield* this.enter();
    const old = this.state.breakEnd;
    if (end < old) yield* this.unmapRange(end, old);
    else if (end > old) {
      yield* this.unmapRange(old, end);
      this.state.vmas.insert(old, end, this.kindOf(PROT_READ | PROT_WRITE, 0, undefined));
    }
    this.state.breakEnd = end;
    this.leave(OP_BRK, end, Math.abs(end - old));
  }

  /** Changes rights. Pages stay, but devices must look their rights up again. */
  *mprotect(address: number, length: number, prot: number): Sim<void> {
    const [start, end] = this.range('mprotect', address, length);
    yield* this.enter();
    this.state.vmas.protect(start, end, prot);
    yield* protectRange(this.state, start, end, prot);
    this.leave(OP_MPROTECT, start, end - start);
  }

  /** madvise(MADV_DONTNEED): the pages go, the mapping stays; they read as zeros afterwards. */
  *madviseDontneed(address: number, length: number): Sim<void> {
    const [start, end] = this.range('madvise', address, length);
    yield this.memory.costs.systemCallPs;
    yield* this.state.lock.lockRead();
    yield* zapRange(this.state, start, end, CAUSE_CLEAR);
    this.state.lock.unlockRead();
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
  mapAtStart(
    address: number,
    length: number,
    prot: number,
    flags = 0,
    file?: MappedFile,
    fileOffset = 0,
  ): void {
    const [start, end] = this.range('mmap', address, length);
    this.state.vmas.insert(start, end, this.kindOf(prot, flags, file), fileOffset);
  }

  /**
   * Set-up: makes zeroed pages resident without cost, as if the program had written them before.
   * @throws Failure E_OPERATION where nothing is mapped or memory does not suffice
   */
  adopt(address: number, pageCount: number): void {
    const { vmas, table, id } = this.state;
    const { frames, lru, rmap, nodes, node } = this.memory;
    const first = Math.floor(address / PAGE_BYTES);
    for (let page = first; page < first + pageCount; page++) {
      const vma = vmas.find(page * PAGE_BYTES);
      if (vma === undefined) throw this.notMapped('adopt', page * PAGE_BYTES);
      if (table.get(page) & PTE_PRESENT) continue;
      const home = nodes[this.state.homeNode];
      if (home === undefined || frames.freeCount <= home.watermarks.min) {
        throw new Failure('E_OPERATION', 'the initial pages do not fit into memory', node.name);
      }
      const frame = frames.allocate(home.id);
      const write = (vma.prot & PROT_WRITE) !== 0 ? PTE_WRITE : 0;
      table.set(page, makePte(frame, PTE_PRESENT | PTE_DIRTY | write));
      frames.flags[frame] |= FRAME_SWAP_BACKED;
      frames.origins[frame] = ORIGIN_START;
      rmap.map(frame, id, page);
      lru.add(frame, false);
    }
  }

  /** True when every byte of the range is mapped. */
  isMapped(address: number, length: number): boolean {
    return this.state.vmas.covers(address, address + length);
  }

  /** The mappings in order of address. */
  mappings(): readonly Readonly<Vma>[] {
    return this.state.vmas.list();
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

  private *unmapRange(start: number, end: number): Sim<void> {
    yield* zapRange(this.state, start, end, CAUSE_UNMAP);
    this.state.vmas.remove(start, end);
  }

  private *enter(): Sim<void> {
    yield this.memory.costs.systemCallPs;
    yield* this.state.lock.lockWrite();
    yield this.memory.costs.vmaChangePs;
  }

  private leave(operation: number, start: number, length: number): void {
    this.state.lock.unlockWrite();
    this.record(operation, start, length);
  }

  private record(operation: number, start: number, length: number): void {
    const { digest, now } = this.memory.node;
    if (!digest.enabled) return;
    digest.begin(RECORD_ADDRESS_SPACE, now);
    digest.add(operation);
    digest.addLong(start);
    digest.addLong(length);
    digest.end();
  }

  private kindOf(prot: number, flags: number, file: MappedFile | undefined): VmaKind {
    const shared = (flags & MAP_SHARED) !== 0;
    const backing = file ?? (shared ? this.memory.files.createShared('/dev/zero') : undefined);
    return { prot, flags: shared ? VM_SHARED : 0, file: backing };
  }

  /** Where the kernel puts a mapping that the program leaves to it: top down below the stack. */
  private choose(length: number): number {
    const gap = this.state.vmas.findGap(pageUp(length), MMAP_BASE, PAGE_BYTES);
    if (gap >= 0) return gap;
    throw this.refuse('ENOMEM', 'mmap', `no room for ${length} bytes`, 'a smaller mapping');
  }

  /** Page boundaries around a range, as Linux rounds: the start must be on one, the length goes up. */
  private range(call: string, address: number, length: number): [start: number, end: number] {
    const end = pageUp(address + length);
    if (address % PAGE_BYTES !== 0 || !(length > 0) || address < 0 || end > ADDRESS_LIMIT) {
      const what = `0x${address.toString(16)} + ${length} is no range of pages`;
      throw this.refuse('EINVAL', call, what, 'a page boundary below 2^47 and a length above 0');
    }
    return [address, end];
  }

  private notMapped(call: string, address: number): SystemCallError {
    const what = `nothing is mapped at 0x${address.toString(16)}`;
    return this.refuse('EFAULT', call, what, 'an address that the process has mapped');
  }

  private refuse(errno: Errno, call: string, what: string, expected: string): SystemCallError {
    return new SystemCallError(errno, call, what, this.memory.node.name, expected);
  }
}

function pageUp(address: number): number {
  return Math.ceil(address / PAGE_BYTES) * PAGE_BYTES;
}
