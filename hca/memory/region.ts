/**
 * Memory regions of the adapter and the table that finds them by key (MPT).
 *
 * A key is `index << 8 | variant` (as in verbs headers and mlx5): the index finds the row, the
 * variant must match, so a key of a region that was destroyed and whose row is used again is wrong.
 * lkey and rkey of a region are the same number. Each region has its own page table (MTT): one entry
 * for each 4 KiB page, `frame << 2 | write << 1 | read`, 0 where nothing is present.
 */
const NO_PAGES = new Int32Array(0);

export class Region {
  /** Page table; entry i is page `firstPage + i` of the address space. Empty once destroyed. */
  mtt: Int32Array;
  readonly firstPage: number;
  /** False once destroyed; the row and its counters stay for the report. */
  alive = true;

  // Statistics of this region.
  rnrNaks = 0;
  bytesRetransmitted = 0;
  stallPs = 0;

  /** `address` and `length` in bytes; `access` is IBV_ACCESS_* bits. */
  constructor(
    readonly index: number,
    readonly key: number,
    readonly pd: number,
    readonly access: number,
    readonly address: number,
    readonly length: number,
  ) {
    this.firstPage = Math.floor(address / 4096);
    this.mtt = new Int32Array(Math.ceil((address + length) / 4096) - this.firstPage);
  }

  /** Whether [address, address + bytes) lies inside. */
  covers(address: number, bytes: number): boolean {
    return address >= this.address && address + bytes <= this.address + this.length;
  }
}

export class MkeyTable {
  private readonly rows: (Region | undefined)[] = [undefined];
  private readonly freeRows: number[] = [];
  /** Every region there has been, in order of creation. */
  readonly all: Region[] = [];

  /** Creates a region; `variant` is the low byte of its key. */
  create(pd: number, access: number, variant: number, address: number, length: number): Region {
    const index = this.freeRows.pop() ?? this.rows.length;
    const key = (index << 8) | (variant & 0xff);
    const region = new Region(index, key, pd, access, address, length);
    this.rows[index] = region;
    this.all.push(region);
    return region;
  }

  /** Takes a region out: its key is wrong from now on. */
  destroy(region: Region): void {
    region.alive = false;
    region.mtt = NO_PAGES;
    this.rows[region.index] = undefined;
    this.freeRows.push(region.index);
  }

  /** The region of `key`, or undefined where index or variant is wrong. */
  find(key: number): Region | undefined {
    const region = this.rows[key >>> 8];
    return region !== undefined && region.key === key ? region : undefined;
  }
}
