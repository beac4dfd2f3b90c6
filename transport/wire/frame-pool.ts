/**
 * Frames in flight: fixed slots of integer fields, handed from node to node by number.
 *
 * A frame is 16 words and two doubles. Words 0 to 11 and the doubles are its content and mean what
 * the layout of its kind says (`packet.ts` for the wire, `bus.ts` for the bus). Words 12 to 15 are
 * local to this process: which burst holds the payload, where in it, and how a train is spaced.
 * Whoever holds the number of a frame owns it and either hands it on or frees it.
 *
 * A *burst* is a run of up to 64 KiB of bytes, or a list of page frame numbers of the same length:
 * what one DMA message moves. A DMA read starts as a list of pages and comes back as the blocks with
 * their data, and the packets cut from it all point into that one burst.
 */
import { assert } from '../sim/assert.ts';
import type { Digest } from '../sim/digest.ts';
import { BLOCK_BYTES, BlockPool } from './block-pool.ts';

/** Words of a frame. */
export const FRAME_WORDS = 16;
/** Word 11 of every frame: bytes of payload it carries. */
export const PAYLOAD_BYTES = 11;
/** Local words: the burst with the payload or the page list (0: none), the payload's place in it. */
export const BURST = 12;
export const BURST_OFFSET = 13;
/** Local words of a train: packets still in it (0 and 1: a single packet), picoseconds between two. */
export const TRAIN_COUNT = 14;
export const TRAIN_SPACING = 15;

/** The most bytes one burst holds, and one DMA message moves. */
export const BURST_MAX_BYTES = 65_536;
/** Entries of a burst: 64 KiB that start inside a page touch 17 pages. */
export const BURST_MAX_PAGES = BURST_MAX_BYTES / BLOCK_BYTES + 1;

export class FramePool {
  readonly blocks: BlockPool;
  /** The 16 words of frame f start at f * FRAME_WORDS. */
  readonly words: Int32Array;
  /** The two doubles of frame f stand at f * 2. They hold addresses. */
  readonly doubles: Float64Array;
  private readonly doubleWords: Int32Array;
  private readonly freeFrames: Int32Array;
  private freeFrameCount: number;

  /** Entries of burst b start at b * BURST_MAX_PAGES: page frame numbers, or blocks once loaded. */
  readonly burstEntries: Int32Array;
  /** Offset of the first byte of burst b within its first page or block. */
  readonly burstFirst: Int32Array;
  /** Bytes of burst b. */
  readonly burstBytes: Int32Array;
  private readonly burstLoaded: Uint8Array;
  private readonly burstRefs: Int32Array;
  private readonly freeBursts: Int32Array;
  private freeBurstCount: number;

  /** Sizes are limits: running out is a bug, found by an assert. */
  constructor(blocks = new BlockPool(), frameCount = 65_536, burstCount = 16_384) {
    this.blocks = blocks;
    this.words = new Int32Array(frameCount * FRAME_WORDS);
    this.doubles = new Float64Array(frameCount * 2);
    this.doubleWords = new Int32Array(this.doubles.buffer);
    this.freeFrames = Int32Array.from({ length: frameCount }, (_, i) => frameCount - 1 - i);
    this.freeFrameCount = frameCount;
    this.burstEntries = new Int32Array(burstCount * BURST_MAX_PAGES);
    this.burstFirst = new Int32Array(burstCount);
    this.burstBytes = new Int32Array(burstCount);
    this.burstLoaded = new Uint8Array(burstCount);
    this.burstRefs = new Int32Array(burstCount);
    // Burst 0 is never handed out: 0 means "no burst".
    this.freeBursts = Int32Array.from({ length: burstCount - 1 }, (_, i) => burstCount - 1 - i);
    this.freeBurstCount = burstCount - 1;
  }

  /** A frame with all words and doubles zero. */
  allocate(): number {
    assert(this.freeFrameCount > 0, 'out of frames');
    const frame = this.freeFrames[--this.freeFrameCount];
    const words = this.words;
    const base = frame * FRAME_WORDS;
    for (let i = base; i < base + FRAME_WORDS; i++) words[i] = 0;
    this.doubles[frame * 2] = 0;
    this.doubles[frame * 2 + 1] = 0;
    return frame;
  }

  /** Frees a frame and lets go of its burst. */
  release(frame: number): void {
    const burst = this.words[frame * FRAME_WORDS + BURST];
    if (burst !== 0) this.releaseBurst(burst);
    this.freeFrames[this.freeFrameCount++] = frame;
  }

  /** A frame with the same content; both hold the burst. */
  copy(frame: number): number {
    const twin = this.allocate();
    const words = this.words;
    const from = frame * FRAME_WORDS;
    for (let i = 0; i < FRAME_WORDS; i++) words[twin * FRAME_WORDS + i] = words[from + i];
    this.doubles[twin * 2] = this.doubles[frame * 2];
    this.doubles[twin * 2 + 1] = this.doubles[frame * 2 + 1];
    if (words[from + BURST] !== 0) this.retainBurst(words[from + BURST]);
    return twin;
  }

  /** A burst of `bytes` bytes that start at `first` in their first page; its entries are not set. */
  allocateBurst(first: number, bytes: number): number {
    assert(this.freeBurstCount > 0, 'out of bursts');
    assert(bytes <= BURST_MAX_BYTES, 'a burst holds 64 KiB');
    const burst = this.freeBursts[--this.freeBurstCount];
    this.burstFirst[burst] = first;
    this.burstBytes[burst] = bytes;
    this.burstLoaded[burst] = 0;
    this.burstRefs[burst] = 1;
    return burst;
  }

  /** Entries (pages or blocks) that burst `burst` has. */
  burstPages(burst: number): number {
    return Math.ceil((this.burstFirst[burst] + this.burstBytes[burst]) / BLOCK_BYTES);
  }

  /** Says that the entries of `burst` are now blocks, each held by the burst. */
  markLoaded(burst: number): void {
    this.burstLoaded[burst] = 1;
  }

  retainBurst(burst: number): void {
    this.burstRefs[burst]++;
  }

  releaseBurst(burst: number): void {
    const refs = --this.burstRefs[burst];
    assert(refs >= 0, 'a burst is released more often than held');
    if (refs > 0) return;
    if (this.burstLoaded[burst] === 1) {
      const base = burst * BURST_MAX_PAGES;
      const pages = this.burstPages(burst);
      for (let i = 0; i < pages; i++) this.blocks.release(this.burstEntries[base + i]);
    }
    this.freeBursts[this.freeBurstCount++] = burst;
  }

  /** A loaded burst with fresh blocks, filled from `source`. */
  burstFromBytes(source: Uint8Array, offset: number, bytes: number): number {
    const burst = this.allocateBurst(0, bytes);
    const base = burst * BURST_MAX_PAGES;
    const pages = this.burstPages(burst);
    for (let i = 0; i < pages; i++) {
      const block = this.blocks.allocate();
      this.burstEntries[base + i] = block;
      const from = offset + i * BLOCK_BYTES;
      const until = Math.min(from + BLOCK_BYTES, offset + bytes);
      this.blocks.bytes.set(source.subarray(from, until), block * BLOCK_BYTES);
    }
    this.markLoaded(burst);
    return burst;
  }

  /** Copies `bytes` payload bytes, from `offset` of a loaded burst, out to `target` at `at`. */
  burstToBytes(burst: number, offset: number, bytes: number, target: Uint8Array, at: number): void {
    let position = this.burstFirst[burst] + offset;
    const end = position + bytes;
    let to = at;
    while (position < end) {
      const block = this.burstEntries[burst * BURST_MAX_PAGES + (position >>> 12)];
      const within = position & (BLOCK_BYTES - 1);
      const piece = Math.min(BLOCK_BYTES - within, end - position);
      const from = block * BLOCK_BYTES + within;
      target.set(this.blocks.bytes.subarray(from, from + piece), to);
      to += piece;
      position += piece;
    }
  }

  /** Copies `bytes` from `offset` of a loaded burst into `block` at `within`. */
  copyToBlock(burst: number, offset: number, bytes: number, block: number, within: number): void {
    let position = this.burstFirst[burst] + offset;
    const end = position + bytes;
    let to = block * BLOCK_BYTES + within;
    while (position < end) {
      const source = this.burstEntries[burst * BURST_MAX_PAGES + (position >>> 12)];
      const from = position & (BLOCK_BYTES - 1);
      const piece = Math.min(BLOCK_BYTES - from, end - position);
      const start = source * BLOCK_BYTES + from;
      this.blocks.bytes.copyWithin(to, start, start + piece);
      to += piece;
      position += piece;
    }
  }

  /** Frames in flight: none may be left at the end of a run. */
  get framesInUse(): number {
    return this.freeFrames.length - this.freeFrameCount;
  }

  /** Bursts held by anyone. */
  get burstsInUse(): number {
    return this.freeBursts.length - this.freeBurstCount;
  }

  /**
   * Records one frame, or packet `index` of a train, in `digest`: its content words, its addresses,
   * its page list if it has one, and eight words of its payload at fixed strides.
   */
  record(
    digest: Digest,
    kind: number,
    timePs: number,
    port: number,
    frame: number,
    psnWord = -1,
    index = 0,
  ): void {
    const words = this.words;
    const base = frame * FRAME_WORDS;
    digest.begin(kind, timePs);
    digest.add(port);
    for (let i = 0; i <= PAYLOAD_BYTES; i++) {
      digest.add(i === psnWord ? (words[base + i] + index) & 0xffffff : words[base + i]);
    }
    for (let i = frame * 4; i < frame * 4 + 4; i++) digest.add(this.doubleWords[i]);
    const burst = words[base + BURST];
    if (burst !== 0) {
      const bytes = words[base + PAYLOAD_BYTES];
      if (this.burstLoaded[burst] === 0) {
        const entries = burst * BURST_MAX_PAGES;
        const pages = this.burstPages(burst);
        for (let i = 0; i < pages; i++) digest.add(this.burstEntries[entries + i]);
      } else {
        const offset = words[base + BURST_OFFSET] + index * bytes;
        for (let i = 0; i < 8; i++)
          digest.add(this.sample(burst, offset, bytes, (bytes * i) >>> 3));
      }
    }
    digest.end();
  }

  /** Four payload bytes from `at` on, little-endian; zeros stand in past the end. */
  private sample(burst: number, offset: number, bytes: number, at: number): number {
    const position = this.burstFirst[burst] + offset + at;
    const within = position & (BLOCK_BYTES - 1);
    const entry = burst * BURST_MAX_PAGES + (position >>> 12);
    const start = this.burstEntries[entry] * BLOCK_BYTES + within;
    if ((start & 3) === 0 && at + 4 <= bytes) return this.blocks.words[start >>> 2];
    let word = 0;
    for (let k = 0; k < 4 && at + k < bytes; k++) {
      const p = position + k;
      const block = this.burstEntries[burst * BURST_MAX_PAGES + (p >>> 12)];
      word |= this.blocks.bytes[block * BLOCK_BYTES + (p & (BLOCK_BYTES - 1))] << (8 * k);
    }
    return word;
  }
}
