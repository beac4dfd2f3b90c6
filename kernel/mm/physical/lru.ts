/**
 * LRU lists of page frames (struct lruvec; mm/vmscan.c, mm/swap.c).
 *
 * For each NUMA node and memory cgroup: inactive and active lists of anonymous and of file pages, and
 * the unevictable list. Doubly linked lists in typed arrays, so that a frame joins, leaves and moves for
 * a few stores. New pages start inactive and are promoted when reclaim finds them referenced; how a
 * page is judged is `reclaim.ts`'s business.
 */
import {
  FRAME_ACTIVE,
  FRAME_LRU,
  FRAME_PINNED,
  FRAME_SWAP_BACKED,
  FRAME_UNEVICTABLE,
  type Frames,
} from './frames.ts';

/** Lists of one node and cgroup (enum lru_list). */
export const LRU_INACTIVE_ANON = 0;
export const LRU_ACTIVE_ANON = 1;
export const LRU_INACTIVE_FILE = 2;
export const LRU_ACTIVE_FILE = 3;
export const LRU_UNEVICTABLE = 4;
const LISTS = 5;

export class LruLists {
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  /** List that a frame is on; valid while FRAME_LRU is set. */
  private readonly listOf: Uint16Array;
  /** Frames on each list. */
  private readonly counts: Int32Array;
  private readonly heads: number;

  /** Lists for `groupCount` memory cgroups, the root included. */
  constructor(
    private readonly frames: Frames,
    readonly groupCount: number,
  ) {
    const lists = frames.nodeCount * groupCount * LISTS;
    this.heads = frames.count;
    this.next = new Int32Array(frames.count + lists);
    this.previous = new Int32Array(frames.count + lists);
    this.listOf = new Uint16Array(frames.count);
    this.counts = new Int32Array(lists);
    for (let list = 0; list < lists; list++) {
      this.next[this.heads + list] = this.heads + list;
      this.previous[this.heads + list] = this.heads + list;
    }
  }

  /**
   * Puts a frame at the young end of the list that its flags, node and cgroup say, off whatever list it is
   * on. A page that is marked as pinned goes on none.
   */
  add(frame: number, active: boolean): void {
    this.remove(frame);
    const flags = this.frames.flags[frame];
    if ((flags & FRAME_PINNED) !== 0) return;
    const unevictable = (flags & FRAME_UNEVICTABLE) !== 0;
    const file = (flags & FRAME_SWAP_BACKED) === 0 ? LRU_INACTIVE_FILE : LRU_INACTIVE_ANON;
    const kind = unevictable ? LRU_UNEVICTABLE : file + (active ? 1 : 0);
    const list = this.list(this.frames.nodeOf(frame), this.frames.groups[frame], kind);
    const head = this.heads + list;
    const first = this.next[head];
    this.next[head] = frame;
    this.previous[frame] = head;
    this.next[frame] = first;
    this.previous[first] = frame;
    this.listOf[frame] = list;
    this.counts[list]++;
    const activeFlag = active && !unevictable ? FRAME_ACTIVE : 0;
    this.frames.flags[frame] = (flags & ~FRAME_ACTIVE) | FRAME_LRU | activeFlag;
  }

  /** Takes a frame off its list, if it is on one. */
  remove(frame: number): void {
    if ((this.frames.flags[frame] & FRAME_LRU) === 0) return;
    const before = this.previous[frame];
    const after = this.next[frame];
    this.next[before] = after;
    this.previous[after] = before;
    this.counts[this.listOf[frame]]--;
    this.frames.flags[frame] &= ~(FRAME_LRU | FRAME_ACTIVE);
  }

  /** Moves a frame of an inactive list to its old end; false when it is on none. */
  rotate(frame: number): boolean {
    const flags = this.frames.flags[frame];
    if ((flags & FRAME_LRU) === 0 || (flags & (FRAME_ACTIVE | FRAME_UNEVICTABLE)) !== 0)
      return false;
    const before = this.previous[frame];
    const after = this.next[frame];
    this.next[before] = after;
    this.previous[after] = before;
    const head = this.heads + this.listOf[frame];
    const last = this.previous[head];
    this.previous[head] = frame;
    this.next[frame] = head;
    this.previous[frame] = last;
    this.next[last] = frame;
    return true;
  }

  /**
   * Takes up to `count` of the oldest frames off a list into `out`, each with a reference, so that nobody
   * frees them meanwhile (isolate_lru_folios); returns how many.
   */
  isolate(node: number, group: number, kind: number, out: Int32Array, count: number): number {
    const head = this.heads + this.list(node, group, kind);
    let taken = 0;
    while (taken < count) {
      const frame = this.previous[head];
      if (frame === head) break;
      this.remove(frame);
      this.frames.get(frame);
      out[taken++] = frame;
    }
    return taken;
  }

  /** Frames on one list. */
  count(node: number, group: number, kind: number): number {
    return this.counts[this.list(node, group, kind)];
  }

  /** Frames on that list of all nodes and cgroups. */
  total(kind: number): number {
    let sum = 0;
    for (let list = kind; list < this.counts.length; list += LISTS) sum += this.counts[list];
    return sum;
  }

  private list(node: number, group: number, kind: number): number {
    return (group * this.frames.nodeCount + node) * LISTS + kind;
  }
}
