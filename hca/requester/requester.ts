/**
 * Requester: send work requests -> request packets (IBTA 9.9).
 *
 * Owns where in the send queue sending stands, what may be sent next, and going back. Does not own
 * reading memory ahead (`read-ahead.ts`), the fields of a packet (`request-packet.ts`), what answers
 * mean (`completer.ts`) or when the link is free (`transmitter.ts`).
 */
import {
  BTH_ACK_REQUEST,
  BURST,
  FRAME_WORDS,
  NEVER,
  PAYLOAD_BYTES,
  QPS_ERR,
  QPS_RTS,
  QPS_SQE,
  QPT_RC,
  type TimePs,
  TRAIN_COUNT,
  W_BTH_FLAGS,
  W_PSN,
  WC_LOC_QP_OP_ERR,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import type { Gather } from '../dma/gather.ts';
import { Drain } from '../qp/drain.ts';
import type { Parts } from '../qp/parts.ts';
import { psnAdd, psnDistance } from '../qp/psn.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import { TIMER_ACK } from '../timers.ts';
import { doLocalWork } from './local-work.ts';
import { ReadAhead } from './read-ahead.ts';
import { RequestPackets } from './request-packet.ts';

export class Requester {
  readonly readAhead: ReadAhead;
  readonly drain: Drain;
  /** PSN of the next packet to send. */
  nextPsn = 0;
  /** One behind the highest PSN ever sent; packets before it are retransmissions. */
  newPsn = 0;
  /** Packets of the work request at `sendQueue.next` that are sent. */
  private sentPackets = 0;
  /** READs and atomics that are sent and not answered. */
  private answersDue = 0;
  private readonly gather: Gather;
  private readonly packets: RequestPackets;
  private stallSince: TimePs = NEVER;

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {
    this.readAhead = new ReadAhead(qp, parts);
    this.drain = new Drain(qp, parts);
    this.gather = this.readAhead.gather;
    this.packets = new RequestPackets(qp, parts, this.gather);
  }

  /** Sets the first PSN (MODIFY_QP to RTS). */
  start(psn: number): void {
    this.nextPsn = psnAdd(psn, 0);
    this.newPsn = this.nextPsn;
    this.qp.sendQueue.postPsn = this.nextPsn;
    this.qp.completer.start(this.nextPsn);
  }

  /** Bytes of the work request at `sendQueue.next` that are sent. */
  get sentBytes(): number {
    return this.sentPackets * this.qp.attributes.mtu;
  }

  /** A SEND_DOORBELL frame. */
  post(frame: number, now: TimePs): void {
    const { qp, parts } = this;
    const queue = qp.sendQueue;
    // Before RTS nothing may be posted (`ibv_post_send` refuses it), and no PSN is known.
    if (qp.state < QPS_RTS) return;
    if (queue.isFull) {
      qp.overrun(now);
      return;
    }
    if (queue.isEmpty) this.stallSince = NEVER;
    queue.post(parts.pool, frame, parts.trailer, qp.type, qp.attributes.mtu);
    if (qp.state === QPS_ERR || qp.state === QPS_SQE) {
      qp.flushSends(now);
      return;
    }
    const row = queue.at(queue.tail - 1);
    if (queue.isAnswered(row) && qp.attributes.maxRdAtomic === 0) {
      queue.problem[row] = WC_LOC_QP_OP_ERR;
    }
    if (qp.pd.suspended || qp.isPeerSuspended) this.beginStall(now);
    const readyPs = now + parts.profile.wqeFetchPs;
    this.readAhead.fetch(readyPs);
    qp.activate(readyPs);
  }

  /** Whether the next packet can be sent now. Does local work on the way; fails what cannot be sent. */
  canSend(now: TimePs): boolean {
    const { qp, parts } = this;
    const queue = qp.sendQueue;
    if (!qp.canRequest || qp.completer.isWaiting) return false;
    while (queue.next < queue.tail && queue.next < this.drain.limit) {
      const row = queue.at(queue.next);
      if (queue.problem[row] !== WC_SUCCESS) {
        // What was posted before it completes first.
        if (queue.head === queue.next) qp.failSend(queue.problem[row], now);
        return false;
      }
      if (queue.isFenced(row)) return false;
      if (queue.isLocal(row)) {
        this.doLocal(row, now);
        continue;
      }
      const outstanding = psnDistance(this.nextPsn, qp.completer.unackedPsn);
      if (outstanding >= parts.profile.windowPackets) return false;
      if (queue.isAnswered(row) && this.answersDue >= qp.attributes.maxRdAtomic) return false;
      if (!this.hasCredit(row)) return false;
      if (queue.bytesToRead(row) === 0) return true;
      return this.gather.ready(queue.next, this.sentBytes) !== 0;
    }
    return false;
  }

  /** Makes the next packet; only after `canSend`. */
  emit(now: TimePs): number {
    const { qp, parts, packets } = this;
    const queue = qp.sendQueue;
    const words = parts.pool.words;
    const position = queue.next;
    const row = queue.at(position);
    this.endStall(row, now);
    const index = this.sentPackets;
    const isData = packets.carriesData(row);
    const frame = isData ? packets.data(position, index) : packets.request(row, index);
    const base = frame * FRAME_WORDS;
    words[base + W_PSN] = this.nextPsn;
    if (psnDistance(this.nextPsn, this.newPsn) < 0) {
      this.countRetransmission(row, words[base + PAYLOAD_BYTES]);
    }
    // Without credits left, each packet asks how many there are.
    if (qp.completer.credits.isLimited) words[base + W_BTH_FLAGS] |= BTH_ACK_REQUEST;

    // A READ takes the PSNs of its whole response with its one packet.
    const sent = isData ? 1 : queue.packets[row] - index;
    this.nextPsn = psnAdd(this.nextPsn, sent);
    this.sentPackets += sent;
    if (psnDistance(this.nextPsn, this.newPsn) > 0) this.newPsn = this.nextPsn;
    const isDone = this.sentPackets === queue.packets[row];
    if (queue.bytesToRead(row) > 0) {
      const offset = isDone ? queue.length[row] : this.sentBytes;
      if (this.gather.consumed(offset)) this.readAhead.fetch(now);
    }
    if (isDone) {
      queue.next++;
      this.sentPackets = 0;
      if (queue.isAnswered(row)) this.answersDue++;
    }
    qp.packetsSent++;
    if (qp.type !== QPT_RC) {
      qp.completer.unackedPsn = this.nextPsn;
      if (isDone) qp.completeHead(WC_SUCCESS, now);
    } else if (parts.timers.deadlineOf(qp.index, TIMER_ACK) === NEVER) {
      qp.completer.armAckTimer(now);
    }
    return frame;
  }

  /**
   * Adds the next packet to the train that starts with `frame`, if it is of the same kind: a MIDDLE
   * packet of the same burst with the same flags.
   */
  extendTrain(frame: number): boolean {
    const { qp, parts } = this;
    const queue = qp.sendQueue;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    const mtu = qp.attributes.mtu;
    const row = queue.at(queue.next);
    const offset = this.sentPackets * mtu;
    // What arrived since the packet before may have stopped the sending, or have an answer go first.
    if (qp.completer.isWaiting || !qp.canRequest || qp.responder.answers?.isBusy) return false;
    if (qp.completer.credits.isLimited) return false;
    // Of the same burst; its last packet goes alone, because it makes room for reading ahead.
    if (this.gather.ready(queue.next, offset) !== words[base + BURST]) return false;
    if (this.sentPackets + 1 >= queue.packets[row] || this.gather.leftFrom(offset) <= mtu)
      return false;
    if (psnDistance(this.nextPsn, this.newPsn) < 0) return false;
    const outstanding = psnDistance(this.nextPsn, qp.completer.unackedPsn);
    if (outstanding >= parts.profile.windowPackets) return false;
    const asksAck = this.packets.asksAck(row, this.sentPackets) ? BTH_ACK_REQUEST : 0;
    if (words[base + W_BTH_FLAGS] !== asksAck) return false;
    words[base + TRAIN_COUNT] = Math.max(1, words[base + TRAIN_COUNT]) + 1;
    this.sentPackets++;
    this.nextPsn = psnAdd(this.nextPsn, 1);
    this.newPsn = this.nextPsn;
    if (qp.type !== QPT_RC) qp.completer.unackedPsn = this.nextPsn;
    qp.packetsSent++;
    return true;
  }

  /** Goes back to `psn`, which is not acknowledged: it and everything behind is sent again. */
  goBack(psn: number, now: TimePs): void {
    const queue = this.qp.sendQueue;
    let position = queue.head;
    this.answersDue = 0;
    while (position < queue.tail) {
      const row = queue.at(position);
      // Local work that is done is not done again; all behind what is not done was never sent.
      if (queue.isLocal(row) ? queue.isDone[row] === 0 : psnDistance(psn, queue.lastPsn(row)) <= 0)
        break;
      if (queue.isAnswered(row)) this.answersDue++;
      position++;
    }
    queue.next = position;
    this.nextPsn = psn;
    this.sentPackets =
      position === queue.tail ? 0 : psnDistance(psn, queue.firstPsn[queue.at(position)]);
    this.readAhead.restart(position, this.sentBytes);
    this.readAhead.fetch(now);
  }

  /** The work request in `row`, which was the oldest, has completed well. */
  completed(row: number, now: TimePs): void {
    const { qp } = this;
    const queue = qp.sendQueue;
    if (queue.isAnswered(row)) {
      if (queue.head <= queue.next) this.answersDue--;
      this.readAhead.release(now);
    }
    // Local work that was done has waited for this.
    while (queue.head < queue.tail && queue.isDone[queue.at(queue.head)] !== 0) {
      qp.takeHead(WC_SUCCESS, now);
    }
    this.drain.check(now);
  }

  /** MODIFY_QP to SQD. */
  beginDrain(now: TimePs): void {
    this.drain.begin(this.sentPackets > 0, now);
  }

  /** MODIFY_QP from SQD back to RTS. */
  endDrain(now: TimePs): void {
    this.drain.end();
    this.readAhead.fetch(now);
    this.qp.activate(now);
  }

  /** The time during which nothing could be sent counts as stall of the work request's region. */
  beginStall(now: TimePs): void {
    this.stallSince = Math.min(this.stallSince, now);
  }

  /** Drops what was read ahead, and what was begun: the queue is flushed next. */
  stop(now: TimePs): void {
    const queue = this.qp.sendQueue;
    this.drain.end();
    this.sentPackets = 0;
    this.answersDue = 0;
    this.readAhead.restart(queue.tail, 0);
    if (!queue.isEmpty) this.endStall(queue.at(queue.head), now);
  }

  /** The flushed queue is empty: the next packet's PSN is that of the next work request. */
  restart(): void {
    const queue = this.qp.sendQueue;
    queue.next = queue.tail;
    queue.postPsn = this.nextPsn;
  }

  private hasCredit(row: number): boolean {
    const { credits, unackedPsn } = this.qp.completer;
    if (!credits.isLimited) return true;
    return credits.allow(this.qp.sendQueue, row, this.sentPackets, unackedPsn);
  }

  /** BIND_MW and LOCAL_INV: done now, complete when all before them has. */
  private doLocal(row: number, now: TimePs): void {
    const { qp } = this;
    const queue = qp.sendQueue;
    if (queue.isDone[row] === 0) {
      const status = doLocalWork(qp, this.parts.mkeys, row);
      if (status !== WC_SUCCESS) {
        queue.problem[row] = status;
        return;
      }
      queue.isDone[row] = 1;
    }
    queue.next++;
    if (queue.head === queue.next - 1) qp.completeHead(WC_SUCCESS, now);
  }

  private endStall(row: number, now: TimePs): void {
    if (this.stallSince === NEVER) return;
    const region = this.parts.translator.regionOf(this.qp.sendQueue.lkey[row]);
    if (region !== undefined) region.stallPs += Math.max(0, now - this.stallSince);
    this.stallSince = NEVER;
  }

  private countRetransmission(row: number, bytes: number): void {
    const { qp, parts } = this;
    qp.retransmittedPackets++;
    parts.counters[C.retransmitted_packets]++;
    parts.counters[C.retransmitted_bytes] += bytes;
    const region = parts.translator.regionOf(qp.sendQueue.lkey[row]);
    if (region !== undefined) region.bytesRetransmitted += bytes;
  }
}
