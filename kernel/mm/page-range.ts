/**
 * Changing the page table entries of a range the way every system call must: announce it, sleep until
 * every device has let go, change the entries without sleeping, and say so (mm/memory.c, mm/mremap.c,
 * mm/mprotect.c). The caller holds the mmap lock.
 */
import type { Sim } from '../sched/completion.ts';
import type { InvalidationCause } from './notify/invalidation.ts';
import { CAUSE_MOVE, CAUSE_PROTECTION } from './notify/invalidation.ts';
import { PAGE_BYTES } from './physical/frames.ts';
import type { MmStruct } from './virtual/mm-struct.ts';
import { PTE_PRESENT, PTE_SWAP, PTE_WRITE, pteNumber } from './virtual/page-table.ts';
import { PROT_WRITE } from './virtual/vma.ts';

/** Takes the pages of [start, end) out of the page table and lets go of them. */
export function* zapRange(
  mm: MmStruct,
  start: number,
  end: number,
  cause: InvalidationCause,
): Sim<void> {
  const { table, notifiers, memory } = mm;
  const { lru, rmap, swap, costs } = memory;
  const invalidation = yield* notifiers.begin(start, end, cause);
  let zapped = 0;
  table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (page, pte) => {
    table.set(page, 0);
    if (pte & PTE_SWAP) swap.release(pteNumber(pte));
    else {
      // A page that is still pinned lives on, but no longer as a page that reclaim could find.
      lru.remove(pteNumber(pte));
      rmap.unmap(pteNumber(pte), mm.id, page);
    }
    zapped++;
  });
  yield* notifiers.end(invalidation);
  yield zapped * costs.unmapPagePs;
}

/** Moves the entries of [start, end) to the same places from `to` on, where there are none. */
export function* moveRange(mm: MmStruct, start: number, end: number, to: number): Sim<void> {
  const { table, notifiers, memory } = mm;
  const { rmap, costs } = memory;
  const distance = (to - start) / PAGE_BYTES;
  const invalidation = yield* notifiers.begin(start, end, CAUSE_MOVE);
  let moved = 0;
  table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (page, pte) => {
    table.set(page, 0);
    table.set(page + distance, pte);
    if (pte & PTE_PRESENT) rmap.move(pteNumber(pte), mm.id, page, page + distance);
    moved++;
  });
  yield* notifiers.end(invalidation);
  yield moved * costs.unmapPagePs;
}

/** Takes write permission from the entries of [start, end) if `prot` has none; a fault gives it back. */
export function* protectRange(mm: MmStruct, start: number, end: number, prot: number): Sim<void> {
  const { table, notifiers } = mm;
  const invalidation = yield* notifiers.begin(start, end, CAUSE_PROTECTION);
  if ((prot & PROT_WRITE) === 0) {
    table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (page, pte) => {
      if (pte & PTE_WRITE) table.set(page, pte & ~PTE_WRITE);
    });
  }
  yield* notifiers.end(invalidation);
}
