/**
 * A queue pair: its attributes, its state, and the three machines that work on it.
 *
 * The requester turns send work into packets, the responder judges the peer's requests, the
 * completer takes the peer's answers. They share what stands here. State changes other than to ERR
 * come from the driver (MODIFY_QP).
 */
import {
  CQE_RECEIVE,
  FRAME_WORDS,
  PKEY_DEFAULT,
  QPS_ERR,
  QPS_RESET,
  QPS_RTS,
  RECORD_COMPLETION,
  SEND_SIGNALED,
  type TimePs,
  W_DEST_QPN,
  W_LIDS,
  W_OPCODE,
  W_PKEY,
  WC_RDMA_READ,
  WC_RDMA_WRITE,
  WC_RECV,
  WC_SEND,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_RDMA_READ,
  WR_SEND,
  WR_SEND_WITH_IMM,
} from '../../transport/index.ts';
import { Completer } from './completer.ts';
import type { Parts, ProtectionDomain } from './parts.ts';
import { ReadResponder } from './read-responder.ts';
import { ReceiveQueue } from './receive-queue.ts';
import { Requester } from './requester.ts';
import { Responder } from './responder.ts';
import { SendQueue } from './send-queue.ts';

/** Attributes set by MODIFY_QP; names as in `ibv_qp_attr`. */
export interface QpAttributes {
  destQpn: number;
  destLid: number;
  mtu: number;
  timeout: number;
  retryCnt: number;
  rnrRetry: number;
  minRnrTimer: number;
  maxRdAtomic: number;
  access: number;
}

export class QueuePair {
  state = QPS_RESET;
  readonly attributes: QpAttributes = {
    destQpn: 0,
    destLid: 0,
    mtu: 1024,
    timeout: 0,
    retryCnt: 0,
    rnrRetry: 0,
    minRnrTimer: 0,
    maxRdAtomic: 1,
    access: 0,
  };
  readonly sendQueue: SendQueue;
  readonly receiveQueue: ReceiveQueue;
  readonly requester: Requester;
  readonly completer: Completer;
  readonly responder: Responder;
  readonly readResponder: ReadResponder;
  /** Nothing of this queue pair may be sent before; see Transmitter. */
  readyPs: TimePs = 0;
  /** True once DESTROY_QP has taken its number out of use; its counters stay for the report. */
  isDestroyed = false;
  /** Whether the transmitter has it in its round. */
  isActive = false;

  // Statistics.
  packetsSent = 0;
  packetsReceived = 0;
  retransmittedPackets = 0;
  rnrNaksSent = 0;
  rnrNaksReceived = 0;
  timeouts = 0;
  sequenceNaksSent = 0;
  duplicateRequests = 0;

  /** `index` counts queue pairs of the adapter from 0; timers are named by it. */
  constructor(
    readonly index: number,
    readonly qpn: number,
    readonly pd: ProtectionDomain,
    sendEntries: number,
    receiveEntries: number,
    private readonly sendCqn: number,
    private readonly receiveCqn: number,
    private readonly lid: number,
    private readonly parts: Parts,
  ) {
    this.sendQueue = new SendQueue(sendEntries);
    this.receiveQueue = new ReceiveQueue(receiveEntries);
    this.requester = new Requester(this, parts);
    this.completer = new Completer(this, parts);
    this.responder = new Responder(this, parts);
    this.readResponder = new ReadResponder(this, parts);
  }

  /** Whether this queue pair may send requests now. */
  get canRequest(): boolean {
    return this.state === QPS_RTS && !this.pd.suspended;
  }

  /** Whether posted receives are kept; in ERR they are flushed. */
  get canReceive(): boolean {
    return this.state !== QPS_ERR;
  }

  /** A wire frame to the peer with its addresses filled in. */
  newPacket(opcode: number): number {
    const frame = this.parts.pool.allocate();
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + W_OPCODE] = opcode;
    words[base + W_DEST_QPN] = this.attributes.destQpn;
    words[base + W_LIDS] = (this.lid << 16) | this.attributes.destLid;
    words[base + W_PKEY] = PKEY_DEFAULT;
    return frame;
  }

  /** Something of this queue pair may have become sendable. */
  activate(readyPs: TimePs): void {
    this.parts.transmitter.activate(this, readyPs);
  }

  /** Reports the work request at the head of the send queue and takes it out. */
  completeHead(status: number, now: TimePs): void {
    const queue = this.sendQueue;
    const row = queue.at(queue.head);
    queue.head++;
    if (status === WC_SUCCESS && (queue.flags[row] & SEND_SIGNALED) === 0) return;
    const opcode = queue.opcode[row];
    const completed =
      opcode === WR_RDMA_READ
        ? WC_RDMA_READ
        : opcode === WR_SEND || opcode === WR_SEND_WITH_IMM
          ? WC_SEND
          : WC_RDMA_WRITE;
    this.complete(now, this.sendCqn, queue.wrId[row], status, completed, queue.length[row], 0, 0);
  }

  /** Reports the oldest receive and takes it out. */
  completeReceive(
    now: TimePs,
    status: number,
    opcode: number,
    bytes: number,
    immediate: number,
    flags: number,
  ): void {
    const wrId = this.receiveQueue.wrId[this.receiveQueue.first];
    this.receiveQueue.take();
    this.complete(
      now,
      this.receiveCqn,
      wrId,
      status,
      opcode,
      bytes,
      immediate,
      flags | CQE_RECEIVE,
    );
  }

  /** Goes to ERR: the head of the send queue completes with `status`, all else is flushed. */
  fail(status: number, now: TimePs): void {
    this.state = QPS_ERR;
    this.requester.stop(now);
    this.completer.stop();
    this.readResponder.stop();
    if (status !== WC_SUCCESS && !this.sendQueue.isEmpty) this.completeHead(status, now);
    this.flush(now);
  }

  /** Flushes what is posted, now or later, in ERR (WR_FLUSH_ERR). */
  flush(now: TimePs): void {
    while (!this.sendQueue.isEmpty) this.completeHead(WC_WR_FLUSH_ERR, now);
    while (!this.receiveQueue.isEmpty) this.completeReceive(now, WC_WR_FLUSH_ERR, WC_RECV, 0, 0, 0);
  }

  private complete(
    now: TimePs,
    cqn: number,
    wrId: number,
    status: number,
    opcode: number,
    bytes: number,
    immediate: number,
    flags: number,
  ): void {
    this.parts.node.digest.record(RECORD_COMPLETION, now, this.qpn, wrId, status, opcode);
    this.parts.bus.completion(now, cqn, this.qpn, wrId, status, opcode, bytes, immediate, flags);
  }
}
