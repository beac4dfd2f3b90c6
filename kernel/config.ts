/**
 * What a host is built from.
 */
import type { TimePs } from '../transport/index.ts';
import type { HostCosts } from './costs.ts';

export interface HostConfig {
  /** The host's node is called `${name}.host`. */
  readonly name: string;
  readonly seed: number;
  /** Latency of the bus to the adapter, and so the lookahead of that channel. */
  readonly busLatencyPs: TimePs;
  /** Rate of each direction of the bus, in 10^9 bits per second. */
  readonly busRateGbps: number;
  /** RAM. */
  readonly memoryBytes: number;
  /** NUMA nodes that it is divided into, evenly; 1 when not given. */
  readonly memoryNodes?: number;
  /** Swap space; 0 for none. */
  readonly swapBytes: number;
  readonly cpus: number;
  /** RLIMIT_MEMLOCK of the process; Infinity for no limit. */
  readonly memlockBytes: number;
  readonly costs: HostCosts;
  /** From the arrival of an MSI-X write to its handler at work. */
  readonly interruptPs: TimePs;
  /** Page faults of the adapter that are handled at the same time. */
  readonly faultWorkers: number;
  /** Whether messages are hashed at both ends; off in benchmarks. */
  readonly verify: boolean;
}
