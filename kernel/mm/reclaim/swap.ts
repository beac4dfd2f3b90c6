/**
 * Swap space: slots for pages that are not in RAM, and the device behind them (mm/swapfile.c).
 *
 * A slot counts its users (swap_map): page table entries and pages of shared memory that name it. While its
 * page is also in a frame, in the *swap cache*, the slot stays taken even without users. The device serves
 * one transfer after another at its rate; its latency comes on top and overlaps. Owns slots, their content
 * and the device's time; which frame goes with which slot is `swap-cache.ts`.
 */
import { assert, type BlockPool, Link, type TimePs } from '../../../transport/index.ts';
import { ContentStore } from '../physical/content.ts';
import { NO_FRAME, PAGE_BYTES } from '../physical/frames.ts';

/** A slot that is not there. */
export const NO_SLOT = -1;

export class Swap {
  readonly content: ContentStore;
  /** Frame that each slot shares its page with, or NO_FRAME; `swap-cache.ts` keeps it. */
  readonly cacheFrames: Int32Array;
  /** Called when a slot loses its last user while its page is in the swap cache. */
  onUnused: (slot: number, frame: number) => void = () => {};
  /** When the write of a slot reaches the device. */
  private readonly writtenPs: Float64Array;
  private readonly freeSlots: Int32Array;
  /** Users of each slot (swap_map). */
  private readonly used: Uint16Array;
  private free: number;
  private readonly device: Link;

  constructor(
    readonly slotCount: number,
    blocks: BlockPool,
    latencyPs: TimePs,
    rateGbps: number,
  ) {
    this.content = new ContentStore(slotCount, blocks);
    this.cacheFrames = new Int32Array(slotCount).fill(NO_FRAME);
    this.writtenPs = new Float64Array(slotCount);
    this.used = new Uint16Array(slotCount);
    this.freeSlots = Int32Array.from({ length: slotCount }, (_, i) => slotCount - 1 - i);
    this.free = slotCount;
    this.device = new Link(rateGbps, latencyPs);
  }

  /** Slots in use. */
  get usedSlots(): number {
    return this.slotCount - this.free;
  }

  /** A slot with one user, or NO_SLOT when swap is full. */
  allocate(): number {
    if (this.free === 0) return NO_SLOT;
    const slot = this.freeSlots[--this.free];
    this.used[slot] = 1;
    return slot;
  }

  /** One more user of the slot: fork. */
  share(slot: number): void {
    assert(this.used[slot] > 0, 'a swap slot is shared that is not in use');
    this.used[slot]++;
  }

  /** Page table entries, and pages of shared memory, that name the slot. */
  users(slot: number): number {
    return this.used[slot];
  }

  /** One user less; the last one gives the slot back, and what it held is forgotten. */
  release(slot: number): void {
    assert(this.used[slot] > 0, 'a swap slot is released that is not in use');
    if (--this.used[slot] > 0) return;
    const frame = this.cacheFrames[slot];
    if (frame === NO_FRAME) this.giveBack(slot);
    else this.onUnused(slot, frame);
  }

  /** Frees a slot that has neither users nor a frame. */
  giveBack(slot: number): void {
    assert(this.used[slot] === 0, 'a swap slot is freed that is in use');
    this.content.setZero(slot);
    this.freeSlots[this.free++] = slot;
  }

  /** Starts writing a slot; returns when it is on the device. */
  startWrite(slot: number, now: TimePs): TimePs {
    this.writtenPs[slot] = this.device.transmit(now, PAGE_BYTES);
    return this.writtenPs[slot];
  }

  /** When the last write of the slot is on the device, or was. */
  writtenAt(slot: number): TimePs {
    return this.writtenPs[slot];
  }

  /** Starts reading a slot; returns when the page is there. */
  startRead(now: TimePs): TimePs {
    return this.device.transmit(now, PAGE_BYTES);
  }
}
