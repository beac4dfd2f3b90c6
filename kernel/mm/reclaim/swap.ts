/**
 * Swap space: slots for pages that are not in RAM, and the device behind them.
 *
 * The device serves one transfer after another at its rate; its latency comes on top and overlaps.
 * Content moves into a slot when the page is unmapped and the write then takes its time, so a fault
 * that comes during the write finds the page as Linux does in its swap cache, without a read.
 */
import { assert, type BlockPool, Link, type TimePs } from '../../../transport/index.ts';
import { ContentStore } from '../physical/content.ts';
import { PAGE_BYTES } from '../physical/frames.ts';

export class Swap {
  readonly content: ContentStore;
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

  /** A slot with one user, or -1 when swap is full. */
  allocate(): number {
    if (this.free === 0) return -1;
    const slot = this.freeSlots[--this.free];
    this.used[slot] = 1;
    return slot;
  }

  /** One more page table entry names the slot: fork. */
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
    this.content.setZero(slot);
    this.freeSlots[this.free++] = slot;
  }

  /** Starts writing a slot; returns when it is on the device. */
  startWrite(slot: number, now: TimePs): TimePs {
    this.writtenPs[slot] = this.device.transmit(now, PAGE_BYTES);
    return this.writtenPs[slot];
  }

  /** Starts reading a slot; returns when the page is there: at once while its write is under way. */
  startRead(slot: number, now: TimePs): TimePs {
    return this.writtenPs[slot] > now ? now : this.device.transmit(now, PAGE_BYTES);
  }
}
