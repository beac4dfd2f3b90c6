/**
 * Request packets: from a work request of the send queue to the fields of a frame (IBTA 9.2 to 9.4).
 *
 * Does not own which packet is next, nor its PSN (`requester.ts`).
 */
import {
  BTH_ACK_REQUEST,
  BTH_SOLICITED,
  BURST,
  BURST_OFFSET,
  FRAME_WORDS,
  PAYLOAD_BYTES,
  QPT_RC,
  QPT_UD,
  SEND_SOLICITED,
  W_BTH_FLAGS,
  W_COMPARE_HIGH,
  W_COMPARE_LOW,
  W_DEST_QPN,
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_LIDS,
  W_QKEY,
  W_RKEY,
  W_SOURCE_QPN,
  W_SWAP_HIGH,
  W_SWAP_LOW,
  WR_ATOMIC_FETCH_AND_ADD,
} from '../../transport/index.ts';
import type { Gather } from '../dma/gather.ts';
import type { Parts } from '../qp/parts.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import {
  packetOpcode,
  serviceOf,
  WORK_ATOMIC,
  WORK_DATA,
  WORK_IMMEDIATE,
  WORK_INLINE,
  WORK_RECEIVE,
  WORK_RETH,
} from './work-kinds.ts';

/** A datagram's Q_Key with this bit set stands for the queue pair's own (IBTA 10.2.5). */
const QKEY_OF_QUEUE_PAIR = 0x80000000;

export class RequestPackets {
  private readonly service: number;
  private readonly isReliable: boolean;

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
    private readonly gather: Gather,
  ) {
    this.service = serviceOf(qp.type);
    this.isReliable = qp.type === QPT_RC;
  }

  /** Whether packet `index` of a row asks for an ACK. */
  asksAck(row: number, index: number): boolean {
    if (!this.isReliable) return false;
    const interval = this.parts.profile.ackRequestPackets;
    const isLast = index + 1 >= this.qp.sendQueue.packets[row];
    return isLast || index % interval === interval - 1;
  }

  /** Packet `index` of a SEND or WRITE at `position`, whose data the gather has. */
  data(position: number, index: number): number {
    const { qp, parts } = this;
    const queue = qp.sendQueue;
    const words = parts.pool.words;
    const row = queue.at(position);
    const kind = queue.kind[row];
    const isFirst = index === 0;
    const isLast = index + 1 === queue.packets[row];
    const frame = qp.newPacket(packetOpcode(queue.opcode[row], this.service, isFirst, isLast));
    const base = frame * FRAME_WORDS;
    if (isFirst && (kind & WORK_RETH) !== 0) this.setReth(frame, row, 0);
    if (isLast && (kind & WORK_IMMEDIATE) !== 0) words[base + W_IMMEDIATE] = queue.immediate[row];
    if (qp.type === QPT_UD) this.address(frame, row);
    // Only what takes a receive can ask for an event there (IBTA 9.2.3).
    const canSolicit = isLast && (kind & WORK_RECEIVE) !== 0;
    const isSolicited = canSolicit && (queue.flags[row] & SEND_SOLICITED) !== 0;
    words[base + W_BTH_FLAGS] =
      (this.asksAck(row, index) ? BTH_ACK_REQUEST : 0) | (isSolicited ? BTH_SOLICITED : 0);
    const offset = index * qp.attributes.mtu;
    const bytes = Math.min(qp.attributes.mtu, queue.length[row] - offset);
    words[base + PAYLOAD_BYTES] = bytes;
    if (bytes > 0) {
      if ((kind & WORK_INLINE) !== 0) words[base + BURST] = queue.inlineBurst(parts.pool, row);
      else {
        const burst = this.gather.ready(position, offset);
        parts.pool.retainBurst(burst);
        words[base + BURST] = burst;
        words[base + BURST_OFFSET] = this.gather.within(offset);
      }
    }
    return frame;
  }

  /** The one packet of a READ, an atomic or a FLUSH; a READ goes on at packet `index` of its response. */
  request(row: number, index: number): number {
    const queue = this.qp.sendQueue;
    const words = this.parts.pool.words;
    const kind = queue.kind[row];
    const frame = this.qp.newPacket(packetOpcode(queue.opcode[row], this.service, true, true));
    const base = frame * FRAME_WORDS;
    words[base + W_BTH_FLAGS] = BTH_ACK_REQUEST;
    if ((kind & WORK_ATOMIC) !== 0) this.setAtomicEth(frame, row);
    else this.setReth(frame, row, index * this.qp.attributes.mtu);
    if ((kind & WORK_IMMEDIATE) !== 0) words[base + W_IMMEDIATE] = queue.immediate[row];
    return frame;
  }

  /** Whether the packets of a row are made by `data`. */
  carriesData(row: number): boolean {
    return (this.qp.sendQueue.kind[row] & WORK_DATA) !== 0;
  }

  private setReth(frame: number, row: number, skipped: number): void {
    const queue = this.qp.sendQueue;
    const words = this.parts.pool.words;
    words[frame * FRAME_WORDS + W_RKEY] = queue.rkey[row];
    words[frame * FRAME_WORDS + W_DMA_BYTES] = queue.length[row] - skipped;
    this.parts.pool.doubles[frame * 2] = queue.remoteAddress[row] + skipped;
  }

  /** Operands stand in the segment low word first: compare or add, then swap. */
  private setAtomicEth(frame: number, row: number): void {
    const queue = this.qp.sendQueue;
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    const isAdd = queue.opcode[row] === WR_ATOMIC_FETCH_AND_ADD;
    words[base + W_RKEY] = queue.rkey[row];
    this.parts.pool.doubles[frame * 2] = queue.remoteAddress[row];
    words[base + W_SWAP_LOW] = queue.operand(row, isAdd ? 0 : 2);
    words[base + W_SWAP_HIGH] = queue.operand(row, isAdd ? 1 : 3);
    if (isAdd) return;
    words[base + W_COMPARE_LOW] = queue.operand(row, 0);
    words[base + W_COMPARE_HIGH] = queue.operand(row, 1);
  }

  /** A datagram's own address: its work request names the receiver. */
  private address(frame: number, row: number): void {
    const queue = this.qp.sendQueue;
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    const qkey = queue.operand(row, 1);
    words[base + W_DEST_QPN] = queue.operand(row, 0) & 0xffffff;
    words[base + W_QKEY] = (qkey & QKEY_OF_QUEUE_PAIR) !== 0 ? this.qp.attributes.qkey : qkey;
    words[base + W_SOURCE_QPN] = this.qp.qpn;
    words[base + W_LIDS] = (words[base + W_LIDS] & ~0xffff) | queue.datagramLid(row);
  }
}
