/**
 * The program's and the driver's side of a queue pair: its attributes, and what has been posted to it
 * and not yet completed.
 */
import {
  BUS_RECV_DOORBELL,
  BUS_SEND_DOORBELL,
  FRAME_WORDS,
  SEND_SIGNALED,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { VerbsError } from '../errno.ts';
import type { AdapterBus } from './adapter-bus.ts';
import type { CompletionQueue } from './completion-queue.ts';
import { MESSAGE_MASK } from './message-log.ts';
import type { ReceiveRequest, SendRequest, WorkCompletion } from './work.ts';

/** ibv_qp_attr, as far as the adapter knows it. What is left out keeps its value. */
export interface QueuePairAttributes {
  /** IBV_QPS_*. */
  readonly state: number;
  readonly destQpn: number;
  readonly destLid: number;
  /** Path MTU in bytes. */
  readonly mtuBytes: number;
  /** First PSN sent, and first PSN expected. */
  readonly sendPsn: number;
  readonly receivePsn: number;
  /** Local ACK timeout: 4.096 us * 2^timeout, 0 for none. */
  readonly timeout: number;
  readonly retryCnt: number;
  readonly rnrRetry: number;
  /** Code of the RNR NAK timer (IBTA table 45). */
  readonly minRnrTimer: number;
  readonly maxRdAtomic: number;
  /** What peers may do: IBV_ACCESS_REMOTE_*. */
  readonly access: number;
}

/** A send-queue work request between post and completion. */
export interface PostedSend {
  readonly request: SendRequest;
  /** Its message's number on this queue pair, from 1. */
  readonly message: number;
}

export class QueuePair {
  attributes: QueuePairAttributes;
  /** Messages posted so far. */
  messageCount = 0;
  private sends: PostedSend[] = [];
  private receivesPosted = 0;

  constructor(
    private readonly bus: AdapterBus,
    readonly qpn: number,
    readonly pd: number,
    readonly sendCq: CompletionQueue,
    readonly recvCq: CompletionQueue,
    readonly sendEntries: number,
    readonly recvEntries: number,
  ) {
    this.attributes = {
      state: 0,
      destQpn: 0,
      destLid: 0,
      mtuBytes: 4096,
      sendPsn: 0,
      receivePsn: 0,
      timeout: 14,
      retryCnt: 7,
      rnrRetry: 7,
      minRnrTimer: 12,
      maxRdAtomic: 1,
      access: 0,
    };
  }

  /** Send-queue work requests that have not completed. */
  get sendsOutstanding(): number {
    return this.sends.length;
  }

  /** Rings the send doorbell; returns the message number. */
  ringSend(request: SendRequest): number {
    if (this.sends.length === this.sendEntries) {
      throw new VerbsError('ENOMEM', 'post_send', `the send queue of QP ${this.qpn} is full`);
    }
    this.messageCount++;
    this.sends.push({ request, message: this.messageCount });
    const { pool } = this.bus;
    const frame = this.bus.message(BUS_SEND_DOORBELL);
    const at = frame * FRAME_WORDS;
    pool.words[at + 1] = this.qpn;
    pool.words[at + 2] = request.opcode;
    pool.words[at + 3] = request.flags;
    pool.words[at + 4] = request.wrId;
    pool.words[at + 5] = request.lkey;
    pool.words[at + 6] = request.length;
    pool.words[at + 7] = request.rkey ?? 0;
    pool.words[at + 8] = request.immediate ?? 0;
    pool.doubles[frame * 2] = request.localAddress;
    pool.doubles[frame * 2 + 1] = request.remoteAddress ?? 0;
    this.bus.send(frame);
    return this.messageCount & MESSAGE_MASK;
  }

  /** Rings the receive doorbell. */
  ringReceive(request: ReceiveRequest): void {
    if (this.receivesPosted === this.recvEntries) {
      throw new VerbsError('ENOMEM', 'post_recv', `the receive queue of QP ${this.qpn} is full`);
    }
    this.receivesPosted++;
    const { pool } = this.bus;
    const frame = this.bus.message(BUS_RECV_DOORBELL);
    const at = frame * FRAME_WORDS;
    pool.words[at + 1] = this.qpn;
    pool.words[at + 2] = request.wrId;
    pool.words[at + 3] = request.lkey;
    pool.words[at + 4] = request.length;
    pool.doubles[frame * 2] = request.localAddress;
    this.bus.send(frame);
  }

  /** A receive request has completed. */
  retireReceive(): void {
    this.receivesPosted--;
  }

  /**
   * Takes the work requests that a send-queue completion covers out of the books, oldest first. A
   * success stands for every unsignaled request before it too; an error for the one it names.
   */
  retireSends(completion: WorkCompletion): PostedSend[] {
    const { sends } = this;
    let covered = 0;
    if (completion.status === WC_SUCCESS) {
      while (covered < sends.length && (sends[covered++].request.flags & SEND_SIGNALED) === 0);
    } else {
      const at = sends.findIndex((posted) => posted.request.wrId === completion.wrId);
      covered = at + 1;
    }
    return sends.splice(0, covered);
  }
}
