/**
 * The send queue of a queue pair: posted work requests, in order, until they complete.
 *
 * Positions (`head`, `next`, `tail`) count work requests since the queue pair was made and never
 * wrap; `at` turns one into a row. A work request owns the PSNs from `firstPsn` on, one for each
 * packet; an RDMA READ owns one for each packet of its response.
 */
import {
  FRAME_WORDS,
  type FramePool,
  nextPowerOfTwo,
  WC_SUCCESS,
  WR_RDMA_READ,
} from '../../transport/index.ts';
import { psnAdd } from './psn.ts';

export class SendQueue {
  readonly opcode: Uint8Array;
  readonly flags: Uint8Array;
  readonly wrId: Int32Array;
  readonly lkey: Int32Array;
  readonly length: Int32Array;
  readonly rkey: Int32Array;
  readonly immediate: Int32Array;
  readonly localAddress: Float64Array;
  readonly remoteAddress: Float64Array;
  readonly firstPsn: Int32Array;
  readonly packets: Int32Array;
  /** Why a work request cannot be sent: the status it will complete with, or WC_SUCCESS. */
  readonly problem: Uint8Array;
  private readonly mask: number;
  /** The oldest work request that has not completed. */
  head = 0;
  /** The work request that is being sent. */
  next = 0;
  /** One behind the newest. */
  tail = 0;
  /** The PSN of the next work request to be posted. */
  postPsn = 0;

  /** `entries` is rounded up to a power of two. */
  constructor(entries: number) {
    const size = nextPowerOfTwo(entries);
    this.mask = size - 1;
    this.opcode = new Uint8Array(size);
    this.flags = new Uint8Array(size);
    this.wrId = new Int32Array(size);
    this.lkey = new Int32Array(size);
    this.length = new Int32Array(size);
    this.rkey = new Int32Array(size);
    this.immediate = new Int32Array(size);
    this.localAddress = new Float64Array(size);
    this.remoteAddress = new Float64Array(size);
    this.firstPsn = new Int32Array(size);
    this.packets = new Int32Array(size);
    this.problem = new Uint8Array(size);
  }

  /** The row of the work request at `position`. */
  at(position: number): number {
    return position & this.mask;
  }

  get isFull(): boolean {
    return this.tail - this.head > this.mask;
  }

  get isEmpty(): boolean {
    return this.tail === this.head;
  }

  /** Adds the work request of a SEND_DOORBELL frame. The queue is not full. */
  post(pool: FramePool, frame: number, mtu: number): void {
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    const row = this.tail & this.mask;
    const length = words[base + 6];
    this.opcode[row] = words[base + 2];
    this.flags[row] = words[base + 3];
    this.wrId[row] = words[base + 4];
    this.lkey[row] = words[base + 5];
    this.length[row] = length;
    this.rkey[row] = words[base + 7];
    this.immediate[row] = words[base + 8];
    this.localAddress[row] = pool.doubles[frame * 2];
    this.remoteAddress[row] = pool.doubles[frame * 2 + 1];
    this.firstPsn[row] = this.postPsn;
    this.packets[row] = Math.max(1, Math.ceil(length / mtu));
    this.problem[row] = WC_SUCCESS;
    this.postPsn = psnAdd(this.postPsn, this.packets[row]);
    this.tail++;
  }

  isRead(row: number): boolean {
    return this.opcode[row] === WR_RDMA_READ;
  }

  /** PSN of the last packet of a row. */
  lastPsn(row: number): number {
    return psnAdd(this.firstPsn[row], this.packets[row] - 1);
  }
}
