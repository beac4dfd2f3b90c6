/**
 * A queue pair: its attributes, its state, and the three machines that work on it.
 *
 * The requester turns send work into packets, the responder judges the peer's requests, the
 * completer takes the peer's answers. They share what stands here. State changes other than to ERR
 * come from the driver (MODIFY_QP).
 */
import {
  CQE_RECEIVE,
  EVENT_QP_FATAL,
  EVENT_QP_LAST_WQE_REACHED,
  FRAME_WORDS,
  QPS_ERR,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  QPS_SQE,
  QPT_RC,
  QPT_UD,
  RECORD_COMPLETION,
  SEND_SIGNALED,
  type TimePs,
  W_DEST_QPN,
  W_LIDS,
  W_OPCODE,
  W_PKEY,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
} from '../../transport/index.ts';
import type { CompletionQueue } from '../cq/completion-queue.ts';
import { Completer } from '../requester/completer.ts';
import { Requester } from '../requester/requester.ts';
import { SendQueue } from '../requester/send-queue.ts';
import { serviceOf, workCompletion } from '../requester/work-kinds.ts';
import { newResponder } from '../responder/new-responder.ts';
import { ReceiveQueue, type ReceiveSource } from '../responder/receive-queue.ts';
import type { Responder } from '../responder/responder.ts';
import type { SharedReceiveQueue } from '../responder/shared-receive-queue.ts';
import type { Transmitter } from '../transmitter.ts';
import { newAttributes, type QpAttributes } from './attributes.ts';
import type { Parts, ProtectionDomain } from './parts.ts';

/** What CREATE_QP says of a queue pair; none of it ever changes. */
export interface QpInit {
  /** QPT_RC, QPT_UC or QPT_UD. */
  readonly type: number;
  readonly sendEntries: number;
  readonly receiveEntries: number;
  readonly sendCq: CompletionQueue;
  readonly receiveCq: CompletionQueue;
  /** Where receives come from instead of a queue of its own. */
  readonly srq: SharedReceiveQueue | undefined;
  /** sq_sig_all: every work request of the send queue is signalled. */
  readonly signalsAll: boolean;
}

/** Path MTU of a queue pair that has not been connected; any would do. */
const CONNECTED_MTU = 256;

export class QueuePair {
  state = QPS_RESET;
  readonly type: number;
  /** The three high bits of the opcodes of its packets. */
  readonly service: number;
  readonly srq: SharedReceiveQueue | undefined;
  readonly attributes: QpAttributes;
  // Set by `build`; declared only, so that they are never undefined, which costs speed.
  declare sendQueue: SendQueue;
  declare receiveQueue: ReceiveSource;
  declare requester: Requester;
  declare completer: Completer;
  declare responder: Responder;
  /** W_LIDS and W_PKEY of its packets, and W_LIDS of its peer's. */
  lids = 0;
  peerLids = 0;
  pkey = 0;
  /** The way out of the adapter to its peer; of datagrams, the one that the last took. */
  declare way: Transmitter;
  /** Nothing of this queue pair may be sent before; see Transmitter. */
  readyPs: TimePs = 0;
  /** True once DESTROY_QP has taken its number out of use; its counters stay for the report. */
  isDestroyed = false;
  /** The way out that has it in its round. */
  activeIn: Transmitter | undefined;
  /** The peer has said that its protection domain is suspended: nothing is sent to it. */
  isPeerSuspended = false;

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
    readonly init: QpInit,
    private readonly parts: Parts,
  ) {
    this.type = init.type;
    this.service = serviceOf(init.type);
    this.srq = init.srq;
    this.attributes = newAttributes(this.startMtu);
    this.readdress();
    this.build();
  }

  /** Queues and machines as they are in RESET: empty, and without a memory of what was. */
  private build(): void {
    const { init, parts } = this;
    this.sendQueue = new SendQueue(init.sendEntries);
    this.receiveQueue = init.srq ?? new ReceiveQueue(init.receiveEntries, parts.trailer);
    this.requester = new Requester(this, parts);
    this.completer = new Completer(this, parts);
    this.responder = newResponder(this, parts);
  }

  /** Datagrams may be as long as the port lets them; `path_mtu` is not set for them. */
  private get startMtu(): number {
    return this.type === QPT_UD ? this.parts.port.mtu : CONNECTED_MTU;
  }

  /** Attributes have changed: works out what every packet carries. */
  readdress(): void {
    const { port } = this.parts;
    this.lids = (port.lid << 16) | this.attributes.destLid;
    this.peerLids = (this.attributes.destLid << 16) | port.lid;
    this.pkey = port.pkeys[this.attributes.pkeyIndex];
    this.way = this.parts.ways.to(this.attributes.destLid);
  }

  /** Finds the way that the datagram which is to be sent next takes. */
  takeNextWay(): Transmitter {
    const { sendQueue } = this;
    this.way = this.parts.ways.to(sendQueue.datagramLid(sendQueue.at(sendQueue.next)));
    return this.way;
  }

  /** Goes to RESET: whatever was posted or under way is forgotten, without completions. */
  reset(now: TimePs): void {
    this.requester.stop(now);
    this.completer.stop();
    this.responder.answers?.stop();
    Object.assign(this.attributes, newAttributes(this.startMtu));
    this.readdress();
    this.build();
    this.isPeerSuspended = false;
    this.state = QPS_RESET;
  }

  /** Whether this queue pair may send requests now. */
  get canRequest(): boolean {
    const isRunning = this.state === QPS_RTS || this.requester.drain.isActive;
    return isRunning && !this.pd.suspended && !this.isPeerSuspended;
  }

  /** A RECV_DOORBELL frame; the frame is the caller's. */
  postReceive(frame: number, now: TimePs): void {
    // A queue pair in RESET has no receives, nor has one that takes them from a shared queue.
    if (this.state === QPS_RESET || this.srq !== undefined) return;
    if (!this.receiveQueue.post(this.parts.pool, frame)) this.overrun(now);
    else if (this.state === QPS_ERR) this.flush(now);
    else this.responder.receivePosted(now);
  }

  /** A queue has overflowed, or the completion queue has: nothing that follows can be trusted. */
  overrun(now: TimePs): void {
    this.parts.bus.asyncEvent(now, EVENT_QP_FATAL, this.qpn);
    if (this.state !== QPS_ERR) this.fail(WC_SUCCESS, now);
  }

  /** A wire frame to the peer with its addresses filled in. */
  newPacket(opcode: number): number {
    const frame = this.parts.pool.allocate();
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + W_OPCODE] = opcode;
    words[base + W_DEST_QPN] = this.attributes.destQpn;
    words[base + W_LIDS] = this.lids;
    words[base + W_PKEY] = this.pkey;
    return frame;
  }

  /** Tells the peer that our protection domain is suspended, or runs again (ANNOUNCE_* opcode). */
  announce(opcode: number, now: TimePs): void {
    const isConnected = this.type !== QPT_UD && this.state >= QPS_RTR && this.state <= QPS_SQD;
    if (!isConnected) return;
    this.packetsSent++;
    this.way.answer(this.newPacket(opcode), now);
  }

  /** The peer has announced a suspend, or a resume; or it has been silent for too long. */
  onAnnouncement(isSuspended: boolean, now: TimePs): void {
    if (this.state !== QPS_RTS && this.state !== QPS_SQD) return;
    const wasSuspended = this.isPeerSuspended;
    this.isPeerSuspended = isSuspended;
    if (isSuspended) this.completer.onPeerSuspend(now);
    else if (wasSuspended) this.completer.onPeerResume(now);
  }

  /** Something of this queue pair may have become sendable. */
  activate(readyPs: TimePs): void {
    (this.activeIn ?? this.way).activate(this, readyPs);
  }

  /** The work request at the head of the send queue has completed. */
  completeHead(status: number, now: TimePs): void {
    const row = this.takeHead(status, now);
    if (status === WC_SUCCESS) this.requester.completed(row, now);
  }

  /** Reports the work request at the head of the send queue and takes it out; returns its row. */
  takeHead(status: number, now: TimePs): number {
    const queue = this.sendQueue;
    const row = queue.at(queue.head);
    queue.head++;
    const isSignalled = this.init.signalsAll || (queue.flags[row] & SEND_SIGNALED) !== 0;
    if (status === WC_SUCCESS && !isSignalled) return row;
    const opcode = workCompletion[queue.opcode[row]];
    const bytes = queue.length[row];
    this.complete(now, this.init.sendCq, queue.wrId[row], status, opcode, bytes, 0, 0, 0, 0);
    return row;
  }

  /**
   * Reports receive `wrId`, which has been taken out of its queue. `flags` are CQE_* bits;
   * `sourceQpn` and `slid` are the sender of a datagram.
   */
  completeReceive(
    now: TimePs,
    wrId: number,
    status: number,
    opcode: number,
    bytes: number,
    immediate: number,
    flags: number,
    sourceQpn: number,
    slid: number,
  ): void {
    const all = flags | CQE_RECEIVE;
    const { receiveCq } = this.init;
    this.complete(now, receiveCq, wrId, status, opcode, bytes, immediate, all, sourceQpn, slid);
  }

  /**
   * The work request at the head of the send queue cannot be sent: it completes with `status`. RC goes
   * to ERR; without a connection state to lose, UC and UD stop sending and still receive (SQE).
   */
  failSend(status: number, now: TimePs): void {
    if (this.type === QPT_RC) {
      this.fail(status, now);
      return;
    }
    this.state = QPS_SQE;
    this.requester.stop(now);
    this.takeHead(status, now);
    this.flushSends(now);
  }

  /** Goes to ERR: the head of the send queue completes with `status`, all else is flushed. */
  fail(status: number, now: TimePs): void {
    const wasInErr = this.state === QPS_ERR;
    this.state = QPS_ERR;
    this.isPeerSuspended = false;
    this.requester.stop(now);
    this.completer.stop();
    this.responder.answers?.stop();
    if (status !== WC_SUCCESS && !this.sendQueue.isEmpty) this.takeHead(status, now);
    this.flush(now);
    if (this.srq === undefined || wasInErr || this.isDestroyed) return;
    // Nothing is taken from the shared queue any more.
    this.parts.bus.asyncEvent(now, EVENT_QP_LAST_WQE_REACHED, this.qpn);
  }

  /** Flushes what is posted, now or later, in ERR (WR_FLUSH_ERR). */
  flush(now: TimePs): void {
    this.flushSends(now);
    this.responder.flushReceives(now);
  }

  /** Flushes the send queue, in ERR and in SQE. */
  flushSends(now: TimePs): void {
    while (!this.sendQueue.isEmpty) this.takeHead(WC_WR_FLUSH_ERR, now);
    this.requester.restart();
  }

  private complete(
    now: TimePs,
    cq: CompletionQueue,
    wrId: number,
    status: number,
    opcode: number,
    bytes: number,
    immediate: number,
    flags: number,
    sourceQpn: number,
    slid: number,
  ): void {
    this.parts.node.digest.record(RECORD_COMPLETION, now, this.qpn, wrId, status, opcode);
    cq.post(now, this.qpn, wrId, status, opcode, bytes, immediate, flags, sourceQpn, slid);
  }
}
