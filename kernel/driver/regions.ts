/**
 * Registering, re-registering and deregistering the memory of one process (ibv_reg_mr, ibv_rereg_mr,
 * ibv_dereg_mr): pinned, on demand, or the whole address space (implicit). What is brought in ahead of
 * use is `prefetch.ts`.
 */
import {
  ACCESS_HUGETLB,
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_WRITE,
  CMD_CREATE_MKEY,
  CMD_DESTROY_MKEY,
  CMD_MODIFY_MKEY,
  MKEY_CHILD,
  MKEY_INDIRECT,
  MKEY_PLAIN,
  REREG_ACCESS,
  REREG_PD,
  REREG_TRANSLATION,
  type TimePs,
} from '../../transport/index.ts';
import { VerbsError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { VM_HUGETLB } from '../mm/virtual/vma.ts';
import type { Sim } from '../sched/completion.ts';
import { CHILD_SHIFT, type ChildKey, ImplicitUmem } from '../umem/implicit.ts';
import { OdpUmem, ownerOf } from '../umem/odp.ts';
import { PinnedUmem } from '../umem/pinned.ts';
import { PostponedUmem } from '../umem/postponed.ts';
import type { Device } from './device.ts';
import { FIXED_REGIONS } from './fixed-regions.ts';
import { MemoryRegion } from './memory-region.ts';
import { RegionTable } from './region-table.ts';

/** Rights that make a region writable. */
export const WRITING = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC;
const NEEDS_LOCAL_WRITE = ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC;
/** End of a process' half of the address space on x86-64: what an implicit region covers. */
const ADDRESS_LIMIT = 2 ** 47;
const REREG_ALL = REREG_TRANSLATION | REREG_PD | REREG_ACCESS;

/** What a re-registration changes: only what is given. */
export interface Reregistration {
  readonly pd?: number;
  readonly access?: number;
  readonly range?: { readonly address: number; readonly length: number };
}

export class Regions {
  /** Simulated time that threads of the process have spent in registering and deregistering. */
  registrationPs: TimePs = 0;

  constructor(
    private readonly device: Device,
    private readonly mm: AddressSpace,
    private readonly memlockBytes: number,
  ) {}

  /**
   * Registers [address, address + length). With ACCESS_ON_DEMAND, address 0 and a length of 2^47 or
   * more (SIZE_MAX), it is the whole address space, now and later.
   * @throws VerbsError EINVAL (bad range or access, huge pages), ENOMEM (memlock limit), EFAULT (not
   * accessible), EOPNOTSUPP (on demand, on an adapter whose regions have no holes)
   */
  *register(pd: number, address: number, length: number, access: number): Sim<MemoryRegion> {
    const { regions, bus } = this.device;
    const start = bus.node.now;
    const isOnDemand = (access & ACCESS_ON_DEMAND) !== 0;
    const isImplicit = isOnDemand && address === 0 && length >= ADDRESS_LIMIT;
    const bytes = isImplicit ? ADDRESS_LIMIT : length;
    checkRange('reg_mr', address, bytes);
    checkAccess('reg_mr', access);
    if (isOnDemand) this.checkOnDemand(address, bytes, access, isImplicit);
    const region = new MemoryRegion(regions.nextMrn(), this.mm, pd, address, bytes, access);
    if (isImplicit) yield* this.enterImplicit(region);
    else if (isOnDemand) yield* this.enterOnDemand(region);
    else yield* this.enterPinned(region);
    region.registered = true;
    this.registrationPs += bus.node.now - start;
    return region;
  }

  /**
   * Takes a region away: first from the adapter, then its pages.
   * @throws VerbsError EBUSY while a window is bound to it; it stays as it is then
   */
  *deregister(region: MemoryRegion): Sim<void> {
    const { regions, commands, bus } = this.device;
    const start = bus.node.now;
    if (!region.registered) throw new VerbsError('EINVAL', 'dereg_mr', 'not registered');
    region.registered = false;
    regions.remove(region);
    yield* region.drain();
    const destroyKey = commands.run('dereg_mr', CMD_DESTROY_MKEY, [region.lkey]);
    region.counters.pages_mapped = region.pagesMapped;
    try {
      yield* (region.odp ?? (region.pinned as PinnedUmem)).release(destroyKey);
    } catch (error) {
      region.registered = true;
      regions.add(region);
      throw error;
    }
    region.odp = undefined;
    region.pinned = undefined;
    this.registrationPs += bus.node.now - start;
  }

  /**
   * Changes domain, rights or range of a pinned region; its keys stay (hw/mlx5/mr.c, the fast paths of
   * mlx5_ib_rereg_user_mr). While pages change the region cannot be used; when pinning the new ones
   * fails, it is as it was.
   * @throws VerbsError EINVAL, EBUSY (a window is bound to it), ENOMEM, EFAULT, EOPNOTSUPP (on demand:
   * mlx5 makes another region of it, with other keys; an adapter whose regions are fixed)
   */
  *reregister(region: MemoryRegion, change: Reregistration): Sim<void> {
    const { bus } = this.device;
    const start = bus.node.now;
    const { access = region.access, range } = change;
    if (!region.registered) throw new VerbsError('EINVAL', 'rereg_mr', 'not registered');
    if (this.device.traits.fixedRegions) {
      throw new VerbsError('EOPNOTSUPP', 'rereg_mr', `a change of a region: ${FIXED_REGIONS}`);
    }
    if (region.pinned === undefined || (access & ACCESS_ON_DEMAND) !== 0) {
      throw new VerbsError('EOPNOTSUPP', 'rereg_mr', 'memory on demand is registered anew instead');
    }
    const { address, length } = range ?? region;
    checkRange('rereg_mr', address, length);
    checkAccess('rereg_mr', access);
    // Whoever deregisters meanwhile waits (uobj_get_write).
    region.hold();
    try {
      yield* this.change(region, region.pinned, change, address, length);
    } finally {
      region.put();
    }
    this.registrationPs += bus.node.now - start;
  }

  /** What reregister does once the change is known to be one. */
  private *change(
    region: MemoryRegion,
    old: PinnedUmem,
    change: Reregistration,
    address: number,
    length: number,
  ): Sim<void> {
    const { commands } = this.device;
    const { pd = region.pd, access = region.access, range } = change;
    // Pages that are pinned for reading must be pinned again before the adapter may write them.
    const isPinnedAgain =
      range !== undefined || ((access & WRITING) !== 0 && (region.access & WRITING) === 0);
    const flags =
      (isPinnedAgain ? REREG_TRANSLATION : 0) |
      (change.pd === undefined ? 0 : REREG_PD) |
      (change.access === undefined ? 0 : REREG_ACCESS);
    if ((flags & REREG_ALL) === 0) throw new VerbsError('EINVAL', 'rereg_mr', 'nothing to change');
    const umem = isPinnedAgain
      ? yield* PinnedUmem.pin(this.mm, address, length, (access & WRITING) !== 0, this.memlockBytes)
      : undefined;
    try {
      const parameters = [region.lkey, flags, pd, access];
      yield* commands.run('rereg_mr', CMD_MODIFY_MKEY, parameters, address, length);
    } catch (error) {
      if (umem) yield* umem.unpin();
      throw error;
    }
    region.pd = pd;
    region.access = access;
    if (umem) {
      region.address = address;
      region.length = length;
      region.pinned = umem;
      const table = this.newTable();
      table.mkey = region.lkey;
      yield* umem.enter(table);
      yield* old.unpin();
    }
  }

  private checkOnDemand(
    address: number,
    length: number,
    access: number,
    isImplicit: boolean,
  ): void {
    if (this.device.traits.fixedRegions) {
      throw new VerbsError('EOPNOTSUPP', 'reg_mr', `memory on demand: ${FIXED_REGIONS}`);
    }
    if ((access & ACCESS_HUGETLB) === 0) return;
    // mlx5 refuses it for implicit regions, and ib_umem_odp_get where the mapping is no such one.
    if (isImplicit) {
      throw new VerbsError('EINVAL', 'reg_mr', 'IBV_ACCESS_HUGETLB of an implicit region');
    }
    const vma = this.mm.mappings().find(({ start, end }) => start <= address && address < end);
    const isHuge = vma !== undefined && (vma.flags & VM_HUGETLB) !== 0;
    if (isHuge && address + length <= vma.end) return;
    const detail = 'IBV_ACCESS_HUGETLB of what is not one mapping of huge pages';
    throw new VerbsError('EINVAL', 'reg_mr', detail);
  }

  private *enterPinned(region: MemoryRegion): Sim<void> {
    const writable = (region.access & WRITING) !== 0;
    const { address, length } = region;
    const table = this.newTable();
    const umem = yield* PinnedUmem.pin(this.mm, address, length, writable, this.memlockBytes);
    try {
      yield* this.createKey(region, table, MKEY_PLAIN);
    } catch (error) {
      yield* umem.unpin();
      throw error;
    }
    region.pinned = umem;
    yield* umem.enter(table);
  }

  private *enterOnDemand(region: MemoryRegion): Sim<void> {
    const writable = (region.access & WRITING) !== 0;
    const table = this.newTable();
    yield this.mm.memory.costs.registerPs;
    yield* this.createKey(region, table, MKEY_PLAIN);
    const { address, length, counters } = region;
    const { postponed } = this.device.traits;
    const umem = postponed
      ? yield* PostponedUmem.create(this.mm, region, writable, table, postponed)
      : new OdpUmem(ownerOf(this.mm), address, length, writable, counters, table);
    region.odp = umem;
    yield* umem.snapshot();
  }

  private *enterImplicit(region: MemoryRegion): Sim<void> {
    const writable = (region.access & WRITING) !== 0;
    const table = this.newTable();
    yield this.mm.memory.costs.registerPs;
    yield* this.createKey(region, table, MKEY_INDIRECT);
    const keys = {
      create: (address: number, length: number) => this.createChild(region, address, length),
    };
    region.odp = new ImplicitUmem(ownerOf(this.mm), writable, region.counters, table, keys);
  }

  private *createKey(region: MemoryRegion, table: RegionTable, kind: number): Sim<void> {
    const { regions } = this.device;
    const { pd, access, address, length } = region;
    const variant = regions.nextVariant();
    const key = yield* this.runCreate(pd, access, variant, kind, address, length);
    region.lkey = key;
    table.mkey = key;
    regions.add(region);
    regions.all.push(region);
  }

  /** The key of a child of an implicit region. */
  private *createChild(parent: MemoryRegion, address: number, length: number): Sim<ChildKey> {
    const { regions, commands } = this.device;
    const table = this.newTable();
    const { pd, access } = parent;
    const variant = regions.nextVariant();
    table.mkey = yield* this.runCreate(pd, access, variant, MKEY_CHILD, address, length);
    const destroy = (): Sim<number> => commands.run('dereg_mr', CMD_DESTROY_MKEY, [table.mkey]);
    return { key: table.mkey, table, destroy };
  }

  private runCreate(
    pd: number,
    access: number,
    variant: number,
    kind: number,
    address: number,
    length: number,
  ): Sim<number> {
    const parameters = [pd, access, variant, kind, kind === MKEY_INDIRECT ? CHILD_SHIFT : 0];
    return this.device.commands.run('reg_mr', CMD_CREATE_MKEY, parameters, address, length);
  }

  private newTable(): RegionTable {
    return new RegionTable(this.device.bus, this.device.commands);
  }
}

function checkRange(verb: string, address: number, length: number): void {
  if (length > 0 && address >= 0 && address + length <= ADDRESS_LIMIT) return;
  throw new VerbsError('EINVAL', verb, `${address} + ${length} is no range of addresses`);
}

function checkAccess(verb: string, access: number): void {
  if ((access & NEEDS_LOCAL_WRITE) === 0 || (access & ACCESS_LOCAL_WRITE) !== 0) return;
  throw new VerbsError('EINVAL', verb, 'remote write or atomic access needs local write');
}
