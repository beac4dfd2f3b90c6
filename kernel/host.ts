/**
 * A host: one node with CPUs, memory, processes, and a driver for the adapter at its only port.
 *
 * `mm` and `verbs` are those of the first process; `createProcess` makes others, each with memory and a
 * device context of its own, on the same adapter. Programs are simulated threads: generators that `spawn` runs and that call `mm` (system calls and
 * memory accesses of the process) and `verbs` (libibverbs) with `yield*`:
 *
 *     host.spawn('program', (function* (): Sim<void> {
 *       yield* host.mm.mmap(0x7f0000000000, 65536, PROT_READ | PROT_WRITE);   // always MAP_FIXED
 *       yield* host.mm.write(0x7f0000000000, bytes);                          // or fill: a pattern
 *       const pd = yield* host.verbs.allocPd();
 *       const cq = yield* host.verbs.createCq(64);
 *       const mr = yield* host.verbs.regMr(pd, 0x7f0000000000, 65536, ACCESS_LOCAL_WRITE);
 *       const qp = yield* host.verbs.createQp(pd, { sendCq: cq, recvCq: cq, maxSendWr: 8, maxRecvWr: 8 });
 *       yield* host.verbs.modifyQp(qp, { state: QPS_INIT, pkeyIndex: 0, port: 1, access: 0 });
 *       yield* host.verbs.postSend(qp, { opcode: WR_SEND, wrId: 1, flags: SEND_SIGNALED, sges });
 *       const completion = yield* cq.next();                                  // or cq.poll()
 *       const bytes = host.mm.read(0x7f0000000000, 16);                       // takes no time
 *     })());
 *
 * ACCESS_ON_DEMAND in regMr makes a region on demand. Addresses go up to 2^47. Whoever stands outside
 * the simulated world (a control socket, a test) uses `start`: it begins at a given time and hands
 * back what the computation returns, or the error that it throws.
 */
import {
  assert,
  BUS_DMA_ATOMIC,
  BUS_DMA_READ,
  BUS_DMA_WRITE,
  Failure,
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
import { Device } from './driver/device.ts';
import { BusEvents } from './driver/events.ts';
import { FaultService } from './driver/fault-service.ts';
import { fixedRegionsNotifier } from './driver/fixed-regions.ts';
import { HostMemory } from './driver/host-memory.ts';
import { Verbs } from './driver/verbs.ts';
import { VerbsError } from './errno.ts';
import type { MemoryNotifiers } from './memory-notifier.ts';
import { AddressSpace } from './mm/address-space.ts';
import { checkMemory } from './mm/leak-check.ts';
import { Memory } from './mm/memory.ts';
import { PAGE_BYTES } from './mm/physical/frames.ts';
import type { Limits } from './mm/virtual/mm-struct.ts';
import { HostProcess } from './process.ts';
import type { HostReport, ProcessReport } from './report.ts';
import { VirtualScheduler } from './rx/virtual-scheduler.ts';
import { Completion, type Sim } from './sched/completion.ts';
import { Scheduler, type Thread } from './sched/scheduler.ts';
import { Timers } from './sched/timers.ts';

/** What became of a computation that somebody outside the simulated world has started. */
export type Result<T> = { readonly value: T } | { readonly error: VerbsError | Failure };

export class Host implements FrameHandler {
  readonly node: Node;
  /** The memory of all its processes. */
  readonly ram: Memory;
  /** The first process. */
  readonly mm: AddressSpace;
  readonly verbs: Verbs;
  /** Every process there has been, the first one first. */
  readonly processes: HostProcess[] = [];
  readonly scheduler: Scheduler;
  private readonly device: Device;
  private readonly port: Port;
  private readonly timers: Timers;
  private readonly memory: HostMemory;
  private readonly events: BusEvents;
  private readonly faults: FaultService;

  constructor(
    private readonly config: HostConfig,
    private readonly pool: FramePool,
  ) {
    const { costs } = config;
    // The order of ports and engines is the order of events at equal times.
    this.node = new Node(`${config.name}.host`, config.seed);
    this.port = this.node.addPort(config.busLatencyPs, this);
    this.timers = new Timers(this.node);
    this.scheduler = new Scheduler(this.node, config.cpus, costs.contextSwitchPs);

    this.ram = new Memory(config, this.node, pool.blocks, this.scheduler, this.timers);
    this.mm = new AddressSpace(this.ram.createMm(config.name, config));

    const bus = new AdapterBus(this.node, pool, this.port, this.timers, config.busRateGbps);
    const virtualTime = new VirtualScheduler(this.timers);
    this.events = new BusEvents(pool, virtualTime, config.interruptPs);
    const commands = new Commands(bus, this.events, costs.commandPs);
    const { fixedRegions = false, postponed } = config;
    const traits = { fixedRegions, postponed };
    const { events, mm } = this;
    const device = new Device(bus, commands, events, costs, traits, mm, config.verify);
    this.device = device;
    this.ram.hotplug.addHolder(device.regions);
    if (traits.fixedRegions) this.memoryNotifiers.register(fixedRegionsNotifier);
    const { frames, rmap } = this.ram;
    this.memory = new HostMemory(bus, frames, rmap, device.log, costs.dmaReadPs);
    this.faults = new FaultService(bus, events, device.regions, this.ram, config.faultWorkers);
    this.verbs = this.addProcess(config.name, mm, config.memlockBytes).verbs;
  }

  /** A new process without mappings; `limits` are those of the host's first process when left out. */
  createProcess(name: string, limits: Limits = this.config): HostProcess {
    return this.addProcess(
      name,
      new AddressSpace(this.ram.createMm(name, limits)),
      limits.memlockBytes,
    );
  }

  /** Makes a process of memory that there is (fork): it opens the device anew. */
  addProcess(
    name: string,
    mm: AddressSpace,
    memlockBytes = mm.state.limits.memlockBytes,
  ): HostProcess {
    const verbs = new Verbs(this.device, mm, memlockBytes, this.processes.length === 0);
    const process = new HostProcess(name, mm, verbs);
    mm.state.endProcess = () => process.exit();
    this.processes.push(process);
    return process;
  }

  /** Who must agree before memory is plugged or unplugged. */
  get memoryNotifiers(): MemoryNotifiers {
    return this.ram.hotplug.notifiers;
  }

  /** Starts a simulated thread at the current time. */
  spawn(name: string, body: Sim<unknown>): Thread {
    return this.scheduler.spawn(name, body);
  }

  /**
   * Starts `body` as a thread at time `atPs`, for somebody outside the simulated world: what it
   * returns, or the VerbsError or Failure it throws, is the result. Such an error does not end the run.
   */
  start<T>(name: string, atPs: TimePs, body: Sim<T>): Completion<Result<T>> {
    const result = new Completion<Result<T>>(name);
    this.timers.after(atPs - this.node.now, () => {
      this.scheduler.spawn(name, reportTo(result, body));
    });
    return result;
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
      case BUS_DMA_ATOMIC:
        this.memory.atomic(frame);
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
    const { counters, swap } = this.ram;
    const { regions, log, asyncEvents, allQueuePairs } = this.device;
    const processes = this.processes.map(({ name, mm, verbs }) => ({
      name,
      notifierInvalidations: mm.notifiers.intervals.invalidations,
      pinnedBytesPeak: mm.pinnedPeakBytes,
      residentBytesPeak: mm.residentPeakBytes,
      residentBytes: mm.residentBytes,
      registrationPs: verbs.registrationPs,
    }));
    const sum = (field: Exclude<keyof ProcessReport, 'name'>): number =>
      processes.reduce((all, process) => all + process[field], 0);
    return {
      name: this.node.name,
      mm: { ...counters },
      dma: { ...this.memory.counters },
      notifierInvalidations: sum('notifierInvalidations'),
      faultsFailed: this.faults.failed,
      faultsRaced: this.faults.raced,
      asyncEvents: asyncEvents.map(({ event, number }) => ({ event, number })),
      regions: regions.all.map((region) => ({
        mrn: region.mrn,
        process: region.mm.name,
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
      queuePairs: allQueuePairs.map(({ qpn, type, counters }) => ({
        qpn,
        type,
        counters: { ...counters },
      })),
      messages: log.entries,
      atomics: log.atomics,
      pinnedBytesPeak: sum('pinnedBytesPeak'),
      residentBytesPeak: sum('residentBytesPeak'),
      residentBytes: sum('residentBytes'),
      processes,
      swapBytesUsed: swap.usedSlots * PAGE_BYTES,
      oomKills: [...this.ram.oom.kills],
      registrationPs: sum('registrationPs'),
    };
  }

  /** Asserts that every page frame is free, or mapped or pinned as often as its counts say. */
  checkLeaks(): void {
    checkMemory(this.ram);
    for (const { mm, name } of this.processes) {
      let pinned = 0;
      for (const region of this.device.regions.all) {
        if (region.mm === mm) pinned += region.pinned?.pageCount ?? 0;
      }
      assert(pinned === mm.state.pinnedPages, `pinned pages of ${name} are miscounted`, this.node);
    }
  }

  /** Lets go of the bytes of all memory, so that a pool shared with others can be checked empty. */
  dispose(): void {
    const { frames, swap, files } = this.ram;
    files.dispose();
    for (let frame = 0; frame < frames.count; frame++) frames.content.setZero(frame);
    for (let slot = 0; slot < swap.slotCount; slot++) swap.content.setZero(slot);
  }
}

function* reportTo<T>(result: Completion<Result<T>>, body: Sim<T>): Sim<void> {
  try {
    result.resolve({ value: yield* body });
  } catch (error) {
    if (!(error instanceof VerbsError) && !(error instanceof Failure)) throw error;
    result.resolve({ error });
  }
}
