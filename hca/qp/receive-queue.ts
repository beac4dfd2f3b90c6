/** The receive queue of a queue pair: posted buffers, used in order. */
import { FRAME_WORDS, type FramePool, nextPowerOfTwo } from '../../transport/index.ts';

export class ReceiveQueue {
  readonly wrId: Int32Array;
  readonly lkey: Int32Array;
  readonly length: Int32Array;
  readonly address: Float64Array;
  private readonly mask: number;
  private head = 0;
  private tail = 0;

  /** `entries` is rounded up to a power of two. */
  constructor(entries: number) {
    const size = nextPowerOfTwo(entries);
    this.mask = size - 1;
    this.wrId = new Int32Array(size);
    this.lkey = new Int32Array(size);
    this.length = new Int32Array(size);
    this.address = new Float64Array(size);
  }

  get isEmpty(): boolean {
    return this.head === this.tail;
  }

  get isFull(): boolean {
    return this.tail - this.head > this.mask;
  }

  /** Adds the buffer of a RECV_DOORBELL frame. The queue is not full. */
  post(pool: FramePool, frame: number): void {
    const base = frame * FRAME_WORDS;
    const row = this.tail++ & this.mask;
    this.wrId[row] = pool.words[base + 2];
    this.lkey[row] = pool.words[base + 3];
    this.length[row] = pool.words[base + 4];
    this.address[row] = pool.doubles[frame * 2];
  }

  /** The row of the oldest buffer; only asked for when there is one. */
  get first(): number {
    return this.head & this.mask;
  }

  /** The oldest buffer has been used. */
  take(): void {
    this.head++;
  }
}
