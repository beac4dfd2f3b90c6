/**
 * Answers of a responder that cannot leave at once: READ responses, results of atomics, ATOMIC WRITE
 * and FLUSH, and the ACKs behind them.
 *
 * Answers of one queue pair leave in the order of their PSNs. The last `max_dest_rd_atomic` operations
 * are remembered and answered again when the peer asks for them once more: a READ from memory, the
 * others from what was saved. An answer that is asked for again goes to its place in the order, and
 * those behind it stay; one that is still to come is not asked for twice.
 */
import {
  FRAME_WORDS,
  OP_ATOMIC,
  OP_READ,
  RC_ATOMIC_ACKNOWLEDGE,
  RC_READ_RESPONSE_MIDDLE,
  RC_READ_RESPONSE_ONLY,
  type TimePs,
  W_AETH,
  W_ORIGINAL_HIGH,
  W_ORIGINAL_LOW,
  W_PSN,
} from '../../transport/index.ts';
import type { Parts } from '../qp/parts.ts';
import { psnAdd, psnDistance } from '../qp/psn.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import { Answer, endsAfter, NO_FRAME, packetsOf } from './answer.ts';
import { AnswerReader } from './answer-reader.ts';
import { type OperationRange, SavedOperation } from './saved-operation.ts';

/** Whose answers they are: the responder. */
export interface AnswerOwner {
  /** The syndrome of an answer that is one. */
  ackSyndrome(): number;
  /** A fatal NAK has left. */
  refused(now: TimePs): void;
  /** Makes the NAK that takes the place of packet `psn` of a READ, and ends the connection. */
  refuseRead(code: number, psn: number, now: TimePs): number;
}

export class AnswerQueue {
  private readonly saved: SavedOperation[] = [];
  private readonly answers: Answer[] = [];
  private readonly reader: AnswerReader;
  private numbered = 0;

  constructor(
    private readonly owner: AnswerOwner,
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {
    this.reader = new AnswerReader(this.answers, qp, parts);
  }

  /** Whether answers wait here, so that others must queue behind them. */
  get isBusy(): boolean {
    return this.answers.length > 0;
  }

  /** Whether as many operations are unanswered as the peer was told it may have. */
  get isFull(): boolean {
    let unanswered = 0;
    for (const operation of this.saved) if (!operation.isAnswered) unanswered++;
    return unanswered >= this.qp.attributes.maxDestRdAtomic;
  }

  /**
   * A new operation of `packets` PSNs, while not full; `msn` counts it. What memory has to do for it,
   * unless it is a READ, is the caller's business.
   */
  add(
    kind: number,
    psn: number,
    packets: number,
    range: OperationRange,
    msn: number,
    readyPs: TimePs,
  ): SavedOperation {
    const operation = new SavedOperation(kind, psn, packets, range, msn, this.qp, this.parts);
    this.saved.push(operation);
    while (this.saved.length > this.qp.attributes.maxDestRdAtomic) this.saved.shift();
    const { address, bytes } = range;
    this.answers.push(this.newAnswer(operation, psn, packets, address, bytes, msn));
    if (kind === OP_READ) this.reader.fetch(readyPs);
    this.qp.activate(readyPs);
    return operation;
  }

  /**
   * The peer asks once more for an operation, or a READ for a part of it. What is forgotten, or was
   * another request, is not answered (an invalid duplicate, IBTA 9.9.3 class D).
   */
  repeat(
    kind: number,
    psn: number,
    rkey: number,
    remoteAddress: number,
    bytes: number,
    msn: number,
    readyPs: TimePs,
  ): void {
    const operation = this.find(kind, psn);
    if (operation === undefined) return;
    const { range } = operation;
    let packets = 1;
    if (kind === OP_READ) {
      const within = remoteAddress - range.remoteAddress;
      packets = packetsOf(bytes, this.qp.attributes.mtu);
      const isPart = bytes === 0 ? range.bytes === 0 : within >= 0 && within + bytes <= range.bytes;
      if (!isPart || (bytes > 0 && rkey !== range.rkey)) return;
      if (endsAfter(psn, packets, operation.psn, operation.packets)) return;
    }
    const address = range.address + (bytes > 0 ? remoteAddress - range.remoteAddress : 0);
    const answer = this.newAnswer(operation, psn, packets, address, bytes, msn);
    let at = this.answers.findIndex((queued) => queued.operation === operation);
    if (at >= 0) {
      const queued = this.answers[at];
      const isToCome = psnDistance(psn, psnAdd(queued.psn, queued.next)) >= 0;
      if (isToCome && !endsAfter(psn, packets, queued.psn, queued.packets)) return;
      this.answers.splice(at, 1);
    } else {
      at = this.answers.findIndex((queued) => psnDistance(queued.psn, psn) > 0);
      if (at < 0) at = this.answers.length;
    }
    this.answers.splice(at, 0, answer);
    if (kind === OP_READ) {
      this.reader.restart();
      this.reader.fetch(readyPs);
    }
    this.qp.activate(readyPs);
  }

  /** An ACK or NAK behind the rest; a fatal one takes the queue pair to ERR when it has left. */
  addAck(frame: number, isFatal: boolean): void {
    const psn = this.parts.pool.words[frame * FRAME_WORDS + W_PSN];
    const answer = this.newAnswer(undefined, psn, 1, 0, 0, 0);
    answer.ackFrame = frame;
    answer.isFatal = isFatal;
    this.answers.push(answer);
    this.qp.activate(this.parts.node.now);
  }

  canSend(): boolean {
    if (this.answers.length === 0 || this.qp.pd.suspended) return false;
    const answer = this.answers[0];
    const { operation } = answer;
    if (operation === undefined) return true;
    return operation.kind === OP_READ ? this.reader.isReady(answer) : operation.isDone;
  }

  /** The next answer packet; only after `canSend`. */
  emit(now: TimePs): number {
    const answer = this.answers[0];
    const { operation, ackFrame, isFatal, psn, next, refusal } = answer;
    this.qp.packetsSent++;
    if (operation === undefined) {
      this.answers.shift();
      if (isFatal) this.owner.refused(now);
      return ackFrame;
    }
    if (this.reader.mustRefuse(answer)) {
      return this.owner.refuseRead(refusal, psnAdd(psn, next), now);
    }
    const frame = operation.kind === OP_READ ? this.readResponse(answer, now) : this.result(answer);
    if (++answer.next === answer.packets) {
      // A part of a READ that ends before it does leaves the rest unanswered.
      if (!endsAfter(operation.psn, operation.packets, psn, answer.packets)) {
        operation.isAnswered = true;
      }
      this.answers.shift();
    }
    return frame;
  }

  /** Goes on reading memory ahead, where that had to stop. */
  fetch(readyPs: TimePs): void {
    this.reader.fetch(readyPs);
  }

  /** Drops all answers (ERR). */
  stop(): void {
    for (const { ackFrame } of this.answers.splice(0)) {
      if (ackFrame !== NO_FRAME) this.parts.pool.release(ackFrame);
    }
    this.reader.restart();
  }

  /** The next packet of a READ. */
  private readResponse(answer: Answer, now: TimePs): number {
    const { psn, next, readOpcode } = answer;
    const frame = this.qp.newPacket(readOpcode);
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + W_PSN] = psnAdd(psn, next);
    if (readOpcode !== RC_READ_RESPONSE_MIDDLE) words[base + W_AETH] = this.aeth(answer);
    this.reader.load(answer, frame, now);
    return frame;
  }

  /** What an atomic operation found, or that an ATOMIC WRITE or FLUSH is done. */
  private result(answer: Answer): number {
    const operation = answer.operation as SavedOperation;
    const isAtomic = operation.kind === OP_ATOMIC;
    const frame = this.qp.newPacket(isAtomic ? RC_ATOMIC_ACKNOWLEDGE : RC_READ_RESPONSE_ONLY);
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + W_PSN] = answer.psn;
    words[base + W_AETH] = this.aeth(answer);
    if (isAtomic) {
      words[base + W_ORIGINAL_HIGH] = operation.originalHigh;
      words[base + W_ORIGINAL_LOW] = operation.originalLow;
    }
    return frame;
  }

  private aeth(answer: Answer): number {
    return (this.owner.ackSyndrome() << 24) | answer.msn;
  }

  private newAnswer(
    operation: SavedOperation | undefined,
    psn: number,
    packets: number,
    address: number,
    bytes: number,
    msn: number,
  ): Answer {
    return new Answer(this.numbered++, operation, psn, packets, address, bytes, msn);
  }

  /** The newest operation of `kind` that owns `psn`. */
  private find(kind: number, psn: number): SavedOperation | undefined {
    for (let i = this.saved.length - 1; i >= 0; i--) {
      const { psn: first, packets, kind: is } = this.saved[i];
      const distance = psnDistance(psn, first);
      if (distance >= 0 && distance < packets) return is === kind ? this.saved[i] : undefined;
    }
    return undefined;
  }
}
