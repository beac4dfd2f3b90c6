/**
 * The pending events of one node, in an order that no insertion can change.
 *
 * An event belongs to a *slot*: one inbound port, or one engine of the node (a link transmitter, a
 * timer table, a simulated CPU). A slot has at most one pending event; arming it again moves that
 * event. Events are ordered by (time, slot), and slots are numbered at construction: ports first,
 * then engines, statistics last. So two events at one time always run in the same order, whatever
 * ran before them, and no counter is shared between engines.
 *
 * The slots stand in a binary heap of typed arrays with back pointers, so that arming, moving and
 * disarming cost O(log slots) and nothing is ever allocated.
 */
import { NEVER, type TimePs } from './units.ts';

export class EventQueue {
  private times = new Float64Array(8).fill(NEVER);
  /** Heap of slot numbers, smallest (time, slot) first. */
  private heap = new Int32Array(8);
  /** Where a slot stands in the heap, or -1 when it is idle. */
  private place = new Int32Array(8).fill(-1);
  private size = 0;
  private slots = 0;

  /** Adds a slot and returns its number. The order of these calls is the order at equal times. */
  addSlot(): number {
    const slot = this.slots++;
    if (slot === this.heap.length) this.grow();
    return slot;
  }

  /** Sets, or moves, the one pending event of `slot`; NEVER takes it away. */
  arm(slot: number, at: TimePs): void {
    const place = this.place[slot];
    const before = this.times[slot];
    this.times[slot] = at;
    if (place < 0) {
      if (at !== NEVER) {
        this.heap[this.size] = slot;
        this.place[slot] = this.size;
        this.up(this.size++);
      }
    } else if (at === NEVER) this.remove(place);
    else if (at < before) this.up(place);
    else this.down(place);
  }

  /** When `slot` fires next, or NEVER. */
  timeOf(slot: number): TimePs {
    return this.times[slot];
  }

  /** When the first event fires, or NEVER. */
  nextTime(): TimePs {
    return this.size === 0 ? NEVER : this.times[this.heap[0]];
  }

  /** The slot of the first event; only asked for when there is one. */
  nextSlot(): number {
    return this.heap[0];
  }

  /** The earliest time of any slot but `slot`: how far that slot may run on by itself. */
  nextTimeExcept(slot: number): TimePs {
    if (this.size === 0) return NEVER;
    if (this.heap[0] !== slot) return this.times[this.heap[0]];
    const left = this.size > 1 ? this.times[this.heap[1]] : NEVER;
    const right = this.size > 2 ? this.times[this.heap[2]] : NEVER;
    return left < right ? left : right;
  }

  private before(a: number, b: number): boolean {
    const ta = this.times[a];
    const tb = this.times[b];
    return ta < tb || (ta === tb && a < b);
  }

  private up(from: number): void {
    const slot = this.heap[from];
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.before(slot, this.heap[parent])) break;
      this.heap[at] = this.heap[parent];
      this.place[this.heap[at]] = at;
      at = parent;
    }
    this.heap[at] = slot;
    this.place[slot] = at;
  }

  private down(from: number): void {
    const slot = this.heap[from];
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && this.before(this.heap[child + 1], this.heap[child])) child++;
      if (!this.before(this.heap[child], slot)) break;
      this.heap[at] = this.heap[child];
      this.place[this.heap[at]] = at;
      at = child;
    }
    this.heap[at] = slot;
    this.place[slot] = at;
  }

  private remove(place: number): void {
    this.place[this.heap[place]] = -1;
    this.size--;
    if (place === this.size) return;
    const moved = this.heap[this.size];
    this.heap[place] = moved;
    this.place[moved] = place;
    this.up(place);
    this.down(this.place[moved]);
  }

  private grow(): void {
    const length = this.heap.length * 2;
    const times = new Float64Array(length).fill(NEVER);
    times.set(this.times);
    const heap = new Int32Array(length);
    heap.set(this.heap);
    const place = new Int32Array(length).fill(-1);
    place.set(this.place);
    this.times = times;
    this.heap = heap;
    this.place = place;
  }
}
