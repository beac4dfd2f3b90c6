/**
 * Requester: send work requests -> request packets (IBTA 9.9).
 *
 * Owns where in the send queue sending stands, the data read ahead, and going back. Does not own what
 * answers mean (`completer.ts`) or when the link is free (`transmitter.ts`).
 */
import {
  BTH_ACK_REQUEST,
  BTH_SOLICITED,
  BURST,
  BURST_MAX_BYTES,
  BURST_OFFSET,
  FRAME_WORDS,
  type FramePool,
  NEVER,
  PAYLOAD_BYTES,
  QPS_ERR,
  QPS_RTS,
  RC_READ_REQUEST,
  RC_SEND_FIRST,
  RC_SEND_LAST,
  RC_SEND_LAST_IMM,
  RC_SEND_MIDDLE,
  RC_SEND_ONLY,
  RC_SEND_ONLY_IMM,
  RC_WRITE_FIRST,
  RC_WRITE_LAST,
  RC_WRITE_LAST_IMM,
  RC_WRITE_MIDDLE,
  RC_WRITE_ONLY,
  RC_WRITE_ONLY_IMM,
  SEND_SOLICITED,
  type TimePs,
  TRAIN_COUNT,
  W_BTH_FLAGS,
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_PSN,
  W_RKEY,
  WC_LOC_LEN_ERR,
  WC_LOC_PROT_ERR,
  WC_LOC_QP_OP_ERR,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import type { FaultWaiter } from '../fault-engine.ts';
import { LOCAL_READ } from '../memory/translator.ts';
import { TIMER_ACK } from '../timers.ts';
import { Gather } from './gather.ts';
import { MAX_MESSAGE_BYTES, type Parts } from './parts.ts';
import { psnAdd, psnDistance } from './psn.ts';
import type { QueuePair } from './queue-pair.ts';

export class Requester implements FaultWaiter {
  /** PSN of the next packet to send. */
  nextPsn = 0;
  /** One behind the highest PSN ever sent; packets before it are retransmissions. */
  newPsn = 0;
  /** Packets of the work request at `sendQueue.next` that are sent. */
  private sentPackets = 0;
  /** Where reading ahead stands. */
  private fetchWork = 0;
  private fetchOffset = 0;
  private readonly gather: Gather;
  private isFaulted = false;
  /** The work request whose buffer met the fault in flight. */
  private faultedWork = 0;
  private stallSince: TimePs = NEVER;

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {
    this.gather = new Gather(parts.profile.gatherBursts, parts.pool, parts.bus, parts.tags, (now) =>
      qp.activate(now),
    );
  }

  /** Sets the first PSN (MODIFY_QP to RTS). */
  start(psn: number): void {
    this.nextPsn = psnAdd(psn, 0);
    this.newPsn = this.nextPsn;
    this.qp.sendQueue.postPsn = this.nextPsn;
    this.qp.completer.start(this.nextPsn);
  }

  /** A SEND_DOORBELL frame. */
  post(frame: number, now: TimePs): void {
    const { qp, parts } = this;
    const queue = qp.sendQueue;
    // Before RTS nothing may be posted (`ibv_post_send` refuses it), and no PSN is known.
    if (qp.state !== QPS_RTS && qp.state !== QPS_ERR) return;
    if (queue.isFull) {
      qp.fail(WC_LOC_QP_OP_ERR, now);
      return;
    }
    if (queue.isEmpty) this.stallSince = NEVER;
    queue.post(parts.pool, frame, qp.attributes.mtu);
    if (qp.state === QPS_ERR) {
      qp.flush(now);
      return;
    }
    const row = queue.at(queue.tail - 1);
    queue.problem[row] = this.problemOf(row);
    if (qp.pd.suspended) this.beginStall(now);
    const readyPs = now + parts.profile.wqeFetchPs;
    this.fetch(readyPs);
    qp.activate(readyPs);
  }

  /** Reads ahead as far as the gather has room and pages are there. */
  fetch(readyPs: TimePs): void {
    const { qp, parts } = this;
    const queue = qp.sendQueue;
    if (this.fetchWork < queue.next) this.fetchFrom(queue.next);
    while (!this.gather.isFull && !this.isFaulted && this.fetchWork < queue.tail) {
      const row = queue.at(this.fetchWork);
      if (!qp.canRequest || queue.problem[row] !== WC_SUCCESS) return;
      const length = queue.isRead(row) ? 0 : queue.length[row];
      if (this.fetchOffset >= length) {
        this.fetchWork++;
        this.fetchOffset = 0;
        continue;
      }
      const address = queue.localAddress[row];
      const lkey = queue.lkey[row];
      const region = parts.translator.check(lkey, qp.pd.number, address, length, LOCAL_READ);
      if (region === undefined) {
        queue.problem[row] = WC_LOC_PROT_ERR;
        return;
      }
      const from = address + this.fetchOffset;
      const bytes = Math.min(BURST_MAX_BYTES, length - this.fetchOffset);
      const burst = parts.translator.gather(parts.pool, region, from, bytes);
      if (burst === 0) {
        const miss = parts.translator.missAddress;
        this.isFaulted = true;
        this.faultedWork = this.fetchWork;
        this.beginStall(readyPs);
        const left = address + length - miss;
        parts.faults.raise(region, miss, left, false, false, qp.qpn, this, parts.node.now);
        return;
      }
      const sendPs = readyPs + parts.translator.latencyPs;
      this.gather.request(sendPs, burst, this.fetchWork, this.fetchOffset, 0, 0, 0, 0, 0);
      this.fetchOffset += bytes;
    }
  }

  /** Whether the next packet can be sent now. Fails the queue pair if its work request cannot be. */
  canSend(now: TimePs): boolean {
    const { qp, parts } = this;
    const queue = qp.sendQueue;
    if (queue.next === queue.tail || !qp.canRequest || qp.completer.isWaiting) return false;
    const row = queue.at(queue.next);
    if (queue.problem[row] !== WC_SUCCESS) {
      // What was posted before it completes first.
      if (queue.head === queue.next) qp.fail(queue.problem[row], now);
      return false;
    }
    const outstanding = psnDistance(this.nextPsn, qp.completer.unackedPsn);
    if (outstanding >= parts.profile.windowPackets) return false;
    if (queue.isRead(row)) return qp.completer.readsOutstanding() < qp.attributes.maxRdAtomic;
    if (queue.length[row] === 0) return true;
    return this.gather.ready(queue.next, this.sentPackets * qp.attributes.mtu) !== 0;
  }

  /** Makes the next packet; only after `canSend`. */
  emit(now: TimePs): number {
    const { qp, parts } = this;
    const queue = qp.sendQueue;
    const pool = parts.pool;
    const row = queue.at(queue.next);
    this.endStall(row, now);
    const frame = queue.isRead(row) ? this.readRequest(row) : this.dataPacket(row);
    const isRetransmission = psnDistance(this.nextPsn, this.newPsn) < 0;
    if (isRetransmission)
      this.countRetransmission(row, pool.words[frame * FRAME_WORDS + PAYLOAD_BYTES]);
    pool.words[frame * FRAME_WORDS + W_PSN] = this.nextPsn;

    const sent = queue.isRead(row) ? queue.packets[row] - this.sentPackets : 1;
    this.nextPsn = psnAdd(this.nextPsn, sent);
    this.sentPackets += sent;
    if (psnDistance(this.nextPsn, this.newPsn) > 0) this.newPsn = this.nextPsn;
    const isDone = this.sentPackets === queue.packets[row];
    const offset = isDone ? queue.length[row] : this.sentPackets * qp.attributes.mtu;
    if (!queue.isRead(row) && queue.length[row] > 0 && this.gather.consumed(offset))
      this.fetch(now);
    if (isDone) {
      queue.next++;
      this.sentPackets = 0;
    }
    qp.packetsSent++;
    if (parts.timers.deadlineOf(qp.index, TIMER_ACK) === NEVER) qp.completer.armAckTimer(now);
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
    if (qp.completer.isWaiting || !qp.canRequest || qp.readResponder.isBusy) return false;
    // Of the same burst; its last packet goes alone, because it makes room for reading ahead.
    if (this.gather.ready(queue.next, offset) !== words[base + BURST]) return false;
    if (this.sentPackets + 1 >= queue.packets[row] || this.gather.leftFrom(offset) <= mtu)
      return false;
    if (psnDistance(this.nextPsn, this.newPsn) < 0) return false;
    const outstanding = psnDistance(this.nextPsn, qp.completer.unackedPsn);
    if (outstanding >= parts.profile.windowPackets) return false;
    const asksAck = this.asksAck(row) ? BTH_ACK_REQUEST : 0;
    if (words[base + W_BTH_FLAGS] !== asksAck) return false;
    words[base + TRAIN_COUNT] = Math.max(1, words[base + TRAIN_COUNT]) + 1;
    this.sentPackets++;
    this.nextPsn = psnAdd(this.nextPsn, 1);
    this.newPsn = this.nextPsn;
    qp.packetsSent++;
    return true;
  }

  /** Goes back to `psn`, which is not acknowledged: it and everything behind is sent again. */
  goBack(psn: number, now: TimePs): void {
    const queue = this.qp.sendQueue;
    let position = queue.head;
    while (position < queue.tail) {
      const row = queue.at(position);
      if (psnDistance(psn, queue.lastPsn(row)) <= 0) break;
      position++;
    }
    queue.next = position;
    this.nextPsn = psn;
    this.sentPackets =
      position === queue.tail ? 0 : psnDistance(psn, queue.firstPsn[queue.at(position)]);
    this.gather.discard();
    this.fetchFrom(position);
    this.fetch(now);
  }

  /** The time during which nothing could be sent counts as stall of the work request's region. */
  beginStall(now: TimePs): void {
    this.stallSince = Math.min(this.stallSince, now);
  }

  onResume(ok: boolean, now: TimePs): void {
    this.isFaulted = false;
    const queue = this.qp.sendQueue;
    // It may have been acknowledged meanwhile, if it had been sent before.
    const isPending = this.faultedWork >= queue.head && this.faultedWork < queue.tail;
    if (!ok && isPending) queue.problem[queue.at(this.faultedWork)] = WC_LOC_PROT_ERR;
    this.fetch(now);
    this.qp.activate(now);
  }

  /** Drops what was read ahead (ERR). */
  stop(now: TimePs): void {
    this.gather.discard();
    if (!this.qp.sendQueue.isEmpty)
      this.endStall(this.qp.sendQueue.at(this.qp.sendQueue.head), now);
  }

  /** Reading ahead goes on at `position`, which is where sending stands. */
  private fetchFrom(position: number): void {
    this.fetchWork = position;
    this.fetchOffset = this.sentPackets * this.qp.attributes.mtu;
  }

  /** What is wrong with a work request by itself, or WC_SUCCESS. Its memory is judged when read. */
  private problemOf(row: number): number {
    const queue = this.qp.sendQueue;
    if (queue.opcode[row] > WR_RDMA_READ) return WC_LOC_QP_OP_ERR;
    if (queue.isRead(row) && this.qp.attributes.maxRdAtomic === 0) return WC_LOC_QP_OP_ERR;
    const length = queue.length[row];
    return length < 0 || length > MAX_MESSAGE_BYTES ? WC_LOC_LEN_ERR : WC_SUCCESS;
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

  private asksAck(row: number): boolean {
    const interval = this.parts.profile.ackRequestPackets;
    const isLast = this.sentPackets + 1 === this.qp.sendQueue.packets[row];
    return isLast || this.sentPackets % interval === interval - 1;
  }

  private readRequest(row: number): number {
    const queue = this.qp.sendQueue;
    const frame = this.qp.newPacket(RC_READ_REQUEST);
    const skipped = this.sentPackets * this.qp.attributes.mtu;
    this.setReth(frame, row, skipped);
    this.parts.pool.words[frame * FRAME_WORDS + W_BTH_FLAGS] = BTH_ACK_REQUEST;
    this.parts.pool.words[frame * FRAME_WORDS + W_DMA_BYTES] = queue.length[row] - skipped;
    return frame;
  }

  private dataPacket(row: number): number {
    const { qp, parts } = this;
    const queue = qp.sendQueue;
    const pool: FramePool = parts.pool;
    const words = pool.words;
    const mtu = qp.attributes.mtu;
    const isFirst = this.sentPackets === 0;
    const isLast = this.sentPackets + 1 === queue.packets[row];
    const operation = queue.opcode[row];
    const frame = qp.newPacket(opcodeFor(operation, isFirst, isLast));
    const base = frame * FRAME_WORDS;
    const isWrite = operation === WR_RDMA_WRITE || operation === WR_RDMA_WRITE_WITH_IMM;
    if (isWrite && isFirst) this.setReth(frame, row, 0);
    if (isLast && (operation === WR_RDMA_WRITE_WITH_IMM || operation === WR_SEND_WITH_IMM)) {
      words[base + W_IMMEDIATE] = queue.immediate[row];
    }
    const isSolicited = isLast && (queue.flags[row] & SEND_SOLICITED) !== 0;
    words[base + W_BTH_FLAGS] =
      (this.asksAck(row) ? BTH_ACK_REQUEST : 0) | (isSolicited ? BTH_SOLICITED : 0);
    const offset = this.sentPackets * mtu;
    const bytes = Math.min(mtu, queue.length[row] - offset);
    words[base + PAYLOAD_BYTES] = bytes;
    if (bytes > 0) {
      const burst = this.gather.ready(queue.next, offset);
      pool.retainBurst(burst);
      words[base + BURST] = burst;
      words[base + BURST_OFFSET] = this.gather.within(offset);
    }
    return frame;
  }

  private setReth(frame: number, row: number, skipped: number): void {
    const queue = this.qp.sendQueue;
    const words = this.parts.pool.words;
    words[frame * FRAME_WORDS + W_RKEY] = queue.rkey[row];
    words[frame * FRAME_WORDS + W_DMA_BYTES] = queue.length[row];
    this.parts.pool.doubles[frame * 2] = queue.remoteAddress[row] + skipped;
  }
}

/** The BTH opcode of a packet of a SEND or WRITE. */
function opcodeFor(operation: number, isFirst: boolean, isLast: boolean): number {
  if (operation === WR_RDMA_WRITE || operation === WR_RDMA_WRITE_WITH_IMM) {
    const hasImmediate = operation === WR_RDMA_WRITE_WITH_IMM;
    if (isFirst) {
      if (!isLast) return RC_WRITE_FIRST;
      return hasImmediate ? RC_WRITE_ONLY_IMM : RC_WRITE_ONLY;
    }
    if (!isLast) return RC_WRITE_MIDDLE;
    return hasImmediate ? RC_WRITE_LAST_IMM : RC_WRITE_LAST;
  }
  const hasImmediate = operation !== WR_SEND;
  if (isFirst) {
    if (!isLast) return RC_SEND_FIRST;
    return hasImmediate ? RC_SEND_ONLY_IMM : RC_SEND_ONLY;
  }
  if (!isLast) return RC_SEND_MIDDLE;
  return hasImmediate ? RC_SEND_LAST_IMM : RC_SEND_LAST;
}
