/**
 * Responder of the unreliable connection (IBTA 9.8.2): nothing is answered.
 *
 * A packet that is out of order or bad ends the message that is coming in: its receive is used for the
 * next message, or, when it came from a shared queue, where it cannot go back, completes with an
 * error (IBTA 9.9.3, classes D1 and E). What follows is dropped up to the next first packet, whatever
 * its PSN. A page that is not present has the same effect, and is asked for, so that a later message
 * finds it. (No adapter known to us pages on demand for UC; Linux rxe and mlx5 announce none.)
 */
import {
  BURST,
  BURST_OFFSET,
  FRAME_WORDS,
  OP_FIRST,
  OP_IMMEDIATE,
  OP_LAST,
  OP_REQUEST,
  OP_SEND,
  OP_WRITE,
  opFlags,
  PAYLOAD_BYTES,
  type TimePs,
  W_OPCODE,
  W_PSN,
  WC_LOC_PROT_ERR,
  WC_LOC_QP_OP_ERR,
  WC_REM_INV_REQ_ERR,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import { psnAdd } from '../qp/psn.ts';
import { FAULTED, NOT_LAST, PLACED } from './inbound.ts';
import { hasValidLength, KINDS, rightsFor } from './request-rules.ts';
import { NOT_ALLOWED, OPENED, Responder } from './responder.ts';

export class UcResponder extends Responder {
  receive(frame: number, now: TimePs, readyPs: TimePs): void {
    if (!this.isOpen()) return;
    const { qp, parts, inbound } = this;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    const flags = opFlags[words[base + W_OPCODE]];
    const isFirst = (flags & OP_FIRST) !== 0;
    const isLast = (flags & OP_LAST) !== 0;
    const kind = flags & KINDS;
    const bytes = words[base + PAYLOAD_BYTES];
    const psn = words[base + W_PSN];
    const isInOrder = psn === this.expectedPsn;
    this.expectedPsn = psnAdd(psn, 1);
    if (!isInOrder) parts.counters[C.out_of_sequence]++;
    // A first packet may be good whatever came before; the message that it cuts short is lost.
    if (this.kind !== 0 && (!isInOrder || isFirst)) this.abandon(readyPs);
    const goesOn = isInOrder && this.kind === kind;
    if ((flags & OP_REQUEST) === 0 || !(isFirst || goesOn)) {
      this.drop(readyPs);
      return;
    }
    this.establish(now);
    if (isFirst && kind === OP_WRITE) {
      const rights = rightsFor(kind, 0);
      if ((qp.attributes.access & rights) !== rights) {
        this.drop(readyPs);
        return;
      }
    }
    const usesReceive = kind === OP_SEND || (flags & OP_IMMEDIATE) !== 0;
    if (usesReceive && !inbound.hasReceive) {
      if (qp.receiveQueue.isEmpty) {
        parts.counters[C.out_of_buffer]++;
        this.drop(readyPs);
        return;
      }
      inbound.takeReceive(now);
    }
    if (isFirst && !this.beginMessage(frame, kind, readyPs)) return;
    const misfits = this.misfits(kind, isLast, bytes);
    if (misfits || !hasValidLength(flags, bytes, qp.attributes.mtu)) {
      if (misfits && kind === OP_SEND) parts.counters[C.resp_local_length_error]++;
      this.drop(readyPs);
      return;
    }
    const message = isLast ? this.nextMsn : NOT_LAST;
    const burst = words[base + BURST];
    const verdict = inbound.place(burst, words[base + BURST_OFFSET], bytes, message, readyPs);
    if (verdict === PLACED) {
      if (isLast) this.endMessage(frame, flags, 0, 0, 0);
    } else if (verdict === FAULTED) {
      parts.counters[C.page_fault_drops]++;
      this.raiseFault(now);
      // The receive is as good as before, so it stays even if it came from a shared queue.
      this.kind = 0;
    } else if (kind === OP_SEND) this.failReceive(WC_LOC_PROT_ERR, readyPs);
    else this.drop(readyPs);
  }

  onResume(ok: boolean, now: TimePs): void {
    this.isFaulted = false;
    // Only the host's own buffer is an error of this queue pair.
    if (!ok && this.inbound.hasReceive && this.qp.responder === this) {
      this.failReceive(WC_LOC_PROT_ERR, now);
    }
  }

  /** First packet: finds its buffer. False when the message was dropped. */
  private beginMessage(frame: number, kind: number, readyPs: TimePs): boolean {
    const { inbound } = this;
    if (kind === OP_SEND) {
      if (inbound.isMalformed) {
        this.failReceive(WC_LOC_QP_OP_ERR, readyPs);
        return false;
      }
      inbound.beginReceive();
    } else {
      const verdict = this.openWrite(frame);
      if (verdict === NOT_ALLOWED) this.parts.counters[C.resp_remote_access_errors]++;
      if (verdict !== OPENED) {
        this.drop(readyPs);
        return false;
      }
    }
    this.kind = kind;
    return true;
  }

  /** Drops the packet and, with it, the message. */
  private drop(readyPs: TimePs): void {
    this.parts.counters[C.unreliable_drops]++;
    this.abandon(readyPs);
  }

  /** Gives up the message that is coming in. */
  private abandon(readyPs: TimePs): void {
    const isUsed = this.kind === OP_SEND && this.qp.receiveQueue.isShared;
    if (isUsed) this.inbound.failReceive(readyPs, WC_REM_INV_REQ_ERR);
    this.kind = 0;
  }

  /** A receive of the host's own that cannot be used ends the queue pair (class A). */
  private failReceive(status: number, readyPs: TimePs): void {
    this.inbound.failReceive(readyPs, status);
    this.qp.fail(WC_SUCCESS, readyPs);
  }
}
