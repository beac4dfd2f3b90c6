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
import {
  Collection,
  type Event,
  type Host,
  type HostInput,
  type Link,
  type LinkInput,
  type Operation,
  type OperationInput,
  type Part,
  type QueuePair,
  type QueuePairInput,
  type Region,
  type RegionInput,
  type SharedReceiveQueue,
  type SrqInput,
  type Window,
  type WindowInput,
} from './parts.ts';
import type { Size, Time } from './quantity.ts';
import type { ScenarioInput } from './schema.ts';

export type { Host, Part, QueuePair, Region, SharedReceiveQueue, Window } from './parts.ts';

/** A place inside a region: what operations read from and write to. */
export interface Place {
  readonly region: Region;
  /** The window that gives peers the right to it; the region's own key when left out. */
  readonly window?: Window;
  /** From the start of the region. */
  readonly offset: Size;
}

/** What operations may name: a region or a window, from its start on, or a place inside. */
type Where = Region | Window | Place;

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

/**
 * A pair of connected queue pairs: a reliable connection, or what `type` says. Operations that name
 * none get a reliable connection of their own. An end takes its receives from the shared receive
 * queue of its host among `srqs`.
 */
export function queuePair(
  name: string,
  a: Host,
  b: Host,
  options: Omit<QueuePairInput, 'name' | 'between' | 'srqs'> & {
    readonly srqs?: readonly SharedReceiveQueue[];
  } = {},
): QueuePair {
  const { srqs = [], ...rest } = options;
  const names = srqs.map(({ srq }) => srq.name);
  return {
    part: 'queuePair',
    queuePair: { ...rest, name, between: [a.host.name, b.host.name], srqs: names },
    srqs,
  };
}

/** A shared receive queue, whose receives of `slot` bytes stand side by side in a region. */
export function sharedReceiveQueue(
  name: string,
  region: Region,
  options: Omit<SrqInput, 'name' | 'region'>,
): SharedReceiveQueue {
  return { part: 'srq', srq: { ...options, name, region: region.region.name }, region };
}

/**
 * A memory window of type 2 that the region's host binds for the peer at the other end of `on`. The
 * region has to allow 'mw-bind'.
 */
export function memoryWindow(
  name: string,
  region: Region,
  on: QueuePair,
  options: Omit<WindowInput, 'name' | 'region' | 'queuePair'> = {},
): Window {
  const window = { ...options, name, region: region.region.name, queuePair: on.queuePair.name };
  return { part: 'window', window, region, queuePair: on };
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

/** The bytes of a region, or those a window allows, from `offset` of the region on. */
export function within(where: Region | Window, offset: Size): Place {
  if (where.part === 'region') return { region: where, offset };
  return { region: where.region, window: where, offset };
}

type Common =
  | 'kind'
  | 'from'
  | 'queuePair'
  | 'source'
  | 'target'
  | 'size'
  | 'add'
  | 'compare'
  | 'swap'
  | 'invalidates';

/** What all operations have. */
type AnyOptions = Omit<OperationInput, Common> & {
  /** The queue pair it uses: that of its window, or one of its own, when left out. */
  readonly on?: QueuePair;
};
/** What operations have whose data are more than a word. */
type OperationOptions = AnyOptions & { readonly size: Size };

/** RDMA WRITE from a region of the initiator to one of the other host. */
export function write(source: Where, target: Where, options: OperationOptions) {
  return operation('write', source, target, options);
}

/** RDMA WRITE WITH IMMEDIATE: a write that also completes a receive of the target. */
export function writeImm(source: Where, target: Where, options: OperationOptions) {
  return operation('writeImm', source, target, options);
}

/** SEND into receives that the target posts on its region. */
export function send(source: Where, target: Where, options: OperationOptions) {
  return operation('send', source, target, options);
}

/** SEND with immediate data: the number of the operation. */
export function sendImm(source: Where, target: Where, options: OperationOptions) {
  return operation('sendImm', source, target, options);
}

/** SEND that invalidates a window of the peer, who binds it again and tells the new key. */
export function sendInv(
  source: Where,
  target: Where,
  { invalidates, ...options }: OperationOptions & { readonly invalidates: Window },
) {
  const { name } = invalidates.window;
  const on = options.on ?? invalidates.queuePair;
  return operation('sendInv', source, target, { ...options, on, invalidates: name }, [invalidates]);
}

/** FETCH AND ADD on a word of the other host; what stood there goes into `result`. */
export function fetchAdd(
  result: Where,
  word: Where,
  options: AnyOptions & Pick<OperationInput, 'add'> = {},
) {
  return operation('fetchAdd', result, word, options);
}

/** COMPARE AND SWAP on a word of the other host; what stood there goes into `result`. */
export function compareSwap(
  result: Where,
  word: Where,
  options: AnyOptions & Pick<OperationInput, 'compare' | 'swap'>,
) {
  return operation('compareSwap', result, word, options);
}

/** ATOMIC WRITE of a word. */
export function atomicWrite(source: Where, word: Where, options: AnyOptions = {}) {
  return operation('atomicWrite', source, word, options);
}

/** RDMA READ of a region of the other host into one of the initiator. */
export function read(source: Where, target: Where, options: OperationOptions) {
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
  return { part: 'event', event: { kind: 'remap', host, region: name, at }, on: region };
}

/** The host of a window invalidates it and binds it again, with another key. */
export function rebind(window: Window, { at }: When): Event {
  const { host } = window.region.region;
  const { name } = window.window;
  return { part: 'event', event: { kind: 'rebind', host, window: name, at }, on: window };
}

/** The driver of `on` suspends its protection domain for `duration`; see `pdSuspend` of its host. */
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
  const world = new Collection();
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
  source: Where,
  target: Where,
  {
    on,
    ...options
  }: Omit<OperationInput, 'kind' | 'from' | 'queuePair' | 'source' | 'target'> & {
    readonly on?: QueuePair;
  },
  mentioned: readonly Window[] = [],
): Operation {
  const from = placeOf(source);
  const to = placeOf(target);
  const initiator = kind === 'read' ? to : from;
  const windows = [from.window, to.window, ...mentioned].filter((window) => window !== undefined);
  return {
    part: 'operation',
    operation: {
      ...options,
      kind,
      from: initiator.region.region.host,
      source: dataOf(from),
      target: dataOf(to),
    },
    queuePair: on ?? windows[0]?.queuePair,
    regions: [from.region, to.region],
    windows,
  };
}

function placeOf(where: Where): Place {
  if (!('part' in where)) return where;
  return within(where, where.part === 'window' ? (where.window.offset ?? '0B') : '0B');
}

function dataOf({ region, window, offset }: Place): OperationInput['source'] {
  const { name } = region.region;
  return { region: name, offset, ...(window ? { window: window.window.name } : {}) };
}

function rangeEvent(kind: 'dontneed' | 'prefetch', region: Region, range: RangeWhen): Event {
  const { host, name } = region.region;
  return { part: 'event', event: { ...range, kind, host, region: name }, on: region };
}
