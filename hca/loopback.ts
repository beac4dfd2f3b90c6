/**
 * Packets on their way from the adapter's send pipeline to its own receive pipeline.
 *
 * What a port sends to itself is never on the link: sniffers of the link do not see it, port counters
 * do not count it, and nothing that happens on a link happens to it (rdmamojo.com, "Loopback messages
 * in RDMA"; mlx5 counts it apart, as vport_loopback_packets and _bytes). Packets arrive in the order
 * in which they were sent. Does not own who sends next nor the rate (`transmitter.ts`).
 */
import { type Engine, NEVER, type Node, type TimePs } from '../transport/index.ts';
import type { Exit } from './transmitter.ts';

/** The adapter's ports are 0, the bus, and 1, the wire. */
const LOOPBACK_INDEX = 2;

export class Loopback implements Engine, Exit {
  readonly index = LOOPBACK_INDEX;
  readonly slot: number;
  readonly returnPs = NEVER;
  // Packets under way: a ring in order of arrival.
  private frames = new Int32Array(64);
  private times = new Float64Array(64);
  private head = 0;
  private count = 0;

  /** `onPacket` takes each packet as it arrives. */
  constructor(
    private readonly node: Node,
    private readonly onPacket: (frame: number, now: TimePs) => void,
  ) {
    this.slot = node.addEngine(this);
  }

  /** Packets under way: none may be left at the end of a run. */
  get inFlight(): number {
    return this.count;
  }

  /** Sends one packet; there are no trains on this way. */
  sendTrain(_leavesPs: TimePs, arrivalPs: TimePs, _lastPs: TimePs, frame: number): void {
    if (this.count === this.frames.length) this.grow();
    const place = (this.head + this.count++) & (this.frames.length - 1);
    this.frames[place] = frame;
    this.times[place] = arrivalPs;
    if (this.count === 1) this.node.queue.arm(this.slot, arrivalPs);
  }

  fire(now: TimePs): void {
    const frame = this.frames[this.head];
    this.head = (this.head + 1) & (this.frames.length - 1);
    this.count--;
    this.node.queue.arm(this.slot, this.count === 0 ? NEVER : this.times[this.head]);
    this.onPacket(frame, now);
  }

  private grow(): void {
    const length = this.frames.length;
    const frames = new Int32Array(length * 2);
    const times = new Float64Array(length * 2);
    for (let i = 0; i < this.count; i++) {
      const place = (this.head + i) & (length - 1);
      frames[i] = this.frames[place];
      times[i] = this.times[place];
    }
    this.frames = frames;
    this.times = times;
    this.head = 0;
  }
}
