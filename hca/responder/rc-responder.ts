/**
 * Responder of the reliable connection (IBTA 9.7.3 to 9.7.5): every request is answered.
 *
 * A page that is not present ends a packet like a missing receive does, with an RNR NAK, and raises a
 * fault: the state is untouched, so the peer's repetition is the recovery. A request that is refused
 * ends the connection (IBTA 9.9.3, class C; class A where the fault is our own): a receive that the
 * message uses completes with the error, and if there is none an asynchronous event tells of it. Does
 * not own answers that take time (`answer-queue.ts`).
 */
import {
  BTH_ACK_REQUEST,
  BURST,
  BURST_OFFSET,
  EVENT_QP_ACCESS_ERR,
  EVENT_QP_REQ_ERR,
  FRAME_WORDS,
  OP_FIRST,
  OP_IMMEDIATE,
  OP_INVALIDATE,
  OP_LAST,
  OP_REQUEST,
  OP_SEND,
  OP_WRITE,
  opFlags,
  PAYLOAD_BYTES,
  type TimePs,
  W_BTH_FLAGS,
  W_IMMEDIATE,
  W_OPCODE,
  W_PSN,
  WC_LOC_ACCESS_ERR,
  WC_LOC_LEN_ERR,
  WC_LOC_PROT_ERR,
  WC_LOC_QP_OP_ERR,
  WC_REM_INV_REQ_ERR,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import type { Region } from '../memory/region.ts';
import {
  AETH_NAK,
  AETH_RNR_NAK,
  NAK_INVALID_REQUEST,
  NAK_REMOTE_ACCESS,
  NAK_REMOTE_OPERATION,
  NAK_SEQUENCE,
} from '../qp/aeth.ts';
import type { Parts } from '../qp/parts.ts';
import { psnAdd, psnDistance } from '../qp/psn.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import { Acknowledger } from './acknowledger.ts';
import { AnswerQueue } from './answer-queue.ts';
import { FAULTED, NOT_LAST, PLACED } from './inbound.ts';
import { ADMITTED, NO_ACCESS, NO_PAGE, Operations } from './operations.ts';
import { hasValidLength, KINDS, rightsFor } from './request-rules.ts';
import { OPENED, Responder, TOO_LONG } from './responder.ts';

/** `refusal` of a connection whose end a receive's completion tells of. */
const NO_EVENT = -1;

export class RcResponder extends Responder {
  override readonly answers: AnswerQueue;
  private readonly acks: Acknowledger;
  private readonly operations: Operations;
  /** One NAK or RNR NAK is out: nothing more is said until the expected packet comes. */
  private isNakOut = false;
  /** The packet that met the fault in flight, and whether that fault cannot be served. */
  private faultedPsn = 0;
  private isFaultFatal = false;
  /** The asynchronous event of a refused request, or NO_EVENT; 0 while none was refused. */
  private refusal = 0;

  constructor(qp: QueuePair, parts: Parts) {
    super(qp, parts);
    this.answers = new AnswerQueue(this, qp, parts);
    this.acks = new Acknowledger(qp, parts, this.inbound, this.answers);
    this.operations = new Operations(qp, parts, this.answers);
  }

  receive(frame: number, now: TimePs, readyPs: TimePs): void {
    const { qp, parts, inbound } = this;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    const flags = opFlags[words[base + W_OPCODE]];
    if (this.refusal !== 0) {
      parts.counters[C.state_drops]++;
      return;
    }
    if (!this.isOpen()) return;

    const psn = words[base + W_PSN];
    const ahead = psnDistance(psn, this.expectedPsn);
    if (ahead < 0) {
      this.duplicate(frame, psn, flags, readyPs);
      return;
    }
    if (ahead > 0) {
      parts.counters[C.out_of_sequence]++;
      if (!this.isNakOut) {
        qp.sequenceNaksSent++;
        this.isNakOut = true;
        this.answer(readyPs, AETH_NAK | NAK_SEQUENCE, this.expectedPsn);
      }
      return;
    }
    this.isNakOut = false;
    this.establish(now);
    if (this.isFaultFatal) {
      this.refuse(NAK_REMOTE_OPERATION, readyPs, WC_LOC_PROT_ERR);
      return;
    }

    const isFirst = (flags & OP_FIRST) !== 0;
    const isLast = (flags & OP_LAST) !== 0;
    const kind = flags & KINDS;
    const bytes = words[base + PAYLOAD_BYTES];
    // A message is not begun inside another, nor continued as something else; some opcodes are none.
    const isInOrder = isFirst ? this.kind === 0 : this.kind === kind;
    if ((flags & OP_REQUEST) === 0 || !isInOrder || (isFirst && !this.isAllowed(frame, kind))) {
      this.refuse(NAK_INVALID_REQUEST, readyPs, WC_REM_INV_REQ_ERR);
      return;
    }
    if (kind !== OP_SEND && kind !== OP_WRITE) {
      this.operation(frame, kind, psn, now, readyPs);
      return;
    }
    const usesReceive = kind === OP_SEND || (flags & OP_IMMEDIATE) !== 0;
    if (usesReceive && !inbound.hasReceive) {
      if (qp.receiveQueue.isEmpty) {
        parts.counters[C.out_of_buffer]++;
        this.notReady(readyPs);
        return;
      }
      inbound.takeReceive(now);
    }
    if (!hasValidLength(flags, bytes, qp.attributes.mtu)) {
      this.refuse(NAK_INVALID_REQUEST, readyPs, WC_REM_INV_REQ_ERR);
      return;
    }
    if (isFirst && !this.beginMessage(frame, kind, readyPs)) return;
    if (this.misfits(kind, isLast, bytes)) {
      if (kind === OP_SEND) parts.counters[C.resp_local_length_error]++;
      const status = kind === OP_SEND ? WC_LOC_LEN_ERR : WC_REM_INV_REQ_ERR;
      this.refuse(NAK_INVALID_REQUEST, readyPs, status);
      return;
    }
    const message = isLast ? this.nextMsn : NOT_LAST;
    const burst = words[base + BURST];
    const verdict = inbound.place(burst, words[base + BURST_OFFSET], bytes, message, readyPs);
    if (verdict !== PLACED) {
      if (isFirst) this.kind = 0;
      if (verdict === FAULTED) this.faulted(now, readyPs);
      else if (kind === OP_SEND) this.refuse(NAK_REMOTE_OPERATION, readyPs, WC_LOC_PROT_ERR);
      else this.refuse(NAK_REMOTE_ACCESS, readyPs, WC_LOC_ACCESS_ERR);
      return;
    }

    this.expectedPsn = psnAdd(psn, 1);
    const isAsked = (words[base + W_BTH_FLAGS] & BTH_ACK_REQUEST) !== 0;
    if (isLast) {
      if ((flags & OP_INVALIDATE) !== 0 && !this.invalidate(words[base + W_IMMEDIATE])) {
        this.endBadly(isAsked, psn, readyPs);
        return;
      }
      this.endMessage(frame, flags, 0, 0, 0);
    }
    if (isAsked) this.answer(readyPs, this.acks.ackSyndrome(), psn);
  }

  onResume(ok: boolean): void {
    this.isFaulted = false;
    // The packet may have been taken meanwhile, if its page came by itself.
    if (!ok && this.faultedPsn === this.expectedPsn) this.isFaultFatal = true;
  }

  /** A peer that was told that nothing is posted is told of the first receive that is. */
  override receivePosted(now: TimePs): void {
    if (!this.acks.isCreditOut || this.refusal !== 0) return;
    this.answer(now, this.acks.ackSyndrome(), psnAdd(this.expectedPsn, -1));
  }

  ackSyndrome(): number {
    return this.acks.ackSyndrome();
  }

  /** The NAK of a refusal has left: the queue pair goes to ERR. */
  refused(now: TimePs): void {
    this.qp.fail(WC_SUCCESS, now);
    if (this.refusal > 0) this.parts.bus.asyncEvent(now, this.refusal, this.qp.qpn);
  }

  /**
   * A READ that was admitted cannot be read to its end: returns the NAK that takes the place of its
   * packet `psn`. The queue pair goes to ERR.
   */
  refuseRead(code: number, psn: number, now: TimePs): number {
    this.note(code, 0, now);
    const frame = this.acks.newPacket(AETH_NAK | code, psn, this.msn);
    this.refused(now);
    return frame;
  }

  /** Whether the queue pair lets the peer do this at all: if not, it does not know the operation. */
  private isAllowed(frame: number, kind: number): boolean {
    const feth = this.parts.pool.words[frame * FRAME_WORDS + W_IMMEDIATE];
    const rights = rightsFor(kind, feth);
    return (this.qp.attributes.access & rights) === rights;
  }

  /** First packet of a SEND or WRITE: finds its buffer. False when it was refused. */
  private beginMessage(frame: number, kind: number, readyPs: TimePs): boolean {
    const { inbound } = this;
    if (kind === OP_SEND) {
      if (inbound.isMalformed) {
        this.refuse(NAK_REMOTE_OPERATION, readyPs, WC_LOC_QP_OP_ERR);
        return false;
      }
      inbound.beginReceive();
    } else {
      const verdict = this.openWrite(frame);
      if (verdict === TOO_LONG) this.refuse(NAK_INVALID_REQUEST, readyPs, WC_REM_INV_REQ_ERR);
      else if (verdict !== OPENED) this.refuse(NAK_REMOTE_ACCESS, readyPs, WC_LOC_ACCESS_ERR);
      if (verdict !== OPENED) return false;
    }
    this.kind = kind;
    return true;
  }

  /** READ, atomics, ATOMIC WRITE, FLUSH: one packet, and more than an ACK for an answer. */
  private operation(frame: number, kind: number, psn: number, now: TimePs, readyPs: TimePs): void {
    const { operations } = this;
    const verdict = operations.judge(frame, kind);
    if (verdict === ADMITTED) {
      this.msn = this.nextMsn;
      const packets = operations.start(frame, kind, psn, this.msn, readyPs);
      this.expectedPsn = psnAdd(psn, packets);
    } else if (verdict === NO_PAGE) {
      const { region, missedAddress, missedBytes, isWrite } = operations;
      this.fault(region as Region, missedAddress, missedBytes, isWrite, now, readyPs);
    } else {
      const code = verdict === NO_ACCESS ? NAK_REMOTE_ACCESS : NAK_INVALID_REQUEST;
      this.refuse(code, readyPs, 0);
    }
  }

  /** A request that was executed before: acknowledged again, or answered again. */
  private duplicate(frame: number, psn: number, flags: number, readyPs: TimePs): void {
    const kind = flags & KINDS;
    this.qp.duplicateRequests++;
    this.parts.counters[C.duplicate_request]++;
    if ((flags & OP_REQUEST) === 0) return;
    if (kind !== OP_SEND && kind !== OP_WRITE) {
      this.operations.repeat(frame, kind, psn, this.msn, readyPs);
      return;
    }
    this.answer(readyPs, this.acks.ackSyndrome(), psnAdd(this.expectedPsn, -1));
  }

  /** SEND with invalidate: takes back the leave that a window gave the peer. */
  private invalidate(key: number): boolean {
    return this.parts.mkeys.invalidateRemote(this.qp, key);
  }

  /**
   * The message has come, but the window that it names is not one it may invalidate: the message is
   * acknowledged, its receive completes with the error, and the connection ends (IBTA class J).
   */
  private endBadly(isAsked: boolean, psn: number, readyPs: TimePs): void {
    this.refusal = NO_EVENT;
    this.inbound.failReceive(this.inbound.donePs, WC_REM_INV_REQ_ERR);
    if (isAsked) this.answerLast(readyPs, this.acks.ackSyndrome(), psn);
    else this.refused(readyPs);
  }

  /** The message met a missing page. */
  private faulted(now: TimePs, readyPs: TimePs): void {
    const { faultRegion, faultAddress, faultBytes } = this.inbound;
    this.fault(faultRegion as Region, faultAddress, faultBytes, true, now, readyPs);
  }

  /** A page of the target is not there: RNR NAK, and a fault unless one is in flight. */
  private fault(
    region: Region,
    address: number,
    bytes: number,
    write: boolean,
    now: TimePs,
    readyPs: TimePs,
  ): void {
    region.rnrNaks++;
    if (!this.isFaulted) {
      this.isFaulted = true;
      this.faultedPsn = this.expectedPsn;
      this.parts.faults.raise(region, address, bytes, write, true, this.qp.qpn, this, now);
    }
    this.notReady(readyPs);
  }

  private notReady(readyPs: TimePs): void {
    this.qp.rnrNaksSent++;
    this.parts.counters[C.rnr_naks_sent]++;
    this.isNakOut = true;
    this.answer(readyPs, AETH_RNR_NAK | this.qp.attributes.minRnrTimer, this.expectedPsn);
  }

  /**
   * A NAK that ends the connection, once the answers before it have left. The current receive, if the
   * message uses one, completes with `status`.
   */
  private refuse(code: number, readyPs: TimePs, status: number): void {
    this.note(code, status, readyPs);
    this.answerLast(readyPs, AETH_NAK | code, this.expectedPsn);
  }

  /** Notes why the connection ends; from here on requests are dropped. */
  private note(code: number, status: number, readyPs: TimePs): void {
    const isAccess = code === NAK_REMOTE_ACCESS;
    if (isAccess) this.parts.counters[C.resp_remote_access_errors]++;
    this.refusal = isAccess ? EVENT_QP_ACCESS_ERR : EVENT_QP_REQ_ERR;
    if (status === 0 || !this.inbound.hasReceive) return;
    this.refusal = NO_EVENT;
    this.inbound.failReceive(readyPs, status);
  }

  /** The last answer of the connection. */
  private answerLast(readyPs: TimePs, syndrome: number, psn: number): void {
    const isLate = this.answers.isBusy;
    this.answer(readyPs, syndrome, psn);
    if (!isLate) this.refused(readyPs);
  }

  private answer(readyPs: TimePs, syndrome: number, psn: number): void {
    this.acks.send(readyPs, syndrome, psn, this.msn, this.refusal !== 0);
  }
}
