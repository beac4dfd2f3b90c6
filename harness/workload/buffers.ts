/**
 * The regions of a scenario on one host: mapped, registered, described to the peer, and guarded so
 * that nobody unmaps a buffer while operations use it.
 *
 * A region that is being replaced is *closed*: operations wait at its gate, those outstanding finish,
 * then it changes and opens again. Both sides keep a gate for every region of the scenario.
 */
import { Completion, type Host, type MemoryRegion, type Sim, wait } from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  assert,
  hashText,
} from '../../transport/index.ts';
import type { Mode, RegionSpec } from '../scenario/schema.ts';
import { PAGE_BYTES, regionAddress } from './layout.ts';
import { registerRegion } from './registrations.ts';

const accessBits = {
  'local-write': ACCESS_LOCAL_WRITE,
  'remote-write': ACCESS_REMOTE_WRITE,
  'remote-read': ACCESS_REMOTE_READ,
} as const;

/** A range of a local region that an outstanding operation uses. */
interface Use {
  readonly start: number;
  readonly end: number;
}

/** One region of the scenario as one host sees it: its own, or the peer's. */
export class Buffer {
  readonly address: number;
  /** Remote key: of its own registration, or as the peer advertised it. */
  rkey = 0;
  lkey = 0;
  region: MemoryRegion | undefined;
  /** Resolved while operations may use it. */
  open = new Completion<void>();
  private readonly uses = new Set<Use>();
  private unused = new Completion<void>();

  constructor(
    readonly spec: RegionSpec,
    readonly index: number,
  ) {
    this.address = regionAddress(index);
    this.close();
  }

  /** From here on operations wait. */
  close(): void {
    this.open = new Completion<void>(`region ${this.spec.name} to be usable`);
  }

  /** Registers a use of `length` bytes at `offset`; call the result when it is over. */
  use(offset: number, length: number): () => void {
    const use = { start: offset, end: offset + length };
    this.uses.add(use);
    return () => {
      this.uses.delete(use);
      if (this.uses.size === 0) this.unused.resolve();
    };
  }

  /** True when an outstanding operation uses any of these bytes. */
  inUse(offset: number, length: number): boolean {
    for (const { start, end } of this.uses) {
      if (start < offset + length && end > offset) return true;
    }
    return false;
  }

  /** Waits until no operation is outstanding on it. Close it first. */
  *drain(): Sim<void> {
    assert(!this.open.done, 'a region is drained while operations may still begin');
    while (this.uses.size > 0) {
      this.unused = new Completion<void>(`operations on region ${this.spec.name}`);
      yield* wait(this.unused);
    }
  }
}

/** The buffers of one host's program. */
export class Buffers {
  readonly all: readonly Buffer[];

  constructor(
    private readonly host: Host,
    private readonly hostName: string,
    regions: readonly RegionSpec[],
    private readonly mode: Mode,
  ) {
    this.all = regions.map((spec, index) => new Buffer(spec, index));
  }

  named(name: string): Buffer {
    const buffer = this.all.find(({ spec }) => spec.name === name);
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
    const bits = buffer.spec.access.reduce((sum, name) => sum | accessBits[name], 0);
    const access = bits | (this.isOnDemand(buffer) ? ACCESS_ON_DEMAND : 0);
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
