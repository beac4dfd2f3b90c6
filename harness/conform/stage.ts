/**
 * The small world in which our adapter stands in for a captured host: one real host with its driver,
 * one real adapter, and a wire whose other end is whoever holds the stage.
 *
 * The world runs event by event. The other end sees a packet at the very moment the adapter decides to
 * send it and may answer before the next one is decided: so it can act between any two packets, which
 * a simulated peer behind a link could not. Everything but the timers of the protocol is made short,
 * so that a pause of IDLE_PS means that the adapter has nothing to do.
 */
import { Hca, type HcaProfile, profiles } from '../../hca/index.ts';
import {
  defaultHostCosts,
  Host,
  type HostCosts,
  PAGE_BYTES,
  type Sim,
} from '../../kernel/index.ts';
import {
  BlockPool,
  FRAME_WORDS,
  FramePool,
  NEVER,
  type Node,
  type Port,
  type TimePs,
  US,
  W_LIDS,
} from '../../transport/index.ts';
import { Packet } from '../capture/packet.ts';

/** LIDs of our adapter and of the captured peer. */
const OUR_LID = 1;
export const PEER_LID = 2;
const LATENCY_PS = 1000;
/** Slow enough that an answer is taken in before the next packet is decided. */
const WIRE_GBPS = 40;
const BUS_GBPS = 10_000;
/** No event for so long: only timers are left. The shortest timers of the protocol are longer. */
export const IDLE_PS = 5 * US;

/** Timers by the specification, and everything else as good as immediate. */
const profile: HcaProfile = {
  ...(profiles.spec as HcaProfile),
  name: 'conform',
  busLatencyPs: LATENCY_PS,
  busRateGbps: BUS_GBPS,
  interruptPs: LATENCY_PS,
  wqeFetchPs: 0,
  sendPipelineCycles: 0,
  receivePipelineCycles: 0,
  receiveIntervalCycles: 0,
  commandPs: LATENCY_PS,
  tableEntryCycles: 0,
  translationMissPs: 0,
};

/** Work of the host costs next to nothing: every time span is a nanosecond. */
const costs = Object.fromEntries(
  Object.entries(defaultHostCosts).map(([name, value]) => [
    name,
    name.endsWith('Ps') ? LATENCY_PS : value,
  ]),
) as unknown as HostCosts;

export class Stage {
  readonly host: Host;
  /** Called with each packet when the adapter decides to send it. */
  onSent: (packet: Packet) => void = () => {};
  private readonly pool: FramePool;
  private readonly hca: Hca;
  private readonly wire: Port;
  private lastArrivalPs: TimePs = 0;

  /** A host with at least `memoryBytes` of memory. */
  constructor(memoryBytes: number) {
    this.pool = new FramePool(new BlockPool(), 4096, 4096);
    this.hca = new Hca(
      {
        name: 'ours',
        seed: 1,
        profile,
        lid: OUR_LID,
        wire: { rateGbps: WIRE_GBPS, latencyPs: LATENCY_PS, lossPpm: 0 },
        trains: false,
      },
      this.pool,
    );
    this.host = new Host(
      {
        name: 'ours',
        seed: 1,
        busLatencyPs: LATENCY_PS,
        busRateGbps: BUS_GBPS,
        memoryBytes: memoryBytes + 256 * PAGE_BYTES,
        swapBytes: 0,
        cpus: 4,
        memlockBytes: Number.POSITIVE_INFINITY,
        costs,
        interruptPs: LATENCY_PS,
        faultWorkers: 1,
        verify: false,
      },
      this.pool,
    );
    for (const node of this.nodes) node.digest.enabled = false;
    this.wire = this.hca.node.ports[1];
    this.wire.outlet = { accept: (_arrivalPs, frame) => this.take(frame) };
    join(this.hca.node.ports[0], this.host.node.ports[0]);
    join(this.host.node.ports[0], this.hca.node.ports[0]);
  }

  get now(): TimePs {
    return Math.max(this.hca.node.now, this.host.node.now);
  }

  /** When the next event is due, or NEVER. */
  get next(): TimePs {
    return Math.min(...this.nodes.map((node) => node.queue.nextTime()));
  }

  /** Whether nothing but a timer is left to happen. */
  get isIdle(): boolean {
    return this.next > this.now + IDLE_PS;
  }

  /** Runs the next event, of which there is one. */
  step(): void {
    const at = this.next;
    const node = this.nodes.find(({ queue }) => queue.nextTime() === at) as Node;
    node.horizon = at + 1;
    node.run(1);
  }

  /** What is delivered from here on until the world goes on arrives at one time. */
  beginBurst(): void {
    this.lastArrivalPs = Math.max(this.now, this.lastArrivalPs) + 1;
  }

  /** Lets a packet of the peer arrive at once. */
  deliver(packet: Packet): void {
    const frame = packet.write(this.pool);
    this.pool.words[frame * FRAME_WORDS + W_LIDS] = (PEER_LID << 16) | OUR_LID;
    if (this.lastArrivalPs <= this.now) this.beginBurst();
    this.wire.deliver(this.lastArrivalPs, frame);
  }

  /** Runs `body` as a thread of the host to its end, and the world with it. Throws what it throws. */
  run<T>(what: string, body: Sim<T>): T {
    const result = this.host.start(what, this.now + 1, body);
    while (!result.done && this.next !== NEVER) this.step();
    const outcome = result.value;
    if ('error' in outcome) throw outcome.error;
    return outcome.value;
  }

  /** Lets go of everything, so that leaks show. */
  dispose(): void {
    this.host.dispose();
  }

  private get nodes(): Node[] {
    return [this.hca.node, this.host.node];
  }

  private take(frame: number): void {
    const packet = Packet.read(this.pool, frame);
    this.pool.release(frame);
    this.onSent(packet);
  }
}

function join(from: Port, to: Port): void {
  from.outlet = { accept: (arrivalPs, frame, isInert) => to.deliver(arrivalPs, frame, isInert) };
}
