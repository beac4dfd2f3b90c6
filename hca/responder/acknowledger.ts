/**
 * ACKs and NAKs of a responder: their packets, the credits they carry, and their place in the order.
 *
 * Does not own when one is due (`rc-responder.ts`), nor answers that take time (`answer-queue.ts`).
 */
import { FRAME_WORDS, RC_ACKNOWLEDGE, type TimePs, W_AETH, W_PSN } from '../../transport/index.ts';
import { AETH_ACK_NO_CREDITS, creditCode } from '../qp/aeth.ts';
import type { Parts } from '../qp/parts.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import type { AnswerQueue } from './answer-queue.ts';
import type { Inbound } from './inbound.ts';

export class Acknowledger {
  /** Whether the last ACK granted the peer no receive. */
  isCreditOut = false;

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
    private readonly inbound: Inbound,
    private readonly answers: AnswerQueue,
  ) {}

  /** The syndrome of an ACK: with credits where the adapter gives any. */
  ackSyndrome(): number {
    const { receiveQueue } = this.qp;
    // Nobody can promise receives of a queue that others take from (IBTA 9.7.7.2).
    if (!this.parts.profile.endToEndCredits || receiveQueue.isShared) return AETH_ACK_NO_CREDITS;
    // The receive of a message that is coming in counts: its message is not among those completed.
    const receives = receiveQueue.count + (this.inbound.hasReceive ? 1 : 0);
    this.isCreditOut = receives === 0;
    return creditCode(receives);
  }

  /** Sends an ACK or NAK, behind the answers that are still to be sent; a fatal one is the last. */
  send(readyPs: TimePs, syndrome: number, psn: number, msn: number, isFatal: boolean): void {
    const { profile } = this.parts;
    const { way } = this.qp;
    const frame = this.newPacket(syndrome, psn, msn);
    if (this.answers.isBusy) {
      this.answers.addAck(frame, isFatal);
      return;
    }
    const isAck = syndrome <= AETH_ACK_NO_CREDITS;
    if (profile.coalesceAcks && isAck && way.replaceAck(frame)) return;
    this.qp.packetsSent++;
    way.answer(frame, readyPs);
  }

  /** An ACKNOWLEDGE packet. */
  newPacket(syndrome: number, psn: number, msn: number): number {
    const frame = this.qp.newPacket(RC_ACKNOWLEDGE);
    const words = this.parts.pool.words;
    words[frame * FRAME_WORDS + W_PSN] = psn;
    words[frame * FRAME_WORDS + W_AETH] = (syndrome << 24) | msn;
    return frame;
  }
}
