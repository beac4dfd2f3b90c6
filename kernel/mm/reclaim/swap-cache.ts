/**
 * The swap cache: pages that are in a frame and in a swap slot at once (mm/swap_state.c, mm/page_io.c).
 *
 * A page joins it when reclaim gives it a slot and before its mappings go, so that a fault in the middle of
 * the write finds the frame and not the device; and when it is read back, until the last user of the slot
 * has it mapped. The cache holds one reference to the frame (FRAME_SWAP_CACHE). As long as a page is in the
 * cache and not dirty, frame and slot hold the same bytes.
 *
 * Owns which frame belongs to which slot, writes on their way to the device, and read-ahead. Who is mapped
 * where is the page tables' business.
 *
 * Simpler than Linux: one device; slots are not clustered, so read-ahead finds neighbours only where they
 * were written together; a page that its only user has read back gives up its slot at once (Linux keeps it
 * while less than half of swap is used), so it is written again when it is evicted again.
 */
import { assert, type TimePs } from '../../../transport/index.ts';
import { Completion, type Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import {
  FRAME_DIRTY,
  FRAME_LOCKED,
  FRAME_RECLAIM,
  FRAME_SWAP_BACKED,
  FRAME_SWAP_CACHE,
  FRAME_WRITEBACK,
  NO_FRAME,
} from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { NO_SLOT } from './swap.ts';

/** Slots that one read brings in at most: 1 << page_cluster (mm/swap.c, vm.page-cluster = 3). */
const READ_AHEAD_SLOTS = 8;

export class SwapCache {
  /** Slot of each frame, or NO_SLOT. */
  private readonly slots: Int32Array;
  /** Writes on their way, oldest first: slot, frame and when it is over; done ones are cut off in bulk. */
  private writes: { slot: number; frame: number; donePs: TimePs }[] = [];
  private firstWrite = 0;
  /** Writes that are over, and who waits for how many. */
  private written = 0;
  private readonly writeWaiters: { count: number; over: Completion<void> }[] = [];
  /** Frames that read-ahead brought in and nobody has asked for yet, 1 for each. */
  private readonly ahead: Uint8Array;
  private readAheadHits = 0;
  private lastReadAhead = 0;
  private lastSlot = NO_SLOT;
  /** Frames in the cache. */
  count = 0;

  constructor(private readonly memory: Memory) {
    this.slots = new Int32Array(memory.frames.count).fill(NO_SLOT);
    this.ahead = new Uint8Array(memory.frames.count);
    memory.swap.onUnused = (_slot, frame) => this.remove(frame);
  }

  /** Slot that `frame` shares its page with, or NO_SLOT. */
  slotOf(frame: number): number {
    return this.slots[frame];
  }

  /** Frame that `slot` shares its page with, or NO_FRAME. */
  frameOf(slot: number): number {
    return this.memory.swap.cacheFrames[slot];
  }

  /** Writes that are on their way to the device. */
  get writesInFlight(): number {
    return this.writes.length - this.firstWrite;
  }

  /** Makes `frame` and `slot` the same page, with a reference for the cache. */
  insert(frame: number, slot: number): void {
    const { frames, swap } = this.memory;
    assert(this.slots[frame] === NO_SLOT, 'a frame is put into the swap cache twice');
    assert(swap.cacheFrames[slot] === NO_FRAME, 'a swap slot gets a second frame');
    frames.get(frame);
    frames.flags[frame] |= FRAME_SWAP_CACHE;
    this.slots[frame] = slot;
    swap.cacheFrames[slot] = frame;
    this.count++;
  }

  /** Parts frame and slot; a slot without users is free then, and a frame that goes on is dirty. */
  remove(frame: number): void {
    const { frames, swap } = this.memory;
    const slot = this.slots[frame];
    assert(slot !== NO_SLOT, 'a frame leaves the swap cache that is not in it');
    this.slots[frame] = NO_SLOT;
    this.ahead[frame] = 0;
    swap.cacheFrames[slot] = NO_FRAME;
    this.count--;
    const gone = FRAME_SWAP_CACHE | FRAME_WRITEBACK | FRAME_RECLAIM;
    frames.flags[frame] = (frames.flags[frame] & ~gone) | FRAME_DIRTY;
    if (swap.users(slot) === 0) swap.giveBack(slot);
    frames.put(frame);
  }

  /** The page goes from frame `from` to `to`: migration. The cache's reference goes along. */
  move(from: number, to: number): void {
    const { frames, swap } = this.memory;
    const slot = this.slots[from];
    assert((frames.flags[from] & FRAME_WRITEBACK) === 0, 'a page moves while it is being written');
    frames.get(to);
    frames.flags[to] |= FRAME_SWAP_CACHE;
    frames.flags[from] &= ~FRAME_SWAP_CACHE;
    this.slots[to] = slot;
    this.slots[from] = NO_SLOT;
    swap.cacheFrames[slot] = to;
    frames.put(from);
  }

  /** Copies the bytes of a frame to its slot, where the kernel's readers of swapped pages look for them. */
  save(frame: number): void {
    const { frames, swap } = this.memory;
    frames.content.copyTo(frame, swap.content, this.slots[frame]);
  }

  /** Starts to write a page of the cache, which nobody maps for writing, to the device. */
  write(frame: number): void {
    const { frames, swap, node, counters, timers } = this.memory;
    const slot = this.slots[frame];
    this.save(frame);
    frames.flags[frame] = (frames.flags[frame] & ~FRAME_DIRTY) | FRAME_WRITEBACK | FRAME_RECLAIM;
    const donePs = swap.startWrite(slot, node.now);
    counters.pswpout++;
    this.writes.push({ slot, frame, donePs });
    if (this.writesInFlight === 1) timers.after(donePs - node.now, () => this.endWrites());
  }

  /** Sleeps until `count` more writes are over, or all that are under way. */
  *waitForWrites(count: number): Sim<void> {
    const wanted = Math.min(count, this.writesInFlight);
    if (wanted === 0) return;
    const over = new Completion<void>('pages to be on the swap device');
    this.writeWaiters.push({ count: this.written + wanted, over });
    yield over;
  }

  /**
   * The frame that holds the page of `slot`, read from the device if need be, with one reference for the
   * caller; NO_FRAME when the slot has lost its users meanwhile. At the moment of the return the page is
   * complete and unlocked, but time has passed: the caller looks at its entry again, and then without
   * sleeping maps the frame and releases the slot (`swap.release`). If the page is not in the cache after
   * that, it is the caller's alone.
   */
  *swapIn(mm: MmStruct, slot: number): Sim<number> {
    const { frames, swap, pageLocks, reclaim, costs, counters } = this.memory;
    let isRead = false;
    for (;;) {
      if (swap.users(slot) === 0) return NO_FRAME;
      const frame = swap.cacheFrames[slot];
      if (frame === NO_FRAME) {
        const fresh = yield* reclaim.allocate(mm);
        if (swap.users(slot) === 0 || swap.cacheFrames[slot] !== NO_FRAME) {
          frames.put(fresh);
          continue;
        }
        isRead = true;
        counters.pgmajfault++;
        this.read(fresh, slot);
        frames.put(fresh);
        this.readAround(mm, slot);
        continue;
      }
      if (pageLocks.isLocked(frame)) {
        // Being read, or in the hands of reclaim or migration.
        yield* pageLocks.wait(frame);
        continue;
      }
      if (isRead) {
        yield costs.majorFaultPs;
        isRead = false;
        continue;
      }
      if (this.ahead[frame] !== 0) {
        this.ahead[frame] = 0;
        this.readAheadHits++;
        counters.swap_ra_hit++;
      }
      frames.get(frame);
      return frame;
    }
  }

  /** Puts a free frame into the cache, locked until the device has delivered what `slot` holds. */
  private read(frame: number, slot: number): void {
    const { frames, swap, pageLocks, lru, node, counters, timers } = this.memory;
    swap.content.copyTo(slot, frames.content, frame);
    this.insert(frame, slot);
    frames.flags[frame] |= FRAME_SWAP_BACKED;
    lru.add(frame, false);
    pageLocks.tryLock(frame);
    // The frame must not become another page's before the device is done with it.
    frames.get(frame);
    counters.pswpin++;
    timers.after(swap.startRead(node.now) - node.now, () => {
      pageLocks.unlock(frame);
      frames.put(frame);
    });
  }

  /** Reads the used slots around `slot` too, as many as hits so far promise (swap_cluster_readahead). */
  private readAround(mm: MmStruct, slot: number): void {
    const { swap, reclaim, counters, frames } = this.memory;
    const count = this.window(slot);
    const first = slot - (slot % count);
    for (let at = first; at < Math.min(first + count, swap.slotCount); at++) {
      if (swap.users(at) === 0 || swap.cacheFrames[at] !== NO_FRAME) continue;
      const frame = reclaim.tryAllocate(mm);
      if (frame < 0) return;
      this.read(frame, at);
      frames.put(frame);
      this.ahead[frame] = 1;
      counters.swap_ra++;
    }
  }

  /** How many slots to read: __swapin_nr_pages of mm/swap_state.c. */
  private window(slot: number): number {
    let pages = this.readAheadHits + 2;
    this.readAheadHits = 0;
    if (pages === 2) {
      const isNext = slot === this.lastSlot + 1 || slot === this.lastSlot - 1;
      if (!isNext) pages = 1;
      this.lastSlot = slot;
    } else {
      let size = 4;
      while (size < pages) size <<= 1;
      pages = size;
    }
    pages = Math.min(pages, READ_AHEAD_SLOTS);
    // It does not shrink too fast.
    pages = Math.max(pages, this.lastReadAhead >> 1, 1);
    this.lastReadAhead = pages;
    return pages;
  }

  /** Ends the writes that are over by now, and sets the timer for the next one. */
  private endWrites(): void {
    const { frames, swap, lru, node, counters, timers } = this.memory;
    while (this.firstWrite < this.writes.length) {
      const { slot, frame, donePs } = this.writes[this.firstWrite];
      if (donePs > node.now) break;
      this.firstWrite++;
      this.written++;
      // The page may have left the cache, and been written again since.
      if (this.slots[frame] !== slot || swap.writtenAt(slot) !== donePs) continue;
      const isWanted = (frames.flags[frame] & FRAME_RECLAIM) !== 0;
      frames.flags[frame] &= ~(FRAME_WRITEBACK | FRAME_RECLAIM);
      // folio_end_writeback: reclaim meets it next.
      if (isWanted && (frames.flags[frame] & FRAME_LOCKED) === 0 && lru.rotate(frame)) {
        counters.pgrotated++;
      }
    }
    if (this.firstWrite === this.writes.length) {
      this.writes = [];
      this.firstWrite = 0;
    } else {
      timers.after(this.writes[this.firstWrite].donePs - node.now, () => this.endWrites());
    }
    while (this.writeWaiters.length > 0) {
      // Those who came later may wait for less.
      const at = this.writeWaiters.findIndex(({ count }) => count <= this.written);
      if (at < 0) break;
      const [waiter] = this.writeWaiters.splice(at, 1);
      waiter.over.resolve();
    }
  }
}
