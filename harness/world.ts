/**
 * Builds the world of a scenario, or the part of it that runs in this process.
 *
 * Nodes and channels are the same in every placement: for each host an adapter and a host joined by
 * a bus, and a wire between the adapters. A *role* names what a process runs: a node (`a.hca`,
 * `a.host`) or a host with both (`a`).
 */
import { Hca, type HcaProfile, profiles } from '../hca/index.ts';
import { defaultHostCosts, Host } from '../kernel/index.ts';
import {
  assert,
  Failure,
  type FramedChannel,
  FramePool,
  NEVER,
  type Node,
  Partition,
  type RunIdentity,
  WindowWriter,
} from '../transport/index.ts';
import type { NodeReport } from './report.ts';
import type { HostSpec, LinkSpec, Mode, Scenario } from './scenario/schema.ts';
import { scenarioHash } from './scenario/validate.ts';
import { startProgram, type Workload } from './workload/workload.ts';

/** Page faults of an adapter that its driver handles at the same time. */
const FAULT_WORKERS = 4;

export interface RunOptions {
  readonly scenario: Scenario;
  readonly mode: Mode;
  readonly seed: number;
  /** Whether every message is hashed at both ends, and everything observable goes into the digest. */
  readonly verify?: boolean;
}

/** Names of all nodes, in the order of their numbers. */
export function nodeNames({ hosts }: Scenario): string[] {
  return hosts.flatMap(({ name }) => [`${name}.hca`, `${name}.host`]);
}

/** The nodes that `role` stands for. Throws Failure E_USAGE. */
export function nodesOfRole(scenario: Scenario, role: string): string[] {
  const names = nodeNames(scenario);
  const chosen = names.filter((name) => name === role || name.startsWith(`${role}.`));
  if (chosen.length > 0) return chosen;
  const hosts = scenario.hosts.map(({ name }) => name);
  throw new Failure('E_USAGE', `there is no '${role}'`, '--role', [...hosts, ...names].join(', '));
}

/** The channels of the world: a bus for each host, then the wire. */
export function channelsOf(scenario: Scenario): FramedChannel[] {
  const link = scenario.links[0] as LinkSpec;
  const buses = scenario.hosts.map((host, i): FramedChannel => {
    const { busLatencyPs } = profileOf(host);
    return { a: 2 * i, aPort: 0, b: 2 * i + 1, bPort: 0, latencyPs: busLatencyPs, kind: 'bus' };
  });
  return [...buses, { a: 0, aPort: 1, b: 2, bPort: 1, latencyPs: link.latencyPs, kind: 'wire' }];
}

/** What all processes of a run must agree on. */
export function identityOf({ scenario, mode, seed }: RunOptions): RunIdentity {
  return {
    scenario: scenarioHash(scenario),
    seed,
    mode,
    nodes: nodeNames(scenario),
    latencies: channelsOf(scenario).map(({ latencyPs }) => latencyPs),
  };
}

export class World {
  readonly nodes: (Node | undefined)[];
  readonly channels: readonly FramedChannel[];
  readonly pool = new FramePool();
  readonly partition: Partition;
  readonly writer: WindowWriter;
  private readonly hcas: Hca[] = [];
  private readonly hosts: { host: Host; workload: Workload }[] = [];

  /** `local` names the nodes that run here; all when left out. Throws Failure E_TRACE_INVALID. */
  constructor(
    private readonly options: RunOptions,
    local: readonly string[] = nodeNames(options.scenario),
  ) {
    const { scenario } = options;
    this.channels = channelsOf(scenario);
    this.nodes = nodeNames(scenario).map((name, number) => {
      if (!local.includes(name)) return undefined;
      const index = Math.floor(number / 2);
      return number % 2 === 0 ? this.addHca(index) : this.addHost(index);
    });
    const numbers = this.nodes.flatMap((node, number) => (node ? [number] : []));
    this.writer = new WindowWriter(this.pool, this.nodes.length, this.channels, numbers);
    const limitPs = scenario.limits.simulatedPs;
    this.partition = new Partition(this.nodes, this.channels, this.writer, limitPs);
  }

  /** Simulated time that every local node has reached. */
  get nowPs(): number {
    return Math.max(...this.nodes.map((node) => node?.now ?? 0));
  }

  /** Operations done and planned by the local programs. */
  get progress(): { done: number; planned: number } {
    let done = 0;
    let planned = 0;
    for (const { workload } of this.hosts) {
      done += workload.progress.operations;
      planned += workload.progress.planned;
    }
    return { done, planned };
  }

  /** The local nodes' reports. */
  report(): NodeReport[] {
    const common = (node: Node) => ({
      node: node.name,
      digest: node.digest.toString(),
      nowPs: node.now,
      pending: node.queue.nextTime() !== NEVER,
    });
    return [
      ...this.hcas.map((hca) => ({ ...common(hca.node), hca: hca.report() })),
      ...this.hosts.map(({ host, workload }) => ({
        ...common(host.node),
        host: host.report(),
        workload: workload.progress.report(),
        sleeping: host.scheduler.unfinished(),
      })),
    ];
  }

  /** Asserts, after a run that came to its end, that nothing is left in flight here. */
  checkLeaks(): void {
    for (const hca of this.hcas) hca.checkLeaks();
    for (const { host } of this.hosts) host.checkLeaks();
    assert(this.pool.framesInUse === 0, `${this.pool.framesInUse} frames are still in use`);
    assert(this.pool.burstsInUse === 0, `${this.pool.burstsInUse} bursts are still in use`);
  }

  private addHca(index: number): Node {
    const spec = this.options.scenario.hosts[index] as HostSpec;
    const { rateGbps, latencyPs, lossPpm } = this.options.scenario.links[0] as LinkSpec;
    const hca = new Hca(
      {
        name: spec.name,
        seed: this.options.seed,
        profile: profileOf(spec),
        lid: index + 1,
        wire: { rateGbps, latencyPs, lossPpm },
        trains: true,
      },
      this.pool,
    );
    hca.node.digest.enabled = this.options.verify ?? true;
    this.hcas.push(hca);
    return hca.node;
  }

  private addHost(index: number): Node {
    const { scenario, mode, seed, verify = true } = this.options;
    const spec = scenario.hosts[index] as HostSpec;
    const profile = profileOf(spec);
    const host = new Host(
      {
        name: spec.name,
        seed,
        busLatencyPs: profile.busLatencyPs,
        busRateGbps: profile.busRateGbps,
        memoryBytes: spec.memoryBytes,
        swapBytes: spec.swapBytes,
        cpus: spec.cpus,
        memlockBytes: spec.memlockBytes ?? Number.POSITIVE_INFINITY,
        costs: defaultHostCosts,
        interruptPs: profile.interruptPs,
        faultWorkers: FAULT_WORKERS,
        verify,
      },
      this.pool,
    );
    host.node.digest.enabled = verify;
    this.hosts.push({ host, workload: startProgram(host, { scenario, mode, seed, index }) });
    return host.node;
  }
}

function profileOf({ profile }: HostSpec): HcaProfile {
  return profiles[profile] as HcaProfile;
}
