/**
 * A registered memory region: its keys, its pages, its counters. It keeps its row of statistics after
 * it has been deregistered.
 */
import { ACCESS_ON_DEMAND } from '../../transport/index.ts';
import type { Completion } from '../sched/completion.ts';
import { newRegionCounters, type RegionCounters } from '../umem/counters.ts';
import type { OdpUmem } from '../umem/odp.ts';
import type { PinnedUmem } from '../umem/pinned.ts';

export class MemoryRegion {
  /** Key for local and for remote use; one number, as with mlx5. */
  lkey = 0;
  readonly counters: RegionCounters = newRegionCounters();
  /** From a page fault's arrival at the host to the resume sent, in picoseconds, in order. */
  readonly faultLatenciesPs: number[] = [];
  registered = false;
  pinned: PinnedUmem | undefined;
  odp: OdpUmem | undefined;
  /** Page faults that are being handled; deregistration waits for them. */
  faultsInService = 0;
  quiet: Completion<void> | undefined;

  /** `mrn` numbers the regions of a host from 1. Access bits are IBV_ACCESS_*. */
  constructor(
    readonly mrn: number,
    readonly pd: number,
    readonly address: number,
    readonly length: number,
    readonly access: number,
  ) {}

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
