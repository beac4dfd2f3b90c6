/**
 * Registering, deregistering and prefetching memory regions (ibv_reg_mr, ibv_dereg_mr, ibv_advise_mr).
 */
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_WRITE,
  CMD_CREATE_MKEY,
  CMD_DESTROY_MKEY,
  type TimePs,
} from '../../transport/index.ts';
import { VerbsError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import { MAP_EAGAIN, OdpUmem } from '../umem/odp.ts';
import { PinnedUmem } from '../umem/pinned.ts';
import type { AdapterBus } from './adapter-bus.ts';
import type { Commands } from './commands.ts';
import { MemoryRegion } from './memory-region.ts';
import { RegionTable } from './region-table.ts';

const WRITING = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC;
const NEEDS_LOCAL_WRITE = ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC;

export class Regions {
  /** Every region that ever had a key, in order of their keys' creation. */
  readonly all: MemoryRegion[] = [];
  /** Simulated time that threads have spent in registering and deregistering. */
  registrationPs: TimePs = 0;
  /** Registered regions by key. */
  private readonly byKey = new Map<number, MemoryRegion>();
  private lastMrn = 0;

  constructor(
    private readonly bus: AdapterBus,
    private readonly commands: Commands,
    private readonly mm: AddressSpace,
    private readonly memlockBytes: number,
  ) {}

  /** The registered region with that key. */
  find(key: number): MemoryRegion | undefined {
    return this.byKey.get(key);
  }

  /**
   * Registers [address, address + length).
   * @throws VerbsError EINVAL (bad range or access), ENOMEM (memlock limit), EFAULT (not accessible)
   */
  *register(pd: number, address: number, length: number, access: number): Sim<MemoryRegion> {
    const start = this.bus.node.now;
    if (!(length > 0) || address < 0 || address + length > 2 ** 47) {
      throw new VerbsError('EINVAL', 'reg_mr', `${address} + ${length} is no range of addresses`);
    }
    if ((access & NEEDS_LOCAL_WRITE) !== 0 && (access & ACCESS_LOCAL_WRITE) === 0) {
      throw new VerbsError('EINVAL', 'reg_mr', 'remote write or atomic access needs local write');
    }
    const region = new MemoryRegion(++this.lastMrn, pd, address, length, access);
    const table = new RegionTable(this.bus, this.commands);
    if (access & ACCESS_ON_DEMAND) yield* this.enterOnDemand(region, table);
    else yield* this.enterPinned(region, table);
    region.registered = true;
    this.registrationPs += this.bus.node.now - start;
    return region;
  }

  /**
   * Takes a region away: first from the adapter, then its pages.
   * @throws VerbsError EBUSY while a window is bound to it; it stays as it is then
   */
  *deregister(region: MemoryRegion): Sim<void> {
    const start = this.bus.node.now;
    if (!region.registered) throw new VerbsError('EINVAL', 'dereg_mr', 'not registered');
    region.registered = false;
    this.byKey.delete(region.lkey);
    yield* region.drain();
    const destroyKey = this.commands.run('dereg_mr', CMD_DESTROY_MKEY, [region.lkey]);
    region.counters.pages_mapped = region.pagesMapped;
    try {
      yield* (region.odp ?? (region.pinned as PinnedUmem)).release(destroyKey);
    } catch (error) {
      region.registered = true;
      this.byKey.set(region.lkey, region);
      throw error;
    }
    region.odp = undefined;
    region.pinned = undefined;
    this.registrationPs += this.bus.node.now - start;
  }

  /**
   * Brings pages of an on-demand region in ahead of use: IBV_ADVISE_MR_ADVICE_PREFETCH, or _WRITE,
   * with IBV_ADVISE_MR_FLAG_FLUSH. The range is clipped to the region.
   * @throws VerbsError EINVAL (not on demand), EPERM (write on a read-only region), EFAULT (not
   * accessible), EAGAIN (invalidations kept getting in the way)
   */
  *advise(region: MemoryRegion, address: number, length: number, write: boolean): Sim<void> {
    const { odp } = region;
    if (odp === undefined || !region.registered) {
      throw new VerbsError('EINVAL', 'advise_mr', 'not a registered on-demand region');
    }
    if (write && (region.access & WRITING) === 0) {
      throw new VerbsError('EPERM', 'advise_mr', 'the region is read-only');
    }
    const start = Math.max(address, region.address);
    const end = Math.min(address + length, region.address + region.length);
    if (end <= start) return;
    const first = Math.floor(start / PAGE_BYTES);
    const count = Math.ceil(end / PAGE_BYTES) - first;
    region.hold();
    yield this.mm.memory.costs.systemCallPs;
    const pages = yield* odp.prefetch(first - odp.firstPage, count, write);
    region.put();
    if (pages === MAP_EAGAIN) throw new VerbsError('EAGAIN', 'advise_mr', 'pages keep going away');
    if (pages < 0) throw new VerbsError('EFAULT', 'advise_mr', 'a page is not accessible');
  }

  private *enterPinned(region: MemoryRegion, table: RegionTable): Sim<void> {
    const writable = (region.access & WRITING) !== 0;
    const { address, length } = region;
    const umem = yield* PinnedUmem.pin(this.mm, address, length, writable, this.memlockBytes);
    try {
      yield* this.createKey(region, table);
    } catch (error) {
      yield* umem.unpin();
      throw error;
    }
    region.pinned = umem;
    yield* umem.enter(table);
  }

  private *enterOnDemand(region: MemoryRegion, table: RegionTable): Sim<void> {
    const writable = (region.access & WRITING) !== 0;
    yield this.mm.memory.costs.registerPs;
    yield* this.createKey(region, table);
    const { address, length, counters } = region;
    region.odp = new OdpUmem(this.mm, address, length, writable, counters, table);
    yield* region.odp.snapshot();
  }

  private *createKey(region: MemoryRegion, table: RegionTable): Sim<void> {
    // The variant makes the key of a region differ from that of its predecessor at the same index.
    const variant = region.mrn & 255;
    const parameters = [region.pd, region.access, variant];
    const { address, length } = region;
    const key = yield* this.commands.run('reg_mr', CMD_CREATE_MKEY, parameters, address, length);
    region.lkey = key;
    table.mkey = key;
    this.byKey.set(key, region);
    this.all.push(region);
  }
}
