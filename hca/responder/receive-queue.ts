/**
 * Posted receives: the queue they wait in, and the one that a message goes into.
 *
 * A responder takes the oldest receive when the first packet of a message that needs one arrives and
 * keeps it, as its current receive, until it completes. So a queue that several queue pairs share
 * (`shared-receive-queue.ts`) needs nothing else. Does not own what goes into a receive
 * (`inbound.ts`), nor its completion.
 */
import {
  FRAME_WORDS,
  type FramePool,
  MAX_SGE,
  nextPowerOfTwo,
  type TimePs,
} from '../../transport/index.ts';
import { ScatterLists } from '../qp/scatter-list.ts';
import type { Trailer } from '../trailer.ts';

/** One receive: where the bytes of a message go, entry by entry. */
export class ReceiveBuffer {
  wrId = 0;
  /** Scatter entries, or MALFORMED. */
  count = 0;
  readonly addresses = new Float64Array(MAX_SGE);
  /** Bytes of each entry, below 2^32. */
  readonly lengths = new Float64Array(MAX_SGE);
  readonly lkeys = new Int32Array(MAX_SGE);
  totalBytes = 0;
}

/** `count` of a work request that no adapter could have been given: it fails when it is used. */
export const MALFORMED = -1;

/** Where receives come from: a queue of the queue pair's own, or a shared one. */
export interface ReceiveSource {
  readonly isEmpty: boolean;
  /** Receives that wait. */
  readonly count: number;
  /** Whether other queue pairs take from it too. */
  readonly isShared: boolean;
  /** Adds the receive of a RECV_DOORBELL or SRQ_DOORBELL frame; false where there is no room. */
  post(pool: FramePool, frame: number): boolean;
  /** Takes the oldest receive out; only when there is one. */
  take(into: ReceiveBuffer, now: TimePs): void;
}

export class ReceiveQueue implements ReceiveSource {
  private readonly wrId: Int32Array;
  /** Entries of each receive; 0 and 1 stand here, more in `lists`. */
  private readonly counts: Int8Array;
  private readonly lkey: Int32Array;
  private readonly address: Float64Array;
  /** Bytes of all entries together. */
  private readonly total: Float64Array;
  private readonly lists: ScatterLists;
  private readonly mask: number;
  private head = 0;
  private tail = 0;

  /** `entries` is rounded up to a power of two; `trailer` reads the entries of a doorbell. */
  constructor(
    entries: number,
    private readonly trailer: Trailer,
  ) {
    const size = nextPowerOfTwo(entries);
    this.mask = size - 1;
    this.wrId = new Int32Array(size);
    this.counts = new Int8Array(size);
    this.lkey = new Int32Array(size);
    this.address = new Float64Array(size);
    this.total = new Float64Array(size);
    this.lists = new ScatterLists(size);
  }

  get isEmpty(): boolean {
    return this.head === this.tail;
  }

  get count(): number {
    return this.tail - this.head;
  }

  get isShared(): boolean {
    return false;
  }

  post(pool: FramePool, frame: number): boolean {
    if (this.tail - this.head > this.mask) return false;
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    const row = this.tail++ & this.mask;
    const entries = words[base + 5];
    this.wrId[row] = words[base + 2];
    if (entries === 0 || entries === 1) {
      this.counts[row] = 1;
      this.lkey[row] = words[base + 3];
      this.total[row] = words[base + 4] >>> 0;
      this.address[row] = pool.doubles[frame * 2];
      return true;
    }
    this.trailer.load(frame);
    const total = this.lists.load(row, entries, this.trailer, 0);
    this.counts[row] = total < 0 ? MALFORMED : entries;
    this.total[row] = Math.max(total, 0);
    return true;
  }

  take(into: ReceiveBuffer, _now: TimePs): void {
    const row = this.head++ & this.mask;
    const count = this.counts[row];
    into.wrId = this.wrId[row];
    into.count = count;
    into.totalBytes = this.total[row];
    if (count === 1) {
      into.addresses[0] = this.address[row];
      into.lengths[0] = this.total[row];
      into.lkeys[0] = this.lkey[row];
      return;
    }
    for (let i = 0; i < count; i++) {
      into.addresses[i] = this.lists.address(row, i);
      into.lengths[i] = this.lists.length(row, i);
      into.lkeys[i] = this.lists.lkey(row, i);
    }
  }
}
