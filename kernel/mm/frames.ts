/**
 * Page frames: the RAM of a host, as structs of arrays indexed by page frame number.
 *
 * A frame is free while its reference count is 0. A mapping holds one reference and counts in
 * `mapCounts` too; a pin (pinned umem) and reclaim at work hold a reference only, so a frame whose
 * references outnumber its mappings is in use by somebody who cannot be told to let go. (Linux:
 * struct page, _refcount and _mapcount.)
 *
 * Owns counts, flags, contents and the free list. Which page is evicted next is `lru.ts`'s business.
 */
import { assert, type BlockPool } from '../../transport/index.ts';
import { ContentStore } from './content.ts';

export const PAGE_BYTES = 4096;

/** Flags of a frame. The first: its content is not what the swap device or a zero fill would give. */
export const FRAME_DIRTY = 1;
/** On the active LRU list rather than the inactive one. */
export const FRAME_ACTIVE = 2;
/** On an LRU list. */
export const FRAME_LRU = 4;
/** Reclaim is at work on it (PG_locked). */
export const FRAME_LOCKED = 8;

export class Frames {
  readonly references: Int32Array;
  readonly mapCounts: Int32Array;
  readonly flags: Uint8Array;
  /** Virtual page that maps the frame: the reverse map. One process, no sharing, so one page. */
  readonly virtualPages: Float64Array;
  readonly content: ContentStore;
  private readonly freeFrames: Int32Array;
  private free: number;
  /** Called when a frame loses its last reference, before it becomes free. */
  onFree: (frame: number) => void = () => {};

  constructor(
    readonly count: number,
    blocks: BlockPool,
  ) {
    this.references = new Int32Array(count);
    this.mapCounts = new Int32Array(count);
    this.flags = new Uint8Array(count);
    this.virtualPages = new Float64Array(count);
    this.content = new ContentStore(count, blocks);
    this.freeFrames = Int32Array.from({ length: count }, (_, i) => count - 1 - i);
    this.free = count;
  }

  /** Frames that are free. */
  get freeCount(): number {
    return this.free;
  }

  /** A zeroed frame with one reference, which is the caller's. There must be a free one. */
  allocate(): number {
    assert(this.free > 0, 'out of page frames');
    const frame = this.freeFrames[--this.free];
    assert(this.references[frame] === 0, 'a free frame has references');
    this.references[frame] = 1;
    this.flags[frame] = 0;
    // A stale adapter may have written into it while it was free.
    this.content.setZero(frame);
    return frame;
  }

  /** One more reference. */
  get(frame: number): void {
    assert(this.references[frame] > 0, 'a free frame is taken hold of');
    this.references[frame]++;
  }

  /** One reference less; the last one frees the frame. */
  put(frame: number): void {
    const left = --this.references[frame];
    assert(left >= 0, 'a frame is released more often than held');
    if (left > 0) return;
    assert(this.mapCounts[frame] === 0, 'a frame is freed while mapped');
    this.onFree(frame);
    this.flags[frame] = 0;
    this.content.setZero(frame);
    this.freeFrames[this.free++] = frame;
  }

  /** Turns the caller's reference into that of a mapping at virtual page `virtualPage`. */
  map(frame: number, virtualPage: number): void {
    this.mapCounts[frame]++;
    this.virtualPages[frame] = virtualPage;
  }

  /** Drops a mapping and its reference. */
  unmap(frame: number): void {
    this.mapCounts[frame]--;
    this.put(frame);
  }

  markDirty(frame: number): void {
    this.flags[frame] |= FRAME_DIRTY;
  }

  /** True when something besides mappings holds the frame; `own` references are the caller's. */
  isPinned(frame: number, own = 0): boolean {
    return this.references[frame] - own > this.mapCounts[frame];
  }
}
