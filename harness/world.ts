/**
 * Builds the world of a scenario, or the part of it that runs in this process.
 *
 * Nodes and channels are the same in every placement: for each host an adapter and a host joined by
 * a bus, and a wire between the adapters. In place of an external host there is one node, where the
 * simulated wire meets a real one. A *role* names what a process runs: a node (`a.hca`, `a.host`) or
 * a host with both (`a`).
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
  type WireTap,
} from '../transport/index.ts';
import { EthernetPort } from './gateway/ethernet-port.ts';
import { startExternalProgram } from './gateway/program.ts';
import { defaultSetup, type GatewaySetup } from './gateway/setup.ts';
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
  /** Makes what hears all that a host's adapter sends, for a capture. */
  readonly tapOf?: (host: string, pool: FramePool) => WireTap;
  /** How the port on a real Ethernet is set up, where the scenario has an external host. */
  readonly setup?: GatewaySetup;
}

/** One node of a world. */
interface NodePlan {
  readonly name: string;
  readonly part: 'hca' | 'host' | 'wire';
  /** Which host of the scenario. */
  readonly index: number;
}

/** Whether the scenario has a host that is not simulated. */
export function hasExternalHost({ hosts }: Scenario): boolean {
  return hosts.some(({ external }) => external !== undefined);
}

/** Names of all nodes, in the order of their numbers. */
export function nodeNames(scenario: Scenario): string[] {
  return plansOf(scenario).map(({ name }) => name);
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
  const plans = plansOf(scenario);
  const channels: FramedChannel[] = [];
  const ends: { node: number; port: number }[] = [];
  plans.forEach(({ part, index }, node) => {
    if (part === 'hca') {
      const { busLatencyPs } = profileOf(scenario.hosts[index] as HostSpec);
      channels.push({
        a: node,
        aPort: 0,
        b: node + 1,
        bPort: 0,
        latencyPs: busLatencyPs,
        kind: 'bus',
      });
      ends.push({ node, port: 1 });
    } else if (part === 'wire') ends.push({ node, port: 0 });
  });
  const [a, b] = ends as [(typeof ends)[number], (typeof ends)[number]];
  const { latencyPs } = link;
  const wire = { a: a.node, aPort: a.port, b: b.node, bPort: b.port, latencyPs };
  return [...channels, { ...wire, kind: 'wire' }];
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
  /** Where a real wire meets the world, if one does. */
  readonly ethernet: EthernetPort | undefined;
  private readonly hcas: Hca[] = [];
  private readonly hosts: { host: Host; workload: Workload }[] = [];

  /** `local` names the nodes that run here; all when left out. Throws Failure E_TRACE_INVALID. */
  constructor(
    private readonly options: RunOptions,
    local: readonly string[] = nodeNames(options.scenario),
  ) {
    const { scenario, seed, setup = defaultSetup } = options;
    this.channels = channelsOf(scenario);
    if (hasExternalHost(scenario))
      this.ethernet = new EthernetPort(scenario, setup, seed, this.pool);
    this.nodes = plansOf(scenario).map(({ name, part, index }) => {
      if (!local.includes(name)) return undefined;
      if (part === 'hca') return this.addHca(index);
      return part === 'host' ? this.addHost(index) : this.ethernet?.edge.node;
    });
    const [own] = this.hosts;
    if (own) this.ethernet?.serve(own.host, this.hcas[0] as Hca);
    const numbers = this.nodes.flatMap((node, number) => (node ? [number] : []));
    this.writer = new WindowWriter(this.pool, this.nodes.length, this.channels, numbers);
    const limitPs = scenario.limits.simulatedPs;
    this.partition = new Partition(this.nodes, this.channels, this.writer, limitPs);
  }

  /** Simulated time that every local node has reached. */
  get nowPs(): number {
    return Math.max(...this.nodes.map((node) => node?.now ?? 0));
  }

  /** When the first local node does something next, or NEVER. */
  get nextPs(): number {
    return Math.min(...this.nodes.map((node) => node?.queue.nextTime() ?? NEVER));
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

  /** Whether every local program has come to its end. */
  get isDone(): boolean {
    return this.hosts.every(({ workload }) => workload.progress.finished);
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
      ...(this.ethernet
        ? [{ ...common(this.ethernet.edge.node), edge: { ...this.ethernet.edge.counters } }]
        : []),
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
    const { scenario, seed, verify = true, tapOf } = this.options;
    const spec = scenario.hosts[index] as HostSpec;
    const { between: _, ...wire } = scenario.links[0] as LinkSpec;
    // What a gateway sends has to leave packet by packet, each at its time.
    const trains = this.ethernet === undefined;
    const profile = profileOf(spec);
    const { name, pdSuspend } = spec;
    const tap = tapOf && { tap: tapOf(name, this.pool) };
    const config = { name, seed, profile, lid: index + 1, wire, trains, pdSuspend, ...tap };
    const hca = new Hca(config, this.pool);
    hca.node.digest.enabled = verify;
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
        fixedRegions: profile.fixedRegions,
        // Nobody here sees the bytes at the other end of a real wire.
        verify: verify && this.ethernet === undefined,
      },
      this.pool,
    );
    host.node.digest.enabled = verify;
    const options = { scenario, mode, seed, index };
    const workload = this.ethernet
      ? startExternalProgram(host, options)
      : startProgram(host, options);
    this.hosts.push({ host, workload });
    return host.node;
  }
}

function plansOf({ hosts }: Scenario): NodePlan[] {
  return hosts.flatMap(({ name, external }, index): NodePlan[] =>
    external
      ? [{ name: `${name}.wire`, part: 'wire', index }]
      : [
          { name: `${name}.hca`, part: 'hca', index },
          { name: `${name}.host`, part: 'host', index },
        ],
  );
}

function profileOf({ profile }: HostSpec): HcaProfile {
  return profiles[profile] as HcaProfile;
}
