/**
 * What the functions of the scripting API make, and how a scenario is put together from it: every
 * part with everything it mentions, each once, in order of first mention.
 */
import type { ScenarioInput } from './schema.ts';

export type HostInput = ScenarioInput['hosts'][number];
export type LinkInput = ScenarioInput['links'][number];
export type QueuePairInput = NonNullable<ScenarioInput['queuePairs']>[number];
export type RegionInput = NonNullable<ScenarioInput['regions']>[number];
export type SrqInput = NonNullable<ScenarioInput['sharedReceiveQueues']>[number];
export type WindowInput = NonNullable<ScenarioInput['windows']>[number];
export type OperationInput = NonNullable<ScenarioInput['operations']>[number];
export type EventInput = NonNullable<ScenarioInput['events']>[number];

/** One thing a scenario consists of; made by the functions of `builder.ts`. */
export type Part =
  | { readonly part: 'host'; readonly host: HostInput }
  | { readonly part: 'link'; readonly link: LinkInput; readonly ends: readonly [Host, Host] }
  | {
      readonly part: 'queuePair';
      readonly queuePair: QueuePairInput;
      readonly srqs: readonly SharedReceiveQueue[];
    }
  | { readonly part: 'region'; readonly region: RegionInput; readonly on: Host }
  | { readonly part: 'srq'; readonly srq: SrqInput; readonly region: Region }
  | {
      readonly part: 'window';
      readonly window: WindowInput;
      readonly region: Region;
      readonly queuePair: QueuePair;
    }
  | {
      readonly part: 'operation';
      readonly operation: Omit<OperationInput, 'queuePair'>;
      readonly queuePair: QueuePair | undefined;
      readonly regions: readonly [Region, Region];
      readonly windows: readonly Window[];
    }
  | { readonly part: 'event'; readonly event: EventInput; readonly on?: Region | Window };

export type Host = Extract<Part, { part: 'host' }>;
export type Region = Extract<Part, { part: 'region' }>;
export type QueuePair = Extract<Part, { part: 'queuePair' }>;
export type SharedReceiveQueue = Extract<Part, { part: 'srq' }>;
export type Window = Extract<Part, { part: 'window' }>;
export type Link = Extract<Part, { part: 'link' }>;
export type Operation = Extract<Part, { part: 'operation' }>;
export type Event = Extract<Part, { part: 'event' }>;

/** Collects parts and everything they mention, each once, in order of first mention. */
export class Collection {
  private readonly hosts = new Set<HostInput>();
  private readonly links: LinkInput[] = [];
  private readonly queuePairs = new Set<QueuePairInput>();
  private readonly regions = new Set<RegionInput>();
  private readonly srqs = new Set<SrqInput>();
  private readonly windows = new Set<WindowInput>();
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
        for (const srq of part.srqs) this.add(srq);
        this.queuePairs.add(part.queuePair);
        break;
      case 'region':
        this.add(part.on);
        this.regions.add(part.region);
        break;
      case 'srq':
        this.add(part.region);
        this.srqs.add(part.srq);
        break;
      case 'window':
        this.add(part.region);
        this.add(part.queuePair);
        this.windows.add(part.window);
        break;
      case 'operation':
        this.addOperation(part);
        break;
      case 'event':
        if (part.on) this.add(part.on);
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
      sharedReceiveQueues: [...this.srqs],
      windows: [...this.windows],
      operations: this.operations,
      events: this.events,
    };
  }

  private addOperation({ operation, queuePair: named, regions, windows }: Operation): void {
    for (const part of [...regions, ...windows]) this.add(part);
    const [a, b] = regions;
    const name = `qp${this.operations.length}`;
    const own: QueuePairInput = { name, between: [a.on.host.name, b.on.host.name] };
    if (named) this.add(named);
    else this.queuePairs.add(own);
    this.operations.push({ ...operation, queuePair: named?.queuePair.name ?? name });
  }
}
