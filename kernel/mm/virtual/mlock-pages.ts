/**
 * Pages that are locked in memory: which list they are on (mm/mlock.c).
 *
 * A page is unevictable while a mapping of it lies in a VM_LOCKED area. Linux counts such mappings; here
 * they are looked up when one goes away, which happens to few pages.
 */
import type { Memory } from '../memory.ts';
import { FRAME_LRU, FRAME_UNEVICTABLE, PAGE_BYTES } from '../physical/frames.ts';
import { VM_LOCKED } from './vma.ts';

/** Puts a page that a locked area maps onto the unevictable list. */
export function lockPage(memory: Memory, frame: number): void {
  const { frames } = memory;
  const head = frames.headOf(frame);
  if ((frames.flags[head] & FRAME_UNEVICTABLE) !== 0) return;
  frames.flags[head] |= FRAME_UNEVICTABLE;
  relist(memory, head);
}

/** Takes a page off the unevictable list when no locked area maps it any more. */
export function reconsiderUnevictable(memory: Memory, frame: number): void {
  const { frames, rmap } = memory;
  const head = frames.headOf(frame);
  let isLocked = false;
  rmap.forEach(head, (id, page) => {
    const vma = memory.mmOf(id).vmas.find(page * PAGE_BYTES);
    if (vma !== undefined && (vma.flags & VM_LOCKED) !== 0) isLocked = true;
  });
  if (isLocked) return;
  frames.flags[head] &= ~FRAME_UNEVICTABLE;
  relist(memory, head);
}

/** A page that reclaim or migration has in hand goes to the right list when they put it back. */
function relist(memory: Memory, head: number): void {
  const { frames, lru } = memory;
  if ((frames.flags[head] & FRAME_LRU) === 0) return;
  lru.remove(head);
  lru.add(head, false);
}
