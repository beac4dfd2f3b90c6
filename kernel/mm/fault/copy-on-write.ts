/**
 * A write to a page that is mapped without the right to write: do_wp_page and wp_page_copy of mm/memory.c.
 *
 * Either the page belongs to this process alone and the right is given back, or the process gets a copy,
 * which is one of the places where page tables outside must be told: the process' page becomes another one.
 */
import { assert } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import { CAUSE_COW } from '../notify/invalidation.ts';
import { beginRange } from '../page-range.ts';
import {
  FRAME_ANON_EXCLUSIVE,
  FRAME_DIRTY,
  FRAME_SWAP_CACHE,
  FRAME_UNEVICTABLE,
  PAGE_BYTES,
} from '../physical/frames.ts';
import { splitMapping } from '../virtual/huge-pages.ts';
import { reconsiderUnevictable } from '../virtual/mlock-pages.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import {
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_WRITE,
  pteNumber,
} from '../virtual/page-table.ts';
import { VM_SHARED, type Vma } from '../virtual/vma.ts';
import type { FaultHandler } from './fault-handler.ts';

/**
 * True when the page of entry `pte` may simply be written: a page of a shared mapping, or an anonymous one
 * that nobody else has. Notes that it is written.
 */
export function isReusable(mm: MmStruct, pte: number, vma: Vma): boolean {
  const { frames, zeroFrame, settings } = mm.memory;
  const frame = pteNumber(pte);
  if (frame === zeroFrame) return false;
  const head = frames.headOf(frame);
  if (frames.files[head] !== 0) {
    if ((vma.flags & VM_SHARED) === 0) return false;
    // page_mkwrite: the page cache must know before the first byte changes.
    frames.flags[head] |= FRAME_DIRTY;
    return true;
  }
  if ((frames.flags[head] & FRAME_ANON_EXCLUSIVE) !== 0) return true;
  if (frames.mapCounts[head] !== 1) return false;
  // The kernel of 2008 looked at nothing but mappings (can_share_swap_page).
  const own = mm.memory.hugePool.owns(head) ? 1 : 0;
  if (settings.pinnedAtFork === 'copied' && frames.extraReferences(head, own) > 0) return false;
  if (mm.memory.swapCache.slotOf(head) >= 0) return false;
  frames.flags[head] |= FRAME_ANON_EXCLUSIVE;
  return true;
}

/** Gives the process a copy of what `page` shows; whoever comes in between is left as it is. */
export function* copyOnWrite(
  handler: FaultHandler,
  page: number,
  vma: Vma,
  write: boolean,
  origin: number,
): Sim<void> {
  const { mm } = handler;
  const { table, memory, tableLock, notifiers } = mm;
  const { frames, rmap, costs, zeroFrame } = memory;
  assert((vma.flags & VM_SHARED) === 0, 'a page of a shared mapping is copied', memory.node);
  const before = table.get(page);
  // Reclaim that makes room for the copy must not take the page itself, or this would go on for ever.
  const held = pteNumber(before);
  let copy: number;
  frames.get(held);
  try {
    copy = yield* memory.reclaim.allocate(mm);
  } finally {
    frames.put(held);
  }
  const range = yield* beginRange(mm, page * PAGE_BYTES, (page + 1) * PAGE_BYTES, CAUSE_COW);
  yield* tableLock.lock();
  const pte = table.get(page);
  const isSame = ((pte ^ before) & ~(PTE_ACCESSED | PTE_DIRTY)) === 0 && (pte & PTE_PRESENT) !== 0;
  let isUsed = false;
  if (isSame && !(write && (pte & PTE_WRITE) !== 0)) {
    const old = pteNumber(pte);
    if (table.getHuge(page) !== 0) splitMapping(mm, page);
    if (old !== zeroFrame) frames.content.copyTo(old, frames.content, copy);
    table.set(page, 0);
    handler.installAnonymous(page, copy, vma, write, origin);
    frames.markDirty(copy);
    if (old !== zeroFrame) {
      const head = frames.headOf(old);
      const isFile = frames.files[head] !== 0;
      const isLeft = isFile || frames.mapCounts[head] > 1;
      if (!isFile && (pte & PTE_DIRTY) !== 0) frames.markDirty(head);
      if (!isLeft && (frames.flags[head] & FRAME_SWAP_CACHE) === 0) memory.lru.remove(head);
      rmap.unmap(head, mm.id, page);
      if (isLeft && (frames.flags[head] & FRAME_UNEVICTABLE) !== 0) {
        reconsiderUnevictable(memory, head);
      }
    }
    isUsed = true;
  }
  tableLock.unlock();
  yield* notifiers.end(range);
  if (!isUsed) {
    frames.put(copy);
    return;
  }
  memory.counters.pgfault++;
  handler.pendingPs += costs.minorFaultPs + costs.copyPagePs;
}
