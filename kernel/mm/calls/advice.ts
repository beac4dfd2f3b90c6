/**
 * madvise: what a program says about how it will use its memory (mm/madvise.c).
 *
 * Holes in the range are an error only after the advice has been carried out on what is mapped, as in Linux.
 */
import type { Sim } from '../../sched/completion.ts';
import { HUGE_BYTES } from '../fault/huge-fault.ts';
import type { MappedFile } from '../files/mapped-file.ts';
import { CAUSE_CLEAR } from '../notify/invalidation.ts';
import { beginRange, lockTable, zapEntry, zapRange } from '../page-range.ts';
import {
  FRAME_ANON_EXCLUSIVE,
  FRAME_DIRTY,
  FRAME_HUGE,
  FRAME_LRU,
  FRAME_SWAP_BACKED,
  FRAME_SWAP_CACHE,
  PAGE_BYTES,
} from '../physical/frames.ts';
import { splitMapping } from '../virtual/huge-pages.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import {
  isSwapPte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  pteNumber,
} from '../virtual/page-table.ts';
import {
  filePageOf,
  PROT_WRITE,
  VM_DONTCOPY,
  VM_HUGEPAGE,
  VM_HUGETLB,
  VM_LOCKED,
  VM_NOHUGEPAGE,
  VM_PFNMAP,
  VM_RAND_READ,
  VM_SEQ_READ,
  VM_SHARED,
  type Vma,
} from '../virtual/vma.ts';
import { OP_DONTNEED, OP_MADVISE, type SystemCalls } from './system-calls.ts';

/** Advice of include/uapi/asm-generic/mman-common.h. */
export const MADV_NORMAL = 0;
export const MADV_RANDOM = 1;
export const MADV_SEQUENTIAL = 2;
export const MADV_WILLNEED = 3;
export const MADV_DONTNEED = 4;
export const MADV_FREE = 8;
export const MADV_REMOVE = 9;
export const MADV_DONTFORK = 10;
export const MADV_DOFORK = 11;
export const MADV_HUGEPAGE = 14;
export const MADV_NOHUGEPAGE = 15;

/** For advice that only changes flags of the area: those it sets and those it clears. */
const FLAGS = new Map<number, readonly [set: number, clear: number]>([
  [MADV_NORMAL, [0, VM_RAND_READ | VM_SEQ_READ]],
  [MADV_RANDOM, [VM_RAND_READ, VM_SEQ_READ]],
  [MADV_SEQUENTIAL, [VM_SEQ_READ, VM_RAND_READ]],
  [MADV_DONTFORK, [VM_DONTCOPY, 0]],
  [MADV_DOFORK, [0, VM_DONTCOPY]],
  [MADV_HUGEPAGE, [VM_HUGEPAGE, VM_NOHUGEPAGE]],
  [MADV_NOHUGEPAGE, [VM_NOHUGEPAGE, VM_HUGEPAGE]],
]);

/** For advice that deals with pages: areas that it cannot be given to. */
const NEVER_FOR = new Map<number, number>([
  [MADV_WILLNEED, 0],
  [MADV_DONTNEED, VM_LOCKED | VM_PFNMAP],
  [MADV_FREE, VM_LOCKED | VM_PFNMAP | VM_HUGETLB],
  [MADV_REMOVE, VM_LOCKED | VM_PFNMAP | VM_HUGETLB],
]);

/** See AddressSpace.madvise. */
export function* madvise(
  calls: SystemCalls,
  address: number,
  length: number,
  advice: number,
): Sim<void> {
  if (!FLAGS.has(advice) && !NEVER_FOR.has(advice)) {
    throw calls.refuse('EINVAL', 'madvise', `advice ${advice} is unknown`, 'a MADV_* value');
  }
  if (length === 0 && address % PAGE_BYTES === 0) return yield* calls.nothingToDo();
  const [start, end] = calls.range('madvise', address, length);
  const flags = FLAGS.get(advice);
  if (flags !== undefined) yield* changeFlags(calls, start, end, advice, flags[0], flags[1]);
  else yield* advisePages(calls, start, end, advice);
}

function* changeFlags(
  calls: SystemCalls,
  start: number,
  end: number,
  advice: number,
  set: number,
  clear: number,
): Sim<void> {
  yield* calls.enter('madvise');
  const { vmas } = calls.mm;
  calls.checkHuge('madvise', start, end);
  calls.checkCuts('madvise', start, end);
  const isHuge = advice === MADV_HUGEPAGE || advice === MADV_NOHUGEPAGE;
  const unfit = isHuge ? VM_HUGETLB | VM_PFNMAP : advice === MADV_DOFORK ? VM_PFNMAP : 0;
  for (const area of vmas.overlapping(start, end)) {
    if (area.flags & unfit) failAdvice(calls, area, advice, () => calls.mm.lock.unlockWrite());
  }
  vmas.change(start, end, (area) => {
    area.flags = (area.flags & ~clear) | set;
  });
  const isWhole = vmas.covers(start, end);
  calls.leave(OP_MADVISE, start, end - start);
  if (!isWhole) throw hole(calls, start, end);
}

function* advisePages(calls: SystemCalls, start: number, end: number, advice: number): Sim<void> {
  yield* calls.enterRead('madvise');
  const { mm } = calls;
  const unfit = NEVER_FOR.get(advice) ?? 0;
  const isWhole = mm.vmas.covers(start, end);
  // Looked up anew each time: MADV_REMOVE lets go of the lock.
  for (let at = start; at < end; ) {
    const area = mm.vmas.findFrom(at);
    if (area === undefined || area.start >= end) break;
    const [from, to] = [Math.max(at, area.start), Math.min(end, area.end)];
    at = to;
    const isAligned = from % HUGE_BYTES === 0 && to % HUGE_BYTES === 0;
    const cutsHuge = (area.flags & VM_HUGETLB) !== 0 && !isAligned;
    const isWrong = (area.flags & unfit) !== 0 || !suits(area, advice) || cutsHuge;
    if (isWrong) failAdvice(calls, area, advice, () => mm.lock.unlockRead());
    if (advice === MADV_DONTNEED) yield* zapRange(mm, from, to, CAUSE_CLEAR);
    else if (advice === MADV_FREE) yield* freeLazily(mm, from, to);
    else if (advice === MADV_WILLNEED) willNeed(mm, area, from, to);
    else yield* removePages(calls, area, from, to);
  }
  calls.leaveRead(advice === MADV_DONTNEED ? OP_DONTNEED : OP_MADVISE, start, end - start);
  if (!isWhole) throw hole(calls, start, end);
}

/** True for an area whose kind of memory the advice is about. */
function suits(area: Vma, advice: number): boolean {
  const isShared = (area.flags & VM_SHARED) !== 0;
  if (advice === MADV_FREE) return area.file === undefined && !isShared;
  if (advice === MADV_REMOVE) {
    return area.file !== undefined && isShared && (area.prot & PROT_WRITE) !== 0;
  }
  return true;
}

/** The pages may go when memory is wanted, unless they are written before (madvise_free_pte_range). */
function* freeLazily(mm: MmStruct, start: number, end: number): Sim<void> {
  const { table, memory } = mm;
  const range = yield* beginRange(mm, start, end, CAUSE_CLEAR);
  yield* lockTable(mm);
  const last = end / PAGE_BYTES;
  let count = 0;
  for (let page = table.nextUsed(start / PAGE_BYTES, last); page < last; count++) {
    const huge = table.getHuge(page);
    if (huge !== 0 && (huge & PTE_PRESENT) !== 0) splitMapping(mm, page);
    const pte = table.get(page);
    if (isSwapPte(pte)) zapEntry(mm, page, pte);
    else if (pte & PTE_PRESENT && mayFree(mm, pteNumber(pte))) {
      table.set(page, pte & ~(PTE_DIRTY | PTE_ACCESSED));
      markLazyFree(mm, pteNumber(pte));
    }
    page = table.nextUsed(page + 1, last);
  }
  mm.tableLock.unlock();
  yield* mm.notifiers.end(range);
  yield count * memory.costs.unmapPagePs;
}

/** True for a page that nobody else has, and nobody is at work on. */
function mayFree(mm: MmStruct, frame: number): boolean {
  const { frames, pageLocks, zeroFrame } = mm.memory;
  const flags = frames.flags[frame];
  if (frame === zeroFrame || (flags & FRAME_HUGE) !== 0) return false;
  const isOwn = frames.mapCounts[frame] === 1 && (flags & FRAME_ANON_EXCLUSIVE) !== 0;
  return isOwn && !pageLocks.isLocked(frame) && frames.extraReferences(frame) === 0;
}

function markLazyFree(mm: MmStruct, frame: number): void {
  const { frames, lru, swapCache } = mm.memory;
  if (frames.flags[frame] & FRAME_SWAP_CACHE) swapCache.remove(frame);
  frames.flags[frame] &= ~(FRAME_DIRTY | FRAME_SWAP_BACKED);
  if ((frames.flags[frame] & FRAME_LRU) === 0) return;
  // With the pages of files, which are dropped without being written.
  lru.remove(frame);
  lru.add(frame, false);
}

/** Brings pages into memory in the background: read-ahead of a file, or swap-in. */
function willNeed(mm: MmStruct, area: Vma, start: number, end: number): void {
  const { memory } = mm;
  const { file } = area;
  const first = start / PAGE_BYTES;
  const last = end / PAGE_BYTES;
  if (file !== undefined) {
    if (file.huge || file.kind === 'xip') return;
    const index = filePageOf(area, first);
    memory.scheduler.spawn('readahead', readAhead(mm, file, index, index + last - first));
    return;
  }
  const slots: number[] = [];
  mm.table.forEachUsed(first, last, (_page, pte) => {
    if (isSwapPte(pte)) slots.push(pteNumber(pte));
  });
  if (slots.length > 0) memory.scheduler.spawn('swapin', swapInAhead(mm, slots));
}

function* readAhead(mm: MmStruct, file: MappedFile, first: number, end: number): Sim<void> {
  const { files, frames, settings } = mm.memory;
  for (let index = first; index < end && index * PAGE_BYTES < file.length; index++) {
    if (!mm.alive || mm.killed !== undefined) return;
    if (file.kind === 'shared memory' && !file.slots.has(index)) continue;
    const frame = yield* files.read(file, index, mm, settings.readAheadPages);
    if (frame >= 0) frames.put(frame);
  }
}

function* swapInAhead(mm: MmStruct, slots: readonly number[]): Sim<void> {
  const { swapCache, frames } = mm.memory;
  for (const slot of slots) {
    if (!mm.alive || mm.killed !== undefined) return;
    const frame = yield* swapCache.swapIn(mm, slot);
    if (frame >= 0) frames.put(frame);
  }
}

/** Punches a hole into the file; other processes lose the pages too. The mmap lock is let go of meanwhile. */
function* removePages(calls: SystemCalls, area: Vma, start: number, end: number): Sim<void> {
  const { mm, memory } = calls;
  const first = filePageOf(area, start / PAGE_BYTES);
  const file = area.file as MappedFile;
  mm.lock.unlockRead();
  yield* memory.files.punch(file, first, first + (end - start) / PAGE_BYTES);
  yield* mm.lock.lockRead();
}

function failAdvice(calls: SystemCalls, area: Vma, advice: number, unlock: () => void): never {
  unlock();
  const what = `advice ${advice} does not suit the mapping at 0x${area.start.toString(16)}`;
  throw calls.refuse('EINVAL', 'madvise', what, 'a mapping of another kind');
}

function hole(calls: SystemCalls, start: number, end: number): Error {
  const what = `0x${start.toString(16)} to 0x${end.toString(16)} is not mapped as a whole`;
  return calls.refuse('ENOMEM', 'madvise', what, 'a range without holes');
}
