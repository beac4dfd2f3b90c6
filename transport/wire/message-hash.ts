/**
 * The hash of a message's bytes, taken once at each end when the message completes: it goes into the
 * digest, and the two ends must agree, which is how every byte of a run is verified.
 *
 * The value depends on the bytes alone, not on how they are cut into pages: bytes are absorbed as
 * little-endian words in four independent lanes (four, so that the multiplications overlap).
 */
import { BLOCK_BYTES } from './block-pool.ts';

const PRIME_1 = 0x9e3779b1;
const PRIME_2 = 0x85ebca77;

export class MessageHash {
  private readonly scratch = new Uint8Array(BLOCK_BYTES);
  private readonly scratchWords = new Int32Array(this.scratch.buffer);
  private filled = 0;
  private bytes = 0;
  private a = 0;
  private b = 0;
  private c = 0;
  private d = 0;

  /** Starts over. */
  start(): void {
    this.filled = 0;
    this.bytes = 0;
    this.a = 0x243f6a88;
    this.b = 0x13198a2e;
    this.c = 0x03707344;
    this.d = 0x299f31d0;
  }

  /** Absorbs `length` bytes of `source` from `from` on; `words` are the same bytes as words. */
  update(source: Uint8Array, words: Int32Array, from: number, length: number): void {
    this.bytes += length;
    if (this.filled === 0 && (from & 3) === 0 && (length & 15) === 0) {
      this.absorb(words, from >>> 2, length >>> 2);
      return;
    }
    let at = from;
    let left = length;
    while (left > 0) {
      const piece = Math.min(left, BLOCK_BYTES - this.filled);
      this.scratch.set(source.subarray(at, at + piece), this.filled);
      this.filled += piece;
      at += piece;
      left -= piece;
      if (this.filled === BLOCK_BYTES) {
        this.absorb(this.scratchWords, 0, BLOCK_BYTES >>> 2);
        this.filled = 0;
      }
    }
  }

  /** The hash as an unsigned 32-bit integer. */
  finish(): number {
    if (this.filled > 0) {
      const padded = (this.filled + 15) & ~15;
      this.scratch.fill(0, this.filled, padded);
      this.absorb(this.scratchWords, 0, padded >>> 2);
      this.filled = 0;
    }
    let hash = this.bytes | 0;
    for (const lane of [this.a, this.b, this.c, this.d]) {
      hash = Math.imul(hash ^ lane ^ (lane >>> 15), PRIME_2);
      hash = Math.imul(hash ^ (hash >>> 13), PRIME_1);
    }
    return (hash ^ (hash >>> 16)) >>> 0;
  }

  private absorb(words: Int32Array, from: number, count: number): void {
    let { a, b, c, d } = this;
    const end = from + count;
    for (let i = from; i < end; i += 4) {
      a = Math.imul(a ^ words[i], PRIME_1);
      a ^= a >>> 15;
      b = Math.imul(b ^ words[i + 1], PRIME_1);
      b ^= b >>> 15;
      c = Math.imul(c ^ words[i + 2], PRIME_1);
      c ^= c >>> 15;
      d = Math.imul(d ^ words[i + 3], PRIME_1);
      d ^= d >>> 15;
    }
    this.a = a;
    this.b = b;
    this.c = c;
    this.d = d;
  }
}
