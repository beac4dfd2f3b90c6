/**
 * The host that the ranks of a recording run on: a process for each, and, when there are messages, an
 * adapter, whose loopback carries them.
 *
 * Nothing is at the other end of the adapter's wire. The machine is large enough that no page is ever
 * reclaimed, as the recorded one was: what goes away does so because somebody took it away.
 */
import { Hca, profiles } from '../../hca/index.ts';
import {
  type AddressSpace,
  defaultHostCosts,
  Host,
  Ummunotify,
  type Verbs,
} from '../../kernel/index.ts';
import { assert, FramePool, Partition, US } from '../../transport/index.ts';
import type { Trace } from '../trace/format.ts';
import { PAGE_BYTES } from '../workload/layout.ts';
import { RecordedFiles } from '../workload/recorded-files.ts';

/** The adapter: the default of scenarios. */
const PROFILE = profiles['connectx-4'];
/** Memory for each rank: twice what it was seen to have, and not less than this. */
const MIN_MEMORY_BYTES = 64 * 2 ** 20;
/** Page faults of the adapter that its driver handles at the same time. */
const FAULT_WORKERS = 4;
/** Nothing happens on a wire that nothing is on. */
const NO_FAULTS = {
  lossPpm: 0,
  lossBurstPackets: 1,
  duplicatePpm: 0,
  duplicateDelayPs: 0,
  reorderPpm: 0,
  reorderPackets: 0,
  reorderDelayPs: 0,
  corruptPpm: 0,
};
/** The port of the adapter. */
export const LID = 1;

/** A rank's process. */
export interface RankProcess {
  readonly mm: AddressSpace;
  readonly verbs: Verbs;
}

export class ReplayWorld {
  readonly host: Host;
  readonly processes: readonly RankProcess[];
  /** The module behind /dev/ummunotify. */
  readonly ummunotify = new Ummunotify();
  /** What the processes map. */
  readonly files: RecordedFiles;
  private readonly pool = new FramePool();
  private readonly hca: Hca | undefined;
  private readonly partition: Partition;

  constructor(traces: readonly Trace[], seed: number, hasAdapter: boolean) {
    const { busLatencyPs, busRateGbps, interruptPs } = PROFILE;
    this.host = new Host(
      {
        name: 'a',
        seed,
        busLatencyPs,
        busRateGbps,
        memoryBytes: traces.reduce((sum, trace) => sum + memoryOf(trace), 0),
        swapBytes: 0,
        // Ranks do not wait for each other's CPUs, nor for those that serve page faults.
        cpus: traces.length + FAULT_WORKERS,
        memlockBytes: Number.POSITIVE_INFINITY,
        costs: defaultHostCosts,
        interruptPs,
        faultWorkers: FAULT_WORKERS,
        // The replay compares the bytes of every message itself.
        verify: false,
      },
      this.pool,
    );
    this.host.node.digest.enabled = false;
    this.files = new RecordedFiles(this.host.ram);
    this.processes = traces.map(({ rank }) => this.host.createProcess(`rank ${rank}`));
    if (hasAdapter) {
      const wire = { rateGbps: 100, latencyPs: US, ...NO_FAULTS };
      const port = { name: 'a', seed, profile: PROFILE, lid: LID, wire, trains: true };
      this.hca = new Hca(port, this.pool);
      this.hca.node.digest.enabled = false;
    }
    const bus = { a: 0, aPort: 0, b: 1, bPort: 0, latencyPs: busLatencyPs };
    this.partition = this.hca
      ? new Partition([this.hca.node, this.host.node], [bus])
      : new Partition([this.host.node], []);
  }

  /** Simulated time, ps. */
  get nowPs(): number {
    return this.host.node.now;
  }

  /** Runs about `events` events; false when the world has come to rest. */
  advance(events: number): boolean {
    return this.partition.advance(events) || !this.partition.finished();
  }

  /** The page frame that the adapter reaches at `address` through `key`, or -1. */
  frameOfKey(key: number, address: number): number {
    return this.hca?.frameOf(key, address) ?? -1;
  }

  /** Asserts, at the end of a run, that nothing is left in flight and all memory is accounted for. */
  checkLeaks(): void {
    this.hca?.checkLeaks();
    this.host.checkLeaks();
    assert(this.pool.framesInUse === 0, `${this.pool.framesInUse} frames are still in use`);
    assert(this.pool.burstsInUse === 0, `${this.pool.burstsInUse} bursts are still in use`);
  }
}

function memoryOf({ rssPeakBytes }: Trace): number {
  return Math.max(MIN_MEMORY_BYTES, Math.ceil(rssPeakBytes / PAGE_BYTES) * 2 * PAGE_BYTES);
}
