/**
 * Changing the page table entries of a range the way every system call must: announce it, sleep until
 * every device has let go, change the entries without sleeping, and say so (mm/memory.c, mm/mremap.c,
 * mm/mprotect.c). The caller holds the mmap lock.
 */
import type { Sim } from '../sched/completion.ts';
import { PAGE_BYTES } from './frames.ts';
import { PTE_PRESENT, PTE_SWAP, PTE_WRITE, pteNumber } from './page-table.ts';
import type { MmParts } from './parts.ts';
import { PROT_WRITE } from './vma.ts';

/** Takes the pages of [start, end) out of the page table and lets go of them. */
export function* zapRange(mm: MmParts, start: number, end: number): Sim<void> {
  const { frames, lru, table, swap, notifiers, costs } = mm;
  const invalidation = yield* notifiers.begin(start, end);
  let zapped = 0;
  table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (page, pte) => {
    table.set(page, 0);
    if (pte & PTE_SWAP) swap.release(pteNumber(pte));
    else {
      // A page that is still pinned lives on, but no longer as a page that reclaim could find.
      lru.remove(pteNumber(pte));
      frames.unmap(pteNumber(pte));
    }
    zapped++;
  });
  notifiers.end(invalidation);
  yield zapped * costs.unmapPagePs;
}

/** Moves the entries of [start, end) to the same places from `to` on, where there are none. */
export function* moveRange(mm: MmParts, start: number, end: number, to: number): Sim<void> {
  const { frames, table, notifiers, costs } = mm;
  const distance = (to - start) / PAGE_BYTES;
  const invalidation = yield* notifiers.begin(start, end);
  let moved = 0;
  table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (page, pte) => {
    table.set(page, 0);
    table.set(page + distance, pte);
    if (pte & PTE_PRESENT) frames.virtualPages[pteNumber(pte)] = page + distance;
    moved++;
  });
  notifiers.end(invalidation);
  yield moved * costs.unmapPagePs;
}

/** Takes write permission from the entries of [start, end) if `prot` has none; a fault gives it back. */
export function* protectRange(mm: MmParts, start: number, end: number, prot: number): Sim<void> {
  const { table, notifiers } = mm;
  const invalidation = yield* notifiers.begin(start, end);
  if ((prot & PROT_WRITE) === 0) {
    table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (page, pte) => {
      if (pte & PTE_WRITE) table.set(page, pte & ~PTE_WRITE);
    });
  }
  notifiers.end(invalidation);
}
