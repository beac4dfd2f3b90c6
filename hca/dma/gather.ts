/**
 * Reads memory ahead of the packets: a short queue of bursts, each on its way or here.
 *
 * A requester gathers the data of its work requests, a responder the data of the READs it answers.
 * Bursts are asked for in the order in which they will be sent and are cut so that no packet
 * straddles two of them. A burst whose bytes stand in several places of memory is asked for piece by
 * piece and put together when the last piece has come. What a burst belongs to is the owner's
 * number, `work`.
 */
import {
  BURST_MAX_BYTES,
  type FramePool,
  MAX_SGE,
  nextPowerOfTwo,
  type TimePs,
} from '../../transport/index.ts';
import type { BusPort } from './bus-port.ts';
import type { BurstWaiter, GatherTags } from './gather-tags.ts';

/** Where pieces are put together. */
const assembly = new Uint8Array(BURST_MAX_BYTES);

export class Gather implements BurstWaiter {
  private readonly bursts: Int32Array;
  private readonly works: Int32Array;
  private readonly offsets: Float64Array;
  private readonly lengths: Int32Array;
  /** Pieces of each place that is put together: how many, how many are on their way, and those here. */
  private readonly pieceCounts: Uint8Array;
  private readonly missing: Uint8Array;
  private readonly pieces: Int32Array;
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
    this.pieceCounts = new Uint8Array(size);
    this.missing = new Uint8Array(size);
    this.pieces = new Int32Array(size * MAX_SGE);
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
    const place = this.takePlace(work, offset, this.pool.burstBytes[burst], 1);
    const tag = this.tags.take(this, place * MAX_SGE, this.generation);
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

  /** Asks for the pages of `count` bursts, which hold the bytes of `work` from `offset` on, in order. */
  requestPieces(
    readyPs: TimePs,
    bursts: Int32Array,
    count: number,
    work: number,
    offset: number,
    bytes: number,
  ): void {
    const place = this.takePlace(work, offset, bytes, count);
    for (let i = 0; i < count; i++) {
      this.pieces[place * MAX_SGE + i] = 0;
      const tag = this.tags.take(this, place * MAX_SGE + i, this.generation);
      this.bus.dmaRead(readyPs, tag, bursts[i]);
    }
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
      const place = (this.first + i) & this.mask;
      if (this.bursts[place] !== 0) this.pool.releaseBurst(this.bursts[place]);
      else if (this.pieceCounts[place] > 1) this.releasePieces(place);
    }
    this.count = 0;
    this.generation++;
  }

  onData(at: number, generation: number, burst: number, now: TimePs): void {
    if (generation !== this.generation) {
      this.pool.releaseBurst(burst);
      return;
    }
    const place = (at / MAX_SGE) | 0;
    if (this.pieceCounts[place] === 1) this.bursts[place] = burst;
    else {
      this.pieces[at] = burst;
      if (--this.missing[place] > 0) return;
      this.bursts[place] = this.assemble(place);
    }
    this.onLoaded(now);
  }

  private takePlace(work: number, offset: number, bytes: number, pieces: number): number {
    const place = (this.first + this.count++) & this.mask;
    this.bursts[place] = 0;
    this.works[place] = work;
    this.offsets[place] = offset;
    this.lengths[place] = bytes;
    this.pieceCounts[place] = pieces;
    this.missing[place] = pieces;
    return place;
  }

  /** One burst with the bytes of all pieces of a place. */
  private assemble(place: number): number {
    const { pool } = this;
    let at = 0;
    for (let i = 0; i < this.pieceCounts[place]; i++) {
      const piece = this.pieces[place * MAX_SGE + i];
      pool.burstToBytes(piece, 0, pool.burstBytes[piece], assembly, at);
      at += pool.burstBytes[piece];
    }
    this.releasePieces(place);
    return pool.burstFromBytes(assembly, 0, at);
  }

  private releasePieces(place: number): void {
    for (let i = 0; i < this.pieceCounts[place]; i++) {
      const piece = this.pieces[place * MAX_SGE + i];
      if (piece !== 0) this.pool.releaseBurst(piece);
    }
  }
}
