/**
 * A host: one node with CPUs, memory, a process, and a driver for the adapter at its only port.
 */
import {
  assert,
  BUS_DMA_READ,
  BUS_DMA_WRITE,
  FRAME_WORDS,
  type FrameHandler,
  type FramePool,
  Node,
  type Port,
  RECORD_FRAME_RECEIVED,
  type TimePs,
} from '../transport/index.ts';
import type { HostConfig } from './config.ts';
import { AdapterBus } from './driver/adapter-bus.ts';
import { Commands } from './driver/commands.ts';
import { BusEvents } from './driver/events.ts';
import { FaultService } from './driver/fault-service.ts';
import { HostMemory } from './driver/host-memory.ts';
import { MessageLog } from './driver/message-log.ts';
import { Regions } from './driver/regions.ts';
import { Verbs } from './driver/verbs.ts';
import { AddressSpace } from './mm/address-space.ts';
import { PAGE_BYTES } from './mm/frames.ts';
import { checkMemory } from './mm/leak-check.ts';
import { createMmParts } from './mm/parts.ts';
import type { HostReport } from './report.ts';
import { VirtualScheduler } from './rx/virtual-scheduler.ts';
import type { Sim } from './sched/completion.ts';
import { Scheduler, type Thread } from './sched/scheduler.ts';
import { Timers } from './sched/timers.ts';

export class Host implements FrameHandler {
  readonly node: Node;
  readonly mm: AddressSpace;
  readonly verbs: Verbs;
  readonly scheduler: Scheduler;
  private readonly port: Port;
  private readonly timers: Timers;
  private readonly memory: HostMemory;
  private readonly events: BusEvents;
  private readonly faults: FaultService;
  private readonly log: MessageLog;

  constructor(
    config: HostConfig,
    private readonly pool: FramePool,
  ) {
    const { costs } = config;
    // The order of ports and engines is the order of events at equal times.
    this.node = new Node(`${config.name}.host`, config.seed);
    this.port = this.node.addPort(config.busLatencyPs, this);
    this.timers = new Timers(this.node);
    this.scheduler = new Scheduler(this.node, config.cpus, costs.contextSwitchPs);

    const parts = createMmParts(config, this.node, pool.blocks, this.scheduler, this.timers);
    this.mm = new AddressSpace(parts);

    const bus = new AdapterBus(this.node, pool, this.port, this.timers, config.busRateGbps);
    const virtualTime = new VirtualScheduler(this.timers);
    this.events = new BusEvents(pool, virtualTime, config.interruptPs);
    this.log = new MessageLog(this.node, this.mm, config.verify);
    this.memory = new HostMemory(bus, parts.frames, this.log, costs.dmaReadPs);
    const commands = new Commands(bus, this.events, costs.commandPs);
    const regions = new Regions(bus, commands, this.mm, config.memlockBytes);
    this.faults = new FaultService(bus, this.events, regions, this.mm, config.faultWorkers);
    this.verbs = new Verbs(bus, commands, this.events, regions, this.log, costs);
  }

  /** Starts a simulated thread at the current time. */
  spawn(name: string, body: Sim<void>): Thread {
    return this.scheduler.spawn(name, body);
  }

  /** Sleeps for `spanPs` without using a CPU. */
  sleep(spanPs: TimePs): Sim<void> {
    return this.timers.sleep(spanPs);
  }

  /** Takes a message from the adapter; called by the node. */
  onFrame(frame: number, now: TimePs): void {
    const { pool, node } = this;
    this.port.take();
    if (node.digest.enabled) {
      pool.record(node.digest, RECORD_FRAME_RECEIVED, now, this.port.index, frame);
    }
    switch (pool.words[frame * FRAME_WORDS]) {
      case BUS_DMA_READ:
        this.memory.read(frame);
        return;
      case BUS_DMA_WRITE:
        this.memory.write(frame);
        break;
      default:
        this.events.accept(frame, now);
    }
    pool.release(frame);
  }

  /** What happened so far, as plain data. */
  report(): HostReport {
    const { mm, verbs } = this;
    const { counters, notifiers, swap } = mm.parts;
    return {
      name: this.node.name,
      mm: { ...counters },
      dma: { ...this.memory.counters },
      notifierInvalidations: notifiers.invalidations,
      faultsFailed: this.faults.failed,
      faultsRaced: this.faults.raced,
      asyncEvents: verbs.asyncEvents.map(({ event, qpn }) => ({ event, qpn })),
      regions: verbs.memoryRegions.map((region) => ({
        mrn: region.mrn,
        pd: region.pd,
        lkey: region.lkey,
        rkey: region.rkey,
        address: region.address,
        length: region.length,
        access: region.access,
        registration: region.registration,
        registered: region.registered,
        counters: { ...region.counters, pages_mapped: region.pagesMapped },
        faultLatenciesPs: region.faultLatenciesPs,
      })),
      messages: this.log.entries,
      pinnedBytesPeak: mm.pinnedPeakBytes,
      residentBytesPeak: mm.residentPeakBytes,
      residentBytes: mm.residentBytes,
      swapBytesUsed: swap.usedSlots * PAGE_BYTES,
      registrationPs: verbs.registrationPs,
    };
  }

  /** Asserts that every page frame is free, or mapped or pinned as often as its counts say. */
  checkLeaks(): void {
    checkMemory(this.mm);
    let pinned = 0;
    for (const region of this.verbs.memoryRegions) pinned += region.pinned?.pageCount ?? 0;
    assert(pinned === this.mm.pinnedPages, 'pinned pages are miscounted', this.node);
  }

  /** Lets go of the bytes of all memory, so that a pool shared with others can be checked empty. */
  dispose(): void {
    const { frames, swap } = this.mm.parts;
    for (let frame = 0; frame < frames.count; frame++) frames.content.setZero(frame);
    for (let slot = 0; slot < swap.slotCount; slot++) swap.content.setZero(slot);
  }
}
