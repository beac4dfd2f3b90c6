/**
 * A way out of the adapter: one link, and who uses it next. There are two, the wire and the way back
 * into this adapter (`loopback.ts`); the destination of a packet says which it takes.
 *
 * Answers (ACK, NAK) go first; queue pairs with something to send take turns, packet by packet. The
 * transmitter wakes when the link is free and there is something to send, never per queued packet.
 *
 * Packets of one message that would follow each other without anything else happening in this
 * adapter may leave as one *train*: one frame with a count and a spacing. That is only a faster way
 * to do the same: the times, and every record in the digest, are those of single packets.
 */
import {
  type Engine,
  type FaultInjector,
  FRAME_WORDS,
  type FramePool,
  type Link,
  type LinkLayer,
  linkCountedBytes,
  linkOverheadBytes,
  NEVER,
  type Node,
  OP_FIRST,
  OP_LAST,
  OP_REQUEST,
  opFlags,
  PAYLOAD_BYTES,
  packetDataWords,
  packetWireBytes,
  QPT_UD,
  RC_ACKNOWLEDGE,
  RECORD_FRAME_SENT,
  type TimePs,
  TRAIN_COUNT,
  TRAIN_SPACING,
  W_AETH,
  W_DEST_QPN,
  W_LIDS,
  W_OPCODE,
  W_PSN,
  WIRE_DAMAGED,
  WIRE_DELAYED,
  WIRE_DUPLICATED,
  WIRE_LOST,
  type WireTap,
} from '../transport/index.ts';
import { C } from './counters.ts';
import type { QueuePair } from './qp/queue-pair.ts';

/** Where packets go once their arrival is known: the port on the wire, or the loopback. */
export interface Exit {
  /** Number of the exit in the digest. */
  readonly index: number;
  /** Its slot in the node's queue. */
  readonly slot: number;
  /** Earliest reaction; see Port. */
  readonly returnPs: TimePs;
  sendTrain(leavesPs: TimePs, arrivalPs: TimePs, lastPs: TimePs, frame: number): void;
  fire(now: TimePs): void;
}

/** How a way out counts: which counters, and in units of how many octets. */
export interface ExitCount {
  readonly packets: number;
  readonly data: number;
  readonly dataOctets: 1 | 4;
}

const NO_FRAME = -1;
/** The three high bits of an AETH are 0 in an ACK. */
const AETH_KIND_SHIFT = 29;

export class Transmitter implements Engine {
  private readonly slot: number;
  /** Bytes of a packet that depend on the link layer, on the link and for port counters. */
  private readonly overheadBytes: number;
  private readonly countedBytes: number;
  private readonly packetsCounter: number;
  private readonly dataCounter: number;
  /** What a word of four octets counts in `dataCounter`. */
  private readonly dataUnits: number;
  /** Whether every packet arrives, once and in order. */
  private readonly isQuiet: boolean;
  // Answers that wait for the link: a ring of frames and of when each is ready.
  private answers = new Int32Array(256);
  private answerReady = new Float64Array(256);
  private answerHead = 0;
  private answerCount = 0;
  /** Queue pairs that may have something to send, and whose turn it is. */
  private readonly round: QueuePair[] = [];
  private turn = 0;
  // Answers that are as good as sent: one frame, when its first packet leaves, and when its first and last arrive.
  private trainFrame = NO_FRAME;
  private trainLeavesPs: TimePs = 0;
  private trainFirstPs: TimePs = 0;
  private trainLastPs: TimePs = 0;
  /** While a packet is taken in: nothing else happens in this adapter before this time. */
  quietUntilPs: TimePs = 0;
  /** Frames sent that stood for more than one packet. */
  trainsSent = 0;

  /**
   * `pipelinePs` is added to every packet; `trains` allows them. `faults` is undefined where nothing
   * ever happens to a packet.
   */
  constructor(
    private readonly node: Node,
    private readonly port: Exit,
    private readonly pool: FramePool,
    private readonly link: Link,
    private readonly faults: FaultInjector | undefined,
    private readonly pipelinePs: TimePs,
    private readonly trains: boolean,
    private readonly counters: Float64Array,
    counted: ExitCount,
    linkLayer: LinkLayer,
    private readonly tap: WireTap | undefined,
  ) {
    this.overheadBytes = linkOverheadBytes[linkLayer];
    this.countedBytes = linkCountedBytes[linkLayer];
    this.packetsCounter = counted.packets;
    this.dataCounter = counted.data;
    this.dataUnits = 4 / counted.dataOctets;
    this.isQuiet = faults?.isQuiet ?? true;
    this.slot = node.addEngine(this);
  }

  /** Queues a packet that goes before all requests, and is ready at `readyPs`. */
  answer(frame: number, readyPs: TimePs): void {
    const isAck = this.pool.words[frame * FRAME_WORDS + W_OPCODE] === RC_ACKNOWLEDGE;
    const isAlone = this.answerCount === 0 && this.round.length === 0;
    const isNext = isAck && isAlone && this.isQuiet;
    if (isNext && this.trains && readyPs < this.quietUntilPs && this.link.freePs <= readyPs) {
      // The event that would send it is the next one of this adapter: it may as well happen now.
      this.sendInTrain(frame, readyPs);
      return;
    }
    if (this.answerCount === this.answers.length) this.grow();
    const place = (this.answerHead + this.answerCount++) & (this.answers.length - 1);
    this.answers[place] = frame;
    this.answerReady[place] = readyPs;
    this.wake(readyPs);
  }

  /**
   * Lets the newest ACK of the same connection that waits for the link stand for `frame`, a later one,
   * which is taken over. False where none waits, or a NAK does.
   */
  replaceAck(frame: number): boolean {
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    for (let i = this.answerCount - 1; i >= 0; i--) {
      const place = (this.answerHead + i) & (this.answers.length - 1);
      const waiting = this.answers[place] * FRAME_WORDS;
      if (words[waiting + W_DEST_QPN] !== words[base + W_DEST_QPN]) continue;
      if (words[waiting + W_LIDS] !== words[base + W_LIDS]) continue;
      if (words[waiting + W_AETH] >>> AETH_KIND_SHIFT !== 0) return false;
      words[waiting + W_PSN] = words[base + W_PSN];
      words[waiting + W_AETH] = words[base + W_AETH];
      this.pool.release(frame);
      return true;
    }
    return false;
  }

  /** Sends the answers that wait for more of their kind; the device calls it after each arrival. */
  flushAnswers(): void {
    if (this.trainFrame < 0) return;
    const frame = this.trainFrame;
    this.trainFrame = NO_FRAME;
    this.port.sendTrain(this.trainLeavesPs, this.trainFirstPs, this.trainLastPs, frame);
  }

  /** Gives `qp`, which is in no other way's round, a turn from `readyPs` on. */
  activate(qp: QueuePair, readyPs: TimePs): void {
    if (qp.activeIn === undefined) {
      qp.activeIn = this;
      qp.readyPs = readyPs;
      this.round.push(qp);
    } else if (readyPs < qp.readyPs) qp.readyPs = readyPs;
    this.wake(readyPs);
  }

  fire(now: TimePs): void {
    if (this.answerCount > 0 && this.answerReady[this.answerHead] <= now) {
      const frame = this.answers[this.answerHead];
      this.answerHead = (this.answerHead + 1) & (this.answers.length - 1);
      this.answerCount--;
      this.send(frame, now, undefined);
    } else this.sendFromRound(now);
    let next = this.answerCount > 0 ? this.answerReady[this.answerHead] : NEVER;
    for (let i = 0; i < this.round.length; i++) {
      if (this.round[i].readyPs < next) next = this.round[i].readyPs;
    }
    this.node.queue.arm(this.slot, next > this.link.freePs ? next : this.link.freePs);
  }

  /** Gives the next queue pair that can send its turn; those that cannot leave the round. */
  private sendFromRound(now: TimePs): void {
    let looks = this.round.length;
    while (looks-- > 0) {
      if (this.turn >= this.round.length) this.turn = 0;
      const qp = this.round[this.turn];
      if (qp.readyPs > now) this.turn++;
      else if (qp.way !== this) this.handOver(qp, now);
      else if (qp.responder.answers?.canSend()) {
        this.turn++;
        this.send(qp.responder.answers.emit(now), now, undefined);
        return;
      } else if (qp.requester.canSend(now)) {
        if (qp.type === QPT_UD && qp.takeNextWay() !== this) {
          this.handOver(qp, now);
          continue;
        }
        this.turn++;
        this.send(qp.requester.emit(now), now, qp);
        return;
      } else this.drop(qp);
    }
  }

  /** Takes the queue pair whose turn it is out of the round. */
  private drop(qp: QueuePair): void {
    qp.activeIn = undefined;
    this.round.splice(this.turn, 1);
  }

  /** What the queue pair whose turn it is sends next leaves by another way. */
  private handOver(qp: QueuePair, now: TimePs): void {
    this.drop(qp);
    qp.way.activate(qp, now);
  }

  /** Puts `frame` on the link; `qp` is its requester, if more of the same may follow at once. */
  private send(frame: number, now: TimePs, qp: QueuePair | undefined): void {
    this.flushAnswers();
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    const opcode = words[base + W_OPCODE];
    const payload = words[base + PAYLOAD_BYTES];
    const bytes = packetWireBytes(opcode, payload, this.overheadBytes);
    const arrivalPs = this.link.transmit(now, bytes) + this.pipelinePs;
    let count = 1;
    if (qp !== undefined && this.trains && payload > 0 && this.isQuiet) {
      const flags = opFlags[opcode];
      if ((flags & (OP_FIRST | OP_LAST | OP_REQUEST)) === OP_REQUEST) {
        count = this.extend(frame, arrivalPs, bytes, qp);
      }
    }
    this.counters[this.packetsCounter] += count;
    this.counters[this.dataCounter] +=
      packetDataWords(opcode, payload, this.countedBytes) * count * this.dataUnits;
    const lastPs = arrivalPs + (count - 1) * words[base + TRAIN_SPACING];
    const digest = this.node.digest;
    if (digest.enabled) {
      for (let i = 0; i < count; i++) {
        const at = arrivalPs + i * words[base + TRAIN_SPACING];
        this.pool.record(digest, RECORD_FRAME_SENT, at, this.port.index, frame, W_PSN, i);
      }
    }
    if (this.tap !== undefined) {
      for (let i = 0; i < count; i++) {
        this.tap.sent(frame, i, arrivalPs + i * words[base + TRAIN_SPACING] - this.link.latencyPs);
      }
    }
    if (this.faults === undefined || this.isQuiet) {
      this.port.sendTrain(now, arrivalPs, lastPs, frame);
    } else this.count(this.faults.send(frame, arrivalPs));
  }

  /** Counts what the link did to a packet. */
  private count(fate: number): void {
    if (fate === 0) return;
    if ((fate & WIRE_LOST) !== 0) this.counters[C.wire_drops]++;
    if ((fate & WIRE_DUPLICATED) !== 0) this.counters[C.wire_duplicates]++;
    if ((fate & WIRE_DELAYED) !== 0) this.counters[C.wire_delays]++;
    if ((fate & WIRE_DAMAGED) !== 0) this.counters[C.wire_corruptions]++;
  }

  /**
   * Lets following packets join while nothing else can happen here before they would leave. Returns
   * how many packets the frame stands for.
   */
  private extend(frame: number, arrivalPs: TimePs, bytes: number, qp: QueuePair): number {
    const { node, link } = this;
    const requester = qp.requester;
    const spacing = link.spanOf(bytes);
    // The frame is as good as sent: an answer to its first packet limits us from here on.
    node.horizon = Math.min(node.horizon, arrivalPs + this.port.returnPs);
    let count = 1;
    let psn = requester.nextPsn;
    while (this.isNext(link.freePs) && requester.nextPsn === psn && requester.extendTrain(frame)) {
      link.transmit(link.freePs, bytes);
      psn = requester.nextPsn;
      count++;
    }
    if (count > 1) {
      this.pool.words[frame * FRAME_WORDS + TRAIN_SPACING] = spacing;
      this.trainsSent++;
    }
    return count;
  }

  /**
   * Whether sending the next packet of the only queue pair is what this adapter does at `at`. Packets
   * that arrive before are taken in first, in their order, as they would be.
   */
  private isNext(at: TimePs): boolean {
    const { node, port } = this;
    node.queue.arm(this.slot, at);
    while (at < node.horizon) {
      const slot = node.queue.nextSlot();
      if (slot === this.slot) {
        const isAnswerDue = this.answerCount > 0 && this.answerReady[this.answerHead] <= at;
        return this.round.length === 1 && !isAnswerDue;
      }
      if (slot !== port.slot) return false;
      node.now = node.queue.nextTime();
      port.fire(node.now);
    }
    return false;
  }

  /** Sends an answer; one like it that follows at the same distance joins it. */
  private sendInTrain(frame: number, readyPs: TimePs): void {
    const { pool, node } = this;
    const words = pool.words;
    const bytes = packetWireBytes(RC_ACKNOWLEDGE, 0, this.overheadBytes);
    const arrivalPs = this.link.transmit(readyPs, bytes) + this.pipelinePs;
    this.counters[this.packetsCounter]++;
    this.counters[this.dataCounter] +=
      packetDataWords(RC_ACKNOWLEDGE, 0, this.countedBytes) * this.dataUnits;
    if (node.digest.enabled) {
      pool.record(node.digest, RECORD_FRAME_SENT, arrivalPs, this.port.index, frame);
    }
    this.tap?.sent(frame, 0, arrivalPs - this.link.latencyPs);
    if (this.trainFrame >= 0 && this.joins(frame, arrivalPs - this.trainLastPs)) {
      const base = this.trainFrame * FRAME_WORDS;
      words[base + TRAIN_COUNT] = Math.max(1, words[base + TRAIN_COUNT]) + 1;
      words[base + TRAIN_SPACING] = arrivalPs - this.trainLastPs;
      pool.release(frame);
    } else {
      this.flushAnswers();
      this.trainFrame = frame;
      this.trainLeavesPs = readyPs;
      this.trainFirstPs = arrivalPs;
      node.horizon = Math.min(node.horizon, arrivalPs + this.port.returnPs);
    }
    this.trainLastPs = arrivalPs;
  }

  /** Whether `frame` is the next of the answers that wait: same but for its PSN, at their distance. */
  private joins(frame: number, spacing: TimePs): boolean {
    const words = this.pool.words;
    const train = this.trainFrame * FRAME_WORDS;
    const base = frame * FRAME_WORDS;
    const count = Math.max(1, words[train + TRAIN_COUNT]);
    return (
      words[base + W_PSN] === ((words[train + W_PSN] + count) & 0xffffff) &&
      words[base + W_AETH] === words[train + W_AETH] &&
      words[base + W_DEST_QPN] === words[train + W_DEST_QPN] &&
      words[base + W_LIDS] === words[train + W_LIDS] &&
      (count === 1 || spacing === words[train + TRAIN_SPACING])
    );
  }

  private wake(readyPs: TimePs): void {
    const at = Math.max(readyPs, this.link.freePs, this.node.now);
    if (at < this.node.queue.timeOf(this.slot)) this.node.queue.arm(this.slot, at);
  }

  private grow(): void {
    const length = this.answers.length;
    const answers = new Int32Array(length * 2);
    const ready = new Float64Array(length * 2);
    for (let i = 0; i < this.answerCount; i++) {
      const place = (this.answerHead + i) & (length - 1);
      answers[i] = this.answers[place];
      ready[i] = this.answerReady[place];
    }
    this.answers = answers;
    this.answerReady = ready;
    this.answerHead = 0;
  }
}
