/**
 * Whether the books of the memory manager add up: run at the end of a run, and in tests at any time
 * when no thread is in the middle of something.
 *
 * Everything is counted anew from the page tables, the page cache, the swap cache and the ledgers of
 * notifier clients, and compared with what the counters and lists say. Changes nothing.
 */
import { assert, type Node } from '../../transport/index.ts';
import type { Memory } from './memory.ts';
import { isDeviceMemory } from './page-range.ts';
import {
  FRAME_ACTIVE,
  FRAME_HUGE,
  FRAME_LOCKED,
  FRAME_LRU,
  FRAME_OFFLINE,
  FRAME_PINNED,
  FRAME_SWAP_CACHE,
  FRAME_UNEVICTABLE,
  FRAME_WRITEBACK,
  PAGE_BYTES,
} from './physical/frames.ts';
import { HUGE_PAGES } from './physical/free-lists.ts';
import { LRU_UNEVICTABLE } from './physical/lru.ts';
import type { MmStruct } from './virtual/mm-struct.ts';
import { isMigrationPte, isSwapPte, PTE_PRESENT, pteNumber } from './virtual/page-table.ts';
import { VM_LOCKED } from './virtual/vma.ts';

/** What the page tables, files and caches say: counted anew. */
class Recount {
  /** Mappings of each page, at its first frame. */
  readonly mappings: Int32Array;
  readonly slotUsers: Int32Array;

  constructor(
    private readonly memory: Memory,
    private readonly node: Node,
  ) {
    this.mappings = new Int32Array(memory.frames.count);
    this.slotUsers = new Int32Array(memory.swap.slotCount);
  }

  /** Goes through the page table of one process. */
  addProcess(mm: MmStruct): void {
    const { node } = this;
    let present = 0;
    let locked = 0;
    for (const { start, end, flags } of mm.vmas.list()) {
      if (flags & VM_LOCKED) locked += (end - start) / PAGE_BYTES;
      const [first, last] = [start / PAGE_BYTES, end / PAGE_BYTES];
      mm.table.forEachUsed(first, last, (page, pte) => {
        if (isSwapPte(pte)) this.slotUsers[pteNumber(pte)]++;
        assert(!isMigrationPte(pte), 'a migration entry is left behind', node);
        if ((pte & PTE_PRESENT) === 0) return;
        present++;
        this.addPage(mm, page, pteNumber(pte));
      });
    }
    // Pages outside every mapping would show up here.
    assert(present === mm.table.presentPages, 'present pages are miscounted', node);
    assert(locked === mm.lockedPages, 'locked pages are miscounted', node);
    assert(mm.lock.idle, `the mmap lock of ${mm.name} is left locked`, node);
    assert(!mm.tableLock.locked, `the page table lock of ${mm.name} is left locked`, node);
  }

  private addPage(mm: MmStruct, page: number, frame: number): void {
    const { frames, rmap, zeroFrame } = this.memory;
    if (frame === zeroFrame || isDeviceMemory(mm, page)) return;
    const head = frames.headOf(frame);
    assert(frames.references[head] > 0, `a page is mapped to free frame ${frame}`, this.node);
    // A huge page has one mapping, at its first page, unless it is mapped in pieces.
    const isWhole = mm.table.getHuge(page) !== 0;
    if (isWhole && page % HUGE_PAGES !== 0) return;
    this.mappings[head]++;
    let known = false;
    rmap.forEach(head, (id, at) => {
      if (id === mm.id && at === page) known = true;
    });
    assert(known, `the reverse map of frame ${head} is wrong`, this.node);
  }
}

/** Asserts that counts, lists, page tables, mappings and reverse maps of all processes agree. */
export function checkMemory(memory: Memory): void {
  const { swap, files, groups, node } = memory;
  const recount = new Recount(memory, node);
  for (const mm of memory.mms) if (mm !== undefined) recount.addProcess(mm);
  for (const file of files.all()) {
    for (const [index, frame] of file.pages) {
      const { files: owners, fileIndexes } = memory.frames;
      const same = owners[frame] === file.id && fileIndexes[frame] === index;
      assert(same, 'the page cache names a frame that is not its own', node);
    }
    for (const slot of file.slots.values()) recount.slotUsers[slot]++;
  }
  checkSlots(memory, recount.slotUsers);
  checkFrames(memory, recount.mappings);
  checkExternal(memory);
  assert(swap.usedSlots >= 0, 'swap slots are freed twice', node);
  assert(memory.migration.entries.count === 0, 'a migration has not ended', node);
  groups.check();
}

function checkSlots({ swap, swapCache, node }: Memory, users: Int32Array): void {
  let taken = 0;
  for (let slot = 0; slot < swap.slotCount; slot++) {
    assert(users[slot] === swap.users(slot), `users of swap slot ${slot} are miscounted`, node);
    const frame = swapCache.frameOf(slot);
    if (users[slot] > 0 || frame >= 0) taken++;
    assert(frame < 0 || swapCache.slotOf(frame) === slot, 'the swap cache is at odds', node);
  }
  assert(taken === swap.usedSlots, 'swap slots are miscounted', node);
}

function checkFrames(memory: Memory, mappings: Int32Array): void {
  const { frames, lru, hugePool, zeroFrame, node } = memory;
  let free = 0;
  let listed = 0;
  let cached = 0;
  for (let frame = 0; frame < frames.count; frame++) {
    const flags = frames.flags[frame];
    const isFree = frames.references[frame] === 0;
    if (isFree) {
      const isOut = (flags & FRAME_OFFLINE) !== 0;
      if (!isOut) free++;
      assert(frames.freeLists.isFree(frame) !== isOut, `frame ${frame} is lost`, node);
      assert(frames.externalEntries[frame] === 0, `a client maps free frame ${frame}`, node);
      continue;
    }
    assert(!frames.freeLists.isFree(frame), `frame ${frame} is free and in use`, node);
    if (frames.headOf(frame) !== frame) continue;
    assert(frames.mapCounts[frame] === mappings[frame], `map count of frame ${frame}`, node);
    assert((flags & FRAME_LOCKED) === 0, `frame ${frame} is left locked`, node);
    if (flags & FRAME_SWAP_CACHE) cached++;
    if (flags & FRAME_LRU) listed++;
    checkHolders(memory, frame, frame === zeroFrame || hugePool.owns(frame) ? 1 : 0);
    checkList(memory, frame);
  }
  assert(cached === memory.swapCache.count, 'the swap cache is miscounted', node);
  assert(free === frames.freeCount, 'free frames are miscounted', node);
  let counted = 0;
  for (let kind = 0; kind <= LRU_UNEVICTABLE; kind++) counted += lru.total(kind);
  assert(listed === counted, 'the LRU lists are miscounted', node);
}

/** Every reference has an owner: a mapping, a cache, a pin, a notifier client, or the kernel's `own`. */
function checkHolders({ frames, node }: Memory, frame: number, own: number): void {
  const isWritten = (frames.flags[frame] & FRAME_WRITEBACK) !== 0;
  const extra = frames.extraReferences(frame, own) - frames.pinCounts[frame];
  // A write to the device holds the page until it is over, whoever keeps it otherwise.
  assert(extra === 0 || (isWritten && extra === 1), `frame ${frame} is held by nobody known`, node);
  assert(frames.clientReferences[frame] >= 0, `client references of frame ${frame}`, node);
}

/** A page that somebody owns is where reclaim finds it, unless it must not. */
function checkList(memory: Memory, frame: number): void {
  const { frames, hugePool, node } = memory;
  const flags = frames.flags[frame];
  const isOutside = (flags & FRAME_PINNED) !== 0 || frame === memory.zeroFrame;
  const isPool = (flags & FRAME_HUGE) !== 0 && hugePool.owns(frame);
  const isListed = (flags & FRAME_LRU) !== 0;
  const isOwned = frames.isOwned(frame) && !isOutside && !isPool;
  assert(!isOwned || isListed, `frame ${frame} is on no LRU list`, node);
  assert(!isListed || (flags & FRAME_PINNED) === 0, `pinned frame ${frame} is on a list`, node);
  const isBoth = (flags & FRAME_ACTIVE) !== 0 && (flags & FRAME_UNEVICTABLE) !== 0;
  assert(!(isListed && isBoth), `frame ${frame} is active and unevictable`, node);
}

/** What frames say of entries in external page tables is what the clients say. */
function checkExternal({ frames, mms, node }: Memory): void {
  let entries = 0;
  for (let frame = 0; frame < frames.count; frame++) entries += frames.externalEntries[frame];
  let known = 0;
  for (const mm of mms) {
    if (mm === undefined) continue;
    known += mm.notifiers.references.count;
    mm.notifiers.checkAtRest();
  }
  assert(entries === known, 'entries of external page tables are miscounted', node);
}
