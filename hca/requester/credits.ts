/**
 * End-to-end credits of the peer: how many receives it has said it has (IBTA 9.7.7.2).
 *
 * A peer that never counts its receives, like rxe, and one that has not yet, limits nothing. Does not
 * own the receives of our own side (`acknowledger.ts`).
 */
import { FRAME_WORDS, type FramePool, W_AETH } from '../../transport/index.ts';
import { AETH_ACK_NO_CREDITS, AETH_KIND, creditCounts } from '../qp/aeth.ts';
import { psnAdd, psnDistance } from '../qp/psn.ts';
import type { SendQueue } from './send-queue.ts';
import { WORK_RECEIVE } from './work-kinds.ts';

export class Credits {
  /** Whether the peer counts its receives: `allow` says what may be sent. */
  isLimited = false;
  /** The last message (SSN) that the peer has a receive for. */
  private limitSsn = 0;

  /** Takes the peer's count out of the AETH of an ACK or response. */
  take(pool: FramePool, frame: number): void {
    const aeth = pool.words[frame * FRAME_WORDS + W_AETH];
    const code = (aeth >>> 24) & ~AETH_KIND;
    if (code === AETH_ACK_NO_CREDITS) {
      this.isLimited = false;
      return;
    }
    const limit = psnAdd(aeth & 0xffffff, creditCounts[code]);
    // A limit once given is not taken back; AETHs may come out of order.
    if (!this.isLimited || psnDistance(limit, this.limitSsn) > 0) this.limitSsn = limit;
    this.isLimited = true;
  }

  /**
   * Whether the packet behind the first `sentPackets` of `row` may be sent. The message behind the
   * last one that has a receive may send its first packet, to ask; once that is acknowledged
   * (`unackedPsn` is behind it) there was a receive.
   */
  allow(queue: SendQueue, row: number, sentPackets: number, unackedPsn: number): boolean {
    if ((queue.kind[row] & WORK_RECEIVE) === 0) return true;
    const beyond = psnDistance(queue.ssn[row], this.limitSsn);
    if (beyond <= 0) return true;
    if (beyond > 1) return false;
    return sentPackets === 0 || psnDistance(unackedPsn, queue.firstPsn[row]) > 0;
  }
}
