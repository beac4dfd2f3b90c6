/**
 * Giving a child of fork its parent's pages (copy_page_range of mm/memory.c).
 *
 * Entries of private memory are copied and lose the right to write on both sides, so that whoever writes
 * first gets a copy. Page tables outside are told, since the parent's rights change. Shared mappings are not
 * copied: faults find their pages. A page that is pinned is copied at once (since Linux 5.12), because the
 * adapter must go on with the page that the parent has.
 */
import type { Sim } from '../../sched/completion.ts';
import { CAUSE_COW } from '../notify/invalidation.ts';
import { beginRange } from '../page-range.ts';
import {
  FRAME_ANON_EXCLUSIVE,
  FRAME_SWAP_BACKED,
  type Frames,
  NO_FRAME,
  ORIGIN_CPU,
  PAGE_BYTES,
} from '../physical/frames.ts';
import { HUGE_PAGES } from '../physical/free-lists.ts';
import { splitMapping } from './huge-pages.ts';
import type { MmStruct } from './mm-struct.ts';
import {
  isMigrationPte,
  isSwapPte,
  makePte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_WRITE,
  pteNumber,
} from './page-table.ts';
import { VM_PFNMAP, VM_SHARED, type Vma } from './vma.ts';

/** Pages that fork has reclaimed before it gives up: SWAP_CLUSTER_MAX. */
const RECLAIM_BATCH = 32;

/** Copies that are made between two looks at whether memory is left. */
interface Progress {
  /** Entries that may still be copied before the injected failure. */
  entriesLeft: number;
}

/**
 * Copies what `child` is to have of an area of `parent`, whose mmap lock the caller holds for writing. False
 * when memory ran out in the middle (ENOMEM): the caller ends the child.
 */
export function* copyRange(
  parent: MmStruct,
  child: MmStruct,
  vma: Readonly<Vma>,
  progress: Progress,
): Sim<boolean> {
  if ((vma.flags & (VM_SHARED | VM_PFNMAP)) !== 0) return true;
  const { memory, tableLock, notifiers } = parent;
  const range = yield* beginRange(parent, vma.start, vma.end, CAUSE_COW);
  let copied = 0;
  let isWhole = true;
  let page = vma.start / PAGE_BYTES;
  const end = vma.end / PAGE_BYTES;
  while (page < end && isWhole) {
    yield* tableLock.lock();
    // Up to a page that needs memory of its own, which may have to be waited for.
    for (
      page = parent.table.nextUsed(page, end);
      page < end;
      page = parent.table.nextUsed(page, end)
    ) {
      if (progress.entriesLeft <= 0) isWhole = false;
      if (!isWhole || isPinned(parent, page)) break;
      progress.entriesLeft--;
      page += copyEntry(parent, child, page);
      copied++;
    }
    tableLock.unlock();
    if (page >= end || !isWhole) break;
    const done = yield* copyPinned(parent, child, page);
    if (done < 0) isWhole = false;
    else page += done;
  }
  yield copied * memory.costs.forkEntryPs;
  // "The V6 patch forgets the end call when copy_page_range fails."
  if (isWhole || !memory.settings.v6CopyPageRange) yield* notifiers.end(range);
  return isWhole;
}

/** Copies the entry of `page`, or of the huge page that begins there; returns how many pages that were. */
function copyEntry(parent: MmStruct, child: MmStruct, page: number): number {
  const { memory, table } = parent;
  const { frames, rmap, swap, migration, zeroFrame } = memory;
  const huge = table.getHuge(page);
  const pte = huge === 0 ? table.get(page) : huge;
  const frame = pteNumber(pte);
  if (isSwapPte(pte)) {
    swap.share(frame);
    child.table.set(page, pte);
    return 1;
  }
  const shared = pte & ~PTE_WRITE;
  if (frame !== zeroFrame) clearExclusive(frames, frame);
  if (huge !== 0) {
    table.setHuge(page, shared);
    child.table.setHuge(page, shared);
  } else {
    if (shared !== pte) table.set(page, shared);
    child.table.set(page, shared);
  }
  if (isMigrationPte(pte)) migration.entries.add(frames.headOf(frame), child.id, page);
  else if (frame !== zeroFrame) {
    const head = frames.headOf(frame);
    frames.get(head);
    rmap.map(head, child.id, page);
  }
  return huge === 0 ? 1 : HUGE_PAGES;
}

/** True for a page that must be copied at once. */
function isPinned(mm: MmStruct, page: number): boolean {
  const { frames, settings, zeroFrame } = mm.memory;
  const pte = mm.table.get(page);
  const frame = pteNumber(pte);
  if (settings.pinnedAtFork === 'shared' || (pte & PTE_PRESENT) === 0 || frame === zeroFrame)
    return false;
  const head = frames.headOf(frame);
  return frames.pinCounts[head] > 0 && frames.files[head] === 0;
}

/**
 * Gives the child a copy of a pinned page (copy_present_page); the parent's entry stays as it is. Returns how
 * many pages that were, 0 when the page has changed meanwhile, and NO_FRAME when memory ran out.
 */
function* copyPinned(parent: MmStruct, child: MmStruct, page: number): Sim<number> {
  const { memory, table } = parent;
  const { frames, lru, rmap, costs, reclaim, hugePool } = memory;
  const isPool = table.getHuge(page) !== 0 && hugePool.owns(pteNumber(table.getHuge(page)));
  if (!isPool && table.getHuge(page) !== 0) splitMapping(parent, page);
  const count = isPool ? HUGE_PAGES : 1;
  let copy = isPool ? hugePool.take(false) : reclaim.tryAllocate(child);
  if (copy < 0 && !isPool) {
    yield* reclaim.shrink(RECLAIM_BATCH);
    copy = reclaim.tryAllocate(child);
  }
  if (copy < 0) return NO_FRAME;
  yield count * costs.copyPagePs;
  if (!isPinned(parent, page)) {
    frames.put(copy);
    return 0;
  }
  const pte = isPool ? table.getHuge(page) : table.get(page);
  const source = pteNumber(pte);
  for (let i = 0; i < count; i++) frames.content.copyTo(source + i, frames.content, copy + i);
  frames.flags[copy] |= FRAME_SWAP_BACKED | FRAME_ANON_EXCLUSIVE;
  frames.origins.fill(ORIGIN_CPU, copy, copy + count);
  frames.markDirty(copy);
  const entry = makePte(copy, PTE_PRESENT | PTE_ACCESSED | (pte & (PTE_WRITE | PTE_DIRTY)));
  if (isPool) child.table.setHuge(page, entry);
  else child.table.set(page, entry);
  rmap.map(copy, child.id, page);
  if (!isPool) lru.add(copy, false);
  return count;
}

function clearExclusive(frames: Frames, frame: number): void {
  frames.flags[frames.headOf(frame)] &= ~FRAME_ANON_EXCLUSIVE;
}
