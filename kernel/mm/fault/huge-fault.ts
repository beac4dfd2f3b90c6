/**
 * Faults that a page of 2 MiB answers: transparent huge pages of anonymous memory (mm/huge_memory.c) and
 * huge pages of the pool (mm/hugetlb.c).
 *
 * Simpler than Linux: no huge zero page (as with use_zero_page = 0) and no khugepaged, so an area gets its
 * huge page at the first fault or never.
 */
import type { Sim } from '../../sched/completion.ts';
import type { MappedFile } from '../files/mapped-file.ts';
import { CAUSE_COW } from '../notify/invalidation.ts';
import { beginRange } from '../page-range.ts';
import {
  FRAME_ANON_EXCLUSIVE,
  FRAME_DIRTY,
  FRAME_SWAP_BACKED,
  ORIGIN_PIN,
  PAGE_BYTES,
} from '../physical/frames.ts';
import { HUGE_PAGES } from '../physical/free-lists.ts';
import { lockPage } from '../virtual/mlock-pages.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import {
  makePte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_WRITE,
  pteNumber,
} from '../virtual/page-table.ts';
import {
  filePageOf,
  PROT_WRITE,
  VM_HUGEPAGE,
  VM_LOCKED,
  VM_SHARED,
  type Vma,
} from '../virtual/vma.ts';
import type { FaultHandler } from './fault-handler.ts';
import { MUST_SLEEP, NO_PAGE } from './fault-result.ts';

/** Bytes of a huge page. */
export const HUGE_BYTES = HUGE_PAGES * PAGE_BYTES;

/** True when a fault on `page` may be answered by a huge page: wanted, room in the area, and nothing there. */
export function isHugeCandidate(mm: MmStruct, page: number, vma: Vma): boolean {
  if ((vma.flags & VM_HUGEPAGE) === 0 || !mm.memory.settings.transparentHugePages) return false;
  const first = page - (page % HUGE_PAGES);
  if (first * PAGE_BYTES < vma.start || (first + HUGE_PAGES) * PAGE_BYTES > vma.end) return false;
  return mm.table.nextUsed(first, first + HUGE_PAGES) === first + HUGE_PAGES;
}

/** Answers a fault with a transparent huge page; MUST_SLEEP when there is none, or somebody came in between. */
export function* tryHugeFault(
  handler: FaultHandler,
  page: number,
  vma: Vma,
  write: boolean,
  origin: number,
): Sim<number> {
  const { mm } = handler;
  const { memory, table } = mm;
  const { reclaim, frames, lru, counters, costs } = memory;
  const head = yield* reclaim.allocateHuge(mm);
  if (head < 0) return MUST_SLEEP;
  if (!isHugeCandidate(mm, page, vma) || mm.tableLock.locked) {
    frames.put(head);
    return MUST_SLEEP;
  }
  const first = page - (page % HUGE_PAGES);
  frames.flags[head] |= FRAME_SWAP_BACKED | FRAME_ANON_EXCLUSIVE;
  const mayWrite = (vma.prot & PROT_WRITE) !== 0 ? PTE_WRITE : 0;
  mapHuge(mm, first, head, mayWrite | (write ? PTE_DIRTY : 0), origin);
  lru.add(head, false);
  if (vma.flags & VM_LOCKED) lockPage(memory, head);
  counters.pgfault++;
  handler.pendingPs += costs.hugeFaultPs;
  return pteNumber(table.get(page));
}

/** Answers a fault in an area of the pool; NO_PAGE when the pool is empty. */
export function* hugeTlbFault(
  handler: FaultHandler,
  page: number,
  vma: Vma,
  write: boolean,
  origin: number,
): Sim<number> {
  const { mm } = handler;
  const { memory, table } = mm;
  const { frames, files, counters, costs } = memory;
  const first = page - (page % HUGE_PAGES);
  const isShared = (vma.flags & VM_SHARED) !== 0;
  const mustCopy = write || (origin === ORIGIN_PIN && memory.settings.pinnedAtFork === 'copied');
  if (table.getHuge(page) !== 0) return yield* hugeTlbCopy(handler, page, vma, write);
  const file = vma.file as MappedFile | undefined;
  const index = file === undefined ? 0 : filePageOf(vma, first) / HUGE_PAGES;
  let head = file?.frameOf(index) ?? -1;
  const isNew = head < 0;
  if (isNew) {
    const isPromised = mm.hugeReserved > 0;
    head = memory.hugePool.take(isPromised);
    if (head < 0) return NO_PAGE;
    if (isPromised) {
      mm.hugeReserved--;
      memory.hugePool.unreserve(1);
    }
    yield costs.hugeFaultPs;
    if (table.getHuge(page) !== 0 || (file?.frameOf(index) ?? -1) >= 0) {
      // Another thread was first: the page goes back, and what was promised is promised again.
      frames.put(head);
      if (isPromised && memory.hugePool.reserve(1)) mm.hugeReserved++;
      return MUST_SLEEP;
    }
    if (file !== undefined) files.insert(file, index, head);
    frames.flags[head] |= FRAME_SWAP_BACKED | (file === undefined ? FRAME_ANON_EXCLUSIVE : 0);
  } else frames.get(head);
  const mayWrite = isShared || isNew || mustCopy ? (vma.prot & PROT_WRITE) !== 0 : false;
  if (write) frames.flags[head] |= FRAME_DIRTY;
  mapHuge(mm, first, head, (mayWrite ? PTE_WRITE : 0) | (write ? PTE_DIRTY : 0), origin);
  counters.pgfault++;
  return pteNumber(table.get(page));
}

/** A write to a huge page of the pool that a child of fork has too (hugetlb_wp). */
function* hugeTlbCopy(handler: FaultHandler, page: number, vma: Vma, write: boolean): Sim<number> {
  const { mm } = handler;
  const { memory, table, tableLock, notifiers } = mm;
  const { frames, hugePool, rmap, costs } = memory;
  const first = page - (page % HUGE_PAGES);
  const before = table.getHuge(page);
  const copy = hugePool.take(false);
  if (copy < 0) return NO_PAGE;
  yield costs.hugeFaultPs + HUGE_PAGES * costs.copyPagePs;
  const start = first * PAGE_BYTES;
  const range = yield* beginRange(mm, start, start + HUGE_BYTES, CAUSE_COW);
  yield* tableLock.lock();
  const pte = table.getHuge(page);
  const isSame = pteNumber(pte) === pteNumber(before) && (pte & PTE_PRESENT) !== 0;
  if (isSame && (pte & PTE_WRITE) === 0) {
    const old = pteNumber(pte);
    for (let i = 0; i < HUGE_PAGES; i++) frames.content.copyTo(old + i, frames.content, copy + i);
    table.setHuge(first, 0);
    rmap.unmap(old, mm.id, first);
    frames.flags[copy] |= FRAME_SWAP_BACKED | FRAME_ANON_EXCLUSIVE | FRAME_DIRTY;
    const rights = (vma.prot & PROT_WRITE) !== 0 ? PTE_WRITE : 0;
    mapHuge(mm, first, copy, rights | (write ? PTE_DIRTY : 0), frames.origins[old]);
    memory.counters.pgfault++;
  } else frames.put(copy);
  tableLock.unlock();
  yield* notifiers.end(range);
  return MUST_SLEEP;
}

/** Maps a huge page, whose reference becomes the mapping's. */
function mapHuge(mm: MmStruct, first: number, head: number, rights: number, origin: number): void {
  const { memory, table, id } = mm;
  memory.frames.origins.fill(origin, head, head + HUGE_PAGES);
  table.setHuge(first, makePte(head, PTE_PRESENT | PTE_ACCESSED | rights));
  memory.rmap.map(head, id, first);
}
