/**
 * Results: READ responses and the answers to atomics, ATOMIC WRITE and FLUSH, judged and written.
 *
 * Owns what an answer must look like for the work request it answers, and how its bytes become those
 * of the host. Does not own which work request that is, nor what follows (`completer.ts`).
 */
import {
  BURST,
  BURST_OFFSET,
  FRAME_WORDS,
  OP_ATOMIC,
  OP_FIRST,
  OP_LAST,
  OP_READ,
  PAYLOAD_BYTES,
  RC_READ_RESPONSE_ONLY,
  type TimePs,
  W_AETH,
  W_OPCODE,
  W_ORIGINAL_HIGH,
  W_ORIGINAL_LOW,
  W_PSN,
  WR_RDMA_READ,
} from '../../transport/index.ts';
import { AETH_ACK, AETH_KIND } from '../qp/aeth.ts';
import type { Parts } from '../qp/parts.ts';
import { psnDistance } from '../qp/psn.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import { LANDED, Landing } from './landing.ts';
import { smallBurst } from './small-burst.ts';
import { WORK_ATOMIC } from './work-kinds.ts';

/** Whether a response packet carries an AETH: all but the middle ones of a READ. */
export function hasAeth(flags: number): boolean {
  return (flags & (OP_FIRST | OP_LAST)) !== 0;
}

export class Results {
  readonly landing: Landing;
  private readonly original = new Uint8Array(8);
  private readonly originalView = new DataView(this.original.buffer);

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {
    this.landing = new Landing(qp, parts);
  }

  /**
   * Whether an answer is of the kind and length that the work request in `row` asked for. Of a READ,
   * the packet that ends the response must be its last; where in it the peer began anew is its affair.
   */
  isAnswerTo(row: number, frame: number, flags: number): boolean {
    const queue = this.qp.sendQueue;
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    const bytes = words[base + PAYLOAD_BYTES];
    if (!queue.isAnswered(row)) return false;
    const syndrome = words[base + W_AETH] >>> 24;
    if (hasAeth(flags) && (syndrome & AETH_KIND) !== AETH_ACK) return false;
    if ((queue.kind[row] & WORK_ATOMIC) !== 0) return (flags & OP_ATOMIC) !== 0;
    if (queue.opcode[row] !== WR_RDMA_READ) {
      return words[base + W_OPCODE] === RC_READ_RESPONSE_ONLY && bytes === 0;
    }
    const psn = words[base + W_PSN];
    const isLast = psn === queue.lastPsn(row);
    const left = queue.length[row] - this.offsetOf(row, psn);
    return (
      (flags & OP_READ) !== 0 &&
      isLast === ((flags & OP_LAST) !== 0) &&
      bytes === Math.min(this.qp.attributes.mtu, left)
    );
  }

  /** Writes what an answer brought to its buffer; returns the verdict of `Landing.place`. */
  land(row: number, frame: number, flags: number, readyPs: TimePs): number {
    const { pool } = this.parts;
    const base = frame * FRAME_WORDS;
    if ((flags & OP_ATOMIC) !== 0) {
      const burst = this.originalBurst(frame);
      const verdict = this.landing.place(row, 0, burst, 0, this.original.length, readyPs);
      pool.releaseBurst(burst);
      return verdict;
    }
    const bytes = pool.words[base + PAYLOAD_BYTES];
    if (bytes === 0) return LANDED;
    const offset = this.offsetOf(row, pool.words[base + W_PSN]);
    const burst = pool.words[base + BURST];
    const from = pool.words[base + BURST_OFFSET];
    return this.landing.place(row, offset, burst, from, bytes, readyPs);
  }

  /** The original value of an atomic as the eight bytes that memory gets. */
  private originalBurst(frame: number): number {
    const { pool } = this.parts;
    const base = frame * FRAME_WORDS;
    this.originalView.setInt32(0, pool.words[base + W_ORIGINAL_LOW], true);
    this.originalView.setInt32(4, pool.words[base + W_ORIGINAL_HIGH], true);
    return smallBurst(pool, this.original, 0, this.original.length);
  }

  /** Which byte of the message in `row` the packet with `psn` starts with. */
  private offsetOf(row: number, psn: number): number {
    return psnDistance(psn, this.qp.sendQueue.firstPsn[row]) * this.qp.attributes.mtu;
  }
}
