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
  CQE_SOLICITED,
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
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_RKEY,
  WC_RECV,
  WC_RECV_RDMA_WITH_IMM,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import type { FaultWaiter } from '../fault-engine.ts';
import { REMOTE_WRITE } from '../memory/translator.ts';
import { MAX_MESSAGE_BYTES, type Parts } from '../qp/parts.ts';
import { psnAdd } from '../qp/psn.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import type { AnswerQueue } from './answer-queue.ts';
import { Inbound } from './inbound.ts';

/** Answers of `openWrite`. */
export const OPENED = 0;
export const TOO_LONG = 1;
export const NOT_ALLOWED = 2;

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

  /** First packet of a WRITE: finds the memory that it goes to. */
  protected openWrite(frame: number): number {
    const { qp, parts, inbound } = this;
    const { pool, translator } = parts;
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    parts.counters[C.rx_write_requests]++;
    const bytes = words[base + W_DMA_BYTES] >>> 0;
    if (bytes > MAX_MESSAGE_BYTES) return TOO_LONG;
    if (bytes === 0) {
      // A write of nothing touches no memory, so neither its address nor its key is judged.
      inbound.beginWrite(undefined, undefined, 0, 0);
      return OPENED;
    }
    const address = pool.doubles[frame * 2];
    const rkey = words[base + W_RKEY];
    const region = translator.checkRemote(rkey, qp, address, bytes, REMOTE_WRITE);
    if (region === undefined) return NOT_ALLOWED;
    inbound.beginWrite(region, translator.grant, translator.address, bytes);
    return OPENED;
  }

  /** Whether `bytes` more do not go with the length that the message may have, or must have. */
  protected misfits(kind: number, isLast: boolean, bytes: number): boolean {
    const left = this.inbound.totalBytes - this.inbound.placedBytes;
    if (kind === OP_SEND) return bytes > left;
    return isLast ? bytes !== left : bytes >= left;
  }

  /** The number that the message at hand will have once it is complete. */
  protected get nextMsn(): number {
    return (this.msn + 1) & 0xffffff;
  }

  /**
   * Last packet of a SEND or WRITE: counts the message and completes a receive if it used one, with
   * `moreFlags` (CQE_*) and, of a datagram, where it came from.
   */
  protected endMessage(
    frame: number,
    flags: number,
    moreFlags: number,
    sourceQpn: number,
    slid: number,
  ): void {
    const { inbound, kind } = this;
    this.msn = this.nextMsn;
    this.kind = 0;
    if (kind !== OP_SEND && (flags & OP_IMMEDIATE) === 0) return;
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    const cqeFlags =
      moreFlags |
      ((flags & OP_IMMEDIATE) !== 0 ? CQE_WITH_IMMEDIATE : 0) |
      ((flags & OP_INVALIDATE) !== 0 ? CQE_WITH_INVALIDATE : 0) |
      ((words[base + W_BTH_FLAGS] & BTH_SOLICITED) !== 0 ? CQE_SOLICITED : 0);
    inbound.completeReceive(
      inbound.donePs,
      WC_SUCCESS,
      kind === OP_SEND ? WC_RECV : WC_RECV_RDMA_WITH_IMM,
      inbound.placedBytes,
      words[base + W_IMMEDIATE],
      cqeFlags,
      sourceQpn,
      slid,
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
