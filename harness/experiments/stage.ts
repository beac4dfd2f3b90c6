/**
 * The stage of an experiment: one host alone, one with an adapter, or two joined by a wire, and the
 * simulated threads that run on them. Small on purpose; scenarios have `world.ts`.
 */
import { Hca, type HcaProfile, profiles } from '../../hca/index.ts';
import { defaultHostCosts, Host, type HostConfig, type Sim } from '../../kernel/index.ts';
import {
  assert,
  FramePool,
  type Node,
  NS,
  Partition,
  type TimePs,
  type WireFaults,
} from '../../transport/index.ts';

const MIB = 2 ** 20;
const WIRE_LATENCY_PS: TimePs = 1000 * NS;
/** Events between two looks at whether there is more to do. */
const SLICE = 100_000;

export interface StageOptions {
  /** 1 or 2 hosts; 1 when not given. */
  readonly hosts?: 1 | 2;
  /** Whether each host has an adapter; two hosts always have. */
  readonly adapters?: boolean;
  readonly seed?: number;
  /** Changes to what a host is made of: 64 MiB of RAM, no swap, 2 CPUs otherwise. */
  readonly host?: Partial<HostConfig>;
  /** Changes to the `spec` profile of the adapters. */
  readonly profile?: Partial<HcaProfile>;
  /** What the wire does to packets. */
  readonly wire?: Partial<WireFaults>;
}

export class Stage {
  readonly pool = new FramePool();
  readonly hosts: readonly Host[];
  readonly adapters: readonly Hca[];
  private readonly partition: Partition;

  constructor(private readonly options: StageOptions = {}) {
    const { hosts: count = 1, adapters = count === 2 } = options;
    const profile: HcaProfile = { ...profiles.spec, ...options.profile } as HcaProfile;
    const names = count === 1 ? ['a'] : ['a', 'b'];
    this.adapters = adapters ? names.map((name, i) => this.makeAdapter(name, i + 1, profile)) : [];
    this.hosts = names.map((name) => this.makeHost(name, profile));
    const nodes: Node[] = [];
    const channels: { a: number; aPort: number; b: number; bPort: number; latencyPs: TimePs }[] =
      [];
    const { busLatencyPs: latencyPs } = profile;
    this.hosts.forEach((host, i) => {
      const adapter = this.adapters[i];
      if (adapter === undefined) nodes.push(host.node);
      else {
        const a = nodes.push(adapter.node, host.node) - 2;
        channels.push({ a, aPort: 0, b: a + 1, bPort: 0, latencyPs });
      }
    });
    if (count === 2) channels.push({ a: 0, aPort: 1, b: 2, bPort: 1, latencyPs: WIRE_LATENCY_PS });
    this.partition = new Partition(nodes, channels);
  }

  /** The only host, or the first. */
  get host(): Host {
    return this.hosts[0] as Host;
  }

  /** The second host. */
  get peer(): Host {
    return this.hosts[1] as Host;
  }

  /** Runs what is left to happen until the world is at rest. */
  settle(): void {
    while (this.partition.advance(SLICE));
  }

  /** Runs a program on each host, in order, until the world is at rest; each must have ended. */
  run(...programs: Sim<unknown>[]): void {
    const threads = programs.map((program, i) =>
      (this.hosts[i] as Host).spawn(`program ${i}`, program),
    );
    this.settle();
    for (const thread of threads) {
      const waits = this.hosts.flatMap((host) => host.scheduler.unfinished()).join('; ');
      assert(thread.done.done, `an experiment came to rest before its end: ${waits}`);
    }
  }

  private makeAdapter(name: string, lid: number, profile: HcaProfile): Hca {
    const { seed = 1, wire: faults } = this.options;
    const wire = { rateGbps: 100, latencyPs: WIRE_LATENCY_PS, lossPpm: 0, ...faults };
    return new Hca({ name, seed, profile, lid, wire, trains: true }, this.pool);
  }

  private makeHost(name: string, profile: HcaProfile): Host {
    const { busLatencyPs, busRateGbps, interruptPs, fixedRegions } = profile;
    const config: HostConfig = {
      name,
      seed: this.options.seed ?? 1,
      busLatencyPs,
      busRateGbps,
      memoryBytes: 64 * MIB,
      swapBytes: 0,
      cpus: 2,
      memlockBytes: Number.POSITIVE_INFINITY,
      costs: defaultHostCosts,
      interruptPs,
      faultWorkers: 4,
      fixedRegions,
      verify: true,
      ...this.options.host,
    };
    return new Host(config, this.pool);
  }
}
