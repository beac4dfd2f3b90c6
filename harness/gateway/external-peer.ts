/**
 * The node at the edge of a world whose other end is a real Ethernet: what the adapter sends becomes
 * bytes here, and bytes that come in become packets.
 *
 * It is a node like any other: its inputs are frames, with arrival times that somebody else has given
 * them (`arrivals.ts`), and what it does follows from nothing else. So a recorded session can be run
 * again without a socket. Owns ARP and its like, the neighbour table, impairments, and the counters
 * of the edge. Does not own sockets, clocks or what queue pairs do.
 */
import {
  BTH_DAMAGED,
  BTH_FECN,
  decodeRoce,
  ETHERNET_BYTES,
  encodeRoce,
  FRAME_WORDS,
  type FramePool,
  get32,
  type IcrcRule,
  IPV4_BYTES,
  IPV6_BYTES,
  Link,
  Node,
  type Port,
  RECORD_FRAME_RECEIVED,
  RECORD_FRAME_SENT,
  ROCE_MAX_BYTES,
  RoceHeader,
  type TimePs,
  udpSourcePort,
  W_BTH_FLAGS,
  W_DEST_QPN,
  W_LIDS,
} from '../../transport/index.ts';
import { sameBytes } from './addresses.ts';
import { newEdgeCounters } from './edge-counters.ts';
import { Impairment, type ImpairmentSpec } from './impairment.ts';
import { InputQueue } from './input-queue.ts';
import { askFor, type PortAddresses, readFrame } from './internet.ts';
import { Neighbours, type Route } from './neighbours.ts';
import { WaitQueue } from './wait-queue.ts';

/** Preamble, FCS and gap: what a frame takes on an Ethernet besides its bytes. */
const LINE_OVERHEAD_BYTES = 24;
const UDP_BYTES = 8;
/** The ECN field of a packet that met congestion. */
const ECN_CONGESTION = 3;
/** The digest of a frame covers so many bytes at its start, and its ICRC, which covers the rest. */
const DIGEST_BYTES = 64;
/** Digest records of the Ethernet side name a port that the node does not have. */
const ETHERNET_PORT = 1;

export interface ExternalPeerConfig {
  /** The node is called `<name>.wire`. */
  readonly name: string;
  readonly seed: number;
  /** Of the line to the adapter, as the scenario has it. */
  readonly latencyPs: TimePs;
  readonly rateGbps: number;
  /** The longest IP packet. */
  readonly mtuBytes: number;
  readonly own: PortAddresses;
  /** LID of our adapter. */
  readonly lid: number;
  /** What the peer is known to do otherwise than the specification. */
  readonly icrcRules: readonly IcrcRule[];
}

/** Who sees what passes the edge, at its simulated time. */
export interface EdgeObserver {
  /** A frame leaves now. */
  sent(bytes: Uint8Array, now: TimePs): void;
  /** A frame has come in. */
  received?(bytes: Uint8Array, now: TimePs): void;
}

/** Something that comes in at a time: bytes, or a change that was asked for. */
type Input = Uint8Array | ((now: TimePs) => void);

export class ExternalPeer {
  readonly node: Node;
  readonly counters = newEdgeCounters();
  /** Set by who wants the frames. */
  observer: EdgeObserver | undefined;
  private readonly port: Port;
  private readonly link: Link;
  private readonly neighbours: Neighbours;
  private readonly inputs: InputQueue<Input>;
  private readonly waits: WaitQueue;
  private readonly header = new RoceHeader();
  private readonly sendHeader = new RoceHeader();
  private readonly scratch = new Uint8Array(ROCE_MAX_BYTES);
  private sending: Impairment | undefined;
  private receiving: Impairment | undefined;

  constructor(
    private readonly config: ExternalPeerConfig,
    private readonly pool: FramePool,
  ) {
    this.node = new Node(`${config.name}.wire`, config.seed);
    this.port = this.node.addPort(config.latencyPs, {
      onFrame: (frame, now) => {
        this.port.take();
        this.sendPacket(frame, now);
      },
    });
    this.link = new Link(config.rateGbps, config.latencyPs);
    this.neighbours = new Neighbours({
      ask: (ip, now) => {
        this.counters.questions_out++;
        this.emit(askFor(ip, config.own), now);
        this.waits.arm();
      },
      send: (frame, now) => this.sendPacket(frame, now),
      giveUp: (frame) => {
        this.counters.unresolved_drops++;
        pool.release(frame);
      },
    });
    this.inputs = new InputQueue<Input>(this.node, (input, now) => {
      if (typeof input === 'function') input(now);
      else this.receive(input, now);
    });
    this.waits = new WaitQueue(this.node, this.neighbours);
  }

  /** Whether `ip` is an address of ours. */
  isOwn(ip: Uint8Array): boolean {
    const { own } = this.config;
    return sameBytes(ip, ip.length === 4 ? own.ipv4 : own.ipv6);
  }

  /** A frame comes in at `timePs`, which is later than everything that came in before. */
  arrive(timePs: TimePs, bytes: Uint8Array): void {
    this.inputs.add(timePs, bytes);
  }

  /** From `timePs` on `route` is known; `mac` where somebody says it. */
  addRoute(timePs: TimePs, route: Route, mac?: Uint8Array): void {
    this.inputs.add(timePs, (now) => this.neighbours.add(route, mac, now));
  }

  /** From `timePs` on packets fare as `spec` says: those that we send, that we receive, or both. */
  impair(timePs: TimePs, direction: 'send' | 'receive' | 'both', spec: ImpairmentSpec): void {
    this.inputs.add(timePs, () => {
      if (direction !== 'receive') this.sending = new Impairment(spec, 'send');
      if (direction !== 'send') this.receiving = new Impairment(spec, 'receive');
    });
  }

  private receive(bytes: Uint8Array, now: TimePs): void {
    const { counters, config } = this;
    counters.frames_in++;
    this.record(RECORD_FRAME_RECEIVED, bytes, now);
    this.observer?.received?.(bytes, now);
    if (bytes.length > ETHERNET_BYTES + config.mtuBytes) {
      counters.giants++;
      return;
    }
    const { kind, answer, sender } = readFrame(bytes, config.own);
    switch (kind) {
      case 'roce':
        this.impairArrival(bytes, now);
        return;
      case 'arp':
        counters.arp_in++;
        break;
      case 'neighbour':
        counters.neighbour_in++;
        break;
      case 'icmp':
        counters.icmp_in++;
        break;
      case 'runt':
        counters.runts++;
        break;
      default:
        counters[kind]++;
    }
    if (sender !== undefined) this.neighbours.learn(sender.ip, sender.mac, now);
    if (answer === undefined) return;
    counters.answers_out++;
    this.emit(answer, now);
  }

  private impairArrival(bytes: Uint8Array, now: TimePs): void {
    const { receiving, counters } = this;
    counters.roce_in++;
    if (receiving === undefined) this.takePacket(bytes, now);
    else this.meetFate(receiving, bytes, now, (copy, at) => this.takePacket(copy, at));
  }

  /** Hands a packet on as often, as whole and as late as `impairment` says. */
  private meetFate(
    impairment: Impairment,
    bytes: Uint8Array,
    now: TimePs,
    pass: (bytes: Uint8Array, now: TimePs) => void,
  ): void {
    const { counters } = this;
    const { copies, isDamaged, delayPs } = impairment.next();
    if (copies === 0) counters.impaired_drops++;
    if (copies > 1) counters.impaired_duplicates++;
    if (copies > 0 && isDamaged) counters.impaired_corruptions++;
    if (copies > 0 && delayPs > 0) counters.impaired_delays++;
    for (let i = 0; i < copies; i++) {
      // The transport packet alone is damaged: behind Ethernet, IP and UDP.
      const from = ETHERNET_BYTES + (bytes[12] === 0x86 ? IPV6_BYTES : IPV4_BYTES) + UDP_BYTES;
      const copy = isDamaged ? impairment.damage(bytes, from) : bytes;
      if (delayPs === 0) pass(copy, now);
      else this.waits.add(now + delayPs, (at) => pass(copy, at));
    }
  }

  /** Decodes a RoCE frame and puts the packet on the line to the adapter. */
  private takePacket(bytes: Uint8Array, now: TimePs): void {
    const { pool, header, config, counters } = this;
    const { icrcRules } = config;
    const frame = decodeRoce(pool, bytes, 0, bytes.length, header, { icrcRules, withGrh: true });
    if (frame < 0) {
      counters.malformed++;
      return;
    }
    const base = frame * FRAME_WORDS;
    if ((pool.words[base + W_BTH_FLAGS] & BTH_DAMAGED) !== 0) {
      counters.bad_icrc++;
      pool.release(frame);
      return;
    }
    const source = header.version === 4 ? header.source.subarray(0, 4) : header.source;
    pool.words[base + W_LIDS] = (this.neighbours.lidOf(source) << 16) | config.lid;
    // What FECN is to InfiniBand, a congestion mark in the IP header is to RoCEv2 (IBTA A17.9).
    if ((header.trafficClass & 3) === ECN_CONGESTION) pool.words[base + W_BTH_FLAGS] |= BTH_FECN;
    const arrivalPs = this.link.transmit(now, bytes.length + LINE_OVERHEAD_BYTES);
    this.port.send(arrivalPs, frame);
  }

  /** Encodes a packet of the adapter and sends it, or keeps it until its way is known. */
  private sendPacket(frame: number, now: TimePs): void {
    const { pool, config, counters, scratch } = this;
    const base = frame * FRAME_WORDS;
    const route = this.neighbours.routeOf(pool.words[base + W_LIDS] & 0xffff);
    if (route === undefined) {
      counters.no_route++;
      pool.release(frame);
      return;
    }
    const mac = this.neighbours.macOf(route.ip);
    if (mac === undefined) {
      this.neighbours.hold(route.ip, frame, now);
      return;
    }
    const header = this.headerFor(route, mac, pool.words[base + W_DEST_QPN]);
    const end = encodeRoce(pool, frame, 0, header, scratch, 0);
    pool.release(frame);
    if (end > ETHERNET_BYTES + config.mtuBytes) {
      counters.too_long++;
      return;
    }
    counters.roce_out++;
    const bytes = scratch.slice(0, end);
    const { sending } = this;
    if (sending === undefined) this.emit(bytes, now);
    else this.meetFate(sending, bytes, now, (copy, at) => this.emit(copy, at));
  }

  private headerFor(route: Route, mac: Uint8Array, destQpn: number): RoceHeader {
    const header = this.sendHeader;
    const { own, icrcRules } = this.config;
    header.version = route.ip.length === 4 ? 4 : 6;
    header.destMac.set(mac);
    header.sourceMac.set(own.mac);
    header.source.set(header.version === 4 ? own.ipv4 : own.ipv6);
    header.dest.set(route.ip);
    header.trafficClass = route.trafficClass;
    header.flowLabel = route.flowLabel;
    header.hopLimit = route.hopLimit;
    header.sourcePort = udpSourcePort(route.flowLabel, destQpn, destQpn);
    header.icrcRule = icrcRules[0];
    return header;
  }

  private emit(bytes: Uint8Array, now: TimePs): void {
    this.counters.frames_out++;
    this.record(RECORD_FRAME_SENT, bytes, now);
    this.observer?.sent(bytes, now);
  }

  private record(kind: number, bytes: Uint8Array, now: TimePs): void {
    const { digest } = this.node;
    if (!digest.enabled) return;
    digest.begin(kind, now);
    digest.add(ETHERNET_PORT);
    digest.add(bytes.length);
    const whole = bytes.length & ~3;
    for (let at = 0; at < whole && at < DIGEST_BYTES; at += 4) digest.add(get32(bytes, at));
    if (bytes.length >= 4) digest.add(get32(bytes, bytes.length - 4));
    digest.end();
  }
}
