/**
 * The adapter as a node: two ports, and which part each arriving frame goes to.
 *
 * Port 0 is the bus to its host, port 1 the wire; what a port sends to itself goes from the send to
 * the receive pipeline inside (`loopback.ts`). What follows an RDMA WRITE through the adapter:
 * SEND_DOORBELL -> Requester.post -> Gather (DMA_READ, DMA_READ_DATA) -> Transmitter -> wire ->
 * Responder.receive -> Translator -> DMA_WRITE, and the ACK back to Completer.receive -> COMPLETION.
 * And a page fault: Responder.receive -> FaultEngine.raise -> PAGE_FAULT -> driver -> TABLE_UPDATE,
 * FAULT_RESUME -> Commands -> FaultEngine.resume -> Responder.onResume.
 */
import {
  ANNOUNCE_PD_SUSPEND,
  assert,
  BTH_DAMAGED,
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
  linkCountedBytes,
  Node,
  OP_ANNOUNCE,
  OP_CNP,
  OP_RESPONSE,
  opFlags,
  PAYLOAD_BYTES,
  PAYLOAD_MAX_BYTES,
  PKEY_DEFAULT,
  type Port,
  packetDataWords,
  RECORD_FRAME_RECEIVED,
  type TimePs,
  TRAIN_COUNT,
  TRAIN_SPACING,
  W_BTH_FLAGS,
  W_DEST_QPN,
  W_OPCODE,
  W_PSN,
} from '../transport/index.ts';
import { Commands } from './commands.ts';
import type { HcaConfig } from './config.ts';
import { C, newCounters } from './counters.ts';
import { AtomicTags } from './dma/atomic-tags.ts';
import { BusPort } from './dma/bus-port.ts';
import { GatherTags } from './dma/gather-tags.ts';
import { FaultEngine } from './fault-engine.ts';
import { type HcaReport, newReport } from './hca-report.ts';
import { HeaderChecks } from './header-checks.ts';
import { Loopback } from './loopback.ts';
import { MkeyTable } from './memory/region.ts';
import { Translator } from './memory/translator.ts';
import { cyclesPs } from './profile.ts';
import { Resources } from './resources.ts';
import { Timers } from './timers.ts';
import { Trailer } from './trailer.ts';
import { Transmitter } from './transmitter.ts';
import { Ways } from './ways.ts';

export class Hca {
  readonly node: Node;
  private readonly counters = newCounters();
  private readonly mkeys = new MkeyTable();
  private readonly resources: Resources;
  private readonly tags = new GatherTags();
  private readonly bus: BusPort;
  private readonly atomics: AtomicTags;
  private readonly faults: FaultEngine;
  private readonly translator: Translator;
  private readonly commands: Commands;
  private readonly transmitter: Transmitter;
  private readonly loopback: Loopback;
  private readonly busPort: Port;
  private readonly wirePort: Port;
  private readonly receiveIntervalPs: TimePs;
  private readonly receiveLatencyPs: TimePs;
  private receiveFreePs: TimePs = 0;
  private readonly countedBytes: number;
  private readonly checks: HeaderChecks;

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
    this.receiveIntervalPs = cyclesPs(profile, profile.receiveIntervalCycles);
    this.receiveLatencyPs = cyclesPs(profile, profile.receivePipelineCycles);

    const bus = new BusPort(node, this.busPort, pool, profile);
    this.bus = bus;
    this.atomics = new AtomicTags(bus);
    const translator = new Translator(this.mkeys, profile, this.counters);
    this.translator = translator;
    this.resources = new Resources(this.mkeys);
    const linkLayer = wire.linkLayer ?? 'InfiniBand';
    const sendPipelinePs = cyclesPs(profile, profile.sendPipelineCycles);
    this.transmitter = new Transmitter(
      node,
      this.wirePort,
      pool,
      new Link(wire.rateGbps, wire.latencyPs),
      new FaultInjector(node, this.wirePort, pool, wire),
      sendPipelinePs,
      config.trains,
      this.counters,
      { packets: C.port_xmit_packets, data: C.port_xmit_data, dataOctets: 4 },
      linkLayer,
      config.tap,
    );
    this.countedBytes = linkCountedBytes[linkLayer];
    const port = {
      lid: config.lid,
      pkeys: config.pkeys ?? [PKEY_DEFAULT],
      mtu: config.portMtu ?? PAYLOAD_MAX_BYTES,
      announcesSuspend: config.pdSuspend === 'announced',
    };
    this.checks = new HeaderChecks(pool, port, this.counters);
    const timers = new Timers(node, {
      onTimer: (qp, kind, now) => this.resources.queuePairs[qp].completer.onTimer(kind, now),
    });
    this.faults = new FaultEngine(node, bus, profile, this.counters);
    this.loopback = new Loopback(node, (frame, now) => this.onLoopback(frame, now));
    const loopback = new Transmitter(
      node,
      this.loopback,
      pool,
      new Link(profile.loopbackRateGbps, profile.loopbackLatencyPs),
      undefined,
      sendPipelinePs,
      false,
      this.counters,
      { packets: C.vport_loopback_packets, data: C.vport_loopback_bytes, dataOctets: 1 },
      linkLayer,
      undefined,
    );
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
      ways: new Ways(this.transmitter, loopback, port.lid),
      trailer: new Trailer(pool),
      port,
    };
    this.commands = new Commands(parts, this.resources);
    this.resources.connect(parts);
  }

  /** Counters by name, and per region and queue pair in order of creation. */
  report(): HcaReport {
    return newReport(
      this.node.name,
      this.node.digest.toString(),
      this.counters,
      this.mkeys.all,
      this.resources.queuePairs,
    );
  }

  /** Frames sent that stood for several packets; tells a test of trains that there were any. */
  get trainsSent(): number {
    return this.transmitter.trainsSent;
  }

  /** The page frame that the adapter reaches at `address` through a region's `key`, or -1; for checkers. */
  frameOf(key: number, address: number): number {
    return this.translator.frameOf(key, address);
  }

  /** Asserts that nothing is in flight inside the adapter at the end of a run. */
  checkLeaks(): void {
    assert(this.tags.inFlight === 0, 'DMA reads are still in flight', this.node);
    assert(this.atomics.inFlight === 0, 'atomic operations are still in flight', this.node);
    assert(this.faults.inFlight === 0, 'page faults are still in flight', this.node);
    assert(this.loopback.inFlight === 0, 'packets to the port itself are in flight', this.node);
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
        const tag = words[base + 1];
        const high = words[base + 2];
        const low = words[base + 3];
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
    this.receive(frame, now);
  }

  /** Takes in a packet that this port has sent to itself. */
  private onLoopback(frame: number, now: TimePs): void {
    const { pool, node } = this;
    if (node.digest.enabled) {
      pool.record(node.digest, RECORD_FRAME_RECEIVED, now, this.loopback.index, frame);
    }
    this.receive(frame, now);
    pool.release(frame);
  }

  /** The receive pipeline: finds the queue pair and the machine that a packet is for. */
  private receive(frame: number, now: TimePs): void {
    const { pool, counters } = this;
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    const opcode = words[base + W_OPCODE];
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
    if (!this.checks.pass(qp, frame, flags)) return;
    const readyPs = start + this.receiveLatencyPs;
    if ((flags & OP_RESPONSE) !== 0) qp.completer.receive(frame, now, readyPs);
    else if ((flags & (OP_CNP | OP_ANNOUNCE)) === 0) qp.responder.receive(frame, now, readyPs);
    // Congestion control is not modelled yet.
    else if ((flags & OP_CNP) !== 0) counters[C.rp_cnp_ignored]++;
    else qp.onAnnouncement(opcode === ANNOUNCE_PD_SUSPEND, now);
  }
}
