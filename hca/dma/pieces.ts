/**
 * The pieces of memory that the payload of one packet goes to: found first, then written.
 *
 * A payload may cross scatter entries and pages. Nothing of it is written unless all of it can be, so
 * each piece is looked up before the first is written. Does not own which memory that is
 * (`inbound.ts` at the responder, `landing.ts` at the requester).
 */
import { MAX_SGE, type TimePs } from '../../transport/index.ts';
import type { Region } from '../memory/region.ts';
import { XLT_HIT } from '../memory/translator.ts';
import type { Parts } from '../qp/parts.ts';

/** The most bytes of one piece: they touch two pages at most. */
export const PIECE_BYTES = 4096;

export class Pieces {
  count = 0;
  // A datagram with its header is longer than a piece may be.
  private readonly frames = new Int32Array(MAX_SGE + 1);
  private readonly withins = new Int32Array(MAX_SGE + 1);
  private readonly nextFrames = new Int32Array(MAX_SGE + 1);
  private readonly lengths = new Int32Array(MAX_SGE + 1);
  private latencyPs: TimePs = 0;

  constructor(private readonly parts: Parts) {}

  clear(): void {
    this.count = 0;
    this.latencyPs = 0;
  }

  /**
   * Finds the pages of the next piece, `bytes` at `address` of `region`. False when one is missing:
   * the translator says which.
   */
  find(region: Region, address: number, bytes: number): boolean {
    const { translator } = this.parts;
    if (translator.pages(region, address, bytes, true) !== XLT_HIT) return false;
    const piece = this.count++;
    this.frames[piece] = translator.frame;
    this.withins[piece] = translator.within;
    this.nextFrames[piece] = translator.nextFrame;
    this.lengths[piece] = bytes;
    if (translator.latencyPs > this.latencyPs) this.latencyPs = translator.latencyPs;
    return true;
  }

  /**
   * Sends the pieces, filled from byte `offset` of `burst` on. Returns the DMA write of the last one,
   * which the caller sends at the time that `donePs` says.
   */
  write(burst: number, offset: number, readyPs: TimePs): number {
    const last = this.count - 1;
    let at = offset;
    for (let piece = 0; piece < last; piece++) {
      this.parts.bus.sendDmaWrite(this.donePs(readyPs), this.newWrite(piece, burst, at));
      at += this.lengths[piece];
    }
    return this.newWrite(last, burst, at);
  }

  /** When pieces that are ready at `readyPs` are on their way to memory. Misses overlap. */
  donePs(readyPs: TimePs): TimePs {
    return readyPs + this.latencyPs;
  }

  private newWrite(piece: number, burst: number, offset: number): number {
    const { frames, withins, nextFrames, lengths } = this;
    return this.parts.bus.dmaWrite(
      frames[piece],
      withins[piece],
      nextFrames[piece],
      burst,
      offset,
      lengths[piece],
    );
  }
}
