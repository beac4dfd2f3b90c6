/**
 * The program's and the driver's side of a queue pair: its attributes, and what has been posted to it
 * and not yet completed.
 */
import {
  CQE_RECEIVE,
  MAX_INLINE_BYTES,
  MAX_SGE,
  QPS_INIT,
  QPS_RESET,
  QPS_RTS,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  SEND_INLINE,
  SEND_SIGNALED,
  WC_SUCCESS,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_BIND_MW,
  WR_FLUSH,
  WR_LOCAL_INV,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
  WR_SEND_WITH_INV,
} from '../../transport/index.ts';
import { VerbsError } from '../errno.ts';
import type { QueuePairAttributes } from './attributes.ts';
import type { CompletionQueue } from './completion-queue.ts';
import { checkSges, PostedReceives } from './posted-receives.ts';
import type { SharedReceiveQueue } from './shared-receive-queue.ts';
import { lengthOf, type ReceiveRequest, type SendRequest, type WorkCompletion } from './work.ts';

/** ibv_qp_init_attr. */
export interface QueuePairPlan {
  readonly sendCq: CompletionQueue;
  readonly recvCq: CompletionQueue;
  readonly maxSendWr: number;
  /** 0 with a shared receive queue. */
  readonly maxRecvWr: number;
  /** IBV_QPT_*; RC when left out. */
  readonly type?: number;
  readonly srq?: SharedReceiveQueue;
  /** Every request completes, signalled or not. */
  readonly sqSigAll?: boolean;
  /** Limits of a work request; the adapter's when left out. */
  readonly maxSendSge?: number;
  readonly maxRecvSge?: number;
  readonly maxInline?: number;
}

/** What a queue pair's program has posted and polled, as the host counts it. */
export interface QueuePairCounters {
  send_requests: number;
  /** To its own receive queue. */
  receive_requests: number;
  completions: number;
  /** Of these, without success; flushed ones are among them. */
  failed_completions: number;
}

/** A send-queue work request between post and completion. */
export interface PostedSend {
  readonly request: SendRequest;
  /** Its message's number on this queue pair, from 1; 0 when it sends none. */
  readonly message: number;
  /** Hash of its bytes, where they need not stay as they are until it completes. */
  readonly inlineHash: number | undefined;
}

/** Services whose queue pairs may post an opcode: bits of 1 << IBV_QPT_*. */
const RC = 1 << QPT_RC;
const CONNECTED = RC | (1 << QPT_UC);
const ALL = CONNECTED | (1 << QPT_UD);
const servicesOf: Readonly<Record<number, number>> = {
  [WR_RDMA_WRITE]: CONNECTED,
  [WR_RDMA_WRITE_WITH_IMM]: CONNECTED,
  [WR_SEND]: ALL,
  [WR_SEND_WITH_IMM]: ALL,
  [WR_RDMA_READ]: RC,
  [WR_ATOMIC_CMP_AND_SWP]: RC,
  [WR_ATOMIC_FETCH_AND_ADD]: RC,
  [WR_LOCAL_INV]: CONNECTED,
  [WR_BIND_MW]: CONNECTED,
  [WR_SEND_WITH_INV]: RC,
  [WR_FLUSH]: RC,
  [WR_ATOMIC_WRITE]: RC,
};
/** Opcodes whose data may be inline. */
const INLINE_OPCODES: readonly number[] = [
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
  WR_SEND_WITH_INV,
  WR_ATOMIC_WRITE,
];

export class QueuePair {
  readonly type: number;
  /** As last set; the adapter moves the state to ERR or SQE by itself (see queryQp). */
  attributes: QueuePairAttributes;
  readonly receives: PostedReceives;
  readonly counters: QueuePairCounters = {
    send_requests: 0,
    receive_requests: 0,
    completions: 0,
    failed_completions: 0,
  };
  /** Messages posted since the last reset. */
  messageCount = 0;
  private sends: PostedSend[] = [];

  constructor(
    readonly qpn: number,
    readonly pd: number,
    readonly plan: QueuePairPlan,
  ) {
    this.type = plan.type ?? QPT_RC;
    this.receives = new PostedReceives(plan.maxRecvWr, plan.maxRecvSge ?? MAX_SGE);
    this.attributes = {
      state: QPS_RESET,
      currentState: QPS_RESET,
      mtuBytes: 4096,
      qkey: 0,
      receivePsn: 0,
      sendPsn: 0,
      destQpn: 0,
      access: 0,
      pkeyIndex: 0,
      drainedEvent: 0,
      maxRdAtomic: 0,
      maxDestRdAtomic: 0,
      minRnrTimer: 0,
      port: 0,
      timeout: 0,
      retryCnt: 0,
      rnrRetry: 0,
      destLid: 0,
    };
  }

  /** Send-queue work requests that have not completed. */
  get sendsOutstanding(): number {
    return this.sends.length;
  }

  /** What modify_qp has set; a reset empties both queues. */
  change(changes: Partial<QueuePairAttributes>): void {
    this.attributes = { ...this.attributes, ...changes };
    if (changes.state !== QPS_RESET) return;
    this.sends = [];
    this.receives.clear();
    this.messageCount = 0;
  }

  /** @throws VerbsError EINVAL or ENOMEM when the request cannot be posted */
  checkSend({ opcode, flags, sges, datagram }: SendRequest): void {
    const { plan, qpn } = this;
    const refuse = (why: string): VerbsError => new VerbsError('EINVAL', 'post_send', why);
    if (this.attributes.state < QPS_RTS) throw refuse(`QP ${qpn} is not ready to send`);
    if (((servicesOf[opcode] ?? 0) & (1 << this.type)) === 0) {
      throw refuse(`opcode ${opcode} is not for a queue pair of type ${this.type}`);
    }
    if ((this.type === QPT_UD) !== (datagram !== undefined)) {
      throw refuse('a datagram, and nothing else, needs an address handle');
    }
    if (datagram && datagram.ah.pd !== this.pd) throw refuse('the address handle is of another PD');
    checkSges(sges, plan.maxSendSge ?? MAX_SGE, 'post_send');
    if (flags & SEND_INLINE) {
      const bytes = lengthOf(sges);
      const limit = plan.maxInline ?? MAX_INLINE_BYTES;
      if (bytes > limit) throw refuse(`${bytes} bytes inline, of at most ${limit}`);
      if (!INLINE_OPCODES.includes(opcode)) throw refuse(`opcode ${opcode} has no inline data`);
    }
    if (this.sends.length === plan.maxSendWr) {
      throw new VerbsError('ENOMEM', 'post_send', `the send queue of QP ${qpn} is full`);
    }
  }

  /** Books a request that has been checked. */
  addSend(request: SendRequest, inlineHash: number | undefined): PostedSend {
    const isLocal = request.opcode === WR_LOCAL_INV || request.opcode === WR_BIND_MW;
    const message = isLocal ? 0 : ++this.messageCount;
    const posted = { request, message, inlineHash };
    this.sends.push(posted);
    this.counters.send_requests++;
    return posted;
  }

  /** Books a receive. @throws VerbsError ENOMEM (the queue is full), EINVAL (it has none, or no such) */
  addReceive(request: ReceiveRequest): void {
    const refuse = (why: string): VerbsError => new VerbsError('EINVAL', 'post_recv', why);
    if (this.plan.srq) throw refuse('the queue pair has a shared receive queue');
    if (this.attributes.state < QPS_INIT) throw refuse(`QP ${this.qpn} is in RESET`);
    this.receives.add(request, 'post_recv', `the receive queue of QP ${this.qpn}`);
    this.counters.receive_requests++;
  }

  /**
   * Takes what a completion covers out of the books; returns the send-queue requests that it ends
   * with success, oldest first.
   */
  retire(completion: WorkCompletion): PostedSend[] {
    const { counters } = this;
    counters.completions++;
    if (completion.status !== WC_SUCCESS) counters.failed_completions++;
    if (completion.flags & CQE_RECEIVE) {
      (this.plan.srq?.receives ?? this.receives).retire(completion.wrId);
      return [];
    }
    const covered = this.retireSends(completion);
    return completion.status === WC_SUCCESS ? covered : [];
  }

  /**
   * The work requests that a send-queue completion covers, oldest first. A success stands for every
   * unsignaled request before it too; an error for the one it names and all before.
   */
  private retireSends(completion: WorkCompletion): PostedSend[] {
    const { sends } = this;
    let covered = 0;
    if (completion.status === WC_SUCCESS) {
      while (covered < sends.length && !this.isSignaled(sends[covered++].request));
    } else {
      const at = sends.findIndex((posted) => posted.request.wrId === completion.wrId);
      covered = at + 1;
    }
    return sends.splice(0, covered);
  }

  private isSignaled({ flags }: SendRequest): boolean {
    return this.plan.sqSigAll === true || (flags & SEND_SIGNALED) !== 0;
  }
}
