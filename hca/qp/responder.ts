/**
 * Responder: the peer's request packets -> memory, ACKs and NAKs (IBTA 9.7.3, 9.7.4, 9.7.5).
 *
 * `receive` is a straight list of checks in the specification's order; each either ends the packet
 * with a verdict or lets it pass to the next. A page that is not present ends it like a missing
 * receive buffer does, with an RNR NAK, and raises a fault: the state is untouched, so the peer's
 * repetition is the recovery. Does not own the answers to READs (`read-responder.ts`).
 */
import {
  BTH_ACK_REQUEST,
  BURST,
  BURST_OFFSET,
  CQE_WITH_IMMEDIATE,
  EVENT_QP_ACCESS_ERR,
  EVENT_QP_REQ_ERR,
  FRAME_WORDS,
  OP_FIRST,
  OP_IMMEDIATE,
  OP_LAST,
  OP_READ,
  OP_SEND,
  OP_WRITE,
  opFlags,
  PAYLOAD_BYTES,
  QPS_RTR,
  QPS_RTS,
  RC_ACKNOWLEDGE,
  type TimePs,
  W_AETH,
  W_BTH_FLAGS,
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_OPCODE,
  W_PSN,
  W_RKEY,
  WC_LOC_LEN_ERR,
  WC_LOC_PROT_ERR,
  WC_RECV,
  WC_RECV_RDMA_WITH_IMM,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import type { FaultWaiter } from '../fault-engine.ts';
import type { Region } from '../memory/region.ts';
import { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, XLT_HIT } from '../memory/translator.ts';
import {
  AETH_ACK_NO_CREDITS,
  AETH_NAK,
  AETH_RNR_NAK,
  NAK_INVALID_REQUEST,
  NAK_REMOTE_ACCESS,
  NAK_REMOTE_OPERATION,
  NAK_SEQUENCE,
} from './aeth.ts';
import { MAX_MESSAGE_BYTES, type Parts } from './parts.ts';
import { psnAdd, psnDistance } from './psn.ts';
import type { QueuePair } from './queue-pair.ts';

export class Responder implements FaultWaiter {
  /** The PSN of the next request packet. */
  expectedPsn = 0;
  /** Messages completed (MSN). */
  msn = 0;
  /** One NAK or RNR NAK is out: nothing more is said until the expected packet comes. */
  private isNakOut = false;
  private isFaulted = false;
  /** The packet that met the fault in flight, and whether that fault cannot be served. */
  private faultedPsn = 0;
  private isFaultFatal = false;
  /** The asynchronous event of a refused request; 0 while none was refused. */
  private refusal = 0;

  // The message that is arriving: OP_SEND, OP_WRITE or 0, its region, and where it goes.
  private kind = 0;
  private region: Region | undefined;
  private startAddress = 0;
  private totalBytes = 0;
  private placedBytes = 0;

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {}

  /** Sets the first PSN (MODIFY_QP to RTR). */
  start(psn: number): void {
    this.expectedPsn = psnAdd(psn, 0);
  }

  /** A request packet; `readyPs` is when the pipeline has judged it. The frame is the caller's. */
  receive(frame: number, now: TimePs, readyPs: TimePs): void {
    const { qp, parts } = this;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    const flags = opFlags[words[base + W_OPCODE]];
    if (this.refusal !== 0 || (qp.state !== QPS_RTR && qp.state !== QPS_RTS)) {
      parts.counters[C.state_drops]++;
      return;
    }
    if (qp.pd.suspended) {
      parts.counters[C.suspended_drops]++;
      return;
    }

    const psn = words[base + W_PSN];
    const ahead = psnDistance(psn, this.expectedPsn);
    if (ahead < 0) {
      this.duplicate(psn, flags, readyPs);
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
    if (this.isFaultFatal) {
      this.refuse(NAK_REMOTE_OPERATION, readyPs);
      return;
    }

    const isFirst = (flags & OP_FIRST) !== 0;
    const isLast = (flags & OP_LAST) !== 0;
    const kind = flags & (OP_SEND | OP_WRITE | OP_READ);
    const bytes = words[base + PAYLOAD_BYTES];
    // Operation order: a message is not begun inside another, nor continued as something else.
    if (isFirst ? this.kind !== 0 : this.kind !== kind) {
      this.refuse(NAK_INVALID_REQUEST, readyPs);
      return;
    }
    if (kind !== OP_READ && !this.hasValidLength(isFirst, isLast, bytes)) {
      this.refuse(NAK_INVALID_REQUEST, readyPs);
      return;
    }
    if (kind === OP_READ) {
      this.readRequest(frame, psn, now, readyPs);
      return;
    }
    const needsReceive = kind === OP_SEND ? isFirst : (flags & OP_IMMEDIATE) !== 0;
    if (needsReceive && qp.receiveQueue.isEmpty) {
      parts.counters[C.out_of_buffer]++;
      this.notReady(readyPs);
      return;
    }
    if (isFirst && !this.beginMessage(frame, kind, readyPs)) return;
    const left = this.totalBytes - this.placedBytes;
    if (kind === OP_SEND ? bytes > left : isLast ? bytes !== left : bytes >= left) {
      if (kind === OP_SEND) {
        parts.counters[C.resp_local_length_error]++;
        qp.completeReceive(now, WC_LOC_LEN_ERR, WC_RECV, 0, 0, 0);
      }
      this.refuse(NAK_INVALID_REQUEST, readyPs);
      return;
    }
    const donePs = this.place(frame, bytes, isLast, now, readyPs);
    if (donePs < 0) {
      if (isFirst) this.kind = 0;
      return;
    }

    this.expectedPsn = psnAdd(psn, 1);
    if (isLast) this.endMessage(frame, flags, donePs);
    if ((words[base + W_BTH_FLAGS] & BTH_ACK_REQUEST) !== 0) {
      this.answer(readyPs, AETH_ACK_NO_CREDITS, psn);
    }
  }

  onResume(ok: boolean): void {
    this.isFaulted = false;
    // The packet may have been taken meanwhile, if its page came by itself.
    if (!ok && this.faultedPsn === this.expectedPsn) this.isFaultFatal = true;
  }

  /** IBTA 9.7.4.1.6: all packets of a message but the last are full, and none is larger. */
  private hasValidLength(isFirst: boolean, isLast: boolean, bytes: number): boolean {
    const mtu = this.qp.attributes.mtu;
    if (!isLast) return bytes === mtu;
    return bytes <= mtu && (isFirst || bytes > 0);
  }

  /** First packet of a SEND or WRITE: finds its buffer. False when it was refused. */
  private beginMessage(frame: number, kind: number, readyPs: TimePs): boolean {
    const { qp, parts } = this;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    this.placedBytes = 0;
    this.region = undefined;
    if (kind === OP_WRITE) {
      parts.counters[C.rx_write_requests]++;
      this.startAddress = parts.pool.doubles[frame * 2];
      this.totalBytes = words[base + W_DMA_BYTES] >>> 0;
      if (this.totalBytes > MAX_MESSAGE_BYTES) {
        this.refuse(NAK_INVALID_REQUEST, readyPs);
        return false;
      }
      // A write of nothing touches no memory, so neither its address nor its key is judged.
      if (this.totalBytes > 0) {
        const allowed = (qp.attributes.access & REMOTE_WRITE) !== 0;
        this.region = allowed
          ? parts.translator.check(
              words[base + W_RKEY],
              qp.pd.number,
              this.startAddress,
              this.totalBytes,
              REMOTE_WRITE,
            )
          : undefined;
        if (this.region === undefined) {
          this.refuse(NAK_REMOTE_ACCESS, readyPs);
          return false;
        }
      }
    } else {
      const queue = qp.receiveQueue;
      const row = queue.first;
      this.startAddress = queue.address[row];
      this.totalBytes = queue.length[row];
      if (this.totalBytes > 0) {
        this.region = parts.translator.check(
          queue.lkey[row],
          qp.pd.number,
          this.startAddress,
          this.totalBytes,
          LOCAL_WRITE,
        );
        if (this.region === undefined) {
          this.refuseReceive(readyPs);
          return false;
        }
      }
    }
    this.kind = kind;
    return true;
  }

  /** Writes the payload to host memory. Returns when it is on its way, or -1 on a page fault. */
  private place(
    frame: number,
    bytes: number,
    isLast: boolean,
    now: TimePs,
    readyPs: TimePs,
  ): TimePs {
    if (bytes === 0) return readyPs;
    const { qp, parts } = this;
    const region = this.region as Region;
    const translator = parts.translator;
    if (!region.alive) {
      if (this.kind === OP_SEND) this.refuseReceive(readyPs);
      else this.refuse(NAK_REMOTE_ACCESS, readyPs);
      return -1;
    }
    const address = this.startAddress + this.placedBytes;
    if (translator.pages(region, address, bytes, true) !== XLT_HIT) {
      // All that is still to come; of a SEND, which does not say, the rest of the receive.
      const missed = translator.missAddress;
      const left = this.startAddress + this.totalBytes - missed;
      this.fault(region, missed, left, true, now, readyPs);
      return -1;
    }
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    const write = parts.bus.dmaWrite(
      translator.frame,
      address % 4096,
      translator.nextFrame,
      words[base + BURST],
      words[base + BURST_OFFSET],
      bytes,
    );
    this.placedBytes += bytes;
    if (isLast) {
      const message = (this.msn + 1) & 0xffffff;
      parts.bus.endMessage(write, qp.qpn, message, this.startAddress, this.placedBytes);
    }
    const donePs = readyPs + translator.latencyPs;
    parts.bus.sendDmaWrite(donePs, write);
    return donePs;
  }

  /** Last packet of a SEND or WRITE: counts the message and completes a receive if it used one. */
  private endMessage(frame: number, flags: number, donePs: TimePs): void {
    this.msn = (this.msn + 1) & 0xffffff;
    const immediate = this.parts.pool.words[frame * FRAME_WORDS + W_IMMEDIATE];
    const hasImmediate = (flags & OP_IMMEDIATE) !== 0;
    if (this.kind === OP_SEND || hasImmediate) {
      const opcode = this.kind === OP_SEND ? WC_RECV : WC_RECV_RDMA_WITH_IMM;
      const cqeFlags = hasImmediate ? CQE_WITH_IMMEDIATE : 0;
      this.qp.completeReceive(donePs, WC_SUCCESS, opcode, this.placedBytes, immediate, cqeFlags);
    }
    this.kind = 0;
  }

  private readRequest(frame: number, psn: number, now: TimePs, readyPs: TimePs): void {
    const { qp, parts } = this;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    parts.counters[C.rx_read_requests]++;
    const address = parts.pool.doubles[frame * 2];
    const bytes = words[base + W_DMA_BYTES] >>> 0;
    if (bytes > MAX_MESSAGE_BYTES) {
      this.refuse(NAK_INVALID_REQUEST, readyPs);
      return;
    }
    let region: Region | undefined;
    if (bytes > 0) {
      const allowed = (qp.attributes.access & REMOTE_READ) !== 0;
      const rkey = words[base + W_RKEY];
      region = allowed
        ? parts.translator.check(rkey, qp.pd.number, address, bytes, REMOTE_READ)
        : undefined;
      if (region === undefined) {
        this.refuse(NAK_REMOTE_ACCESS, readyPs);
        return;
      }
      if (!parts.translator.isReadable(region, address, bytes)) {
        const missed = parts.translator.missAddress;
        this.fault(region, missed, address + bytes - missed, false, now, readyPs);
        return;
      }
    }
    const packets = Math.max(1, Math.ceil(bytes / qp.attributes.mtu));
    const msn = (this.msn + 1) & 0xffffff;
    if (!qp.readResponder.add(psn, packets, region, address, bytes, msn, readyPs)) {
      this.refuse(NAK_INVALID_REQUEST, readyPs);
      return;
    }
    this.msn = msn;
    this.expectedPsn = psnAdd(psn, packets);
  }

  /** A request that was executed before: acknowledged again, or answered again if it is a READ. */
  private duplicate(psn: number, flags: number, readyPs: TimePs): void {
    this.qp.duplicateRequests++;
    this.parts.counters[C.duplicate_request]++;
    if ((flags & OP_READ) !== 0) this.qp.readResponder.repeat(psn, readyPs);
    else this.answer(readyPs, AETH_ACK_NO_CREDITS, psnAdd(this.expectedPsn, -1));
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

  /** The buffer of the posted receive is not one that may be written. */
  private refuseReceive(readyPs: TimePs): void {
    this.qp.completeReceive(readyPs, WC_LOC_PROT_ERR, WC_RECV, 0, 0, 0);
    this.refuse(NAK_REMOTE_OPERATION, readyPs);
  }

  /** A NAK that ends the connection, once the READs before it are answered. */
  private refuse(code: number, readyPs: TimePs): void {
    this.note(code);
    const isLate = this.qp.readResponder.isBusy;
    this.answer(readyPs, AETH_NAK | code, this.expectedPsn);
    if (!isLate) this.refused(readyPs);
  }

  /** The NAK of a refusal has left: the queue pair goes to ERR. */
  refused(now: TimePs): void {
    this.qp.fail(WC_SUCCESS, now);
    this.parts.bus.asyncEvent(now, this.refusal, this.qp.qpn);
  }

  /**
   * A READ that was admitted cannot be read to its end: returns the NAK that takes the place of its
   * packet `psn`. The queue pair goes to ERR.
   */
  refuseRead(code: number, psn: number, now: TimePs): number {
    this.note(code);
    const frame = this.newAck(AETH_NAK | code, psn);
    this.refused(now);
    return frame;
  }

  /** Notes why the connection ends; from here on requests are dropped. */
  private note(code: number): void {
    const isAccess = code === NAK_REMOTE_ACCESS;
    if (isAccess) this.parts.counters[C.resp_remote_access_errors]++;
    this.refusal = isAccess ? EVENT_QP_ACCESS_ERR : EVENT_QP_REQ_ERR;
  }

  /** Sends an ACK or NAK, behind READ responses that are still to be sent. */
  private answer(readyPs: TimePs, syndrome: number, psn: number): void {
    const frame = this.newAck(syndrome, psn);
    const { readResponder } = this.qp;
    if (readResponder.isBusy) readResponder.addAnswer(frame, this.refusal !== 0);
    else {
      this.qp.packetsSent++;
      this.parts.transmitter.answer(frame, readyPs);
    }
  }

  /** An ACKNOWLEDGE packet. */
  private newAck(syndrome: number, psn: number): number {
    const frame = this.qp.newPacket(RC_ACKNOWLEDGE);
    const words = this.parts.pool.words;
    words[frame * FRAME_WORDS + W_PSN] = psn;
    words[frame * FRAME_WORDS + W_AETH] = (syndrome << 24) | this.msn;
    return frame;
  }
}
