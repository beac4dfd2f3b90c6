/**
 * The bytes behind a bus message, as the adapter reads them: segments of a doorbell, a mailbox.
 *
 * One scratch copy for the whole adapter; what is read must be stored before the next `load`.
 */
import {
  BURST,
  BURST_OFFSET,
  FRAME_WORDS,
  type FramePool,
  PAYLOAD_BYTES,
} from '../transport/index.ts';

/** More than any trailer that means something: UD and atomic segments, inline data, 16 entries. */
const MOST_BYTES = 1024;

export class Trailer {
  readonly bytes = new Uint8Array(MOST_BYTES);
  /** Bytes that the last `load` found; what lies behind them is old. */
  length = 0;
  private readonly view = new DataView(this.bytes.buffer);

  constructor(private readonly pool: FramePool) {}

  /** Copies the trailer of `frame`, or its beginning where it is longer than any can be. */
  load(frame: number): void {
    const base = frame * FRAME_WORDS;
    const words = this.pool.words;
    this.length = Math.min(words[base + PAYLOAD_BYTES], MOST_BYTES);
    if (this.length === 0) return;
    this.pool.burstToBytes(
      words[base + BURST],
      words[base + BURST_OFFSET],
      this.length,
      this.bytes,
      0,
    );
  }

  /** The 32-bit word at byte `at`. */
  word(at: number): number {
    return this.view.getInt32(at, true);
  }

  /** The 64-bit address at byte `at`; above 2^53 it is rounded, and out of every range. */
  address(at: number): number {
    return this.view.getUint32(at + 4, true) * 4294967296 + this.view.getUint32(at, true);
  }
}
