/**
 * Changing the page table entries of a range the way every system call must: announce it, sleep until
 * every device has let go, change the entries under the page table lock without sleeping, and say so
 * (mm/memory.c, mm/mremap.c, mm/mprotect.c). The caller holds the mmap lock, or the lock of the file's
 * mappings.
 *
 * Owns what happens to a page when its entry goes. Copying entries to a child is `fault/copy-range.ts`.
 */
import type { Sim } from '../sched/completion.ts';
import type { Invalidation, InvalidationCause } from './notify/invalidation.ts';
import { CAUSE_MOVE, CAUSE_PROTECTION } from './notify/invalidation.ts';
import {
  FRAME_ANON_EXCLUSIVE,
  FRAME_DIRTY,
  FRAME_REFERENCED,
  FRAME_SWAP_CACHE,
  FRAME_UNEVICTABLE,
  PAGE_BYTES,
} from './physical/frames.ts';
import { HUGE_PAGES } from './physical/free-lists.ts';
import { splitMapping, splitRangeEnds } from './virtual/huge-pages.ts';
import { reconsiderUnevictable } from './virtual/mlock-pages.ts';
import type { MmStruct } from './virtual/mm-struct.ts';
import {
  isMigrationPte,
  isSwapPte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_WRITE,
  pteNumber,
} from './virtual/page-table.ts';
import { PROT_WRITE, VM_PFNMAP, VM_SHARED } from './virtual/vma.ts';

/** Whether the entry of a page is to go after all, asked at the moment when it would. */
type Wanted = (page: number) => boolean;

/** Announces a range; takes no time when nobody has to be told. */
export function* beginRange(
  mm: MmStruct,
  start: number,
  end: number,
  cause: InvalidationCause,
  atomic = false,
): Sim<Invalidation> {
  const quiet = mm.notifiers.tryBegin(start, end, cause, atomic);
  return quiet ?? (yield* mm.notifiers.begin(start, end, cause, atomic));
}

/** Takes the page table lock for a change that takes no time. */
export function* lockTable(mm: MmStruct): Sim<void> {
  if (!mm.tableLock.tryLock()) yield* mm.tableLock.lock();
}

/** Takes the pages of [start, end) out of the page table and lets go of them. */
export function* zapRange(
  mm: MmStruct,
  start: number,
  end: number,
  cause: InvalidationCause,
  atomic = false,
  wanted?: Wanted,
): Sim<void> {
  const range = mm.notifiers.tryBegin(start, end, cause, atomic);
  // Nobody listens and nobody holds the lock: the usual case, without a detour.
  if (range !== undefined && !mm.tableLock.locked) {
    const zapped = zapEntries(mm, start / PAGE_BYTES, end / PAGE_BYTES, wanted);
    if (!mm.notifiers.tryEnd(range)) yield* mm.notifiers.end(range);
    if (zapped > 0) yield zapped * mm.memory.costs.unmapPagePs;
    return;
  }
  const announced = range ?? (yield* mm.notifiers.begin(start, end, cause, atomic));
  yield* lockTable(mm);
  const zapped = zapEntries(mm, start / PAGE_BYTES, end / PAGE_BYTES, wanted);
  mm.tableLock.unlock();
  yield* mm.notifiers.end(announced);
  yield zapped * mm.memory.costs.unmapPagePs;
}

/** Takes the entries of pages [first, end) out at once; returns how many there were. */
export function zapEntries(mm: MmStruct, first: number, end: number, wanted?: Wanted): number {
  const { table } = mm;
  splitRangeEnds(mm, first, end);
  let zapped = 0;
  for (let page = table.nextUsed(first, end); page < end; page = table.nextUsed(page + 1, end)) {
    if (wanted !== undefined && !wanted(page)) continue;
    const huge = table.getHuge(page);
    if (huge === 0) zapEntry(mm, page, table.get(page));
    else zapHuge(mm, page, huge);
    zapped++;
  }
  return zapped;
}

/** Takes the entry `pte` of `page`, which is no huge page's, out of the page table. */
export function zapEntry(mm: MmStruct, page: number, pte: number): void {
  const { table, memory } = mm;
  table.set(page, 0);
  if ((pte & PTE_PRESENT) === 0) {
    if (isSwapPte(pte)) memory.swap.release(pteNumber(pte));
    return;
  }
  const frame = pteNumber(pte);
  if (frame === memory.zeroFrame || isDeviceMemory(mm, page)) return;
  dropMapping(mm, page, frame, pte);
}

/** Moves the entries of [start, end) to the same places from `to` on, where there are none. */
export function* moveRange(mm: MmStruct, start: number, end: number, to: number): Sim<void> {
  const { table, memory } = mm;
  const { rmap, costs, migration } = memory;
  const distance = (to - start) / PAGE_BYTES;
  const range = yield* beginRange(mm, start, end, CAUSE_MOVE);
  yield* lockTable(mm);
  let moved = 0;
  const [first, last] = [start / PAGE_BYTES, end / PAGE_BYTES];
  const keepsHuge = distance % HUGE_PAGES === 0;
  splitRangeEnds(mm, first, last);
  for (let page = table.nextUsed(first, last); page < last; page = table.nextUsed(page + 1, last)) {
    moved++;
    const huge = table.getHuge(page);
    if (huge !== 0 && keepsHuge) {
      table.setHuge(page, 0);
      table.setHuge(page + distance, huge);
      if (huge & PTE_PRESENT) rmap.move(pteNumber(huge), mm.id, page, page + distance);
      else migration.entries.moved(pteNumber(huge), mm.id, page, page + distance);
      continue;
    }
    if (huge !== 0) splitMapping(mm, page);
    const pte = table.get(page);
    table.set(page, 0);
    table.set(page + distance, pte);
    const frame = pteNumber(pte);
    if (isMigrationPte(pte)) {
      migration.entries.moved(memory.frames.headOf(frame), mm.id, page, page + distance);
    }
    if ((pte & PTE_PRESENT) === 0 || frame === memory.zeroFrame || isDeviceMemory(mm, page))
      continue;
    rmap.move(memory.frames.headOf(frame), mm.id, page, page + distance);
  }
  mm.tableLock.unlock();
  yield* mm.notifiers.end(range);
  yield moved * costs.unmapPagePs;
}

/**
 * Gives the entries of [start, end), whose areas have `prot` already, that much right to write: takes it
 * away, or gives it to pages that a write need not copy; others get it by a fault.
 */
export function* protectRange(mm: MmStruct, start: number, end: number, prot: number): Sim<void> {
  const { table, vmas } = mm;
  const range = yield* beginRange(mm, start, end, CAUSE_PROTECTION);
  yield* lockTable(mm);
  const [first, last] = [start / PAGE_BYTES, end / PAGE_BYTES];
  const mayWrite = (prot & PROT_WRITE) !== 0;
  splitRangeEnds(mm, first, last);
  for (let page = table.nextUsed(first, last); page < last; page = table.nextUsed(page + 1, last)) {
    const huge = table.getHuge(page);
    const pte = huge === 0 ? table.get(page) : huge;
    let changed = pte;
    if (!mayWrite) {
      if (!isSwapPte(pte)) changed &= ~PTE_WRITE;
    } else if (pte & PTE_PRESENT) {
      const isShared = ((vmas.find(page * PAGE_BYTES)?.flags ?? 0) & VM_SHARED) !== 0;
      if (!isShared && isExclusive(mm, pteNumber(pte))) changed |= PTE_WRITE;
    }
    if (changed === pte) continue;
    if (huge === 0) table.set(page, changed);
    else table.setHuge(page, changed);
  }
  mm.tableLock.unlock();
  yield* mm.notifiers.end(range);
}

/** True for an anonymous page that only this process has, whoever else holds references to it. */
export function isExclusive(mm: MmStruct, frame: number): boolean {
  const { frames } = mm.memory;
  return (frames.flags[frames.headOf(frame)] & FRAME_ANON_EXCLUSIVE) !== 0;
}

/** True where a driver has put memory of its own, which has no counts. */
export function isDeviceMemory(mm: MmStruct, page: number): boolean {
  if (!mm.hasDeviceMemory) return false;
  return ((mm.vmas.find(page * PAGE_BYTES)?.flags ?? 0) & VM_PFNMAP) !== 0;
}

function zapHuge(mm: MmStruct, page: number, pte: number): void {
  const first = page - (page % HUGE_PAGES);
  mm.table.setHuge(first, 0);
  if (pte & PTE_PRESENT) dropMapping(mm, first, pteNumber(pte), pte);
}

/** The page loses the mapping that `pte` was: its bits go to the frame, and the mapping's reference goes. */
function dropMapping(mm: MmStruct, page: number, frame: number, pte: number): void {
  const { frames, lru, rmap } = mm.memory;
  const head = frames.headOf(frame);
  const flags = frames.flags[head];
  if (pte & PTE_DIRTY) frames.flags[head] |= FRAME_DIRTY;
  const isFile = frames.files[head] !== 0;
  if (isFile && (pte & PTE_ACCESSED) !== 0) frames.flags[head] |= FRAME_REFERENCED;
  // A page that is still pinned lives on, but no longer as a page that reclaim could find.
  const isCached = isFile || (flags & FRAME_SWAP_CACHE) !== 0;
  if (!isCached && frames.mapCounts[head] === 1) lru.remove(head);
  rmap.unmap(head, mm.id, page);
  const isLeft = isFile || frames.mapCounts[head] > 0;
  if (isLeft && (flags & FRAME_UNEVICTABLE) !== 0) reconsiderUnevictable(mm.memory, head);
}
