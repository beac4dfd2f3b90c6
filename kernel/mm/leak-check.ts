/**
 * Whether the books of the memory manager add up: run at the end of a run, and in tests at any time
 * when no thread is in the middle of something.
 */
import { assert } from '../../transport/index.ts';
import type { AddressSpace } from './address-space.ts';
import { FRAME_LOCKED, PAGE_BYTES } from './frames.ts';
import { PTE_PRESENT, PTE_SWAP, pteNumber } from './page-table.ts';

/** Asserts that counts, lists, page table and mappings agree. */
export function checkMemory(mm: AddressSpace): void {
  const { frames, lru, table, swap, node } = mm.parts;
  const mappings = new Int32Array(frames.count);
  let present = 0;
  let swapped = 0;
  for (const { start, end } of mm.mappings()) {
    table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (page, pte) => {
      if (pte & PTE_SWAP) swapped++;
      if ((pte & PTE_PRESENT) === 0) return;
      present++;
      mappings[pteNumber(pte)]++;
      assert(frames.virtualPages[pteNumber(pte)] === page, 'a reverse map is wrong', node);
    });
  }
  // Pages outside every mapping would show up in one of these two.
  assert(present === table.presentPages, 'present pages are miscounted', node);
  assert(swapped === swap.usedSlots, 'a swap slot belongs to no page', node);

  let free = 0;
  let mapped = 0;
  let pins = 0;
  for (let frame = 0; frame < frames.count; frame++) {
    const references = frames.references[frame];
    assert(frames.mapCounts[frame] === mappings[frame], `map count of frame ${frame}`, node);
    assert((frames.flags[frame] & FRAME_LOCKED) === 0, `frame ${frame} is left locked`, node);
    assert(references >= mappings[frame], `frame ${frame} is mapped but not held`, node);
    if (references === 0) free++;
    if (mappings[frame] > 0) mapped++;
    pins += references - mappings[frame];
  }
  assert(free === frames.freeCount, 'free frames are miscounted', node);
  assert(mapped === lru.activeCount + lru.inactiveCount, 'a mapped frame is on no LRU list', node);
  assert(pins === mm.pinnedPages, 'a page is held by nobody who is known', node);
}
