/**
 * What pages hold: the content of each page frame, or of each swap slot, as a descriptor.
 *
 * Content is all zeros, a piece of a pattern, or a block of the BlockPool. Bytes exist only in the
 * last form; the others become it the first time somebody needs more than their hash. So gigabytes of
 * filled but never transferred memory cost a few bytes a page.
 *
 * A block may have other holders (a DMA read took it, a packet still carries it). Such a block is
 * never written: `write` puts a fresh copy in its place, which is what makes a DMA read a sample of
 * memory at one moment.
 *
 * Owns the descriptors and one reference for each block they name. Knows nothing of frames or slots.
 */
import {
  BLOCK_BYTES,
  type BlockPool,
  type MessageHash,
  ZERO_BLOCK,
} from '../../../transport/index.ts';
import { writePattern } from './pattern.ts';

const ZERO = 0;
const PATTERN = 1;
const BLOCK = 2;

export class ContentStore {
  private readonly kinds: Uint8Array;
  /** Seed of a pattern, or number of a block. */
  private readonly values: Int32Array;
  /** Which byte of its pattern a page begins with. */
  private readonly offsets: Float64Array;
  private readonly scratch = new Uint8Array(BLOCK_BYTES);
  private readonly scratchWords = new Int32Array(this.scratch.buffer);

  /** Content for pages 0 to `count` - 1, all zeros. */
  constructor(
    count: number,
    readonly blocks: BlockPool,
  ) {
    this.kinds = new Uint8Array(count);
    this.values = new Int32Array(count);
    this.offsets = new Float64Array(count);
  }

  /** True while page `page` is known to hold zeros without looking at bytes. */
  isZero(page: number): boolean {
    return this.kinds[page] === ZERO;
  }

  /** Makes the page all zeros and lets go of its block. */
  setZero(page: number): void {
    if (this.kinds[page] === BLOCK) this.blocks.release(this.values[page]);
    this.kinds[page] = ZERO;
  }

  /** Fills the whole page with pattern `seed` from its byte `offset` on. */
  setPattern(page: number, seed: number, offset: number): void {
    this.setZero(page);
    this.kinds[page] = PATTERN;
    this.values[page] = seed;
    this.offsets[page] = offset;
  }

  /** Moves the content of `page` to `target`'s page `targetPage`; zeros stay behind. */
  moveTo(page: number, target: ContentStore, targetPage: number): void {
    target.setZero(targetPage);
    target.kinds[targetPage] = this.kinds[page];
    target.values[targetPage] = this.values[page];
    target.offsets[targetPage] = this.offsets[page];
    this.kinds[page] = ZERO;
  }

  /** Gives `target`'s page `targetPage` the same content; bytes are shared until either is written. */
  copyTo(page: number, target: ContentStore, targetPage: number): void {
    if (this.kinds[page] === BLOCK) this.blocks.retain(this.values[page]);
    target.setZero(targetPage);
    target.kinds[targetPage] = this.kinds[page];
    target.values[targetPage] = this.values[page];
    target.offsets[targetPage] = this.offsets[page];
  }

  /** Makes `block` the content of the page, with a reference of its own. */
  setBlock(page: number, block: number): void {
    this.blocks.retain(block);
    this.setZero(page);
    if (block !== ZERO_BLOCK) this.adoptBlock(page, block);
  }

  /** A block with the bytes of the page as they are now, with one more reference for the caller. */
  sample(page: number): number {
    if (this.kinds[page] === ZERO) return ZERO_BLOCK;
    if (this.kinds[page] === PATTERN) this.materialise(page);
    const block = this.values[page];
    this.blocks.retain(block);
    return block;
  }

  /**
   * The page's own block, to be written at once. Its bytes are the page's, unless `whole` says that
   * the caller is about to write all 4096 of them.
   */
  write(page: number, whole: boolean): number {
    if (this.kinds[page] !== BLOCK) {
      if (whole) this.adoptBlock(page, this.blocks.allocate());
      else this.materialise(page);
    } else if (this.blocks.isShared(this.values[page])) {
      const old = this.values[page];
      const fresh = this.blocks.allocate();
      if (!whole) {
        const from = old * BLOCK_BYTES;
        this.blocks.bytes.copyWithin(fresh * BLOCK_BYTES, from, from + BLOCK_BYTES);
      }
      this.blocks.release(old);
      this.values[page] = fresh;
    }
    return this.values[page];
  }

  /** Writes `length` bytes of pattern `seed`, from its byte `offset` on, into the page at `within`. */
  writePart(page: number, within: number, length: number, seed: number, offset: number): void {
    const at = this.write(page, false) * BLOCK_BYTES + within;
    writePattern(this.blocks.bytes, this.blocks.words, at, length, seed, offset);
  }

  /** Absorbs `length` bytes of the page from `within` on into `hash`; nothing materialises. */
  hashInto(hash: MessageHash, page: number, within: number, length: number): void {
    if (this.kinds[page] === PATTERN) {
      const offset = this.offsets[page] + within;
      writePattern(this.scratch, this.scratchWords, 0, length, this.values[page], offset);
      hash.update(this.scratch, this.scratchWords, 0, length);
      return;
    }
    const block = this.kinds[page] === ZERO ? ZERO_BLOCK : this.values[page];
    hash.update(this.blocks.bytes, this.blocks.words, block * BLOCK_BYTES + within, length);
  }

  private materialise(page: number): void {
    const block = this.blocks.allocate();
    const at = block * BLOCK_BYTES;
    const { bytes, words } = this.blocks;
    if (this.kinds[page] === ZERO) bytes.fill(0, at, at + BLOCK_BYTES);
    else writePattern(bytes, words, at, BLOCK_BYTES, this.values[page], this.offsets[page]);
    this.adoptBlock(page, block);
  }

  private adoptBlock(page: number, block: number): void {
    this.kinds[page] = BLOCK;
    this.values[page] = block;
  }
}
