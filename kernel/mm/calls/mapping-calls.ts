/**
 * Making and taking away mappings: mmap, munmap, brk and mprotect (mm/mmap.c, mm/mprotect.c).
 *
 * Each call that takes pages away or lowers rights announces it to the notifiers first, sleeps until every
 * device has let go, changes the page table, and says so. Only then are the frames freed.
 */
import type { Sim } from '../../sched/completion.ts';
import { HUGE_BYTES } from '../fault/huge-fault.ts';
import type { MappedFile } from '../files/mapped-file.ts';
import { protectRange } from '../page-range.ts';
import { ORIGIN_LOCK, ORIGIN_POPULATE, PAGE_BYTES } from '../physical/frames.ts';
import {
  PROT_READ,
  PROT_WRITE,
  VM_ACCOUNT,
  VM_GROWSDOWN,
  VM_HUGETLB,
  VM_LOCKED,
  VM_NORESERVE,
  VM_PFNMAP,
  VM_SHARED,
  type VmaKind,
} from '../virtual/vma.ts';
import {
  ADDRESS_LIMIT,
  OP_BRK,
  OP_MMAP,
  OP_MPROTECT,
  OP_MUNMAP,
  pageUp,
  type SystemCalls,
} from './system-calls.ts';

/** mmap flags of include/uapi/asm-generic/mman.h: writes are seen by everybody who maps the same. */
export const MAP_SHARED = 0x1;
/** Grows towards lower addresses. */
export const MAP_GROWSDOWN = 0x100;
/** Locked in memory from the start. */
export const MAP_LOCKED = 0x2000;
/** No memory is promised for it. */
export const MAP_NORESERVE = 0x4000;
/** Make the pages present at once. */
export const MAP_POPULATE = 0x8000;
/** Made of huge pages of the pool. */
export const MAP_HUGETLB = 0x40000;

/** Below it mappings are placed from the top down: 8 MiB of stack and a gap are left free. */
const MMAP_BASE = 0x7ffff7fff000;

/** See AddressSpace.mmap. */
export function* mmap(
  calls: SystemCalls,
  address: number,
  length: number,
  prot: number,
  flags: number,
  file: MappedFile | undefined,
  fileOffset: number,
): Sim<number> {
  const isHuge = (flags & MAP_HUGETLB) !== 0 || file?.huge === true;
  const unit = isHuge ? HUGE_BYTES : PAGE_BYTES;
  const bytes = Math.ceil(length / unit) * unit;
  calls.range('mmap', address, bytes);
  if (address % unit !== 0 || fileOffset % unit !== 0 || fileOffset < 0) {
    const what = `address 0x${address.toString(16)}, offset ${fileOffset}`;
    throw calls.refuse('EINVAL', 'mmap', what, `multiples of ${unit}`);
  }
  if (isHuge && file !== undefined && !file.huge) {
    throw calls.refuse('EINVAL', 'mmap', `huge pages of ${file.path}`, 'a file of huge pages');
  }
  if (prot !== (prot & 7))
    throw calls.refuse('EINVAL', 'mmap', `protection ${prot}`, 'PROT_* bits');
  yield* calls.enter('mmap');
  const { mm, memory } = calls;
  const start = address === 0 ? choose(calls, bytes, unit) : address;
  const end = start + bytes;
  const locks = (flags & MAP_LOCKED) !== 0 || mm.locksFuture;
  if (locks) checkLockedMapping(calls, bytes / PAGE_BYTES);
  calls.checkHuge('mmap', start, end);
  calls.checkMapCount('mmap', 1);
  let kind = kindOf(prot, flags, locks, file);
  if (kind.flags & VM_ACCOUNT) calls.checkCommit('mmap', bytes / PAGE_BYTES);
  if (kind.flags & VM_HUGETLB) reserveHugePages(calls, bytes / HUGE_BYTES);
  if (kind.flags & VM_SHARED && file === undefined) {
    const shared = memory.files.createShared('/dev/zero', unit === HUGE_BYTES);
    shared.unnamed = true;
    kind = { ...kind, file: shared };
  }
  yield* calls.unmap(start, end);
  mm.vmas.insert(start, end, kind, fileOffset);
  calls.leave(OP_MMAP, start, end - start);
  if (locks || (flags & MAP_POPULATE) !== 0) {
    yield* populate(calls, start, end, locks ? ORIGIN_LOCK : ORIGIN_POPULATE);
  }
  return start;
}

/** Makes the pages of a range present as far as they may be (mm_populate). */
export function* populate(
  calls: SystemCalls,
  start: number,
  end: number,
  origin: number,
): Sim<void> {
  for (const { start: from, end: to, prot, flags } of calls.mm.vmas.overlapping(start, end)) {
    // A write breaks private pages out of what they share; shared ones must not become dirty.
    const write = (flags & VM_SHARED) === 0 && (prot & PROT_WRITE) !== 0;
    const first = Math.max(start, from);
    const pageCount = (Math.min(end, to) - first) / PAGE_BYTES;
    yield* calls.access.populate(first, pageCount, write, origin);
  }
}

/** See AddressSpace.munmap. */
export function* munmap(calls: SystemCalls, address: number, length: number): Sim<void> {
  const [start, end] = calls.range('munmap', address, length);
  yield* calls.enter('munmap');
  calls.checkHuge('munmap', start, end);
  const area = calls.mm.vmas.find(start);
  if (area !== undefined && area.start < start && end < area.end) calls.checkMapCount('munmap', 1);
  yield* calls.unmap(start, end);
  calls.leave(OP_MUNMAP, start, end - start);
}

/** See AddressSpace.brk. */
export function* brk(calls: SystemCalls, newEnd: number): Sim<void> {
  const { mm } = calls;
  const end = pageUp(newEnd);
  if (!Number.isSafeInteger(end) || end < mm.breakStart || end > ADDRESS_LIMIT) {
    const what = `0x${newEnd.toString(16)} is no end of the heap`;
    throw calls.refuse('ENOMEM', 'brk', what, `at least 0x${mm.breakStart.toString(16)}`);
  }
  yield* calls.enter('brk');
  const old = mm.breakEnd;
  const kind = kindOf(PROT_READ | PROT_WRITE, 0, mm.locksFuture, undefined);
  if (end < old) yield* calls.unmap(end, old);
  else if (end > old) {
    const next = mm.vmas.findFrom(old);
    if (next !== undefined && next.start < end) {
      const what = `the heap would run into the mapping at 0x${next.start.toString(16)}`;
      calls.fail('ENOMEM', 'brk', what, 'free addresses above the heap');
    }
    calls.checkCommit('brk', (end - old) / PAGE_BYTES);
    calls.checkMapCount('brk', 1);
    if (mm.locksFuture) checkLockedMapping(calls, (end - old) / PAGE_BYTES);
    mm.vmas.insert(old, end, kind);
  }
  mm.breakEnd = end;
  calls.leave(OP_BRK, end, Math.abs(end - old));
  if (mm.locksFuture && end > old) yield* populate(calls, old, end, ORIGIN_LOCK);
}

/** See AddressSpace.mprotect. */
export function* mprotect(
  calls: SystemCalls,
  address: number,
  length: number,
  prot: number,
): Sim<void> {
  if (prot !== (prot & 7))
    throw calls.refuse('EINVAL', 'mprotect', `protection ${prot}`, 'PROT_* bits');
  if (length === 0 && address % PAGE_BYTES === 0) return yield* calls.nothingToDo();
  const [start, end] = calls.range('mprotect', address, length);
  yield* calls.enter('mprotect');
  const { mm } = calls;
  const { vmas } = mm;
  calls.checkHuge('mprotect', start, end);
  calls.checkCuts('mprotect', start, end);
  let at = start;
  for (const area of vmas.overlapping(start, end)) {
    if (area.start > at) break;
    const from = Math.max(start, area.start);
    at = Math.min(end, area.end);
    if (area.prot === prot) continue;
    const needsMemory = (prot & PROT_WRITE) !== 0 && mayAccount(area.flags);
    if (needsMemory) calls.checkCommit('mprotect', (at - from) / PAGE_BYTES);
    vmas.change(from, at, (part) => {
      part.prot = prot;
      if (needsMemory) part.flags |= VM_ACCOUNT;
    });
    yield* protectRange(mm, from, at, prot);
  }
  if (at < end) {
    const what = `nothing is mapped at 0x${at.toString(16)}`;
    calls.fail('ENOMEM', 'mprotect', what, 'a range without holes');
  }
  calls.leave(OP_MPROTECT, start, end - start);
}

/** What a new mapping is. */
export function kindOf(
  prot: number,
  flags: number,
  locks: boolean,
  file: MappedFile | undefined,
): VmaKind {
  let area = 0;
  if (flags & MAP_SHARED) area |= VM_SHARED;
  if (flags & MAP_GROWSDOWN) area |= VM_GROWSDOWN;
  if (flags & MAP_NORESERVE) area |= VM_NORESERVE;
  if (flags & MAP_HUGETLB || file?.huge) area |= VM_HUGETLB;
  if (locks) area |= VM_LOCKED;
  const isOwn = file === undefined || (area & VM_SHARED) === 0;
  const writes = (prot & PROT_WRITE) !== 0;
  // accountable_mapping: private memory that can be written, and shared memory without a file.
  if (isOwn && (writes || (area & VM_SHARED) !== 0) && mayAccount(area & ~VM_SHARED)) {
    area |= VM_ACCOUNT;
  }
  return { prot, flags: area, file };
}

function mayAccount(flags: number): boolean {
  return (flags & (VM_NORESERVE | VM_HUGETLB | VM_SHARED | VM_PFNMAP | VM_ACCOUNT)) === 0;
}

/** Where the kernel puts a mapping that the program leaves to it: top down below the stack. */
function choose(calls: SystemCalls, length: number, unit: number): number {
  const gap = calls.mm.vmas.findGap(length + unit - PAGE_BYTES, MMAP_BASE, PAGE_BYTES);
  if (gap < 0) calls.fail('ENOMEM', 'mmap', `no room for ${length} bytes`, 'a smaller mapping');
  return Math.ceil(gap / unit) * unit;
}

function checkLockedMapping(calls: SystemCalls, pageCount: number): void {
  const { memlockBytes } = calls.mm.limits;
  if (memlockBytes === 0) {
    calls.fail('EPERM', 'mmap', 'the process may not lock memory', 'RLIMIT_MEMLOCK above 0');
  }
  const objection = calls.lockObjection(pageCount);
  if (objection !== undefined) {
    calls.fail(
      'EAGAIN',
      'mmap',
      `${pageCount} more locked pages exceed ${objection}`,
      'fewer pages',
    );
  }
}

function reserveHugePages(calls: SystemCalls, count: number): void {
  const { mm, memory } = calls;
  const { hugePool } = memory;
  if (!hugePool.reserve(count)) {
    const left = hugePool.free - hugePool.reserved;
    calls.fail('ENOMEM', 'mmap', `${count} huge pages are asked for`, `at most ${left}`);
  }
  mm.hugeReserved += count;
}
