/**
 * Scatter/gather entries of the work requests of one queue that have more than one.
 *
 * The rows are those of the queue. Room for them is made when the first such work request comes, so
 * that queues without any stay small.
 */
import { MAX_SGE, SEGMENT_SGE_BYTES } from '../../transport/index.ts';
import type { Trailer } from '../trailer.ts';

export class ScatterLists {
  private addresses = new Float64Array(0);
  private lengths = new Int32Array(0);
  private lkeys = new Int32Array(0);

  constructor(private readonly rows: number) {}

  /**
   * Stores `count` entries of `row`, found in the loaded trailer from byte `at` on. Returns their
   * bytes in all, or -1 where there are not as many in the trailer, or more than any queue takes.
   */
  load(row: number, count: number, trailer: Trailer, at: number): number {
    if (count > MAX_SGE || at + count * SEGMENT_SGE_BYTES > trailer.length) return -1;
    if (this.addresses.length === 0) {
      this.addresses = new Float64Array(this.rows * MAX_SGE);
      this.lengths = new Int32Array(this.rows * MAX_SGE);
      this.lkeys = new Int32Array(this.rows * MAX_SGE);
    }
    let total = 0;
    for (let i = 0; i < count; i++) {
      const from = at + i * SEGMENT_SGE_BYTES;
      const place = row * MAX_SGE + i;
      this.addresses[place] = trailer.address(from);
      this.lengths[place] = trailer.word(from + 8);
      this.lkeys[place] = trailer.word(from + 12);
      total += this.lengths[place] >>> 0;
    }
    return total;
  }

  address(row: number, entry: number): number {
    return this.addresses[row * MAX_SGE + entry];
  }

  length(row: number, entry: number): number {
    return this.lengths[row * MAX_SGE + entry] >>> 0;
  }

  lkey(row: number, entry: number): number {
    return this.lkeys[row * MAX_SGE + entry];
  }
}
