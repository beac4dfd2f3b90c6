/**
 * The adapter's way onto the wire: one link, and who uses it next.
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
  NEVER,
  type Node,
  OP_FIRST,
  OP_LAST,
  OP_REQUEST,
  opFlags,
  PAYLOAD_BYTES,
  type Port,
  packetWireBytes,
  RECORD_FRAME_SENT,
  type TimePs,
  TRAIN_SPACING,
  W_OPCODE,
  W_PSN,
} from '../transport/index.ts';
import { C } from './counters.ts';
import type { QueuePair } from './qp/queue-pair.ts';

export class Transmitter implements Engine {
  private readonly slot: number;
  // Answers that wait for the link: a ring of frames and of when each is ready.
  private answers = new Int32Array(256);
  private answerReady = new Float64Array(256);
  private answerHead = 0;
  private answerCount = 0;
  /** Queue pairs that may have something to send, and whose turn it is. */
  private readonly round: QueuePair[] = [];
  private turn = 0;
  /** While a packet is taken in: nothing else happens in this adapter before this time. */
  quietUntilPs: TimePs = 0;
  /** Frames sent that stood for more than one packet. */
  trainsSent = 0;

  /** `pipelinePs` is added to every packet; `trains` allows them. */
  constructor(
    private readonly node: Node,
    private readonly port: Port,
    private readonly pool: FramePool,
    private readonly link: Link,
    private readonly faults: FaultInjector,
    private readonly pipelinePs: TimePs,
    private readonly trains: boolean,
    private readonly counters: Float64Array,
  ) {
    this.slot = node.addEngine(this);
  }

  /** Queues an ACK or NAK that is ready at `readyPs`. */
  answer(frame: number, readyPs: TimePs): void {
    const isNext = this.answerCount === 0 && this.round.length === 0;
    if (isNext && this.trains && readyPs < this.quietUntilPs && this.link.freePs <= readyPs) {
      // The event that would send it is the next one of this adapter: it may as well happen now.
      this.send(frame, readyPs, undefined);
      return;
    }
    if (this.answerCount === this.answers.length) this.grow();
    const place = (this.answerHead + this.answerCount++) & (this.answers.length - 1);
    this.answers[place] = frame;
    this.answerReady[place] = readyPs;
    this.wake(readyPs);
  }

  /** Gives `qp` a turn from `readyPs` on. */
  activate(qp: QueuePair, readyPs: TimePs): void {
    if (!qp.isActive) {
      qp.isActive = true;
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
      else if (qp.readResponder.canSend()) {
        this.turn++;
        this.send(qp.readResponder.emit(now), now, undefined);
        return;
      } else if (qp.requester.canSend(now)) {
        this.turn++;
        this.send(qp.requester.emit(now), now, qp);
        return;
      } else {
        qp.isActive = false;
        this.round.splice(this.turn, 1);
      }
    }
  }

  /** Puts `frame` on the link; `qp` is its requester, if more of the same may follow at once. */
  private send(frame: number, now: TimePs, qp: QueuePair | undefined): void {
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    const opcode = words[base + W_OPCODE];
    const payload = words[base + PAYLOAD_BYTES];
    const bytes = packetWireBytes(opcode, payload);
    const arrivalPs = this.link.transmit(now, bytes) + this.pipelinePs;
    let count = 1;
    if (qp !== undefined && this.trains && payload > 0 && this.faults.isQuiet) {
      const flags = opFlags[opcode];
      if ((flags & (OP_FIRST | OP_LAST | OP_REQUEST)) === OP_REQUEST) {
        count = this.extend(frame, arrivalPs, bytes, qp);
      }
    }
    this.counters[C.port_xmit_packets] += count;
    this.counters[C.port_xmit_data] += (bytes * count) / 4;
    const lastPs = arrivalPs + (count - 1) * words[base + TRAIN_SPACING];
    const digest = this.node.digest;
    if (digest.enabled) {
      for (let i = 0; i < count; i++) {
        const at = arrivalPs + i * words[base + TRAIN_SPACING];
        this.pool.record(digest, RECORD_FRAME_SENT, at, this.port.index, frame, W_PSN, i);
      }
    }
    if (this.faults.drops()) {
      this.counters[C.wire_drops]++;
      this.pool.release(frame);
      return;
    }
    this.port.send(arrivalPs, frame, lastPs);
  }

  /**
   * Lets following packets join while nothing else can happen here before they would leave. Returns
   * how many packets the frame stands for.
   */
  private extend(frame: number, arrivalPs: TimePs, bytes: number, qp: QueuePair): number {
    if (this.round.length !== 1) return 1;
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    const spacing = this.link.spanOf(bytes);
    let until = Math.min(this.node.horizon, arrivalPs + this.port.returnPs);
    until = Math.min(until, this.node.queue.nextTimeExcept(this.slot));
    if (this.answerCount > 0) until = Math.min(until, this.answerReady[this.answerHead]);
    let count = 1;
    while (this.link.freePs < until && qp.requester.extendTrain(frame)) {
      this.link.transmit(this.link.freePs, bytes);
      count++;
    }
    if (count > 1) {
      words[base + TRAIN_SPACING] = spacing;
      this.trainsSent++;
    }
    return count;
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
