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
  BURST,
  BURST_MAX_BYTES,
  BURST_OFFSET,
  DMA_ENDS_MESSAGE,
  FRAME_WORDS,
  OP_ATOMIC,
  OP_READ,
  PAYLOAD_BYTES,
  RC_ATOMIC_ACKNOWLEDGE,
  RC_READ_RESPONSE_MIDDLE,
  RC_READ_RESPONSE_ONLY,
  type TimePs,
  W_AETH,
  W_ORIGINAL_HIGH,
  W_ORIGINAL_LOW,
  W_PSN,
} from '../../transport/index.ts';
import type { FaultWaiter } from '../fault-engine.ts';
import { NAK_REMOTE_ACCESS, NAK_REMOTE_OPERATION } from './aeth.ts';
import { Answer, endsAfter, NO_FRAME, packetsOf } from './answer.ts';
import { Gather } from './gather.ts';
import type { Parts } from './parts.ts';
import { psnAdd, psnDistance } from './psn.ts';
import type { QueuePair } from './queue-pair.ts';
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

export class AnswerQueue implements FaultWaiter {
  private readonly saved: SavedOperation[] = [];
  private readonly answers: Answer[] = [];
  private readonly gather: Gather;
  private numbered = 0;
  /** The answer whose memory met the fault in flight. */
  private faulted: Answer | undefined;

  constructor(
    private readonly owner: AnswerOwner,
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {
    this.gather = new Gather(parts.profile.gatherBursts, parts.pool, parts.bus, parts.tags, (now) =>
      qp.activate(now),
    );
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
    if (kind === OP_READ) this.fetch(readyPs);
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
    this.restart();
    this.fetch(readyPs);
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
    const { operation, bytes, number, next } = answer;
    if (operation === undefined) return true;
    if (operation.kind !== OP_READ) return operation.isDone;
    if (bytes === 0) return true;
    return (
      this.gather.ready(number, next * this.qp.attributes.mtu) !== 0 || this.mustRefuse(answer)
    );
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
    if (this.mustRefuse(answer)) {
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

  /** Reads ahead as far as there is room and pages are there. */
  fetch(readyPs: TimePs): void {
    const { qp, parts } = this;
    while (!this.gather.isFull && this.faulted === undefined && !qp.pd.suspended) {
      const answer = this.nextToFetch();
      const operation = answer?.operation;
      if (answer === undefined || operation?.range.region === undefined) return;
      const { region, grant } = operation.range;
      if (grant === undefined || !grant.alive) {
        this.cannotRead(answer, NAK_REMOTE_ACCESS);
        continue;
      }
      const left = answer.bytes - answer.fetched;
      const bytes = Math.min(BURST_MAX_BYTES, left);
      const from = answer.address + answer.fetched;
      const burst = parts.translator.gather(parts.pool, region, from, bytes);
      if (burst === 0) {
        // The request was admitted with its pages present; one has gone since. Wait for it.
        const missed = parts.translator.missAddress;
        this.faulted = answer;
        const rest = answer.address + answer.bytes - missed;
        parts.faults.raise(region, missed, rest, false, true, qp.qpn, this, parts.node.now);
        return;
      }
      const { message, range } = operation;
      const isLast = bytes === left && from + bytes === range.address + range.bytes;
      this.gather.request(
        readyPs + parts.translator.latencyPs,
        burst,
        answer.number,
        answer.fetched,
        isLast ? DMA_ENDS_MESSAGE : 0,
        isLast ? qp.qpn : 0,
        isLast ? message : 0,
        isLast ? range.address + region.bias : 0,
        isLast ? range.bytes : 0,
      );
      answer.fetched += bytes;
    }
  }

  onResume(ok: boolean, now: TimePs): void {
    const answer = this.faulted;
    this.faulted = undefined;
    // An answer that was replaced meanwhile is nobody's; the other faults for itself.
    if (!ok && answer !== undefined && this.answers.includes(answer)) {
      this.cannotRead(answer, NAK_REMOTE_OPERATION);
    }
    this.fetch(now);
    this.qp.activate(now);
  }

  /** Drops all answers (ERR). */
  stop(): void {
    for (const { ackFrame } of this.answers.splice(0)) {
      if (ackFrame !== NO_FRAME) this.parts.pool.release(ackFrame);
    }
    this.restart();
  }

  /** The next packet of a READ. */
  private readResponse(answer: Answer, now: TimePs): number {
    const { psn, next, number, readOpcode } = answer;
    const mtu = this.qp.attributes.mtu;
    const frame = this.qp.newPacket(readOpcode);
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + W_PSN] = psnAdd(psn, next);
    if (readOpcode !== RC_READ_RESPONSE_MIDDLE) words[base + W_AETH] = this.aeth(answer);
    const offset = next * mtu;
    const bytes = Math.min(mtu, answer.bytes - offset);
    words[base + PAYLOAD_BYTES] = bytes;
    if (bytes > 0) {
      const burst = this.gather.ready(number, offset);
      this.parts.pool.retainBurst(burst);
      words[base + BURST] = burst;
      words[base + BURST_OFFSET] = this.gather.within(offset);
      if (this.gather.consumed(offset + bytes)) this.fetch(now);
    }
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

  /** The answer that memory is to be asked for next, if there is one. */
  private nextToFetch(): Answer | undefined {
    for (const answer of this.answers) {
      // Nothing behind a refusal will ever be sent.
      if (answer.refusal !== 0) return undefined;
      if (answer.operation?.kind === OP_READ && answer.fetched < answer.bytes) return answer;
    }
    return undefined;
  }

  /**
   * The rest of an answer cannot be had from memory: it ends with a NAK. Only a READ that was
   * answered before is dropped, because the peer may have had all it needed before the memory went.
   */
  private cannotRead(answer: Answer, code: number): void {
    if (answer.operation?.isAnswered) {
      this.answers.splice(this.answers.indexOf(answer), 1);
      this.restart();
    } else answer.refusal = code;
  }

  /** Whether all that memory gave of this answer has been sent, and it is to be refused now. */
  private mustRefuse(answer: Answer): boolean {
    return answer.refusal !== 0 && answer.next * this.qp.attributes.mtu >= answer.fetched;
  }

  /** Reads the answers that are left from memory anew, from where they stand. */
  private restart(): void {
    this.gather.discard();
    for (const answer of this.answers) answer.fetched = answer.next * this.qp.attributes.mtu;
  }
}
