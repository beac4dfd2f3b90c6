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
import { AETH_ACK_NO_CREDITS } from './aeth.ts';
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
}

/** Something to send: a READ from packet `next` on, or an ACK made before. */
interface Answer {
  readonly number: number;
  readonly read: ReadResource | undefined;
  readonly ackFrame: number;
  /** A NAK that ends the connection once it has left. */
  readonly isFatal: boolean;
  next: number;
}

export class ReadResponder implements FaultWaiter {
  private readonly resources: ReadResource[] = [];
  private readonly answers: Answer[] = [];
  private readonly gather: Gather;
  private numbered = 0;
  /** Reading ahead: which answer, and up to which byte. */
  private fetchNumber = 0;
  private fetchOffset = 0;
  private isFaulted = false;

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
    const read = { psn, packets, region, address, bytes, msn };
    this.resources.push(read);
    if (this.resources.length > RESOURCES) this.resources.shift();
    this.enqueue(read, 0, NO_FRAME, readyPs);
    return true;
  }

  /** The peer asks again for what starts at `psn`. Forgotten READs are not answered. */
  repeat(psn: number, readyPs: TimePs): void {
    const read = this.resources.find(
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
    const { read, number, next } = this.answers[0];
    if (read === undefined || read.bytes === 0) return true;
    return this.gather.ready(number, next * this.qp.attributes.mtu) !== 0;
  }

  /** The next answer packet; only after `canSend`. */
  emit(now: TimePs): number {
    const answer = this.answers[0];
    const { read } = answer;
    if (read === undefined) {
      this.answers.shift();
      if (answer.isFatal) this.qp.responder.refused(now);
      return answer.ackFrame;
    }
    const mtu = this.qp.attributes.mtu;
    const isFirst = answer.next === 0;
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
    if (isLast) this.answers.shift();
    this.qp.packetsSent++;
    return frame;
  }

  /** Reads ahead as far as there is room and pages are there. */
  fetch(readyPs: TimePs): void {
    const { qp, parts } = this;
    while (!this.gather.isFull && !this.isFaulted && !qp.pd.suspended) {
      if (this.answers.length === 0) return;
      const answer = this.answers[this.fetchNumber - this.answers[0].number];
      if (answer === undefined) return;
      const { read } = answer;
      if (read?.region === undefined || this.fetchOffset >= read.bytes) {
        this.fetchNumber++;
        this.fetchOffset = 0;
        continue;
      }
      const from = read.address + this.fetchOffset;
      const left = read.bytes - this.fetchOffset;
      const bytes = Math.min(BURST_MAX_BYTES, left);
      const burst = read.region.alive
        ? parts.translator.gather(parts.pool, read.region, from, bytes)
        : 0;
      if (burst === 0) {
        // The request was admitted with its pages present; one has gone since. Wait for it.
        if (!read.region.alive) return;
        const missed = parts.translator.missAddress;
        this.isFaulted = true;
        const rest = read.address + read.bytes - missed;
        parts.faults.raise(read.region, missed, rest, false, true, qp.qpn, this, parts.node.now);
        return;
      }
      const isLast = bytes === left;
      this.gather.request(
        readyPs + parts.translator.latencyPs,
        burst,
        answer.number,
        this.fetchOffset,
        isLast ? DMA_ENDS_MESSAGE : 0,
        isLast ? qp.qpn : 0,
        isLast ? read.msn : 0,
        isLast ? read.address : 0,
        isLast ? read.bytes : 0,
      );
      this.fetchOffset += bytes;
    }
  }

  onResume(ok: boolean, now: TimePs): void {
    this.isFaulted = false;
    if (ok) this.fetch(now);
  }

  /** Drops all answers (ERR). */
  stop(): void {
    this.clear();
  }

  private enqueue(
    read: ReadResource | undefined,
    next: number,
    ackFrame: number,
    readyPs: TimePs,
    isFatal = false,
  ): void {
    // Only a READ that is asked for again starts inside, and then it is the only answer.
    if (this.fetchNumber === this.numbered) this.fetchOffset = next * this.qp.attributes.mtu;
    this.answers.push({ number: this.numbered++, read, ackFrame, isFatal, next });
    this.fetch(readyPs);
    this.qp.activate(readyPs);
  }

  /**
   * Drops what is queued for `psn` and behind it: the peer asks for all of that again. READs before
   * it stay, and are read from memory anew from where they stand.
   */
  private cutFrom(psn: number): void {
    const isBehind = ({ read }: Answer): boolean =>
      read !== undefined && psnDistance(psnAdd(read.psn, read.packets - 1), psn) >= 0;
    const first = this.answers.findIndex(isBehind);
    const cut = this.answers.splice(first < 0 ? this.answers.length : first);
    for (const { ackFrame } of cut) {
      if (ackFrame !== NO_FRAME) this.parts.pool.release(ackFrame);
    }
    this.numbered -= cut.length;
    this.gather.discard();
    this.fetchNumber = this.answers[0]?.number ?? this.numbered;
    this.fetchOffset = (this.answers[0]?.next ?? 0) * this.qp.attributes.mtu;
  }

  private clear(): void {
    for (const { ackFrame } of this.answers) {
      if (ackFrame !== NO_FRAME) this.parts.pool.release(ackFrame);
    }
    this.numbered -= this.answers.length;
    this.answers.length = 0;
    this.gather.discard();
    this.fetchNumber = this.numbered;
    this.fetchOffset = 0;
  }
}

function responseOpcode(isFirst: boolean, isLast: boolean): number {
  if (isFirst) return isLast ? RC_READ_RESPONSE_ONLY : RC_READ_RESPONSE_FIRST;
  return isLast ? RC_READ_RESPONSE_LAST : RC_READ_RESPONSE_MIDDLE;
}
