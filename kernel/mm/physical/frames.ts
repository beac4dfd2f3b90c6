/**
 * Page frames: the RAM of a host, as structs of arrays indexed by page frame number.
 *
 * A frame is free while its reference count is 0. Each mapping holds one reference and counts in
 * `mapCounts` too; a pin holds a reference and counts in `pinCounts`; the page cache, reclaim or
 * migration at work hold a reference only. So a frame whose references outnumber its mappings is in use
 * by somebody who cannot be told to let go. (Linux: struct page, _refcount, _mapcount, page_maybe_dma_pinned.)
 *
 * A huge page is 512 frames that live and die together: flags and counts are those of its first frame
 * (`headOf`), its other frames have one reference for as long as it is allocated.
 *
 * Owns counts, flags and contents. Which frames are free is `free-lists.ts`'s business, which page is
 * evicted next `lru.ts`'s, who maps a frame `reverse-map.ts`'s.
 */
import { assert, type BlockPool } from '../../../transport/index.ts';
import { ContentStore } from './content.ts';
import { FreeLists, HUGE_ORDER, HUGE_PAGES } from './free-lists.ts';

export const PAGE_BYTES = 4096;

/** Flags of a frame, after page-flags.h. DIRTY: its content is not what backs it (swap, file, zeros). */
export const FRAME_DIRTY = 1;
/** On an active LRU list rather than an inactive one. */
export const FRAME_ACTIVE = 2;
/** On an LRU list. */
export const FRAME_LRU = 4;
/** Somebody has the page to himself: reclaim, migration, a fault that reads it in (PG_locked). */
export const FRAME_LOCKED = 8;
/** Used since reclaim last looked (PG_referenced); the accessed bits of mappings come on top. */
export const FRAME_REFERENCED = 16;
/** On the unevictable list: locked in memory by mlock (PG_unevictable and PG_mlocked). */
export const FRAME_UNEVICTABLE = 32;
/** Another machine or driver keeps its own reverse map of it (PageExternalRmap of seed 000, patch 5). */
export const FRAME_EXTERNAL_RMAP = 64;
/** Marked as pinned for long, so that reclaim and migration need not try (Lameter, van Riel in seed 000). */
export const FRAME_PINNED = 128;
/** Anonymous memory, or shared memory that is swapped: reclaim writes it to swap. */
export const FRAME_SWAP_BACKED = 256;
/** Part of a huge page; the first of its frames, or another. */
export const FRAME_HUGE = 512;
/** Being written to swap or to its file (PG_writeback). */
export const FRAME_WRITEBACK = 1024;
/** Taken out of service: offline memory. */
export const FRAME_OFFLINE = 2048;
/** In the swap cache: a swap slot and this frame are the same page (PG_swapcache). */
export const FRAME_SWAP_CACHE = 8192;
/** To be freed as soon as its write is over (PG_reclaim). */
export const FRAME_RECLAIM = 16384;
/** Anonymous page of one process alone, so that a write need not copy it (PageAnonExclusive). */
export const FRAME_ANON_EXCLUSIVE = 4096;

/** What made a page present: `origins`. */
export const ORIGIN_CPU = 0;
export const ORIGIN_START = 1;
export const ORIGIN_POPULATE = 2;
export const ORIGIN_PIN = 3;
export const ORIGIN_DEVICE = 4;
export const ORIGIN_PREFETCH = 5;
export const ORIGIN_LOCK = 6;
export const ORIGIN_AROUND = 7;

/** A frame that is not there, in lists of frames. */
export const NO_FRAME = -1;

export class Frames {
  readonly references: Int32Array;
  readonly mapCounts: Int32Array;
  readonly pinCounts: Int32Array;
  readonly flags: Uint16Array;
  /** What made the page present, ORIGIN_*. */
  readonly origins: Uint8Array;
  /** Number of the memory cgroup that is charged for it. */
  readonly groups: Uint8Array;
  /** Number of the file whose page cache has it, 0 for none, and which page of the file it is. */
  readonly files: Int32Array;
  readonly fileIndexes: Int32Array;
  /** Entries of external page tables and TLBs that name the frame: `external-references.ts` keeps it. */
  readonly externalEntries: Int32Array;
  /** References of notifier clients, which drop them when they are told to: not an obstacle to anybody. */
  readonly clientReferences: Int32Array;
  readonly content: ContentStore;
  readonly freeLists: FreeLists;
  /** Called when a frame loses its last reference, before it becomes free. */
  onFree: (frame: number) => void = () => {};
  /** Called when a page gets its first pin, and when it loses its last one, before the reference goes. */
  onPinned: (frame: number) => void = () => {};
  onUnpinned: (frame: number) => void = () => {};

  /** All `count` frames are free; node n has those from n * count / nodeCount on. */
  constructor(
    readonly count: number,
    blocks: BlockPool,
    readonly nodeCount = 1,
  ) {
    this.references = new Int32Array(count);
    this.mapCounts = new Int32Array(count);
    this.pinCounts = new Int32Array(count);
    this.flags = new Uint16Array(count);
    this.origins = new Uint8Array(count);
    this.groups = new Uint8Array(count);
    this.files = new Int32Array(count);
    this.fileIndexes = new Int32Array(count);
    this.externalEntries = new Int32Array(count);
    this.clientReferences = new Int32Array(count);
    this.content = new ContentStore(count, blocks);
    const framesPerNode = Math.floor(count / nodeCount / HUGE_PAGES) * HUGE_PAGES;
    this.freeLists = new FreeLists(count, nodeCount, framesPerNode || count);
    // From the end to the start, so that the lists hand out low frames first.
    for (let end = count; end > 0; ) {
      const order = largestOrder(end);
      end -= 1 << order;
      this.freeLists.give(end, order);
    }
  }

  /** Frames that are free, on all nodes. */
  get freeCount(): number {
    let free = 0;
    for (let node = 0; node < this.nodeCount; node++) free += this.freeLists.freeCounts[node];
    return free;
  }

  /** NUMA node of a frame. */
  nodeOf(frame: number): number {
    return this.freeLists.nodeOf(frame);
  }

  /** A zeroed frame of `node` with one reference, which is the caller's; NO_FRAME when none is free. */
  allocate(node = 0): number {
    const frame = this.freeLists.take(node, 0);
    if (frame >= 0) this.prepare(frame, 0);
    return frame;
  }

  /** The first of 512 zeroed frames that make a huge page, with one reference; NO_FRAME when none is free. */
  allocateHuge(node = 0): number {
    const head = this.freeLists.take(node, HUGE_ORDER);
    if (head < 0) return NO_FRAME;
    for (let frame = head; frame < head + HUGE_PAGES; frame++) this.prepare(frame, FRAME_HUGE);
    return head;
  }

  /** Takes a given free frame with one reference: the target of a migration. */
  claim(frame: number): void {
    this.freeLists.takeFrame(frame);
    this.prepare(frame, 0);
  }

  /** The frame whose flags and counts are those of the page that `frame` is part of. */
  headOf(frame: number): number {
    return (this.flags[frame] & FRAME_HUGE) !== 0 ? frame & ~(HUGE_PAGES - 1) : frame;
  }

  /** One more reference. */
  get(frame: number): void {
    const head = this.headOf(frame);
    assert(this.references[head] > 0, 'a free frame is taken hold of');
    this.references[head]++;
  }

  /** One reference less; the last one frees the frame, or the huge page. */
  put(frame: number): void {
    const head = this.headOf(frame);
    const left = --this.references[head];
    assert(left >= 0, 'a frame is released more often than held');
    if (left === 0) this.release(head);
  }

  /** One more pin, with its reference (pin_user_pages). */
  pin(frame: number): void {
    this.get(frame);
    const head = this.headOf(frame);
    if (this.pinCounts[head]++ === 0) this.onPinned(head);
  }

  /** One pin less (unpin_user_pages). */
  unpin(frame: number): void {
    const head = this.headOf(frame);
    assert(this.pinCounts[head] > 0, 'a frame is unpinned more often than pinned');
    if (--this.pinCounts[head] === 0) this.onUnpinned(head);
    this.put(head);
  }

  /** Zeros a huge page of the pool for its next user. */
  renew(head: number): void {
    for (let frame = head; frame < head + HUGE_PAGES; frame++) {
      this.content.setZero(frame);
      this.flags[frame] = FRAME_HUGE;
      this.origins[frame] = ORIGIN_CPU;
    }
  }

  /**
   * Makes 512 pages of their own out of the huge page at `head`, which nobody maps: each inherits flags,
   * origin and cgroup, and has one reference, the caller's. The caller's must be the only one before. Whoever
   * has locked the page has its first frame locked afterwards.
   */
  splitHuge(head: number): void {
    assert(this.references[head] === 1, 'a huge page is split that is in use');
    const flags = this.flags[head] & ~FRAME_HUGE;
    for (let frame = head; frame < head + HUGE_PAGES; frame++) {
      this.references[frame] = 1;
      this.flags[frame] = frame === head ? flags : flags & ~FRAME_LOCKED;
      this.origins[frame] = this.origins[head];
      this.groups[frame] = this.groups[head];
    }
  }

  /** The caller's reference becomes one of a notifier client, who lets go of it when it is told to. */
  giveToClient(frame: number): void {
    this.clientReferences[this.headOf(frame)]++;
  }

  /** A notifier client drops its reference. */
  putFromClient(frame: number): void {
    const head = this.headOf(frame);
    assert(this.clientReferences[head] > 0, 'a client drops a reference that it does not have');
    this.clientReferences[head]--;
    this.put(head);
  }

  /** True for a page that a process, a file or the swap cache has: it belongs on an LRU list. */
  isOwned(frame: number): boolean {
    if (this.mapCounts[frame] > 0 || this.files[frame] !== 0) return true;
    return (this.flags[frame] & FRAME_SWAP_CACHE) !== 0;
  }

  markDirty(frame: number): void {
    this.flags[this.headOf(frame)] |= FRAME_DIRTY;
  }

  /**
   * References besides those of mappings, of the page cache and of notifier clients; `own` are the
   * caller's. More than none: somebody uses the page and cannot be asked to let go, so it must stay.
   */
  extraReferences(frame: number, own = 0): number {
    const isCached = this.files[frame] !== 0 || (this.flags[frame] & FRAME_SWAP_CACHE) !== 0;
    const cached = isCached ? 1 : 0;
    const asked = this.mapCounts[frame] + this.clientReferences[frame] + cached;
    return this.references[frame] - asked - own;
  }

  private prepare(frame: number, flags: number): void {
    assert(this.references[frame] === 0, 'a free frame has references');
    this.references[frame] = 1;
    this.flags[frame] = flags;
    this.origins[frame] = ORIGIN_CPU;
    this.groups[frame] = 0;
    // A stale adapter may have written into it while it was free.
    this.content.setZero(frame);
  }

  private release(head: number): void {
    assert(this.mapCounts[head] === 0, 'a frame is freed while mapped');
    assert(this.pinCounts[head] === 0, 'a frame is freed while pinned');
    assert(this.files[head] === 0, 'a frame is freed while a file has it');
    const count = (this.flags[head] & FRAME_HUGE) !== 0 ? HUGE_PAGES : 1;
    for (let frame = head; frame < head + count; frame++) {
      this.onFree(frame);
      this.references[frame] = 0;
      this.flags[frame] = 0;
      this.content.setZero(frame);
    }
    this.freeLists.give(head, count === 1 ? 0 : HUGE_ORDER);
  }
}

/** The largest order of an aligned block that ends at `end`. */
function largestOrder(end: number): number {
  let order = 0;
  while (order < HUGE_ORDER && (end & ((2 << order) - 1)) === 0) order++;
  return order;
}
