/**
 * Memory regions of the adapter and the table that finds them, and windows, by key (MPT).
 *
 * A key is `index << 8 | variant` (as in verbs headers and mlx5): the index finds the row, the
 * variant must match, so a key of a region that was destroyed and whose row is used again is wrong.
 * lkey and rkey of a region are the same number. Each region has its own page table (MTT): one entry
 * for each 4 KiB page, `frame << 2 | write << 1 | read`, 0 where nothing is present.
 */
import { ACCESS_ZERO_BASED, WC_MW_BIND_ERR, WC_SUCCESS } from '../../transport/index.ts';
import { type Binding, type MemoryWindow, newBinding, type WindowUser } from './window.ts';

const NO_PAGES = new Int32Array(0);

export class Region {
  /** Page table; entry i is page `firstPage + i` of the host's address space. Empty once destroyed. */
  mtt: Int32Array;
  readonly firstPage: number;
  /** First address of the region as work requests and packets name it. */
  readonly address: number;
  /** What is added to such an address to have the host's: above 0 for a zero-based region. */
  readonly bias: number;
  /** False once destroyed; the row and its counters stay for the report. */
  alive = true;
  /** Windows that are bound to it. */
  windows = 0;

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
  ) {
    const isZeroBased = (access & ACCESS_ZERO_BASED) !== 0;
    this.address = isZeroBased ? 0 : address;
    this.bias = isZeroBased ? address : 0;
    this.firstPage = Math.floor(address / 4096);
    this.mtt = new Int32Array(Math.ceil((address + length) / 4096) - this.firstPage);
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
  /** Every region there has been, in order of creation. */
  readonly all: Region[] = [];

  /** Creates a region; `variant` is the low byte of its key. */
  create(pd: number, access: number, variant: number, address: number, length: number): Region {
    const index = this.takeRow();
    this.variants[index] = variant & 0xff;
    const region = new Region(
      index,
      (index << 8) | this.variants[index],
      pd,
      access,
      address,
      length,
    );
    this.rows[index] = region;
    this.all.push(region);
    return region;
  }

  /** Takes a region out: its key is wrong from now on. No window is bound to it. */
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

  /** The binding of the window of `key`, or undefined where the key is wrong or the window free. */
  findBinding(key: number): Binding | undefined {
    return this.findWindow(key)?.binding;
  }

  /** Whether windows are bound to a region: it cannot be destroyed then. */
  hasWindows(region: Region): boolean {
    return region.windows > 0;
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
