/**
 * The regions of a scenario on one host: mapped, registered, described to the peer, and guarded so
 * that nobody unmaps a buffer while operations use it.
 */
import type { Host, MemoryRegion, Sim } from '../../kernel/index.ts';
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_FLUSH_PERSISTENT,
  ACCESS_LOCAL_WRITE,
  ACCESS_MW_BIND,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  assert,
  hashText,
} from '../../transport/index.ts';
import type { Mode, RegionSpec } from '../scenario/schema.ts';
import { Gate } from './gate.ts';
import { PAGE_BYTES, regionAddress } from './layout.ts';
import { registerRegion } from './registrations.ts';

const accessBits = {
  'local-write': ACCESS_LOCAL_WRITE,
  'remote-write': ACCESS_REMOTE_WRITE,
  'remote-read': ACCESS_REMOTE_READ,
  'remote-atomic': ACCESS_REMOTE_ATOMIC,
  'mw-bind': ACCESS_MW_BIND,
  'flush-global': ACCESS_FLUSH_GLOBAL,
  'flush-persistent': ACCESS_FLUSH_PERSISTENT,
} as const;

/** The bits (IBV_ACCESS_*) of rights by name. */
export function accessOf(names: readonly (keyof typeof accessBits)[]): number {
  return names.reduce((bits, name) => bits | accessBits[name], 0);
}

/** One region of the scenario as one host sees it: its own, or the peer's. */
export class Buffer extends Gate {
  lkey = 0;
  region: MemoryRegion | undefined;

  constructor(
    readonly spec: RegionSpec,
    index: number,
  ) {
    super(index, `region ${spec.name}`, regionAddress(index));
  }
}

/** The buffers of one host's program. */
export class Buffers {
  readonly all: readonly Buffer[];
  private readonly byName: ReadonlyMap<string, Buffer>;

  constructor(
    private readonly host: Host,
    private readonly hostName: string,
    regions: readonly RegionSpec[],
    private readonly mode: Mode,
  ) {
    this.all = regions.map((spec, index) => new Buffer(spec, index));
    this.byName = new Map(this.all.map((buffer) => [buffer.spec.name, buffer]));
  }

  named(name: string): Buffer {
    const buffer = this.byName.get(name);
    assert(buffer !== undefined, `region ${name} is not in the scenario`);
    return buffer;
  }

  /** Those of this host. */
  get own(): readonly Buffer[] {
    return this.all.filter(({ spec }) => spec.host === this.hostName);
  }

  isOnDemand(buffer: Buffer): boolean {
    const { registration } = buffer.spec;
    return (registration === 'mode' ? this.mode : registration) === 'odp';
  }

  /** Maps a region of this host, writes it if the scenario says so, and registers it. */
  *create(buffer: Buffer, pd: number, seed: number): Sim<void> {
    const { mm } = this.host;
    const { sizeBytes, prefault, name } = buffer.spec;
    yield* mm.mmap(buffer.address, mappedBytes(buffer), 3);
    if (prefault) yield* mm.fill(buffer.address, sizeBytes, hashText(name, seed));
    yield* this.register(buffer, pd);
  }

  *register(buffer: Buffer, pd: number): Sim<void> {
    const onDemand = this.isOnDemand(buffer) ? ACCESS_ON_DEMAND : 0;
    const access = accessOf(buffer.spec.access) | onDemand;
    const { address, spec } = buffer;
    buffer.region = yield* registerRegion(this.host, pd, address, spec.sizeBytes, access);
    buffer.lkey = buffer.region.lkey;
    buffer.rkey = buffer.region.rkey;
  }

  /**
   * Replaces the memory behind a drained region with `change`. Pinned memory is deregistered before
   * and registered after, as a program must; on-demand memory keeps its registration.
   */
  *replace(buffer: Buffer, pd: number, change: Sim<void>): Sim<void> {
    const onDemand = this.isOnDemand(buffer);
    if (!onDemand) yield* this.host.verbs.deregMr(buffer.region as MemoryRegion);
    yield* change;
    if (!onDemand) yield* this.register(buffer, pd);
  }
}

/** Bytes that a region's mapping takes: whole pages. */
export function mappedBytes({ spec }: Buffer): number {
  return Math.ceil(spec.sizeBytes / PAGE_BYTES) * PAGE_BYTES;
}
