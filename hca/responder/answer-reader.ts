/**
 * Reads the memory of READs that wait to be answered, ahead of their packets.
 *
 * Works along the answer queue, in its order. A page that has gone since the READ was admitted is
 * waited for; memory that may not be read any more, or cannot be had, ends the answer with a NAK. Does
 * not own the queue, nor the packets (`answer-queue.ts`).
 */
import {
  BURST,
  BURST_MAX_BYTES,
  BURST_OFFSET,
  DMA_ENDS_MESSAGE,
  FRAME_WORDS,
  OP_READ,
  PAYLOAD_BYTES,
  type TimePs,
} from '../../transport/index.ts';
import { Gather } from '../dma/gather.ts';
import type { FaultWaiter } from '../fault-engine.ts';
import { NAK_REMOTE_ACCESS, NAK_REMOTE_OPERATION } from '../qp/aeth.ts';
import type { Parts } from '../qp/parts.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import type { Answer } from './answer.ts';

export class AnswerReader implements FaultWaiter {
  private readonly gather: Gather;
  /** The answer whose memory met the fault in flight. */
  private faulted: Answer | undefined;

  /** `answers` is the queue: it changes under way. */
  constructor(
    private readonly answers: Answer[],
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {
    this.gather = new Gather(parts.profile.gatherBursts, parts.pool, parts.bus, parts.tags, (now) =>
      qp.activate(now),
    );
  }

  /** Whether the next packet of a READ is here, or the NAK that takes its place is due. */
  isReady(answer: Answer): boolean {
    if (answer.bytes === 0) return true;
    const offset = answer.next * this.qp.attributes.mtu;
    return this.gather.ready(answer.number, offset) !== 0 || this.mustRefuse(answer);
  }

  /** Whether all that memory gave of this answer has been sent, and it is to be refused now. */
  mustRefuse(answer: Answer): boolean {
    return answer.refusal !== 0 && answer.next * this.qp.attributes.mtu >= answer.fetched;
  }

  /** Gives packet `frame` the next bytes of a READ that is ready. */
  load(answer: Answer, frame: number, now: TimePs): void {
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    const { mtu } = this.qp.attributes;
    const offset = answer.next * mtu;
    const bytes = Math.min(mtu, answer.bytes - offset);
    words[base + PAYLOAD_BYTES] = bytes;
    if (bytes === 0) return;
    const burst = this.gather.ready(answer.number, offset);
    this.parts.pool.retainBurst(burst);
    words[base + BURST] = burst;
    words[base + BURST_OFFSET] = this.gather.within(offset);
    if (this.gather.consumed(offset + bytes)) this.fetch(now);
  }

  /** Reads ahead as far as there is room and pages are there. */
  fetch(readyPs: TimePs): void {
    const { qp, parts } = this;
    while (!this.gather.isFull && this.faulted === undefined && !qp.pd.suspended) {
      const answer = this.next();
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

  /** The queue has changed: the answers are read anew, from where they stand. */
  restart(): void {
    this.gather.discard();
    for (const answer of this.answers) answer.fetched = answer.next * this.qp.attributes.mtu;
  }

  /** The answer that memory is to be asked for next, if there is one. */
  private next(): Answer | undefined {
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
}
