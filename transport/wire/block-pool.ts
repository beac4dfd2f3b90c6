/**
 * The bytes of the simulated world: reference-counted blocks of 4 KiB in one growing buffer.
 *
 * A page frame of a host, the payload of a packet and the data of a DMA transfer all name blocks, so
 * a payload is shared, not copied, on its way from memory to memory. A block with more than one
 * reference is never written: whoever wants to write takes a fresh one (copy on write), which is how
 * a DMA read samples memory at its moment for the price of a count.
 *
 * Always reach the bytes through the pool: growing replaces the buffer.
 */
import { assert } from '../sim/assert.ts';

/** Bytes in a block, and in a page of every simulated host. */
export const BLOCK_BYTES = 4096;

/** The block that is all zeros, never freed and never written. */
export const ZERO_BLOCK = 0;

export class BlockPool {
  bytes: Uint8Array;
  /** The same bytes as little-endian 32-bit words. */
  words: Int32Array;
  private refs: Int32Array;
  private free: Int32Array;
  private freeCount = 0;
  private used = 1;

  constructor(initialBlocks = 1024) {
    const buffer = new ArrayBuffer(initialBlocks * BLOCK_BYTES);
    this.bytes = new Uint8Array(buffer);
    this.words = new Int32Array(buffer);
    this.refs = new Int32Array(initialBlocks);
    this.free = new Int32Array(initialBlocks);
    this.refs[ZERO_BLOCK] = 1;
  }

  /** A block with one reference; what it holds is left over and must be overwritten. */
  allocate(): number {
    let block: number;
    if (this.freeCount > 0) block = this.free[--this.freeCount];
    else {
      if (this.used === this.refs.length) this.grow();
      block = this.used++;
    }
    this.refs[block] = 1;
    return block;
  }

  /** One more holder of `block`. */
  retain(block: number): void {
    if (block !== ZERO_BLOCK) this.refs[block]++;
  }

  /** One holder less; the last one frees the block. */
  release(block: number): void {
    if (block === ZERO_BLOCK) return;
    const refs = --this.refs[block];
    assert(refs >= 0, 'a block is released more often than held');
    if (refs === 0) this.free[this.freeCount++] = block;
  }

  /** True when somebody else holds `block` too, so that it must not be written. */
  isShared(block: number): boolean {
    return block === ZERO_BLOCK || this.refs[block] > 1;
  }

  /** Blocks held by anyone, the zero block left out: nothing may be left at the end of a run. */
  get blocksInUse(): number {
    return this.used - 1 - this.freeCount;
  }

  private grow(): void {
    const length = this.refs.length * 2;
    const buffer = new ArrayBuffer(length * BLOCK_BYTES);
    const bytes = new Uint8Array(buffer);
    bytes.set(this.bytes);
    this.bytes = bytes;
    this.words = new Int32Array(buffer);
    const refs = new Int32Array(length);
    refs.set(this.refs);
    this.refs = refs;
    const free = new Int32Array(length);
    free.set(this.free);
    this.free = free;
  }
}
