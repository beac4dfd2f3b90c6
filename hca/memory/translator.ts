/**
 * From (region, address) to page frames, with what that costs.
 *
 * Answers HIT, MISS or DENIED and the latency to charge. It never faults by itself and changes
 * nothing but its cache: what a miss means is the caller's business.
 */
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_WRITE,
  BURST_MAX_PAGES,
  type FramePool,
  type TimePs,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import type { HcaProfile } from '../profile.ts';
import type { MkeyTable, Region } from './region.ts';
import { TranslationCache } from './translation-cache.ts';
import type { Binding, WindowUser } from './window.ts';

/** Who wants to touch memory: each needs another right of the region. */
export const LOCAL_READ = 0;
export const LOCAL_WRITE = ACCESS_LOCAL_WRITE;
export const REMOTE_WRITE = ACCESS_REMOTE_WRITE;

/** Answers of `pages`. */
export const XLT_HIT = 0;
export const XLT_MISS = 1;

export class Translator {
  /** After `pages` or `gather`: what the look-ups cost. */
  latencyPs: TimePs = 0;
  /** After XLT_HIT of `pages`: where the first byte is, and the page frame that follows. */
  frame = 0;
  within = 0;
  nextFrame = 0;
  /** After `checkRemote`: where the range starts in the region, and what allows its use. */
  address = 0;
  grant: Region | Binding | undefined;
  /** After a miss: address of the first byte that is not mapped for the access. */
  missAddress = 0;
  private readonly cache: TranslationCache;

  constructor(
    private readonly mkeys: MkeyTable,
    private readonly profile: HcaProfile,
    private readonly counters: Float64Array,
  ) {
    this.cache = new TranslationCache(profile.translationCacheEntries);
  }

  /**
   * The region that `key` names, if a queue pair of `pd` may use [address, address + bytes) of it
   * with `right`; undefined where key, protection domain, right or range is wrong.
   */
  check(
    key: number,
    pd: number,
    address: number,
    bytes: number,
    right: number,
  ): Region | undefined {
    const region = this.mkeys.find(key);
    if (region === undefined || region.pd !== pd) return undefined;
    if ((region.access & right) !== right || region.holes !== 0) return undefined;
    return region.covers(address, bytes) ? region : undefined;
  }

  /**
   * The region that a packet's `key` leads to, itself or through a window, if the peer of `user` may
   * use [address, address + bytes) with `right`. Sets `address` and `grant`.
   */
  checkRemote(
    key: number,
    user: WindowUser,
    address: number,
    bytes: number,
    right: number,
  ): Region | undefined {
    const region = this.grantRemote(key, user, right);
    if (region === undefined) return undefined;
    const grant = this.grant as Region | Binding;
    const start = grant.address;
    if (address < start || address + bytes > start + grant.length) return undefined;
    this.address = grant === region ? address : address + grant.bias;
    return region;
  }

  /** The same without a range: the whole of what the key names. Sets `grant`. */
  grantRemote(key: number, user: WindowUser, right: number): Region | undefined {
    const region = this.mkeys.find(key);
    if (region !== undefined) {
      this.grant = region;
      const isAllowed = region.pd === user.pd.number && (region.access & right) === right;
      return isAllowed && region.holes === 0 ? region : undefined;
    }
    const binding = this.mkeys.findBinding(key);
    if (binding === undefined || binding.user !== user) return undefined;
    this.grant = binding;
    return (binding.access & right) === right ? binding.region : undefined;
  }

  /** The region that `key` names, whoever asks; for statistics. */
  regionOf(key: number): Region | undefined {
    return this.mkeys.find(key);
  }

  /** Finds the one or two pages of a packet's `bytes` at `address`. */
  pages(region: Region, address: number, bytes: number, write: boolean): number {
    this.latencyPs = 0;
    const at = address + region.bias;
    const page = Math.floor(at / 4096);
    const need = write ? ACCESS_WRITE : ACCESS_READ;
    const entry = this.lookup(region, page);
    if ((entry & need) === 0) {
      this.missAddress = address;
      return XLT_MISS;
    }
    this.frame = entry >> 2;
    this.within = at - page * 4096;
    this.nextFrame = 0;
    if (this.within + bytes > 4096) {
      const next = this.lookup(region, page + 1);
      if ((next & need) === 0) {
        this.missAddress = (page + 1) * 4096 - region.bias;
        return XLT_MISS;
      }
      this.nextFrame = next >> 2;
      if (write) region.dirty?.note(page + 1 - region.firstPage);
    }
    if (write) region.dirty?.note(page - region.firstPage);
    return XLT_HIT;
  }

  /** A burst with the page list of `bytes` at `address`, for reading; 0 on a miss. */
  gather(pool: FramePool, region: Region, address: number, bytes: number): number {
    this.latencyPs = 0;
    const at = address + region.bias;
    const firstPage = Math.floor(at / 4096);
    const burst = pool.allocateBurst(at - firstPage * 4096, bytes);
    const count = pool.burstPages(burst);
    for (let i = 0; i < count; i++) {
      const entry = this.lookup(region, firstPage + i);
      if ((entry & ACCESS_READ) === 0) {
        pool.releaseBurst(burst);
        this.missAddress = i === 0 ? address : (firstPage + i) * 4096 - region.bias;
        return 0;
      }
      pool.burstEntries[burst * BURST_MAX_PAGES + i] = entry >> 2;
    }
    return burst;
  }

  /** True when every page of the range is present for reading; else sets missAddress. */
  isReadable(region: Region, address: number, bytes: number): boolean {
    const at = address + region.bias;
    const last = Math.floor((at + bytes - 1) / 4096);
    for (let page = Math.floor(at / 4096); page <= last; page++) {
      if ((this.entryOf(region, page) & ACCESS_READ) === 0) {
        this.missAddress = Math.max(address, page * 4096 - region.bias);
        return false;
      }
    }
    return true;
  }

  /**
   * The page frame that is reached at `address` through `key`, a region's, or -1 where there is none.
   * For whoever checks where data go: it costs nothing and changes nothing.
   */
  frameOf(key: number, address: number): number {
    const region = this.mkeys.find(key);
    const at = address + (region?.bias ?? 0);
    const entry = region === undefined ? 0 : this.entryOf(region, Math.floor(at / 4096));
    return entry === 0 ? -1 : entry >> 2;
  }

  /** Sets one entry of a region's table; no older copy of it is used from here on. */
  setEntry(region: Region, index: number, entry: number): void {
    if (region.holes !== 0 && region.table.get(index) === 0 && entry !== 0) region.holes--;
    region.table.set(index, entry);
    this.cache.drop(region.index, region.entryPages > 0 ? index : region.firstPage + index);
  }

  /** Forgets every cached translation of a region. */
  forget(region: Region): void {
    this.cache.dropRegion(region.index);
  }

  /** The entry of a page as the tables have it, past the cache and at no cost. */
  private entryOf(region: Region, page: number): number {
    if (region.entryPages === 0) return region.table.get(page - region.firstPage);
    const child = this.childOf(region.table.get(entryIndex(region, page)));
    return child === undefined ? 0 : child.table.get(page - child.firstPage);
  }

  /** One page through the cache. Several misses of one transfer overlap, so they cost one. */
  private lookup(region: Region, page: number): number {
    if (region.entryPages > 0) return this.lookupIndirect(region, page);
    const cached = this.cache.lookup(region.index, page);
    if (cached !== 0) {
      this.counters[C.translation_cache_hits]++;
      return cached;
    }
    this.charge(1);
    const entry = region.table.get(page - region.firstPage);
    if (entry !== 0) this.cache.insert(region.index, page, entry);
    return entry;
  }

  /**
   * The same through an indirect key: first the child's key, then the page in the child. The second
   * look-up cannot begin before the first has ended, so two misses of one page cost two.
   */
  private lookupIndirect(region: Region, page: number): number {
    const { cache, counters } = this;
    const index = entryIndex(region, page);
    let key = cache.lookup(region.index, index);
    let misses = 0;
    if (key !== 0) counters[C.translation_cache_hits]++;
    else {
      this.charge(++misses);
      key = region.table.get(index);
      if (key !== 0) cache.insert(region.index, index, key);
    }
    const child = this.childOf(key);
    if (child === undefined) return 0;
    const cached = cache.lookup(child.index, page);
    if (cached !== 0) {
      counters[C.translation_cache_hits]++;
      return cached;
    }
    this.charge(++misses);
    const entry = child.table.get(page - child.firstPage);
    if (entry !== 0) cache.insert(child.index, page, entry);
    return entry;
  }

  /** The plain key that an entry of an indirect one names; undefined for the null key, or one that is gone. */
  private childOf(key: number): Region | undefined {
    const child = this.mkeys.find(key);
    return child === undefined || child.entryPages > 0 ? undefined : child;
  }

  /** Counts a miss, the `depth`-th one behind another. */
  private charge(depth: number): void {
    this.counters[C.translation_cache_misses]++;
    const latencyPs = depth * this.profile.translationMissPs;
    if (latencyPs > this.latencyPs) this.latencyPs = latencyPs;
  }
}

/** Which entry of an indirect key stands for a page. */
function entryIndex(region: Region, page: number): number {
  return Math.floor((page - region.firstPage) / region.entryPages);
}
