/**
 * Memory regions of the adapter and the table that finds them, and windows, by key (MPT).
 *
 * A key is `index << 8 | variant` (as in verbs headers and mlx5): the index finds the row, the
 * variant must match, so a key of a region that was destroyed and whose row is used again is wrong.
 * lkey and rkey of a region are the same number. Each region has a table of its own. That of a plain
 * key (MTT) has one entry for each 4 KiB page, `frame << 2 | write << 1 | read`, 0 where nothing is
 * present. That of an indirect key (KSM) has one entry for each so many bytes: the key of the child
 * that stands for them, at the same addresses, or 0, the null key.
 */
import {
  ACCESS_ZERO_BASED,
  SparseTable,
  WC_MW_BIND_ERR,
  WC_SUCCESS,
} from '../../transport/index.ts';
import type { DirtyLog } from './dirty-log.ts';
import { type Binding, type MemoryWindow, newBinding, type WindowUser } from './window.ts';

const NO_PAGES = new SparseTable(0);

/** What a key is, besides domain, rights and range. */
export interface RegionKind {
  /** Pages that an entry of an indirect key stands for; 0 for a plain key. */
  readonly entryPages: number;
  /** It only serves an indirect key and has no row in reports. */
  readonly isChild: boolean;
  /** Each entry must be set, once, before the region can be used (see HcaProfile.fixedRegions). */
  readonly isFixed: boolean;
}

/** A key whose entries are pages that may come and go. */
export const PLAIN_REGION: RegionKind = { entryPages: 0, isChild: false, isFixed: false };

export class Region {
  /** Table; see above. Entry i of a plain key is page `firstPage + i`. Empty once destroyed. */
  table: SparseTable;
  readonly firstPage: number;
  /** Pages of one entry of an indirect key; 0 for a plain key. */
  readonly entryPages: number;
  /** Whether entries, once set, stay; and how many are still to be set before it can be used. */
  readonly isFixed: boolean;
  holes = 0;
  /** First address of the region as work requests and packets name it. */
  readonly address: number;
  /** What is added to such an address to have the host's: above 0 for a zero-based region. */
  readonly bias: number;
  /** False once destroyed; the row and its counters stay for the report. */
  alive = true;
  /** Windows that are bound to it. */
  windows = 0;
  /** Records what the adapter writes, once somebody has asked for it (QUERY_DIRTY). */
  dirty: DirtyLog | undefined;

  // Statistics of this region.
  rnrNaks = 0;
  bytesRetransmitted = 0;
  stallPs = 0;

  /** `address` (the host's) and `length` in bytes; `access` is IBV_ACCESS_* bits. */
  constructor(
    readonly index: number,
    readonly key: number,
    readonly pd: number,
    readonly access: number,
    address: number,
    readonly length: number,
    kind: RegionKind = PLAIN_REGION,
  ) {
    const isZeroBased = (access & ACCESS_ZERO_BASED) !== 0;
    this.address = isZeroBased ? 0 : address;
    this.bias = isZeroBased ? address : 0;
    this.firstPage = Math.floor(address / 4096);
    const pages = Math.ceil((address + length) / 4096) - this.firstPage;
    this.entryPages = kind.entryPages;
    this.table = new SparseTable(kind.entryPages > 0 ? Math.ceil(pages / kind.entryPages) : pages);
    this.isFixed = kind.isFixed;
    if (kind.isFixed) this.holes = this.table.length;
  }

  /** Whether [address, address + bytes) lies inside. */
  covers(address: number, bytes: number): boolean {
    return address >= this.address && address + bytes <= this.address + this.length;
  }
}

export class MkeyTable {
  /** A row is a region's, a window's or free. */
  private readonly rows: (Region | undefined)[] = [undefined];
  private readonly windows: (MemoryWindow | undefined)[] = [undefined];
  /** The last variant that each row's key had. */
  private readonly variants: number[] = [0];
  private readonly freeRows: number[] = [];
  /** Every region there has been, but for children of indirect keys, in order of creation. */
  readonly all: Region[] = [];

  /** Creates a region; `variant` is the low byte of its key. */
  create(
    pd: number,
    access: number,
    variant: number,
    address: number,
    length: number,
    kind: RegionKind = PLAIN_REGION,
  ): Region {
    const index = this.takeRow();
    this.variants[index] = variant & 0xff;
    const region = new Region(
      index,
      (index << 8) | this.variants[index],
      pd,
      access,
      address,
      length,
      kind,
    );
    this.rows[index] = region;
    if (!kind.isChild) this.all.push(region);
    return region;
  }

  /**
   * Gives the key of `region` another domain and rights, and, where a range is given, an empty table for
   * it, each entry of which must be set before the key can be used. What messages at work hold is the
   * region as it was, which is no more.
   */
  change(
    region: Region,
    pd: number,
    access: number,
    address = region.address + region.bias,
    length?: number,
  ): void {
    const bytes = length ?? region.length;
    const changed = new Region(region.index, region.key, pd, access, address, bytes);
    if (length === undefined) changed.table = region.table;
    else changed.holes = changed.table.length;
    changed.rnrNaks = region.rnrNaks;
    changed.bytesRetransmitted = region.bytesRetransmitted;
    changed.stallPs = region.stallPs;
    region.alive = false;
    this.rows[region.index] = changed;
    const place = this.all.indexOf(region);
    if (place >= 0) this.all[place] = changed;
  }

  /** Takes a region out: its key is wrong from now on. No window is bound to it. */
  destroy(region: Region): void {
    region.alive = false;
    region.table = NO_PAGES;
    this.rows[region.index] = undefined;
    this.freeRows.push(region.index);
  }

  /** The region of `key`, or undefined where index or variant is wrong. */
  find(key: number): Region | undefined {
    const region = this.rows[key >>> 8];
    return region !== undefined && region.key === key ? region : undefined;
  }

  /** The binding of the window of `key`, or undefined where the key is wrong or the window free. */
  findBinding(key: number): Binding | undefined {
    return this.findWindow(key)?.binding;
  }

  /** Whether windows are bound to a region: it cannot be destroyed then. */
  hasWindows(region: Region): boolean {
    return region.windows > 0;
  }

  /** Calls `visit` with each region of protection domain `pd`, in the order of their rows. */
  forEachOf(pd: number, visit: (region: Region) => void): void {
    for (const region of this.rows) if (region?.pd === pd) visit(region);
  }

  /** Whether a region or window belongs to protection domain `pd`. */
  isUsed(pd: number): boolean {
    return (
      this.rows.some((region) => region?.pd === pd) ||
      this.windows.some((window) => window?.pd === pd)
    );
  }

  /** Allocates a window, free; returns its R_Key. */
  createWindow(pd: number): number {
    const index = this.takeRow();
    this.variants[index] = (this.variants[index] + 1) & 0xff;
    const key = (index << 8) | this.variants[index];
    this.windows[index] = { key, pd, binding: undefined };
    return key;
  }

  /** Takes a window out, bound or not; false where the key is wrong. */
  destroyWindow(key: number): boolean {
    const window = this.findWindow(key);
    if (window === undefined) return false;
    release(window);
    this.variants[key >>> 8] = key & 0xff;
    this.windows[key >>> 8] = undefined;
    this.freeRows.push(key >>> 8);
    return true;
  }

  /**
   * A BIND_MW work request of queue pair `user`: gives the window with the index of `newKey` that key
   * and a range of the region of `lkey`. Returns the status of its completion. A window that is bound
   * must be invalidated first (o10-37.2.30).
   */
  bindWindow(
    user: WindowUser,
    newKey: number,
    lkey: number,
    address: number,
    length: number,
    access: number,
  ): number {
    const window = this.windows[newKey >>> 8];
    const region = this.find(lkey);
    if (window === undefined || region === undefined) return WC_MW_BIND_ERR;
    if (window.binding !== undefined || window.pd !== user.pd.number) return WC_MW_BIND_ERR;
    const binding = newBinding(user, region, address, length, access);
    if (binding === undefined) return WC_MW_BIND_ERR;
    window.key = newKey;
    window.binding = binding;
    region.windows++;
    return WC_SUCCESS;
  }

  /**
   * A LOCAL_INV work request of `user`; returns the status of its completion (WC_MW_BIND_ERR is the
   * "memory management operation error" of verbs). A free window may be invalidated again.
   */
  invalidateLocal(user: WindowUser, key: number): number {
    const window = this.findWindow(key);
    if (window === undefined || window.pd !== user.pd.number) return WC_MW_BIND_ERR;
    if (window.binding !== undefined && window.binding.user !== user) return WC_MW_BIND_ERR;
    release(window);
    return WC_SUCCESS;
  }

  /** A SEND with invalidate to `user`. False, and nothing is done, unless `user` has it bound. */
  invalidateRemote(user: WindowUser, key: number): boolean {
    const window = this.findWindow(key);
    if (window === undefined || window.binding?.user !== user) return false;
    release(window);
    return true;
  }

  private findWindow(key: number): MemoryWindow | undefined {
    const window = this.windows[key >>> 8];
    return window !== undefined && window.key === key ? window : undefined;
  }

  private takeRow(): number {
    const index = this.freeRows.pop() ?? this.rows.length;
    if (index === this.rows.length) {
      this.rows.push(undefined);
      this.windows.push(undefined);
      this.variants.push(0);
    }
    return index;
  }
}

/** Frees a window: messages that go through it come to an end. */
function release(window: MemoryWindow): void {
  if (window.binding === undefined) return;
  window.binding.alive = false;
  window.binding.region.windows--;
  window.binding = undefined;
}
