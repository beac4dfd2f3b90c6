/**
 * The scripting API: small typed functions that produce the plain data of `schema.ts`.
 *
 *     import { host, region, remap, scenario, write } from 'faultline';
 *
 *     const source = region(host('a'), 'source', '1MiB', { prefault: true });
 *     const target = region(host('b'), 'target', '1MiB');
 *     export const coldWrites = scenario('cold-writes', 'Writes into memory nobody has touched', [
 *       write(source, target, { size: '64KiB', count: 16 }),
 *       remap(target, { at: '200us' }),
 *     ]);
 *
 * Hosts and regions are values that operations refer to, so a name cannot be misspelt. Nothing is
 * checked or resolved here: that is `validate.ts`, the same for data from anywhere.
 */
import type { Size, Time } from './quantity.ts';
import type { ScenarioInput } from './schema.ts';

type HostInput = ScenarioInput['hosts'][number];
type LinkInput = ScenarioInput['links'][number];
type QueuePairInput = NonNullable<ScenarioInput['queuePairs']>[number];
type RegionInput = NonNullable<ScenarioInput['regions']>[number];
type OperationInput = NonNullable<ScenarioInput['operations']>[number];
type EventInput = NonNullable<ScenarioInput['events']>[number];

/** One thing a scenario consists of; made by the functions below. */
export type Part =
  | { readonly part: 'host'; readonly host: HostInput }
  | { readonly part: 'link'; readonly link: LinkInput; readonly ends: readonly [Host, Host] }
  | { readonly part: 'queuePair'; readonly queuePair: QueuePairInput }
  | { readonly part: 'region'; readonly region: RegionInput; readonly on: Host }
  | {
      readonly part: 'operation';
      readonly operation: Omit<OperationInput, 'queuePair'>;
      readonly queuePair: QueuePair | undefined;
      readonly regions: readonly [Region, Region];
    }
  | { readonly part: 'event'; readonly event: EventInput; readonly region?: Region };

export type Host = Extract<Part, { part: 'host' }>;
export type Region = Extract<Part, { part: 'region' }>;
export type QueuePair = Extract<Part, { part: 'queuePair' }>;
type Link = Extract<Part, { part: 'link' }>;
type Operation = Extract<Part, { part: 'operation' }>;
type Event = Extract<Part, { part: 'event' }>;

/** A place inside a region: what operations read from and write to. */
export interface Place {
  readonly region: Region;
  readonly offset: Size;
}

/** A machine: memory, CPUs and one adapter. */
export function host(name: string, options: Omit<HostInput, 'name'> = {}): Host {
  return { part: 'host', host: { ...options, name } };
}

/** The line between two adapters; 100Gbps and 1us without loss unless said otherwise. */
export function link(a: Host, b: Host, options: Omit<LinkInput, 'between'> = {}): Link {
  return {
    part: 'link',
    link: { ...options, between: [a.host.name, b.host.name] },
    ends: [a, b],
  };
}

/** A reliable connection. Operations that name none get one of their own. */
export function queuePair(
  name: string,
  a: Host,
  b: Host,
  options: Omit<QueuePairInput, 'name' | 'between'> = {},
): QueuePair {
  return {
    part: 'queuePair',
    queuePair: { ...options, name, between: [a.host.name, b.host.name] },
  };
}

/** A memory region of a host's program, mapped at the start and registered as --mode says. */
export function region(
  on: Host,
  name: string,
  size: Size,
  options: Omit<RegionInput, 'name' | 'host' | 'size'> = {},
): Region {
  return { part: 'region', region: { ...options, name, host: on.host.name, size }, on };
}

/** The bytes of `region` from `offset` on, as source or target of an operation. */
export function within(region: Region, offset: Size): Place {
  return { region, offset };
}

type OperationOptions = Omit<
  OperationInput,
  'kind' | 'from' | 'queuePair' | 'source' | 'target'
> & {
  /** The connection it uses; one of its own when left out. */
  readonly on?: QueuePair;
};

/** RDMA WRITE from a region of the initiator to one of the other host. */
export function write(source: Region | Place, target: Region | Place, options: OperationOptions) {
  return operation('write', source, target, options);
}

/** RDMA WRITE WITH IMMEDIATE: a write that also completes a receive of the target. */
export function writeImm(
  source: Region | Place,
  target: Region | Place,
  options: OperationOptions,
) {
  return operation('writeImm', source, target, options);
}

/** SEND into receives that the target posts on its region. */
export function send(source: Region | Place, target: Region | Place, options: OperationOptions) {
  return operation('send', source, target, options);
}

/** RDMA READ of a region of the other host into one of the initiator. */
export function read(source: Region | Place, target: Region | Place, options: OperationOptions) {
  return operation('read', source, target, options);
}

interface When {
  /** Simulated time from the start of traffic. */
  readonly at: Time;
}

interface RangeWhen extends When {
  readonly offset?: Size;
  /** The rest of the region when left out. */
  readonly length?: Size;
}

/** The kernel of `on` takes back as much memory as it can, up to `size`. */
export function reclaim(on: Host, size: Size, { at }: When): Event {
  return { part: 'event', event: { kind: 'reclaim', host: on.host.name, size, at } };
}

/** madvise(MADV_DONTNEED): the program drops the content and keeps the mapping. */
export function dontneed(region: Region, range: RangeWhen): Event {
  return rangeEvent('dontneed', region, range);
}

/** munmap and mmap at the same address, what an allocator does between two uses of a buffer. */
export function remap(region: Region, { at }: When): Event {
  const { host, name } = region.region;
  return { part: 'event', event: { kind: 'remap', host, region: name, at }, region };
}

/** The driver of `on` suspends its protection domain for `duration`; nobody tells the peer. */
export function suspend(on: Host, duration: Time, { at }: When): Event {
  return { part: 'event', event: { kind: 'suspend', host: on.host.name, duration, at } };
}

/** ibv_advise_mr(PREFETCH_WRITE): the program asks for the pages before the adapter needs them. */
export function prefetch(region: Region, range: RangeWhen): Event {
  return rangeEvent('prefetch', region, range);
}

type ScenarioOptions = Pick<ScenarioInput, 'mtu' | 'limits'>;

/** A scenario of these parts. Hosts and regions that the parts mention need not be listed. */
export function scenario(
  name: string,
  summary: string,
  parts: readonly Part[],
  options: ScenarioOptions = {},
): ScenarioInput {
  const world = new World();
  for (const part of parts) world.add(part);
  return { ...options, name, summary, ...world.data() };
}

/** A replay of two ranks of a recorded run, between the two hosts of `line`. */
export function replay(
  name: string,
  summary: string,
  line: Link,
  run: NonNullable<ScenarioInput['replay']>,
  options: ScenarioOptions = {},
): ScenarioInput {
  return { ...scenario(name, summary, [line], options), replay: run };
}

/** `count` parts from a function of their number: `repeat(8, (i) => remap(target, { at: us(i) }))`. */
export function repeat<P extends Part>(count: number, part: (index: number) => P): P[] {
  return Array.from({ length: count }, (_, index) => part(index));
}

function operation(
  kind: OperationInput['kind'],
  source: Region | Place,
  target: Region | Place,
  { on, ...options }: OperationOptions,
): Operation {
  const from = placeOf(source);
  const to = placeOf(target);
  const initiator = kind === 'read' ? to : from;
  return {
    part: 'operation',
    operation: {
      ...options,
      kind,
      from: initiator.region.region.host,
      source: { region: from.region.region.name, offset: from.offset },
      target: { region: to.region.region.name, offset: to.offset },
    },
    queuePair: on,
    regions: [from.region, to.region],
  };
}

function placeOf(where: Region | Place): Place {
  return 'part' in where ? { region: where, offset: '0B' } : where;
}

function rangeEvent(kind: 'dontneed' | 'prefetch', region: Region, range: RangeWhen): Event {
  const { host, name } = region.region;
  return { part: 'event', event: { ...range, kind, host, region: name }, region };
}

/** Collects parts and everything they mention, each once, in order of first mention. */
class World {
  private readonly hosts = new Set<HostInput>();
  private readonly links: LinkInput[] = [];
  private readonly queuePairs = new Set<QueuePairInput>();
  private readonly regions = new Set<RegionInput>();
  private readonly operations: OperationInput[] = [];
  private readonly events: EventInput[] = [];

  add(part: Part): void {
    switch (part.part) {
      case 'host':
        this.hosts.add(part.host);
        break;
      case 'link':
        for (const end of part.ends) this.add(end);
        this.links.push(part.link);
        break;
      case 'queuePair':
        this.queuePairs.add(part.queuePair);
        break;
      case 'region':
        this.add(part.on);
        this.regions.add(part.region);
        break;
      case 'operation':
        this.addOperation(part);
        break;
      case 'event':
        if (part.region) this.add(part.region);
        this.events.push(part.event);
    }
  }

  data(): Omit<ScenarioInput, 'name'> {
    const hosts = [...this.hosts];
    const [a, b] = hosts;
    if (this.links.length === 0 && a && b) this.links.push({ between: [a.name, b.name] });
    return {
      hosts,
      links: this.links,
      queuePairs: [...this.queuePairs],
      regions: [...this.regions],
      operations: this.operations,
      events: this.events,
    };
  }

  private addOperation({ operation, queuePair, regions }: Operation): void {
    for (const region of regions) this.add(region);
    const own: QueuePairInput = {
      name: `qp${this.operations.length}`,
      between: [regions[0].on.host.name, regions[1].on.host.name],
    };
    const pair = queuePair?.queuePair ?? own;
    this.queuePairs.add(pair);
    this.operations.push({ ...operation, queuePair: pair.name });
  }
}
