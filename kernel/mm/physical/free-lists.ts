/**
 * Free page frames: a buddy allocator (mm/page_alloc.c).
 *
 * Blocks of 2^order frames, order 0 (a page of 4 KiB) to 9 (a huge page of 2 MiB), each aligned to its
 * size. A block is split when a smaller one is wanted and joined with its buddy when both are free,
 * which is why scattered single pages keep huge pages from being found and compaction has work to do.
 * One set of lists for each NUMA node. Owns which frames are free; counts and contents are `frames.ts`.
 */
import { assert } from '../../../transport/index.ts';

/** Order of a huge page: 512 frames. */
export const HUGE_ORDER = 9;
/** Frames of a huge page. */
export const HUGE_PAGES = 1 << HUGE_ORDER;

const ORDERS = HUGE_ORDER + 1;
const NOT_FREE = -1;

export class FreeLists {
  /** Order of the free block that begins at a frame, or NOT_FREE. */
  private readonly orders: Int8Array;
  // Doubly linked lists, one for each node and order; the heads stand behind the frames.
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  /** Free blocks of each node and order: [node * 10 + order]. */
  readonly blockCounts: Int32Array;
  /** Free frames of each node. */
  readonly freeCounts: Int32Array;
  /** 1 for a block of 512 frames that is isolated: what is free there, or becomes so, is not given out. */
  private readonly isolated: Uint8Array;

  /** Lists for `nodeCount` nodes of `framesPerNode` frames each; no frame is free yet. */
  constructor(
    private readonly frameCount: number,
    private readonly nodeCount: number,
    private readonly framesPerNode: number,
  ) {
    const heads = nodeCount * ORDERS;
    this.orders = new Int8Array(frameCount).fill(NOT_FREE);
    this.next = new Int32Array(frameCount + heads);
    this.previous = new Int32Array(frameCount + heads);
    this.blockCounts = new Int32Array(heads);
    this.freeCounts = new Int32Array(nodeCount);
    this.isolated = new Uint8Array(Math.ceil(frameCount / HUGE_PAGES));
    for (let i = 0; i < heads; i++) {
      this.next[frameCount + i] = frameCount + i;
      this.previous[frameCount + i] = frameCount + i;
    }
  }

  /** NUMA node of a frame. */
  nodeOf(frame: number): number {
    return Math.min(this.nodeCount - 1, Math.floor(frame / this.framesPerNode));
  }

  /** First frame of a free block of 2^order frames of `node`, now the caller's; -1 when there is none. */
  take(node: number, order: number): number {
    let found = order;
    while (found < ORDERS && this.blockCounts[node * ORDERS + found] === 0) found++;
    if (found === ORDERS) return -1;
    const frame = this.next[this.frameCount + node * ORDERS + found];
    this.unlink(node, frame, found);
    while (found > order) {
      found--;
      this.link(node, frame + (1 << found), found);
    }
    this.freeCounts[node] -= 1 << order;
    return frame;
  }

  /** Gives back a block of 2^order frames, joining it with free neighbours. */
  give(frame: number, order: number): void {
    if (this.isolated[frame >>> HUGE_ORDER] === 1) return;
    const node = this.nodeOf(frame);
    this.freeCounts[node] += 1 << order;
    let first = frame;
    let size = order;
    while (size < HUGE_ORDER) {
      const buddy = first ^ (1 << size);
      if (buddy + (1 << size) > this.frameCount || this.orders[buddy] !== size) break;
      if (this.nodeOf(buddy) !== node) break;
      this.unlink(node, buddy, size);
      first = Math.min(first, buddy);
      size++;
    }
    this.link(node, first, size);
  }

  /** Takes one given frame, which must be free, out of the lists: memory that goes offline, compaction. */
  takeFrame(frame: number): void {
    const node = this.nodeOf(frame);
    let order = 0;
    let first = frame;
    while (this.orders[first] !== order) {
      order++;
      assert(order < ORDERS, 'a frame is taken that is not free');
      first = frame & ~((1 << order) - 1);
    }
    this.unlink(node, first, order);
    while (order > 0) {
      order--;
      const half = 1 << order;
      if (frame >= first + half) {
        this.link(node, first, order);
        first += half;
      } else this.link(node, first + half, order);
    }
    this.freeCounts[node]--;
  }

  /**
   * Takes the free frames of a block of 512 out of the lists, and keeps out those that are given back from
   * now on (MIGRATE_ISOLATE of mm/page_isolation.c). `block` is its first frame divided by 512.
   */
  isolate(block: number): void {
    this.isolated[block] = 1;
    const first = block * HUGE_PAGES;
    const node = this.nodeOf(first);
    for (let frame = first; frame < Math.min(first + HUGE_PAGES, this.frameCount); ) {
      const order = this.orders[frame];
      if (order === NOT_FREE) frame++;
      else {
        this.unlink(node, frame, order);
        this.freeCounts[node] -= 1 << order;
        frame += 1 << order;
      }
    }
  }

  /** Ends the isolation of a block; the caller gives back those of its frames that nobody has. */
  endIsolation(block: number): void {
    this.isolated[block] = 0;
  }

  /** Order of the free block that begins at `frame`, or -1. */
  orderAt(frame: number): number {
    return this.orders[frame];
  }

  /** True when `frame` lies in a free block. */
  isFree(frame: number): boolean {
    for (let order = 0; order < ORDERS; order++) {
      if (this.orders[frame & ~((1 << order) - 1)] === order) return true;
    }
    return false;
  }

  /** Free blocks of `node` of 2^order frames or more. */
  blocksOf(node: number, order: number): number {
    let blocks = 0;
    for (let at = order; at < ORDERS; at++) {
      blocks += this.blockCounts[node * ORDERS + at] << (at - order);
    }
    return blocks;
  }

  private link(node: number, frame: number, order: number): void {
    const list = node * ORDERS + order;
    const head = this.frameCount + list;
    const first = this.next[head];
    this.next[head] = frame;
    this.previous[frame] = head;
    this.next[frame] = first;
    this.previous[first] = frame;
    this.orders[frame] = order;
    this.blockCounts[list]++;
  }

  private unlink(node: number, frame: number, order: number): void {
    const before = this.previous[frame];
    const after = this.next[frame];
    this.next[before] = after;
    this.previous[after] = before;
    this.orders[frame] = NOT_FREE;
    this.blockCounts[node * ORDERS + order]--;
  }
}
