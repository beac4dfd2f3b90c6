/**
 * Answers to RDMA READ requests: a queue of messages to be read from memory and sent.
 *
 * Answers of one queue pair leave in PSN order, so ACKs that come behind a READ queue here too. The
 * last READs are remembered (as `max_dest_rd_atomic` resources are) and can be answered again, from
 * memory, when the peer asks for them once more.
 */
import {
  BURST,
  BURST_MAX_BYTES,
  BURST_OFFSET,
  DMA_ENDS_MESSAGE,
  FRAME_WORDS,
  PAYLOAD_BYTES,
  RC_READ_RESPONSE_FIRST,
  RC_READ_RESPONSE_LAST,
  RC_READ_RESPONSE_MIDDLE,
  RC_READ_RESPONSE_ONLY,
  type TimePs,
  W_AETH,
  W_PSN,
} from '../../transport/index.ts';
import type { FaultWaiter } from '../fault-engine.ts';
import type { Region } from '../memory/region.ts';
import { AETH_ACK_NO_CREDITS, NAK_REMOTE_ACCESS, NAK_REMOTE_OPERATION } from './aeth.ts';
import { Gather } from './gather.ts';
import type { Parts } from './parts.ts';
import { psnAdd, psnDistance } from './psn.ts';
import type { QueuePair } from './queue-pair.ts';

/** READs a responder remembers, and may have unanswered: max_dest_rd_atomic of our adapters. */
const RESOURCES = 16;
const NO_FRAME = -1;

/** One READ: its PSNs and its range of memory. */
interface ReadResource {
  readonly psn: number;
  readonly packets: number;
  readonly region: Region | undefined;
  readonly address: number;
  readonly bytes: number;
  readonly msn: number;
  /** Whether its last packet has been sent, so that the peer may need no other answer. */
  isAnswered: boolean;
}

/** Something to send: packets of a READ, or an ACK made before. */
interface Answer {
  /** Names its bursts in the gather; never used twice. */
  readonly number: number;
  readonly read: ReadResource | undefined;
  readonly ackFrame: number;
  /** A NAK that ends the connection once it has left. */
  readonly isFatal: boolean;
  /** The packet of the READ that the answer starts with, and the one that is next. */
  readonly start: number;
  next: number;
  /** Bytes of the READ that memory was asked for, and a NAK code where it cannot give the rest. */
  fetched: number;
  refusal: number;
}

export class ReadResponder implements FaultWaiter {
  private readonly resources: ReadResource[] = [];
  private readonly answers: Answer[] = [];
  private readonly gather: Gather;
  private numbered = 0;
  /** The answer whose memory met the fault in flight. */
  private faulted: Answer | undefined;

  constructor(
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

  /** A new READ. False when too many are unanswered. */
  add(
    psn: number,
    packets: number,
    region: Region | undefined,
    address: number,
    bytes: number,
    msn: number,
    readyPs: TimePs,
  ): boolean {
    if (this.answers.filter((answer) => answer.read !== undefined).length >= RESOURCES)
      return false;
    const read = { psn, packets, region, address, bytes, msn, isAnswered: false };
    this.resources.push(read);
    if (this.resources.length > RESOURCES) this.resources.shift();
    this.enqueue(read, 0, NO_FRAME, readyPs);
    return true;
  }

  /** The peer asks again for what starts at `psn`. Forgotten READs are not answered. */
  repeat(psn: number, readyPs: TimePs): void {
    const read = this.resources.findLast(
      (r) => psnDistance(psn, r.psn) >= 0 && psnDistance(psn, psnAdd(r.psn, r.packets)) < 0,
    );
    if (read === undefined) return;
    this.cutFrom(psn);
    this.enqueue(read, psnDistance(psn, read.psn), NO_FRAME, readyPs);
  }

  /** An ACK or NAK behind the READs; a fatal one takes the queue pair to ERR when it has left. */
  addAnswer(frame: number, isFatal: boolean): void {
    this.enqueue(undefined, 0, frame, this.parts.node.now, isFatal);
  }

  canSend(): boolean {
    if (this.answers.length === 0 || this.qp.pd.suspended) return false;
    const answer = this.answers[0];
    const { read, number, next } = answer;
    if (read === undefined || read.bytes === 0) return true;
    return (
      this.gather.ready(number, next * this.qp.attributes.mtu) !== 0 || this.mustRefuse(answer)
    );
  }

  /** The next answer packet; only after `canSend`. */
  emit(now: TimePs): number {
    const answer = this.answers[0];
    const { read } = answer;
    this.qp.packetsSent++;
    if (read === undefined) {
      this.answers.shift();
      if (answer.isFatal) this.qp.responder.refused(now);
      return answer.ackFrame;
    }
    if (this.mustRefuse(answer)) {
      return this.qp.responder.refuseRead(answer.refusal, psnAdd(read.psn, answer.next), now);
    }
    const mtu = this.qp.attributes.mtu;
    // A repeated request is answered like one of its own, whichever packet it starts with.
    const isFirst = answer.next === answer.start;
    const isLast = answer.next + 1 === read.packets;
    const frame = this.qp.newPacket(responseOpcode(isFirst, isLast));
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + W_PSN] = psnAdd(read.psn, answer.next);
    if (isFirst || isLast) words[base + W_AETH] = (AETH_ACK_NO_CREDITS << 24) | read.msn;
    const offset = answer.next * mtu;
    const bytes = Math.min(mtu, read.bytes - offset);
    words[base + PAYLOAD_BYTES] = bytes;
    if (bytes > 0) {
      const burst = this.gather.ready(answer.number, offset);
      this.parts.pool.retainBurst(burst);
      words[base + BURST] = burst;
      words[base + BURST_OFFSET] = this.gather.within(offset);
      if (this.gather.consumed(offset + bytes)) this.fetch(now);
    }
    answer.next++;
    if (isLast) {
      read.isAnswered = true;
      this.answers.shift();
    }
    return frame;
  }

  /** Reads ahead as far as there is room and pages are there. */
  fetch(readyPs: TimePs): void {
    const { qp, parts } = this;
    while (!this.gather.isFull && this.faulted === undefined && !qp.pd.suspended) {
      const answer = this.nextToFetch();
      const read = answer?.read;
      if (answer === undefined || read?.region === undefined) return;
      if (!read.region.alive) {
        this.cannotRead(answer, NAK_REMOTE_ACCESS);
        continue;
      }
      const left = read.bytes - answer.fetched;
      const bytes = Math.min(BURST_MAX_BYTES, left);
      const from = read.address + answer.fetched;
      const burst = parts.translator.gather(parts.pool, read.region, from, bytes);
      if (burst === 0) {
        // The request was admitted with its pages present; one has gone since. Wait for it.
        const missed = parts.translator.missAddress;
        this.faulted = answer;
        const rest = read.address + read.bytes - missed;
        parts.faults.raise(read.region, missed, rest, false, true, qp.qpn, this, parts.node.now);
        return;
      }
      const isLast = bytes === left;
      this.gather.request(
        readyPs + parts.translator.latencyPs,
        burst,
        answer.number,
        answer.fetched,
        isLast ? DMA_ENDS_MESSAGE : 0,
        isLast ? qp.qpn : 0,
        isLast ? read.msn : 0,
        isLast ? read.address : 0,
        isLast ? read.bytes : 0,
      );
      answer.fetched += bytes;
    }
  }

  onResume(ok: boolean, now: TimePs): void {
    const answer = this.faulted;
    this.faulted = undefined;
    // An answer that was cut meanwhile is nobody's; the one that took its place faults for itself.
    if (!ok && answer !== undefined && this.answers.includes(answer)) {
      this.cannotRead(answer, NAK_REMOTE_OPERATION);
    }
    this.fetch(now);
    this.qp.activate(now);
  }

  /** Drops all answers (ERR). */
  stop(): void {
    this.cut(0);
  }

  private enqueue(
    read: ReadResource | undefined,
    start: number,
    ackFrame: number,
    readyPs: TimePs,
    isFatal = false,
  ): void {
    const number = this.numbered++;
    const fetched = start * this.qp.attributes.mtu;
    this.answers.push({
      number,
      read,
      ackFrame,
      isFatal,
      start,
      next: start,
      fetched,
      refusal: 0,
    });
    this.fetch(readyPs);
    this.qp.activate(readyPs);
  }

  /** The answer that memory is to be asked for next, if there is one. */
  private nextToFetch(): Answer | undefined {
    for (let i = 0; i < this.answers.length; i++) {
      const answer = this.answers[i];
      // Nothing behind a refusal will ever be sent.
      if (answer.refusal !== 0) return undefined;
      if (answer.read !== undefined && answer.fetched < answer.read.bytes) return answer;
    }
    return undefined;
  }

  /**
   * The rest of an answer cannot be had from memory: it ends with a NAK. Only a READ that was
   * answered before is dropped, because the peer may have had all it needed before the memory went.
   */
  private cannotRead(answer: Answer, code: number): void {
    if (answer.read?.isAnswered) {
      this.answers.splice(this.answers.indexOf(answer), 1);
      this.restart();
    } else answer.refusal = code;
  }

  /** Whether all that memory gave of this answer has been sent, and it is to be refused now. */
  private mustRefuse(answer: Answer): boolean {
    return answer.refusal !== 0 && answer.next * this.qp.attributes.mtu >= answer.fetched;
  }

  /** Drops what is queued for `psn` and behind it: the peer asks for all of that again. */
  private cutFrom(psn: number): void {
    const first = this.answers.findIndex(
      ({ read }) => read !== undefined && psnDistance(psnAdd(read.psn, read.packets - 1), psn) >= 0,
    );
    this.cut(first < 0 ? this.answers.length : first);
  }

  /** Drops the answers from `first` on. */
  private cut(first: number): void {
    for (const { ackFrame } of this.answers.splice(first)) {
      if (ackFrame !== NO_FRAME) this.parts.pool.release(ackFrame);
    }
    this.restart();
  }

  /** Reads the answers that are left from memory anew, from where they stand. */
  private restart(): void {
    this.gather.discard();
    for (const answer of this.answers) answer.fetched = answer.next * this.qp.attributes.mtu;
  }
}

function responseOpcode(isFirst: boolean, isLast: boolean): number {
  if (isFirst) return isLast ? RC_READ_RESPONSE_ONLY : RC_READ_RESPONSE_FIRST;
  return isLast ? RC_READ_RESPONSE_LAST : RC_READ_RESPONSE_MIDDLE;
}
