/**
 * Reads memory ahead of the packets: a short queue of bursts, each on its way or here.
 *
 * A requester gathers the data of its work requests, a responder the data of the READs it answers.
 * Bursts are asked for in the order in which they will be sent and are cut so that no packet
 * straddles two of them. What a burst belongs to is the owner's number, `work`.
 */
import { type FramePool, nextPowerOfTwo, type TimePs } from '../../transport/index.ts';
import type { BusPort } from '../bus-port.ts';
import type { GatherTags } from './gather-tags.ts';

export class Gather {
  private readonly bursts: Int32Array;
  private readonly works: Int32Array;
  private readonly offsets: Float64Array;
  private readonly lengths: Int32Array;
  private readonly mask: number;
  private first = 0;
  private count = 0;
  private generation = 0;

  /** `capacity` bursts may be on their way or waiting; `onLoaded` is told when one has come. */
  constructor(
    capacity: number,
    private readonly pool: FramePool,
    private readonly bus: BusPort,
    private readonly tags: GatherTags,
    private readonly onLoaded: (now: TimePs) => void,
  ) {
    const size = nextPowerOfTwo(capacity);
    this.mask = size - 1;
    this.bursts = new Int32Array(size);
    this.works = new Int32Array(size);
    this.offsets = new Float64Array(size);
    this.lengths = new Int32Array(size);
  }

  get isFull(): boolean {
    return this.count > this.mask;
  }

  /**
   * Asks for the pages of `burst`, which hold bytes [offset, offset + its length) of `work`. With
   * `message` above 0 the burst is the last of a READ response: see BUS_DMA_READ.
   */
  request(
    readyPs: TimePs,
    burst: number,
    work: number,
    offset: number,
    flags: number,
    qpn: number,
    message: number,
    messageAddress: number,
    messageBytes: number,
  ): void {
    const place = (this.first + this.count++) & this.mask;
    this.bursts[place] = 0;
    this.works[place] = work;
    this.offsets[place] = offset;
    this.lengths[place] = this.pool.burstBytes[burst];
    const tag = this.tags.take(this, place, this.generation);
    this.bus.dmaReadOfMessage(
      readyPs,
      tag,
      burst,
      flags,
      qpn,
      message,
      messageAddress,
      messageBytes,
    );
  }

  /** The burst that holds byte `offset` of `work`, if it is the next one and has come; else 0. */
  ready(work: number, offset: number): number {
    if (this.count === 0) return 0;
    const place = this.first & this.mask;
    return this.works[place] === work && offset >= this.offsets[place] ? this.bursts[place] : 0;
  }

  /** Where byte `offset` of the work stands within the next burst. */
  within(offset: number): number {
    return offset - this.offsets[this.first & this.mask];
  }

  /** Bytes of the next burst from byte `offset` of its work on. */
  leftFrom(offset: number): number {
    const place = this.first & this.mask;
    return this.offsets[place] + this.lengths[place] - offset;
  }

  /** Lets go of the next burst once everything before byte `offset` of its work has been sent. */
  consumed(offset: number): boolean {
    const place = this.first & this.mask;
    if (offset < this.offsets[place] + this.lengths[place]) return false;
    this.pool.releaseBurst(this.bursts[place]);
    this.first = (this.first + 1) & this.mask;
    this.count--;
    return true;
  }

  /** Drops everything, here or on its way: the sender goes back. */
  discard(): void {
    for (let i = 0; i < this.count; i++) {
      const burst = this.bursts[(this.first + i) & this.mask];
      if (burst !== 0) this.pool.releaseBurst(burst);
    }
    this.count = 0;
    this.generation++;
  }

  /** Data of an earlier request have come; the frame's reference on `burst` is ours now. */
  onData(place: number, generation: number, burst: number, now: TimePs): void {
    if (generation !== this.generation) {
      this.pool.releaseBurst(burst);
      return;
    }
    this.bursts[place] = burst;
    this.onLoaded(now);
  }
}
