/**
 * What a host is built from.
 */
import type { TimePs } from '../transport/index.ts';
import type { HostCosts } from './costs.ts';
import type { MmSettings } from './mm/settings.ts';
import type { PostponedPolicy } from './umem/postponed-policy.ts';

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
  /** Memory that goes offline or online at a time; 128 MiB, as on x86-64, when not given. */
  readonly memorySectionBytes?: number;
  /**
   * NUMA nodes that may be unplugged (ZONE_MOVABLE; kernel parameter movable_node): what is pinned for long
   * is moved away from them first. None when not given.
   */
  readonly movableNodes?: readonly number[];
  /** Swap space; 0 for none. */
  readonly swapBytes: number;
  /** Memory management, where it is not as Linux comes (sysctls, kernel versions). */
  readonly mm?: Partial<MmSettings>;
  readonly cpus: number;
  /** RLIMIT_MEMLOCK of the process; Infinity for no limit. */
  readonly memlockBytes: number;
  readonly costs: HostCosts;
  /** From the arrival of an MSI-X write to its handler at work. */
  readonly interruptPs: TimePs;
  /** Page faults of the adapter that are handled at the same time. */
  readonly faultWorkers: number;
  /**
   * The adapter is of the class whose regions may have no holes and never change (IBM eHCA; see
   * HcaProfile.fixedRegions); false when left out.
   */
  readonly fixedRegions?: boolean;
  /**
   * On-demand regions are those of the prototype of 2011 (umem/postponed.ts), which flushes the hardware
   * in its callbacks, or later, as this says; as today's when left out.
   */
  readonly postponed?: PostponedPolicy;
  /**
   * How reclaim and migration know pinned pages: by their reference count, when they come across one, or by
   * a mark that keeps them off the LRU lists; 'counted' when left out, as in Linux.
   */
  readonly pinnedPages?: 'counted' | 'marked';
  /** Whether messages are hashed at both ends; off in benchmarks. */
  readonly verify: boolean;
}
