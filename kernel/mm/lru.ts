/**
 * The two LRU lists of anonymous pages, active and inactive (mm/vmscan.c, mm/swap.c).
 *
 * Doubly linked lists in typed arrays, so that a frame joins, leaves and moves for a few stores. New
 * pages start inactive and are promoted when reclaim finds them referenced; how a page is judged is
 * `reclaim.ts`'s business.
 */
import { FRAME_ACTIVE, FRAME_LRU, type Frames } from './frames.ts';

export class LruLists {
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  /** List heads stand behind the frames. */
  private readonly inactiveHead: number;
  private readonly activeHead: number;
  inactiveCount = 0;
  activeCount = 0;

  constructor(private readonly frames: Frames) {
    this.next = new Int32Array(frames.count + 2);
    this.previous = new Int32Array(frames.count + 2);
    this.inactiveHead = frames.count;
    this.activeHead = frames.count + 1;
    for (const head of [this.inactiveHead, this.activeHead]) {
      this.next[head] = head;
      this.previous[head] = head;
    }
    frames.onFree = (frame) => this.remove(frame);
  }

  /** Puts a frame at the young end of a list. */
  add(frame: number, active: boolean): void {
    const head = active ? this.activeHead : this.inactiveHead;
    const first = this.next[head];
    this.next[head] = frame;
    this.previous[frame] = head;
    this.next[frame] = first;
    this.previous[first] = frame;
    this.frames.flags[frame] |= FRAME_LRU;
    if (active) {
      this.frames.flags[frame] |= FRAME_ACTIVE;
      this.activeCount++;
    } else {
      this.frames.flags[frame] &= ~FRAME_ACTIVE;
      this.inactiveCount++;
    }
  }

  /** Takes a frame off its list, if it is on one. */
  remove(frame: number): void {
    const flags = this.frames.flags[frame];
    if ((flags & FRAME_LRU) === 0) return;
    const before = this.previous[frame];
    const after = this.next[frame];
    this.next[before] = after;
    this.previous[after] = before;
    if (flags & FRAME_ACTIVE) this.activeCount--;
    else this.inactiveCount--;
    this.frames.flags[frame] &= ~(FRAME_LRU | FRAME_ACTIVE);
  }

  /** Takes the oldest frame off the inactive (or active) list; -1 when that is empty. */
  takeOldest(active: boolean): number {
    const head = active ? this.activeHead : this.inactiveHead;
    const frame = this.previous[head];
    if (frame === head) return -1;
    this.remove(frame);
    return frame;
  }
}
