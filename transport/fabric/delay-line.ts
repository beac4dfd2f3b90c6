/**
 * Packets that are late: they wait at the sender's end of the link and leave behind later ones.
 *
 * A port keeps its frames in order of arrival, so a packet that others shall overtake is handed to
 * the port only when its turn comes: after so many others, or at its time, whichever is first.
 * Owns nothing of why a packet is late (`fault-injector.ts`).
 */
import type { Engine, Node, Port } from '../sim/node.ts';
import { NEVER, type TimePs } from '../sim/units.ts';

export class DelayLine implements Engine {
  private readonly slot: number;
  // Packets that wait, in the order in which they are due.
  private frames = new Int32Array(64);
  private due = new Float64Array(64);
  /** Packets that shall overtake it, 0 where only time counts. */
  private left = new Int32Array(64);
  private count = 0;
  /** Arrival of the last packet that was sent. */
  private lastPs: TimePs = 0;

  constructor(
    private readonly node: Node,
    private readonly port: Port,
  ) {
    this.slot = node.addEngine(this);
  }

  /** Sends a packet that is not late, and behind it those that have waited for enough others. */
  pass(frame: number, arrivalPs: TimePs): void {
    this.put(frame, arrivalPs);
    let kept = 0;
    for (let i = 0; i < this.count; i++) {
      if (this.left[i] > 0 && --this.left[i] === 0) this.put(this.frames[i], this.lastPs);
      else this.move(i, kept++);
    }
    if (kept === this.count) return;
    this.count = kept;
    this.arm();
  }

  /** Keeps a packet back until `packets` others have passed (0: any number), at most until it arrives at `arrivalPs`. */
  delay(frame: number, arrivalPs: TimePs, packets: number): void {
    if (this.count === this.frames.length) this.grow();
    const duePs = arrivalPs - this.port.latencyPs;
    let place = this.count++;
    for (; place > 0 && this.due[place - 1] > duePs; place--) this.move(place - 1, place);
    this.frames[place] = frame;
    this.due[place] = duePs;
    this.left[place] = packets;
    this.arm();
  }

  fire(now: TimePs): void {
    let sent = 0;
    for (; sent < this.count && this.due[sent] <= now; sent++) {
      this.put(this.frames[sent], this.due[sent] + this.port.latencyPs);
    }
    for (let i = sent; i < this.count; i++) this.move(i, i - sent);
    this.count -= sent;
    this.arm();
  }

  /** Sends a frame; what left before it arrives before it. */
  private put(frame: number, arrivalPs: TimePs): void {
    if (arrivalPs > this.lastPs) this.lastPs = arrivalPs;
    this.port.send(this.lastPs, frame);
  }

  private move(from: number, to: number): void {
    this.frames[to] = this.frames[from];
    this.due[to] = this.due[from];
    this.left[to] = this.left[from];
  }

  private arm(): void {
    this.node.queue.arm(this.slot, this.count > 0 ? this.due[0] : NEVER);
  }

  private grow(): void {
    const length = this.frames.length * 2;
    const frames = new Int32Array(length);
    const due = new Float64Array(length);
    const left = new Int32Array(length);
    frames.set(this.frames);
    due.set(this.due);
    left.set(this.left);
    this.frames = frames;
    this.due = due;
    this.left = left;
  }
}
