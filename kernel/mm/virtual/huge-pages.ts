/**
 * Splitting huge pages (mm/huge_memory.c): the one entry of a process that maps 2 MiB becomes 512 entries,
 * and, where nobody else holds on to the whole, the 512 frames become pages of their own.
 *
 * A page that is pinned, or mapped by others too, stays one page that is mapped in pieces: each entry then
 * names its own frame, while counts and reverse map stay with the first. Frames never change here, so
 * nothing that devices have becomes wrong, and they are not told (Linux does, which costs it a flush).
 */
import type { Memory } from '../memory.ts';
import { FRAME_LRU } from '../physical/frames.ts';
import { HUGE_PAGES } from '../physical/free-lists.ts';
import type { MmStruct } from './mm-struct.ts';
import { PTE_PRESENT, pteNumber } from './page-table.ts';

/** Splits the mapping of the huge page that `page` lies within, if it is not its first one. */
export function splitAt(mm: MmStruct, page: number): void {
  if (page % HUGE_PAGES !== 0 && mm.table.getHuge(page) !== 0) splitMapping(mm, page);
}

/** Splits the mappings of huge pages that reach beyond [first, end). */
export function splitRangeEnds(mm: MmStruct, first: number, end: number): void {
  splitAt(mm, first);
  splitAt(mm, end);
}

/** Splits the mapping of the huge page that covers `page`, and the huge page too if it is this mapping's alone. */
export function splitMapping(mm: MmStruct, page: number): void {
  const { memory, table } = mm;
  const { frames, rmap } = memory;
  const first = page - (page % HUGE_PAGES);
  const pte = table.getHuge(page);
  table.splitHuge(page);
  const head = pteNumber(pte);
  if ((pte & PTE_PRESENT) === 0) {
    // On its way to another frame, where it arrives in pieces.
    for (let i = 1; i < HUGE_PAGES; i++) memory.migration.entries.add(head, mm.id, first + i);
    return;
  }
  const isAlone = frames.mapCounts[head] === 1 && frames.extraReferences(head) === 0;
  if (!isAlone || frames.files[head] !== 0 || memory.hugePool.owns(head)) {
    for (let i = 0; i < HUGE_PAGES; i++) {
      frames.get(head);
      rmap.map(head, mm.id, first + i);
    }
    rmap.unmap(head, mm.id, first);
    return;
  }
  frames.get(head);
  rmap.unmap(head, mm.id, first);
  divide(memory, head);
  for (let i = 0; i < HUGE_PAGES; i++) rmap.map(head + i, mm.id, first + i);
}

/**
 * Makes 512 pages of the huge page at `head`, in all processes; `own` are the caller's references, which
 * stay with the first frame. Frames that nobody maps any more become free. False, and nothing has changed,
 * when somebody else holds a reference, or the page belongs to the pool or to a file.
 */
export function splitHugePage(memory: Memory, head: number, own: number): boolean {
  const { frames, rmap } = memory;
  if (frames.extraReferences(head, own) > 0 || frames.clientReferences[head] > 0) return false;
  if (frames.files[head] !== 0 || memory.hugePool.owns(head)) return false;
  for (const { mm: id, page } of rmap.list(head)) {
    const mm = memory.mmOf(id);
    if (mm.table.getHuge(page) !== 0) splitMapping(mm, page);
  }
  // The last of the mappings may have split the page already.
  if (frames.headOf(head + 1) !== head) return true;
  const mappings = rmap.list(head);
  frames.get(head);
  for (const { mm, page } of mappings) rmap.unmap(head, mm, page);
  for (let i = 0; i < own; i++) frames.put(head);
  divide(memory, head);
  for (let i = 0; i < own; i++) frames.get(head);
  for (const { mm, page } of mappings) {
    const frame = pteNumber(memory.mmOf(mm).table.get(page));
    frames.get(frame);
    rmap.map(frame, mm, page);
  }
  for (let frame = head; frame < head + HUGE_PAGES; frame++) frames.put(frame);
  return true;
}

/** The huge page, with one reference and no mapping, becomes 512 pages with one reference each. */
function divide(memory: Memory, head: number): void {
  const { frames, lru } = memory;
  const wasListed = (frames.flags[head] & FRAME_LRU) !== 0;
  lru.remove(head);
  frames.splitHuge(head);
  for (let frame = wasListed ? head : head + 1; frame < head + HUGE_PAGES; frame++) {
    lru.add(frame, false);
  }
}
