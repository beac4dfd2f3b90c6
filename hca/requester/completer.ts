/**
 * Completer: the peer's answers -> completions, or going back (IBTA 9.7.5, 9.7.7, 9.7.8, 9.9.2).
 *
 * Owns what is acknowledged, the retry counters, the ACK timer and the wait after an RNR NAK. Does
 * not own what is sent (`requester.ts`), nor results and where they go (`results.ts`).
 */
import {
  deadline,
  FRAME_WORDS,
  NEVER,
  OP_ATOMIC,
  OP_READ,
  opFlags,
  QPS_RTS,
  QPS_SQD,
  type TimePs,
  US,
  W_AETH,
  W_OPCODE,
  W_PSN,
  WC_BAD_RESP_ERR,
  WC_LOC_PROT_ERR,
  WC_REM_ACCESS_ERR,
  WC_REM_INV_REQ_ERR,
  WC_REM_OP_ERR,
  WC_RETRY_EXC_ERR,
  WC_RNR_RETRY_EXC_ERR,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import type { FaultWaiter } from '../fault-engine.ts';
import {
  AETH_ACK,
  AETH_KIND,
  AETH_NAK,
  AETH_RNR_NAK,
  NAK_INVALID_REQUEST,
  NAK_REMOTE_ACCESS,
  NAK_REMOTE_OPERATION,
  NAK_SEQUENCE,
  rnrTimerPs,
} from '../qp/aeth.ts';
import type { Parts } from '../qp/parts.ts';
import { psnAdd, psnDistance } from '../qp/psn.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import { TIMER_ACK, TIMER_PEER, TIMER_WAIT } from '../timers.ts';
import { Credits } from './credits.ts';
import { LANDED, LANDING_DENIED, LANDING_FAULTED } from './landing.ts';
import { hasAeth, Results } from './results.ts';

/** rnr_retry 7: for ever. */
const RNR_RETRY_INFINITE = 7;
/** Unit of the local ACK time-out: 4.096 us (IBTA 9.7.6.1.3). */
const ACK_TIMEOUT_UNIT_PS = 4.096 * US;

export class Completer implements FaultWaiter {
  /** The oldest PSN that is not acknowledged. */
  unackedPsn = 0;
  /** While it waits (RNR, or a page of its own result buffer is missing) the requester sends nothing. */
  isWaiting = false;
  readonly credits = new Credits();
  /** How long the ACK timer runs; NEVER where the attribute is 0. */
  private ackTimeoutPs = NEVER;
  private retriesLeft = 0;
  private rnrRetriesLeft = 0;
  private isFaulted = false;
  /** The work request whose result buffer met the fault in flight. */
  private faultedWork = 0;
  /** Sending has gone back to a READ whose responses were lost; what is behind them says nothing new. */
  private isReadRepeated = false;
  private readonly results: Results;

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {
    this.results = new Results(qp, parts);
  }

  /** Sets the first PSN (MODIFY_QP to RTS). */
  start(psn: number): void {
    this.unackedPsn = psn;
    this.takeAttributes();
    this.resetRetries();
  }

  /** Attributes have changed. */
  takeAttributes(): void {
    this.ackTimeoutPs = this.effectiveTimeout();
  }

  /** (Re)starts the local ACK timer. */
  armAckTimer(now: TimePs): void {
    this.parts.timers.set(this.qp.index, TIMER_ACK, deadline(now, this.ackTimeoutPs));
  }

  /** An answer of the peer. The frame is the caller's. */
  receive(frame: number, now: TimePs, readyPs: TimePs): void {
    const { qp, parts } = this;
    if (!this.isRunning) {
      parts.counters[C.state_drops]++;
      return;
    }
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    const psn = words[base + W_PSN];
    const flags = opFlags[words[base + W_OPCODE]];
    const isResult = (flags & (OP_READ | OP_ATOMIC)) !== 0;
    const syndrome = words[base + W_AETH] >>> 24;
    const sent = psnDistance(psn, this.unackedPsn);
    // Only PSNs that are sent and not acknowledged mean anything; others are ghosts.
    if (sent < 0 || sent >= psnDistance(qp.requester.newPsn, this.unackedPsn)) {
      // But the last ACK may come again, with more credits.
      const isLastAck = sent === -1 && !isResult && (syndrome & AETH_KIND) === AETH_ACK;
      if (!isLastAck) return;
      this.credits.take(parts.pool, frame);
    } else if (isResult) this.result(frame, flags, now, readyPs);
    else this.acknowledge(syndrome, psn, frame, now);
    qp.activate(now);
  }

  onTimer(kind: number, now: TimePs): void {
    if (kind === TIMER_PEER) {
      this.qp.onAnnouncement(false, now);
      return;
    }
    if (kind === TIMER_WAIT) {
      this.isWaiting = false;
      this.qp.requester.goBack(this.unackedPsn, now);
      this.qp.activate(now);
      return;
    }
    // A suspended domain may have dropped the answer itself: the resume starts the timer anew.
    const isSuspended = this.qp.pd.suspended || this.qp.isPeerSuspended;
    if (this.isWaiting || isSuspended || !this.hasOutstanding()) return;
    this.isReadRepeated = false;
    this.qp.timeouts++;
    this.parts.counters[C.local_ack_timeout_err]++;
    this.retry(now);
  }

  onResume(ok: boolean, now: TimePs): void {
    this.isFaulted = false;
    const queue = this.qp.sendQueue;
    // It may have been answered meanwhile, if its page came by itself.
    // A queue pair that has been reset meanwhile has other machines.
    if (this.qp.completer !== this) return;
    const isPending = queue.head === this.faultedWork && !queue.isEmpty;
    if (!ok && isPending) this.qp.fail(WC_LOC_PROT_ERR, now);
  }

  /** The protection domain runs again. */
  onPdResume(now: TimePs): void {
    if (this.isRunning && this.hasOutstanding()) this.armAckTimer(now);
  }

  /** The peer drops what we send until it says otherwise: no time-out is its fault. */
  onPeerSuspend(now: TimePs): void {
    const { timers, profile } = this.parts;
    this.qp.requester.beginStall(now);
    timers.set(this.qp.index, TIMER_ACK, NEVER);
    timers.set(this.qp.index, TIMER_PEER, deadline(now, profile.peerSuspendPs));
  }

  /** The peer takes requests again: what it has dropped meanwhile is sent anew. */
  onPeerResume(now: TimePs): void {
    const { qp, parts } = this;
    parts.timers.set(qp.index, TIMER_PEER, NEVER);
    if (!this.isWaiting && this.hasOutstanding()) qp.requester.goBack(this.unackedPsn, now);
    else qp.requester.readAhead.fetch(now);
    qp.activate(now);
  }

  /** Stops the timers (ERR). */
  stop(): void {
    this.isWaiting = false;
    this.parts.timers.set(this.qp.index, TIMER_ACK, NEVER);
    this.parts.timers.set(this.qp.index, TIMER_WAIT, NEVER);
    this.parts.timers.set(this.qp.index, TIMER_PEER, NEVER);
  }

  /**
   * Everything before `psn` has arrived at the peer. Returns false when that cannot be, because a
   * READ or atomic before it was not answered: then its answer was lost and sending goes back to it.
   */
  private acknowledgeBefore(psn: number, now: TimePs): boolean {
    const queue = this.qp.sendQueue;
    const before = this.unackedPsn;
    while (psnDistance(psn, this.unackedPsn) > 0) {
      const row = queue.at(queue.head);
      if (queue.isAnswered(row)) {
        if (this.unackedPsn !== before) this.onProgress(now);
        this.repeatRead(now);
        return false;
      }
      if (psnDistance(psn, queue.lastPsn(row)) <= 0) {
        this.unackedPsn = psn;
        break;
      }
      this.unackedPsn = psnAdd(queue.lastPsn(row), 1);
      this.qp.completeHead(WC_SUCCESS, now);
    }
    if (this.unackedPsn !== before) this.onProgress(now);
    return true;
  }

  private onProgress(now: TimePs): void {
    this.resetRetries();
    this.isReadRepeated = false;
    // A late answer may acknowledge what is about to be sent again.
    const requester = this.qp.requester;
    if (psnDistance(this.unackedPsn, requester.nextPsn) > 0) requester.goBack(this.unackedPsn, now);
    if (this.hasOutstanding()) this.armAckTimer(now);
    else this.parts.timers.set(this.qp.index, TIMER_ACK, NEVER);
  }

  private onRnrNak(code: number, now: TimePs): void {
    const { qp, parts } = this;
    // The same, said again.
    if (this.isWaiting) return;
    qp.rnrNaksReceived++;
    parts.counters[C.rnr_nak_retry_err]++;
    if (qp.attributes.rnrRetry !== RNR_RETRY_INFINITE && this.rnrRetriesLeft-- === 0) {
      parts.counters[C.req_rnr_retries_exceeded]++;
      qp.fail(WC_RNR_RETRY_EXC_ERR, now);
      return;
    }
    const nominal = rnrTimerPs[code];
    const stretched = Math.ceil((nominal * parts.profile.rnrWaitPercent) / 100);
    this.wait(Math.max(stretched, parts.profile.rnrWaitMinPs), now);
  }

  private onNak(code: number, now: TimePs): void {
    const { counters } = this.parts;
    if (code === NAK_SEQUENCE) {
      // rxe answers each packet behind one it has refused with RNR so; sending goes back anyway.
      if (this.isWaiting) return;
      counters[C.packet_seq_err]++;
      this.retry(now);
    } else if (code === NAK_REMOTE_ACCESS) {
      counters[C.req_remote_access_errors]++;
      this.qp.fail(WC_REM_ACCESS_ERR, now);
    } else if (code === NAK_INVALID_REQUEST) {
      counters[C.req_remote_invalid_request]++;
      this.qp.fail(WC_REM_INV_REQ_ERR, now);
    } else if (code === NAK_REMOTE_OPERATION) this.qp.fail(WC_REM_OP_ERR, now);
  }

  /** Goes back to the oldest unacknowledged PSN, unless retry_cnt is used up. */
  private retry(now: TimePs): void {
    if (this.retriesLeft-- === 0) {
      this.parts.counters[C.req_transport_retries_exceeded]++;
      this.qp.fail(WC_RETRY_EXC_ERR, now);
      return;
    }
    this.parts.timers.set(this.qp.index, TIMER_ACK, NEVER);
    this.qp.requester.goBack(this.unackedPsn, now);
    this.qp.activate(now);
  }

  /** An answer shows that responses of the READ at the head were lost (implied NAK): asks again, once. */
  private repeatRead(now: TimePs): void {
    // After a wait, and after a suspend, sending goes back anyway.
    if (this.isReadRepeated || this.isWaiting || this.qp.pd.suspended) return;
    this.isReadRepeated = true;
    this.parts.counters[C.implied_nak_seq_err]++;
    this.retry(now);
  }

  /** Sends nothing for a while, then goes back. */
  private wait(span: TimePs, now: TimePs): void {
    this.isWaiting = true;
    this.qp.requester.beginStall(now);
    this.parts.timers.set(this.qp.index, TIMER_ACK, NEVER);
    this.parts.timers.set(this.qp.index, TIMER_WAIT, deadline(now, span));
  }

  /** An ACKNOWLEDGE packet: ACK, RNR NAK or NAK. Reserved syndromes say nothing. */
  private acknowledge(syndrome: number, psn: number, frame: number, now: TimePs): void {
    const { parts } = this;
    const code = syndrome & ~AETH_KIND;
    switch (syndrome & AETH_KIND) {
      case AETH_ACK:
        this.credits.take(parts.pool, frame);
        this.acknowledgeBefore(psnAdd(psn, 1), now);
        break;
      case AETH_RNR_NAK:
        if (this.acknowledgeBefore(psn, now)) this.onRnrNak(code, now);
        break;
      case AETH_NAK:
        if (code <= NAK_REMOTE_OPERATION && this.acknowledgeBefore(psn, now)) this.onNak(code, now);
        break;
    }
  }

  /** A READ response, or the answer to an atomic, ATOMIC WRITE or FLUSH. */
  private result(frame: number, flags: number, now: TimePs, readyPs: TimePs): void {
    const { qp, parts } = this;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    if (qp.pd.suspended) {
      parts.counters[C.suspended_drops]++;
      // Nobody but this queue pair knows of it, so it asks again once it is resumed.
      this.isReadRepeated = true;
      if (qp.requester.nextPsn !== this.unackedPsn) qp.requester.goBack(this.unackedPsn, now);
      return;
    }
    if (this.isWaiting) {
      parts.counters[C.read_responses_discarded]++;
      return;
    }
    // A response acknowledges all requests before its own.
    const psn = words[base + W_PSN];
    if (!this.acknowledgeBefore(psn, now)) return;
    const queue = qp.sendQueue;
    const row = queue.at(queue.head);
    if (!this.results.isAnswerTo(row, frame, flags)) {
      qp.fail(WC_BAD_RESP_ERR, now);
      return;
    }
    const verdict = this.results.land(row, frame, flags, readyPs);
    if (verdict === LANDING_DENIED) qp.fail(WC_LOC_PROT_ERR, now);
    if (verdict === LANDING_FAULTED) this.onResultFault(now);
    if (verdict !== LANDED) return;
    if (hasAeth(flags)) this.credits.take(parts.pool, frame);
    this.unackedPsn = psnAdd(psn, 1);
    if (psn === queue.lastPsn(row)) qp.completeHead(WC_SUCCESS, readyPs);
    this.onProgress(now);
  }

  /** RC has no way to stop a responder: drop what comes, ask again later (NPF section 4). */
  private onResultFault(now: TimePs): void {
    const { qp, parts } = this;
    const { landing } = this.results;
    if (!this.isFaulted && landing.faultRegion !== undefined) {
      const { faultRegion, faultAddress, faultBytes } = landing;
      this.isFaulted = true;
      this.faultedWork = qp.sendQueue.head;
      parts.faults.raise(faultRegion, faultAddress, faultBytes, true, false, qp.qpn, this, now);
    }
    this.wait(parts.profile.readRetryPs, now);
    parts.counters[C.read_responses_discarded]++;
  }

  /** What the adapter makes of the `timeout` attribute: 4.096 us * 2^timeout, with its own floor. */
  private effectiveTimeout(): TimePs {
    const { profile } = this.parts;
    const exponent = this.qp.attributes.timeout;
    if (exponent === 0) return NEVER;
    const floor = Math.max(exponent, profile.ackTimeoutMinExponent);
    return ACK_TIMEOUT_UNIT_PS * 2 ** floor * profile.ackTimeoutFactor;
  }

  /** Whether answers are taken: what was sent before the queue pair was drained is still answered. */
  private get isRunning(): boolean {
    return this.qp.state === QPS_RTS || this.qp.state === QPS_SQD;
  }

  private hasOutstanding(): boolean {
    return psnDistance(this.qp.requester.newPsn, this.unackedPsn) > 0;
  }

  private resetRetries(): void {
    this.retriesLeft = this.qp.attributes.retryCnt;
    this.rnrRetriesLeft = this.qp.attributes.rnrRetry;
  }
}
