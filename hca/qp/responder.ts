/**
 * Responder: the peer's request packets -> memory, completions, answers. What all services share.
 *
 * `receive` of a service is a straight list of checks in the specification's order; each either ends
 * the packet with a verdict or lets it pass to the next. The services differ in what a bad packet
 * means: an answer (`rc-responder.ts`), a message dropped (`uc-responder.ts`), a datagram dropped
 * (`ud-responder.ts`). Where bytes go is `inbound.ts`.
 */
import {
  BTH_SOLICITED,
  CQE_WITH_IMMEDIATE,
  CQE_WITH_INVALIDATE,
  EVENT_COMM_EST,
  FRAME_WORDS,
  OP_IMMEDIATE,
  OP_INVALIDATE,
  OP_SEND,
  QPS_ERR,
  QPS_RTR,
  type TimePs,
  W_BTH_FLAGS,
  W_IMMEDIATE,
  WC_RECV,
  WC_RECV_RDMA_WITH_IMM,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import type { FaultWaiter } from '../fault-engine.ts';
import type { AnswerQueue } from './answer-queue.ts';
import { Inbound } from './inbound.ts';
import type { Parts } from './parts.ts';
import { psnAdd } from './psn.ts';
import type { QueuePair } from './queue-pair.ts';

export abstract class Responder implements FaultWaiter {
  /** The PSN of the next request packet. */
  expectedPsn = 0;
  /** Messages completed, 24 bits (MSN). */
  msn = 0;
  /** Answers that wait, of services that have any. */
  readonly answers: AnswerQueue | undefined;
  /** The kind of the message that is coming in: OP_SEND, OP_WRITE or, between messages, 0. */
  protected kind = 0;
  protected readonly inbound: Inbound;
  /** Whether a fault of ours is in flight. */
  protected isFaulted = false;
  private isEstablished = false;

  constructor(
    protected readonly qp: QueuePair,
    protected readonly parts: Parts,
  ) {
    this.inbound = new Inbound(qp, parts);
  }

  /** A request packet; `readyPs` is when the pipeline has judged it. The frame is the caller's. */
  abstract receive(frame: number, now: TimePs, readyPs: TimePs): void;

  /** The fault in flight is served, or cannot be. */
  abstract onResume(ok: boolean, now: TimePs): void;

  /** A receive was posted to the queue pair's own queue. */
  receivePosted(_now: TimePs): void {}

  /** Sets the first PSN (MODIFY_QP to RTR). */
  start(psn: number): void {
    this.expectedPsn = psnAdd(psn, 0);
  }

  /** Completes the current receive and all that are posted to the queue pair with WR_FLUSH_ERR. */
  flushReceives(now: TimePs): void {
    this.inbound.flush(now);
  }

  /** Whether the queue pair takes requests in now; counts the packet as dropped where it does not. */
  protected isOpen(): boolean {
    const { qp, parts } = this;
    if (qp.state < QPS_RTR || qp.state === QPS_ERR) {
      parts.counters[C.state_drops]++;
      return false;
    }
    if (qp.pd.suspended) {
      parts.counters[C.suspended_drops]++;
      return false;
    }
    return true;
  }

  /** The first good packet that comes in RTR says that the peer considers itself connected. */
  protected establish(now: TimePs): void {
    if (this.isEstablished) return;
    this.isEstablished = true;
    if (this.qp.state !== QPS_RTR) return;
    this.parts.bus.asyncEvent(now, EVENT_COMM_EST, this.qp.qpn);
  }

  /** The number that the message at hand will have once it is complete. */
  protected get nextMsn(): number {
    return (this.msn + 1) & 0xffffff;
  }

  /** Last packet of a SEND or WRITE: counts the message and completes a receive if it used one. */
  protected endMessage(frame: number, flags: number, moreFlags: number, sourceQpn: number): void {
    const { inbound, kind } = this;
    this.msn = this.nextMsn;
    this.kind = 0;
    if (kind !== OP_SEND && (flags & OP_IMMEDIATE) === 0) return;
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    const cqeFlags =
      moreFlags |
      ((flags & OP_IMMEDIATE) !== 0 ? CQE_WITH_IMMEDIATE : 0) |
      ((flags & OP_INVALIDATE) !== 0 ? CQE_WITH_INVALIDATE : 0);
    inbound.completeReceive(
      inbound.donePs,
      WC_SUCCESS,
      kind === OP_SEND ? WC_RECV : WC_RECV_RDMA_WITH_IMM,
      inbound.placedBytes,
      words[base + W_IMMEDIATE],
      cqeFlags,
      sourceQpn,
      (words[base + W_BTH_FLAGS] & BTH_SOLICITED) !== 0,
    );
  }

  /** Raises the fault that the message met, unless one is in flight. */
  protected raiseFault(now: TimePs): void {
    const { faultRegion, faultAddress, faultBytes } = this.inbound;
    if (this.isFaulted || faultRegion === undefined) return;
    this.isFaulted = true;
    const { faults } = this.parts;
    faults.raise(faultRegion, faultAddress, faultBytes, true, true, this.qp.qpn, this, now);
  }
}
