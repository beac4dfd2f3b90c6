/**
 * Taking a page out of every page table that maps it (mm/rmap.c: try_to_unmap, try_to_migrate).
 *
 * Reclaim and migration both begin with this: they differ in what stands in the page tables afterwards
 * (a swap slot, a migration entry, nothing), which the caller says. Owns no decision about the page; what
 * happens to a page that could not be unmapped as a whole is the caller's business too.
 */
import type { Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { type CAUSE_MIGRATE, CAUSE_SWAP } from '../notify/invalidation.ts';
import {
  FRAME_DIRTY,
  FRAME_HUGE,
  FRAME_REFERENCED,
  FRAME_UNEVICTABLE,
  PAGE_BYTES,
} from '../physical/frames.ts';
import { HUGE_PAGES } from '../physical/free-lists.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { PTE_ACCESSED, PTE_DIRTY, PTE_PRESENT, pteNumber } from '../virtual/page-table.ts';

/** Of a Replacement: the entry has to stay as it is. */
export const KEEP_ENTRY = -1;

/** What is to stand in a page table in place of `pte`: a swap entry, a migration entry, 0, or KEEP_ENTRY. */
export type Replacement = (pte: number, mm: MmStruct, page: number) => number;

/**
 * Unmaps `frame` (of a huge page: its head) from all processes. For each mapping it announces the
 * invalidation, takes the page table lock, puts in what `replace` says, and has the clients of the list
 * drop the page; dirty and accessed bits go to the frame. The caller holds the page lock and exactly
 * one reference.
 *
 * Returns true when no mapping is left. It stops, and restores nothing, when a client refuses, when
 * somebody holds a reference that nobody can be asked to give up, when `replace` says so, when a page that
 * is to be swapped turns out to be locked in memory, or when a huge page is mapped in pieces by now: the
 * caller puts entries back, or leaves them (a fault on a swap or migration entry finds the page).
 */
export function* tryToUnmap(
  memory: Memory,
  frame: number,
  cause: typeof CAUSE_SWAP | typeof CAUSE_MIGRATE,
  replace: Replacement,
): Sim<boolean> {
  const { frames, rmap, costs } = memory;
  const isHuge = (frames.flags[frame] & FRAME_HUGE) !== 0;
  const bytes = (isHuge ? HUGE_PAGES : 1) * PAGE_BYTES;
  while (frames.mapCounts[frame] > 0) {
    if (!mayUnmap(memory, frame, cause)) return false;
    // Mappings come and go while clients are asked, so each round takes whichever is first now.
    const mm = memory.mmOf(rmap.mmOf(frame));
    const page = rmap.pageOf(frame);
    const { table, tableLock, notifiers } = mm;
    const address = page * PAGE_BYTES;
    const range = yield* notifiers.begin(address, address + bytes, cause);
    yield costs.unmapMappingPs;
    yield* tableLock.lock();
    const pte = isHuge ? table.getHuge(page) : table.get(page);
    const isMapped = (pte & PTE_PRESENT) !== 0 && pteNumber(pte) === frame;
    let entry = KEEP_ENTRY;
    if (isMapped && !range.refused && mayUnmap(memory, frame, cause)) {
      entry = replace(pte, mm, page);
    }
    if (entry !== KEEP_ENTRY) {
      // Entry and reverse map change together and at once: whoever looks sees the page or its replacement.
      if (isHuge) table.setHuge(page, entry);
      else table.set(page, entry);
      if ((pte & PTE_DIRTY) !== 0) frames.flags[frame] |= FRAME_DIRTY;
      if ((pte & PTE_ACCESSED) !== 0) frames.flags[frame] |= FRAME_REFERENCED;
      rmap.unmap(frame, mm.id, page);
      yield* notifiers.invalidatePage(address, cause);
    }
    tableLock.unlock();
    yield* notifiers.end(range);
    if (isMapped && entry === KEEP_ENTRY) return false;
    // A huge page that has been cut into pieces meanwhile: it has no entry that could be replaced as a whole.
    const isInPieces = !isMapped && isHuge && pieceOf(table.get(page), frame);
    if (isInPieces) return false;
  }
  // Seed 000, patch 5: whoever has a reverse map of its own comes last, and may sleep.
  yield* memory.rmapNotifiers.invalidatePage(frame, cause);
  return true;
}

/** True for an entry that names one of the frames of the huge page at `head`. */
function pieceOf(pte: number, head: number): boolean {
  const piece = pteNumber(pte) - head;
  return (pte & PTE_PRESENT) !== 0 && piece >= 0 && piece < HUGE_PAGES;
}

function mayUnmap(memory: Memory, frame: number, cause: string): boolean {
  const { frames } = memory;
  if (frames.extraReferences(frame, 1) > 0) return false;
  return cause !== CAUSE_SWAP || (frames.flags[frame] & FRAME_UNEVICTABLE) === 0;
}
