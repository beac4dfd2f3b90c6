/**
 * The adapter as a node: two ports, and which part each arriving frame goes to.
 *
 * Port 0 is the bus to its host, port 1 the wire. What follows an RDMA WRITE through the adapter:
 * SEND_DOORBELL -> Requester.post -> Gather (DMA_READ, DMA_READ_DATA) -> Transmitter -> wire ->
 * Responder.receive -> Translator -> DMA_WRITE, and the ACK back to Completer.receive -> COMPLETION.
 * And a page fault: Responder.receive -> FaultEngine.raise -> PAGE_FAULT -> driver -> TABLE_UPDATE,
 * FAULT_RESUME -> Commands -> FaultEngine.resume -> Responder.onResume.
 */
import {
  ANNOUNCE_PD_SUSPEND,
  assert,
  BTH_DAMAGED,
  BTH_TVER_SHIFT,
  BURST,
  BURST_OFFSET,
  BUS_CQ_DOORBELL,
  BUS_DMA_ATOMIC_DATA,
  BUS_DMA_READ_DATA,
  BUS_RECV_DOORBELL,
  BUS_SEND_DOORBELL,
  BUS_SRQ_DOORBELL,
  EVENT_SRQ_ERR,
  FaultInjector,
  FRAME_WORDS,
  type FramePool,
  Link,
  type LinkLayer,
  linkCountedBytes,
  Node,
  OP_ANNOUNCE,
  OP_CNP,
  OP_RESPONSE,
  opFlags,
  PAYLOAD_BYTES,
  PKEY_DEFAULT,
  type Port,
  packetDataWords,
  QPT_UD,
  RECORD_FRAME_RECEIVED,
  SERVICE_MASK,
  type TimePs,
  TRAIN_COUNT,
  TRAIN_SPACING,
  W_BTH_FLAGS,
  W_DEST_QPN,
  W_LIDS,
  W_OPCODE,
  W_PKEY,
  W_PSN,
  type WireFaults,
  type WireTap,
} from '../transport/index.ts';
import { BusPort } from './bus-port.ts';
import { Commands } from './commands.ts';
import { C, namedCounters, newCounters } from './counters.ts';
import { FaultEngine } from './fault-engine.ts';
import { MkeyTable } from './memory/region.ts';
import { Translator } from './memory/translator.ts';
import { cyclesPs, type HcaProfile } from './profile.ts';
import { AtomicTags } from './qp/atomic-tags.ts';
import { GatherTags } from './qp/gather-tags.ts';
import type { QueuePair } from './qp/queue-pair.ts';
import { Resources } from './resources.ts';
import { Timers } from './timers.ts';
import { Trailer } from './trailer.ts';
import { Transmitter } from './transmitter.ts';

export interface HcaConfig {
  /** Name of the host; the node is called `<name>.hca`. */
  readonly name: string;
  readonly seed: number;
  readonly profile: HcaProfile;
  /** Local identifier of the port, from 1. */
  readonly lid: number;
  readonly wire: {
    /** 10^9 bits per second. */
    readonly rateGbps: number;
    /** One-way propagation, ps: the lookahead between adapters. */
    readonly latencyPs: number;
    /** What carries packets; decides how many bytes one takes. InfiniBand when left out. */
    readonly linkLayer?: LinkLayer;
  } & WireFaults;
  /** Whether consecutive packets may travel as one frame; changes speed only. */
  readonly trains: boolean;
  /**
   * Whether the suspend and resume of a protection domain are announced to the peers of its queue
   * pairs, and those of peers understood; 'silent', as today's adapters, when left out.
   */
  readonly pdSuspend?: 'silent' | 'announced';
  /** Hears every packet that the port sends. */
  readonly tap?: WireTap;
  /** The partition key table of the port; only the default partition when left out. */
  readonly pkeys?: readonly number[];
}

/** Counters of one adapter as plain data. */
export interface HcaReport {
  readonly name: string;
  readonly digest: string;
  readonly counters: Record<string, number>;
  readonly regions: readonly {
    readonly lkey: number;
    readonly rnr_naks: number;
    readonly bytes_retransmitted: number;
    readonly stall_ps: number;
  }[];
  readonly queuePairs: readonly {
    readonly qpn: number;
    readonly pd: number;
    readonly state: number;
    readonly packets_sent: number;
    readonly packets_received: number;
    readonly retransmitted_packets: number;
    readonly rnr_naks_sent: number;
    readonly rnr_naks_received: number;
    readonly timeouts: number;
    readonly sequence_naks_sent: number;
    readonly duplicate_requests: number;
  }[];
}

export class Hca {
  readonly node: Node;
  private readonly counters = newCounters();
  private readonly mkeys = new MkeyTable();
  private readonly resources: Resources;
  private readonly tags = new GatherTags();
  private readonly bus: BusPort;
  private readonly atomics: AtomicTags;
  private readonly faults: FaultEngine;
  private readonly commands: Commands;
  private readonly transmitter: Transmitter;
  private readonly busPort: Port;
  private readonly wirePort: Port;
  private readonly receiveIntervalPs: TimePs;
  private readonly receiveLatencyPs: TimePs;
  private receiveFreePs: TimePs = 0;
  private readonly countedBytes: number;
  private readonly lid: number;
  private readonly pkeys: readonly number[];
  private readonly announcesSuspend: boolean;

  constructor(
    config: HcaConfig,
    private readonly pool: FramePool,
  ) {
    const { profile, wire } = config;
    const node = new Node(`${config.name}.hca`, config.seed);
    this.node = node;
    this.busPort = node.addPort(profile.busLatencyPs, {
      onFrame: (frame, now) => this.onBusFrame(frame, now),
    });
    this.wirePort = node.addPort(wire.latencyPs, {
      onFrame: (frame, now) => this.onWireFrame(frame, now),
    });
    this.announcesSuspend = config.pdSuspend === 'announced';
    this.receiveIntervalPs = cyclesPs(profile, profile.receiveIntervalCycles);
    this.receiveLatencyPs = cyclesPs(profile, profile.receivePipelineCycles);

    const bus = new BusPort(node, this.busPort, pool, profile);
    this.bus = bus;
    this.atomics = new AtomicTags(bus);
    const translator = new Translator(this.mkeys, profile, this.counters);
    this.resources = new Resources(this.mkeys, config.lid);
    this.transmitter = new Transmitter(
      node,
      this.wirePort,
      pool,
      new Link(wire.rateGbps, wire.latencyPs),
      new FaultInjector(node, this.wirePort, pool, wire),
      cyclesPs(profile, profile.sendPipelineCycles),
      config.trains,
      this.counters,
      wire.linkLayer ?? 'InfiniBand',
      config.tap,
    );
    this.countedBytes = linkCountedBytes[wire.linkLayer ?? 'InfiniBand'];
    this.lid = config.lid;
    this.pkeys = config.pkeys ?? [PKEY_DEFAULT];
    const timers = new Timers(node, {
      onTimer: (qp, kind, now) => this.resources.queuePairs[qp].completer.onTimer(kind, now),
    });
    this.faults = new FaultEngine(node, bus, profile, this.counters);
    const parts = {
      node,
      pool,
      profile,
      counters: this.counters,
      bus,
      mkeys: this.mkeys,
      translator,
      faults: this.faults,
      timers,
      tags: this.tags,
      atomics: this.atomics,
      transmitter: this.transmitter,
      trailer: new Trailer(pool),
      pkeys: this.pkeys,
      announcesSuspend: this.announcesSuspend,
    };
    this.commands = new Commands(parts, this.resources);
    this.resources.connect(parts);
  }

  /** Counters by name, and per region and queue pair in order of creation. */
  report(): HcaReport {
    return {
      name: this.node.name,
      digest: this.node.digest.toString(),
      counters: namedCounters(this.counters),
      regions: this.mkeys.all.map((region) => ({
        lkey: region.key,
        rnr_naks: region.rnrNaks,
        bytes_retransmitted: region.bytesRetransmitted,
        stall_ps: region.stallPs,
      })),
      queuePairs: this.resources.queuePairs.map((qp) => ({
        qpn: qp.qpn,
        pd: qp.pd.number,
        state: qp.state,
        packets_sent: qp.packetsSent,
        packets_received: qp.packetsReceived,
        retransmitted_packets: qp.retransmittedPackets,
        rnr_naks_sent: qp.rnrNaksSent,
        rnr_naks_received: qp.rnrNaksReceived,
        timeouts: qp.timeouts,
        sequence_naks_sent: qp.sequenceNaksSent,
        duplicate_requests: qp.duplicateRequests,
      })),
    };
  }

  /** Frames sent that stood for several packets; tells a test of trains that there were any. */
  get trainsSent(): number {
    return this.transmitter.trainsSent;
  }

  /** Asserts that nothing is in flight inside the adapter at the end of a run. */
  checkLeaks(): void {
    assert(this.tags.inFlight === 0, 'DMA reads are still in flight', this.node);
    assert(this.atomics.inFlight === 0, 'atomic operations are still in flight', this.node);
    assert(this.faults.inFlight === 0, 'page faults are still in flight', this.node);
  }

  private onBusFrame(frame: number, now: TimePs): void {
    const { pool, node } = this;
    this.busPort.take();
    if (node.digest.enabled) {
      pool.record(node.digest, RECORD_FRAME_RECEIVED, now, this.busPort.index, frame);
    }
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    switch (words[base]) {
      case BUS_DMA_READ_DATA: {
        // The gather takes over the frame's reference on the burst.
        const burst = words[base + BURST];
        words[base + BURST] = 0;
        const tag = words[base + 1];
        pool.release(frame);
        this.tags.arrived(tag, burst, now);
        return;
      }
      case BUS_DMA_ATOMIC_DATA: {
        const [tag, high, low] = [words[base + 1], words[base + 2], words[base + 3]];
        pool.release(frame);
        this.atomics.arrived(tag, high, low, now);
        return;
      }
      case BUS_SEND_DOORBELL:
        this.resources.findQueuePair(words[base + 1])?.requester.post(frame, now);
        pool.release(frame);
        return;
      case BUS_RECV_DOORBELL:
        this.resources.findQueuePair(words[base + 1])?.postReceive(frame, now);
        pool.release(frame);
        return;
      case BUS_SRQ_DOORBELL: {
        const srq = this.resources.findSrq(words[base + 1]);
        if (srq !== undefined && !srq.post(pool, frame)) {
          this.bus.asyncEvent(now, EVENT_SRQ_ERR, srq.srqn);
        }
        pool.release(frame);
        return;
      }
      case BUS_CQ_DOORBELL:
        this.resources.findCq(words[base + 1])?.doorbell(words[base + 2], words[base + 3], now);
        pool.release(frame);
        return;
      default:
        this.commands.submit(frame, now);
    }
  }

  /** Takes packets off the wire: one, or those of a train that come before anything else here. */
  private onWireFrame(frame: number, now: TimePs): void {
    const { pool, node, wirePort, transmitter } = this;
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    const spacing = words[base + TRAIN_SPACING];
    let left = words[base + TRAIN_COUNT] - 1;
    let at = now;
    for (;;) {
      const next = left > 0 ? at + spacing : wirePort.nextAfterHead;
      transmitter.quietUntilPs = Math.min(next, wirePort.clearUntil());
      this.onPacket(frame, at);
      if (left <= 0) break;
      // The frame now stands for the rest of its train.
      words[base + TRAIN_COUNT] = left--;
      words[base + W_PSN] = (words[base + W_PSN] + 1) & 0xffffff;
      words[base + BURST_OFFSET] += words[base + PAYLOAD_BYTES];
      at = next;
      if (at >= wirePort.clearUntil()) {
        transmitter.quietUntilPs = 0;
        transmitter.flushAnswers();
        wirePort.hold(at);
        return;
      }
      node.now = at;
    }
    transmitter.quietUntilPs = 0;
    transmitter.flushAnswers();
    wirePort.take();
    pool.release(frame);
  }

  private onPacket(frame: number, now: TimePs): void {
    const { pool, node, counters } = this;
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    if (node.digest.enabled) {
      pool.record(node.digest, RECORD_FRAME_RECEIVED, now, this.wirePort.index, frame);
    }
    const opcode = words[base + W_OPCODE];
    counters[C.port_rcv_packets]++;
    counters[C.port_rcv_data] += packetDataWords(
      opcode,
      words[base + PAYLOAD_BYTES],
      this.countedBytes,
    );
    const start = now > this.receiveFreePs ? now : this.receiveFreePs;
    this.receiveFreePs = start + this.receiveIntervalPs;
    if ((words[base + W_BTH_FLAGS] & BTH_DAMAGED) !== 0) {
      counters[C.port_rcv_errors]++;
      return;
    }
    const qp = this.resources.findQueuePair(words[base + W_DEST_QPN]);
    if (qp === undefined) {
      counters[C.state_drops]++;
      return;
    }
    qp.packetsReceived++;
    const flags = opFlags[opcode];
    if (!this.isFor(qp, frame, flags)) return;
    const readyPs = start + this.receiveLatencyPs;
    if ((flags & OP_RESPONSE) !== 0) qp.completer.receive(frame, now, readyPs);
    else if ((flags & (OP_CNP | OP_ANNOUNCE)) === 0) qp.responder.receive(frame, now, readyPs);
    // Congestion control is not modelled yet.
    else if ((flags & OP_CNP) !== 0) counters[C.rp_cnp_ignored]++;
    else qp.onAnnouncement(opcode === ANNOUNCE_PD_SUSPEND, now);
  }

  /**
   * The checks of a packet's headers that do not depend on its operation (IBTA 9.6.1): transport
   * version, partition, addresses, service. Counts and drops what fails one.
   */
  private isFor(qp: QueuePair, frame: number, flags: number): boolean {
    const { counters } = this;
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    const service = words[base + W_OPCODE] & SERVICE_MASK;
    const lids = words[base + W_LIDS];
    const isService =
      (flags & OP_ANNOUNCE) !== 0
        ? this.announcesSuspend && qp.type !== QPT_UD
        : service === qp.service || (flags & OP_CNP) !== 0;
    const isVersion = ((words[base + W_BTH_FLAGS] >>> BTH_TVER_SHIFT) & 0xf) === 0;
    // Of a queue pair that is not connected yet, the source is anyone.
    const isConnected = qp.type !== QPT_UD && qp.attributes.destLid !== 0;
    const isSource = !isConnected || lids >>> 16 === qp.attributes.destLid;
    if (!isService || !isVersion || !isSource || (lids & 0xffff) !== this.lid) {
      counters[C.header_drops]++;
      return false;
    }
    if (!isSamePartition(words[base + W_PKEY], this.pkeys[qp.attributes.pkeyIndex])) {
      counters[C.bad_pkey_cntr]++;
      return false;
    }
    return true;
  }
}

/** Whether two P_Keys match: same partition, and one of them at least a full member (IBTA 10.9.3). */
function isSamePartition(a: number, b: number): boolean {
  return ((a ^ b) & 0x7fff) === 0 && (a & 0x7fff) !== 0 && ((a | b) & 0x8000) !== 0;
}
