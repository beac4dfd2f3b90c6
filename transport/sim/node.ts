/**
 * A node: one closed, deterministic machine of the simulated world (an adapter, a host, a switch).
 *
 * Its only inputs are frames with arrival times at its ports. It owns its clock, its pending events,
 * its digest and its chance. Which process it runs in, and beside which other nodes, changes nothing
 * that can be observed of it.
 */
import { assert } from './assert.ts';
import { Digest } from './digest.ts';
import { EventQueue } from './event-queue.ts';
import { RandomStream } from './prng.ts';
import { NEVER, type TimePs } from './units.ts';

/** Something a node wakes up: its `fire` runs when the engine's pending event is due. */
export interface Engine {
  fire(now: TimePs): void;
}

/** Takes frames out of a port: frame `frame` (a pool slot) has arrived; see Port.take and Port.hold. */
export interface FrameHandler {
  onFrame(frame: number, now: TimePs): void;
}

/** Where a port's outgoing frames go: the peer's inbox, or a window that crosses a process boundary. */
export interface Outlet {
  accept(arrivalPs: TimePs, frame: number, isInert: boolean): void;
}

export class Node {
  readonly queue = new EventQueue();
  readonly digest: Digest;
  readonly ports: Port[] = [];
  /** Time of the event at work, or of the last one. */
  now: TimePs = 0;
  /** Events strictly before this may run: nothing that is still to arrive can be earlier. */
  horizon: TimePs = 0;
  private readonly engines: Engine[] = [];
  private failure: unknown;

  /** `name` is unique in the world; `seed` is the run's. */
  constructor(
    readonly name: string,
    readonly seed: number,
  ) {
    this.digest = new Digest(name);
  }

  /** Adds a port. All ports come before the first engine, so that arrivals go first at equal times. */
  addPort(latencyPs: TimePs, handler: FrameHandler): Port {
    assert(this.engines.length === this.ports.length, 'ports are added before engines', this);
    const port = new Port(this, this.ports.length, this.queue.addSlot(), latencyPs, handler);
    this.ports.push(port);
    this.engines.push(port);
    return port;
  }

  /** Adds an engine and returns its slot in `queue`. */
  addEngine(engine: Engine): number {
    this.engines.push(engine);
    return this.queue.addSlot();
  }

  /** The random stream of this node for `purpose`. */
  random(purpose: string): RandomStream {
    return new RandomStream(this.seed, this.name, purpose);
  }

  /** Ends the run with `error`; for code whose caller would swallow an exception (RxJS). */
  fail(error: unknown): void {
    this.failure ??= error;
  }

  /**
   * The earliest time at which this node may send anything, if nothing more arrives: its next event,
   * or, while that is only an inert frame, what comes after it.
   */
  nextAction(): TimePs {
    const queue = this.queue;
    const next = queue.nextTime();
    if (next === NEVER) return NEVER;
    const slot = queue.nextSlot();
    if (slot >= this.ports.length || !this.ports[slot].isHeadInert) return next;
    const others = queue.nextTimeExcept(slot);
    const active = this.ports[slot].nextActive;
    return others < active ? others : active;
  }

  /** Runs events before the horizon, at most `budget` of them; returns how many ran. */
  run(budget: number): number {
    const queue = this.queue;
    let ran = 0;
    while (ran < budget) {
      const at = queue.nextTime();
      if (at >= this.horizon) break;
      this.now = at;
      this.engines[queue.nextSlot()].fire(at);
      ran++;
      if (this.failure !== undefined) throw this.failure;
    }
    return ran;
  }
}

/**
 * One end of a channel at a node: an inbox of frames in order of arrival, and the way out.
 *
 * Frames on a channel arrive in the order in which they were sent. The channel's latency is the
 * promise that makes parallel runs possible: a frame never arrives earlier than the sender's clock
 * plus that latency.
 */
export class Port implements Engine {
  /** Where outgoing frames go; set when the world is wired. */
  outlet: Outlet | undefined;
  /** Earliest reaction: how long after a frame of ours arrives an answer can be here. */
  returnPs: TimePs = NEVER;
  private times = new Float64Array(64);
  private frames = new Int32Array(64);
  private inert = new Uint8Array(64);
  private head = 0;
  private count = 0;
  // Arrival times of the frames in the inbox that are not inert.
  private activeTimes = new Float64Array(64);
  private activeHead = 0;
  private activeCount = 0;
  private lastSentPs: TimePs = 0;
  private lastArrivalPs: TimePs = 0;

  constructor(
    private readonly node: Node,
    readonly index: number,
    /** Its slot in the node's queue. */
    readonly slot: number,
    readonly latencyPs: TimePs,
    private readonly handler: FrameHandler,
  ) {
    assert(
      latencyPs > 0,
      'a channel needs a latency above zero: the latency is what lets its two ends run apart',
      node,
    );
  }

  /**
   * Sends `frame` so that it is there at `arrivalPs`. An *inert* frame is one that the receiver takes
   * in without ever sending anything because of it (a DMA write), so it does not limit how far the
   * sender may run. From here on the frame belongs to the receiver.
   */
  send(arrivalPs: TimePs, frame: number, isInert = false): void {
    this.sendTrain(this.node.now, arrivalPs, arrivalPs, frame, isInert);
  }

  /** Sends a frame that stands for packets: the first leaves at `leavesPs`, the last is there at `lastPs`. */
  sendTrain(
    leavesPs: TimePs,
    arrivalPs: TimePs,
    lastPs: TimePs,
    frame: number,
    isInert = false,
  ): void {
    const node = this.node;
    assert(arrivalPs >= leavesPs + this.latencyPs, 'a frame outruns its channel', node);
    assert(arrivalPs >= this.lastSentPs, 'a frame overtakes another on its channel', node);
    assert(this.outlet !== undefined, 'the port is not connected', node);
    this.lastSentPs = lastPs;
    const answer = arrivalPs + this.returnPs;
    if (answer < node.horizon && !isInert) node.horizon = answer;
    this.outlet.accept(arrivalPs, frame, isInert);
  }

  /** Puts a frame into the inbox; the other end of the channel calls it. */
  deliver(arrivalPs: TimePs, frame: number, isInert = false): void {
    assert(
      arrivalPs > this.node.now || this.node.now === 0,
      'a frame arrives in the past',
      this.node,
    );
    assert(arrivalPs >= this.lastArrivalPs, 'a frame arrives out of order', this.node);
    this.lastArrivalPs = arrivalPs;
    if (this.count === this.frames.length) this.grow();
    const place = (this.head + this.count++) & (this.frames.length - 1);
    this.times[place] = arrivalPs;
    this.frames[place] = frame;
    this.inert[place] = isInert ? 1 : 0;
    if (!isInert) {
      this.activeTimes[(this.activeHead + this.activeCount++) & (this.frames.length - 1)] =
        arrivalPs;
    }
    if (this.count === 1) this.node.queue.arm(this.slot, arrivalPs);
  }

  /** Whether the frame at the head, of which there is one, is inert. */
  get isHeadInert(): boolean {
    return this.inert[this.head] === 1;
  }

  /** When the first frame arrives that is not inert, or NEVER. */
  get nextActive(): TimePs {
    return this.activeCount === 0 ? NEVER : this.activeTimes[this.activeHead];
  }

  fire(now: TimePs): void {
    this.handler.onFrame(this.frames[this.head], now);
  }

  /** Takes the frame at the head out of the inbox; the handler owns it now. */
  take(): void {
    if (this.inert[this.head] === 0) {
      this.activeHead = (this.activeHead + 1) & (this.frames.length - 1);
      this.activeCount--;
    }
    this.head = (this.head + 1) & (this.frames.length - 1);
    this.count--;
    this.node.queue.arm(this.slot, this.count === 0 ? NEVER : this.times[this.head]);
  }

  /** Leaves the frame at the head where it is: the rest of its train arrives from `untilPs` on. */
  hold(untilPs: TimePs): void {
    this.times[this.head] = untilPs;
    if (this.inert[this.head] === 0) this.activeTimes[this.activeHead] = untilPs;
    this.node.queue.arm(this.slot, untilPs);
  }

  /** When the frame behind the one at the head arrives, or NEVER. */
  get nextAfterHead(): TimePs {
    return this.count > 1 ? this.times[(this.head + 1) & (this.frames.length - 1)] : NEVER;
  }

  /** Up to when (exclusive) the frame at the head may be handled on without looking elsewhere. */
  clearUntil(): TimePs {
    const others = this.node.queue.nextTimeExcept(this.slot);
    return others < this.node.horizon ? others : this.node.horizon;
  }

  private grow(): void {
    const length = this.frames.length;
    const times = new Float64Array(length * 2);
    const frames = new Int32Array(length * 2);
    const inert = new Uint8Array(length * 2);
    const activeTimes = new Float64Array(length * 2);
    for (let i = 0; i < this.count; i++) {
      const place = (this.head + i) & (length - 1);
      times[i] = this.times[place];
      frames[i] = this.frames[place];
      inert[i] = this.inert[place];
    }
    for (let i = 0; i < this.activeCount; i++) {
      activeTimes[i] = this.activeTimes[(this.activeHead + i) & (length - 1)];
    }
    this.times = times;
    this.frames = frames;
    this.inert = inert;
    this.activeTimes = activeTimes;
    this.head = 0;
    this.activeHead = 0;
  }
}
