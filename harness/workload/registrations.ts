/**
 * Regions for buffers that a program names by address, registered when first needed.
 *
 * *pinned*: a region is registered at first use, reused by whatever lies inside it, and deregistered
 * before any page of its range is unmapped or replaced (once nothing outstanding uses it): the
 * registration cache of an MPI library whose munmap hooks work.
 * *odp*: the same without the hook: a region stays for good, and munmap, mmap and faults behind it
 * are the kernel's business.
 */
import {
  type AddressSpace,
  Completion,
  type Host,
  type MemoryRegion,
  type Sim,
  VerbsError,
  type Vma,
  wait,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  Failure,
} from '../../transport/index.ts';
import type { Mode } from '../scenario/schema.ts';
import { PROT_WRITE } from '../trace/format.ts';
import { pageRange } from './layout.ts';

/** The right to use a region until `release`. */
export interface Lease {
  readonly region: MemoryRegion;
  release(): void;
}

class Registration {
  users = 0;
  /** Being deregistered: nobody else may take it up. */
  closing = false;
  readonly registered = new Completion<MemoryRegion>('a registration');
  idle = new Completion<void>('the last use of a registration');

  constructor(
    readonly start: number,
    readonly end: number,
    readonly writable: boolean,
  ) {}
}

export class Registrations {
  private entries: Registration[] = [];

  constructor(
    private readonly host: Host,
    private readonly pd: number,
    private readonly mode: Mode,
  ) {}

  /** A region around `length` bytes at `address`; `writable` when the adapter will write there. */
  *acquire(address: number, length: number, writable: boolean): Sim<Lease> {
    const { start, end } = pageRange(address, length);
    let entry = this.entries.find(
      (candidate) =>
        !candidate.closing &&
        candidate.start <= start &&
        candidate.end >= end &&
        (candidate.writable || !writable),
    );
    if (entry) {
      entry.users++;
    } else {
      const rights = mappingAt(this.host.mm, address)?.prot ?? 0;
      entry = new Registration(start, end, writable || (rights & PROT_WRITE) !== 0);
      entry.users++;
      this.entries.push(entry);
      entry.registered.resolve(yield* this.register(entry));
    }
    const region = yield* wait(entry.registered);
    const held = entry;
    return { region, release: () => this.release(held) };
  }

  /** Called before the program unmaps or replaces `length` bytes at `address`. */
  *beforeUnmap(address: number, length: number): Sim<void> {
    if (this.mode === 'odp') return;
    const { start, end } = pageRange(address, length);
    const hit = this.entries.filter((entry) => entry.start < end && entry.end > start);
    for (const entry of hit) entry.closing = true;
    for (const entry of hit) {
      const region = yield* wait(entry.registered);
      if (entry.users > 0) yield* wait(entry.idle);
      yield* this.host.verbs.deregMr(region);
    }
    if (hit.length > 0) this.entries = this.entries.filter((entry) => !hit.includes(entry));
  }

  private release(entry: Registration): void {
    if (--entry.users === 0 && entry.closing) entry.idle.resolve();
  }

  private *register({ start, end, writable }: Registration): Sim<MemoryRegion> {
    const rights = writable ? ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE : 0;
    const access = rights | ACCESS_REMOTE_READ | (this.mode === 'odp' ? ACCESS_ON_DEMAND : 0);
    return yield* registerRegion(this.host, this.pd, start, end - start, access);
  }
}

/** The mapping that `address` is in. */
export function mappingAt(mm: AddressSpace, address: number): Readonly<Vma> | undefined {
  const mappings = mm.mappings();
  let low = 0;
  let high = mappings.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((mappings[middle] as Vma).end > address) high = middle;
    else low = middle + 1;
  }
  const found = mappings[low];
  return found !== undefined && found.start <= address ? found : undefined;
}

/** ibv_reg_mr whose refusal ends the run. Throws Failure E_OPERATION. */
export function* registerRegion(
  host: Pick<Host, 'verbs' | 'node'>,
  pd: number,
  address: number,
  length: number,
  access: number,
): Sim<MemoryRegion> {
  try {
    return yield* host.verbs.regMr(pd, address, length, access);
  } catch (error) {
    if (!(error instanceof VerbsError)) throw error;
    throw new Failure(
      'E_OPERATION',
      `registering ${length} bytes at 0x${address.toString(16)} fails: ${error.message}`,
      `${host.node.name} at ${host.node.now} ps`,
      'memory that is mapped and within memlock',
    );
  }
}
