/**
 * Whether the books of the memory manager add up: run at the end of a run, and in tests at any time
 * when no thread is in the middle of something.
 */
import { assert } from '../../transport/index.ts';
import type { Memory } from './memory.ts';
import {
  FRAME_HUGE,
  FRAME_LOCKED,
  FRAME_LRU,
  FRAME_OFFLINE,
  FRAME_PINNED,
  PAGE_BYTES,
} from './physical/frames.ts';
import { LRU_UNEVICTABLE } from './physical/lru.ts';
import { isMigrationPte, isSwapPte, PTE_PRESENT, pteNumber } from './virtual/page-table.ts';

/** Asserts that counts, lists, page tables, mappings and reverse maps of all processes agree. */
export function checkMemory(memory: Memory): void {
  const { frames, lru, rmap, swap, files, node } = memory;
  const mappings = new Int32Array(frames.count);
  const slotUsers = new Int32Array(swap.slotCount);
  for (const mm of memory.mms) {
    if (mm === undefined) continue;
    let present = 0;
    for (const { start, end } of mm.vmas.list()) {
      mm.table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (page, pte) => {
        if (isSwapPte(pte)) slotUsers[pteNumber(pte)]++;
        assert(!isMigrationPte(pte), 'a migration entry is left behind', node);
        if ((pte & PTE_PRESENT) === 0) return;
        present++;
        const frame = pteNumber(pte);
        if (frames.headOf(frame) !== frame) return;
        mappings[frame]++;
        const known = rmap.list(frame).some((entry) => entry.mm === mm.id && entry.page === page);
        assert(known, 'a reverse map is wrong', node);
      });
    }
    // Pages outside every mapping would show up here.
    assert(present === mm.table.presentPages, 'present pages are miscounted', node);
  }
  for (const file of files.all()) {
    for (const [index, frame] of file.pages) {
      const same = frames.files[frame] === file.id && frames.fileIndexes[frame] === index;
      assert(same, 'the page cache names a frame that is not its own', node);
    }
    for (const slot of file.slots.values()) slotUsers[slot]++;
  }
  for (let slot = 0; slot < swap.slotCount; slot++) {
    assert(slotUsers[slot] === swap.users(slot), 'users of a swap slot are miscounted', node);
  }

  let free = 0;
  let listed = 0;
  for (let frame = 0; frame < frames.count; frame++) {
    const references = frames.references[frame];
    const flags = frames.flags[frame];
    if (references === 0) {
      if ((flags & FRAME_OFFLINE) === 0) free++;
      continue;
    }
    if (frames.headOf(frame) !== frame) continue;
    assert(frames.mapCounts[frame] === mappings[frame], `map count of frame ${frame}`, node);
    assert((flags & FRAME_LOCKED) === 0, `frame ${frame} is left locked`, node);
    const extra = frames.extraReferences(frame);
    assert(extra === frames.pinCounts[frame], `frame ${frame} is held by nobody known`, node);
    if (flags & FRAME_LRU) listed++;
    const owned = mappings[frame] > 0 || frames.files[frame] !== 0;
    const onList = (flags & (FRAME_LRU | FRAME_PINNED | FRAME_HUGE)) !== 0;
    assert(!owned || onList, `frame ${frame} is on no LRU list`, node);
  }
  assert(free === frames.freeCount, 'free frames are miscounted', node);
  let counted = 0;
  for (let kind = 0; kind <= LRU_UNEVICTABLE; kind++) counted += lru.total(kind);
  assert(listed === counted, 'the LRU lists are miscounted', node);
}
