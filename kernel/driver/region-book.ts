/**
 * The memory regions of a host, of all its processes: who has which key.
 *
 * mlx5 keeps the keys of on-demand regions in one array for the device (odp_mkeys), because a page
 * fault names a key and not a process. Does not own how a region is registered (`regions.ts`).
 */
import type { MemoryRegion } from './memory-region.ts';

export class RegionBook {
  /** Every region that ever had a key, in order of their keys' creation. */
  readonly all: MemoryRegion[] = [];
  /** Registered regions by key. */
  private readonly byKey = new Map<number, MemoryRegion>();
  private lastMrn = 0;
  private lastVariant = 0;

  /** The number of the next region, from 1. */
  nextMrn(): number {
    return ++this.lastMrn;
  }

  /** The low byte of the next key: it makes it differ from its predecessors at the same index. */
  nextVariant(): number {
    this.lastVariant = (this.lastVariant + 1) & 255;
    return this.lastVariant;
  }

  /** The registered region with that key. */
  find(key: number): MemoryRegion | undefined {
    return this.byKey.get(key);
  }

  /** Which region has pinned a frame, in words; undefined where none has. */
  holderOf(frame: number): string | undefined {
    for (const { pinned, mrn, mm } of this.all) {
      if (pinned?.holds(frame)) return `memory region ${mrn} of ${mm.name}`;
    }
    return undefined;
  }

  /** The region is to be found by its key from now on. */
  add(region: MemoryRegion): void {
    this.byKey.set(region.lkey, region);
  }

  /** ... and no longer. */
  remove(region: MemoryRegion): void {
    this.byKey.delete(region.lkey);
  }
}
