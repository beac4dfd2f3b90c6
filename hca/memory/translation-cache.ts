/**
 * The cache of page table entries in the adapter: four ways, replaced round robin in each set.
 *
 * It holds copies. Whoever changes an entry in a region's table must take the copy out here, or the
 * adapter goes on using the old mapping; the device does that for TABLE_UPDATE and for PD suspend.
 */
import { nextPowerOfTwo } from '../../transport/index.ts';

const WAYS = 4;

export class TranslationCache {
  private readonly regions: Int32Array;
  private readonly pages: Float64Array;
  private readonly values: Int32Array;
  private readonly victims: Uint8Array;
  private readonly setMask: number;

  /** `entries` is rounded up to a power of two, at least 4. */
  constructor(entries: number) {
    const sets = nextPowerOfTwo(entries / WAYS);
    this.setMask = sets - 1;
    this.regions = new Int32Array(sets * WAYS);
    this.pages = new Float64Array(sets * WAYS);
    this.values = new Int32Array(sets * WAYS);
    this.victims = new Uint8Array(sets);
  }

  /** The cached entry of page `page` of the region with this index, or 0. */
  lookup(region: number, page: number): number {
    const first = this.setOf(region, page) * WAYS;
    for (let i = first; i < first + WAYS; i++) {
      if (this.pages[i] === page && this.regions[i] === region) return this.values[i];
    }
    return 0;
  }

  /** Puts an entry in, over the set's next victim. `entry` is not 0. */
  insert(region: number, page: number, entry: number): void {
    const set = this.setOf(region, page);
    const at = set * WAYS + this.victims[set];
    this.victims[set] = (this.victims[set] + 1) % WAYS;
    this.regions[at] = region;
    this.pages[at] = page;
    this.values[at] = entry;
  }

  /** Takes one page out. */
  drop(region: number, page: number): void {
    const first = this.setOf(region, page) * WAYS;
    for (let i = first; i < first + WAYS; i++) {
      if (this.pages[i] === page && this.regions[i] === region) this.regions[i] = 0;
    }
  }

  /** Takes every page of a region out. */
  dropRegion(region: number): void {
    for (let i = 0; i < this.regions.length; i++) {
      if (this.regions[i] === region) this.regions[i] = 0;
    }
  }

  private setOf(region: number, page: number): number {
    return ((page | 0) + Math.imul(region, 0x9e3779b1)) & this.setMask;
  }
}
