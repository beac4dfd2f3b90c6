/**
 * A registered memory region: its keys, its pages, its counters. It keeps its row of statistics after
 * it has been deregistered.
 */
import { ACCESS_ON_DEMAND } from '../../transport/index.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { Completion, type Sim, wait } from '../sched/completion.ts';
import { newRegionCounters, type RegionCounters } from '../umem/counters.ts';
import type { OnDemandUmem } from '../umem/odp.ts';
import type { PinnedUmem } from '../umem/pinned.ts';

export class MemoryRegion {
  /** Key for local and for remote use; one number, as with mlx5. */
  lkey = 0;
  readonly counters: RegionCounters = newRegionCounters();
  /** From a page fault's arrival at the host to the resume sent, in picoseconds, in order. */
  readonly faultLatenciesPs: number[] = [];
  registered = false;
  pinned: PinnedUmem | undefined;
  odp: OnDemandUmem | undefined;
  /** Page faults and prefetches at work on it (mlx5: the usecount of an mkey). */
  private users = 0;
  private unused = new Completion<void>();

  /**
   * `mrn` numbers the regions of a host from 1; `mm` is the memory of the process that it is of.
   * Access bits are IBV_ACCESS_*. Re-registration changes domain, range and rights.
   */
  constructor(
    readonly mrn: number,
    readonly mm: AddressSpace,
    public pd: number,
    public address: number,
    public length: number,
    public access: number,
  ) {}

  /** Keeps the region from being taken apart until `put`. */
  hold(): void {
    this.users++;
  }

  put(): void {
    if (--this.users === 0) this.unused.resolve();
  }

  /** Sleeps until nobody holds the region. Nobody new may come: take its key out first. */
  *drain(): Sim<void> {
    if (this.users === 0) return;
    this.unused = new Completion<void>(`users of region ${this.mrn}`);
    yield* wait(this.unused);
  }

  get rkey(): number {
    return this.lkey;
  }

  get registration(): 'pinned' | 'odp' {
    return (this.access & ACCESS_ON_DEMAND) !== 0 ? 'odp' : 'pinned';
  }

  /** Pages in the adapter's table: now, or when it was deregistered. */
  get pagesMapped(): number {
    return this.odp?.mappedPages ?? this.pinned?.pageCount ?? this.counters.pages_mapped;
  }
}
