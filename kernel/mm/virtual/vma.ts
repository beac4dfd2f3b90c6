/**
 * The mappings of an address space: a sorted list of virtual memory areas (mm/vma.c).
 *
 * Areas never overlap, and neighbours that are alike (rights, flags, and the same file at the next
 * offset) are one area. Pure bookkeeping: nothing here touches page tables or takes time.
 */
import type { MappedFile } from '../files/mapped-file.ts';
import { PAGE_BYTES } from '../physical/frames.ts';

/** PROT_* bits. */
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;

/** VM_* bits of include/linux/mm.h: writes are seen by everybody who maps the same pages. */
export const VM_SHARED = 0x8;
/** Grows towards lower addresses: a stack. */
export const VM_GROWSDOWN = 0x100;
/** Pages that are not RAM under the memory manager: not counted, never reclaimed (remap_pfn_range). */
export const VM_PFNMAP = 0x400;
/** Locked in memory by mlock. */
export const VM_LOCKED = 0x2000;
/** Read-ahead hints of madvise: sequential, random. */
export const VM_SEQ_READ = 0x8000;
export const VM_RAND_READ = 0x10000;
/** A child of fork does not get it (MADV_DONTFORK). */
export const VM_DONTCOPY = 0x20000;
/** Counts towards the memory that the machine has promised (vm_enough_memory). */
export const VM_ACCOUNT = 0x100000;
/** Swap space is not set aside for it (MAP_NORESERVE). */
export const VM_NORESERVE = 0x200000;
/** Made of huge pages of the pool (MAP_HUGETLB). */
export const VM_HUGETLB = 0x400000;
/** Huge pages are welcome (MADV_HUGEPAGE). */
export const VM_HUGEPAGE = 0x20000000;
/** Huge pages are not wanted (MADV_NOHUGEPAGE). */
export const VM_NOHUGEPAGE = 0x40000000;

/** What a mapping is, besides where. */
export interface VmaKind {
  /** PROT_* bits. */
  readonly prot: number;
  /** VM_* bits. */
  readonly flags: number;
  /** What it maps; undefined for private anonymous memory. */
  readonly file: MappedFile | undefined;
}

/** Bytes [start, end), both on page boundaries. */
export interface Vma {
  start: number;
  end: number;
  prot: number;
  flags: number;
  file: MappedFile | undefined;
  /** Byte of the file that stands at `start`; 0 without a file. */
  fileOffset: number;
}

/** Page of its file that virtual page `page` of a file mapping shows. */
export function filePageOf(vma: Vma, page: number): number {
  return page - vma.start / PAGE_BYTES + vma.fileOffset / PAGE_BYTES;
}

export class VmaList {
  private areas: Vma[] = [];
  /** Sum of the lengths of all areas (total_vm), of locked ones (locked_vm) and of accounted ones, in pages. */
  totalPages = 0;
  lockedPages = 0;
  accountedPages = 0;
  /** Called when an address within an area becomes the end of one and the start of another. */
  onCut: (address: number) => void = () => {};
  private last: Vma | undefined;

  /** Areas (map_count). */
  get count(): number {
    return this.areas.length;
  }

  /** The area that holds `address`. */
  find(address: number): Vma | undefined {
    const { last } = this;
    if (last !== undefined && last.start <= address && address < last.end) return last;
    const area = this.areas[this.indexFrom(address)];
    if (area === undefined || area.start > address) return undefined;
    this.last = area;
    return area;
  }

  /** The area that holds `address`, or else the next one above it. */
  findFrom(address: number): Vma | undefined {
    return this.areas[this.indexFrom(address)];
  }

  /** True when every byte of [start, end) is mapped. */
  covers(start: number, end: number): boolean {
    let at = start;
    for (let i = this.indexFrom(start); at < end; i++) {
      const area = this.areas[i];
      if (area === undefined || area.start > at) return false;
      at = area.end;
    }
    return true;
  }

  /** How many more areas there are when the ends of [start, end) become boundaries. */
  cuts(start: number, end: number): number {
    const first = this.areas[this.indexFrom(start)];
    const last = this.areas[this.indexFrom(end)];
    const atStart = first !== undefined && first.start < start;
    const atEnd = last !== undefined && last.start < end;
    return (atStart ? 1 : 0) + (atEnd ? 1 : 0);
  }

  /** The areas that have a byte of [start, end), in order. */
  overlapping(start: number, end: number): Vma[] {
    const found: Vma[] = [];
    for (let i = this.indexFrom(start); i < this.areas.length; i++) {
      const area = this.areas[i] as Vma;
      if (area.start >= end) break;
      found.push(area);
    }
    return found;
  }

  /** Adds [start, end), which must be free, and merges it with its neighbours. */
  insert(start: number, end: number, kind: VmaKind, fileOffset = 0): void {
    const index = this.indexFrom(start);
    const { prot, flags, file } = kind;
    const area = { start, end, prot, flags, file, fileOffset: file === undefined ? 0 : fileOffset };
    this.areas.splice(index, 0, area);
    this.account(start, end, flags, 1);
    this.last = undefined;
    this.merge(index);
    if (index > 0) this.merge(index - 1);
  }

  /** Takes [start, end) out, cutting areas that reach beyond it. */
  remove(start: number, end: number): void {
    this.split(start);
    this.split(end);
    const from = this.indexFrom(start);
    let to = from;
    while (to < this.areas.length && (this.areas[to] as Vma).end <= end) {
      const area = this.areas[to++] as Vma;
      this.account(area.start, area.end, area.flags, -1);
    }
    this.areas.splice(from, to - from);
    this.last = undefined;
  }

  /** Changes what is mapped of [start, end): `change` is called with each area, cut to the range. */
  change(start: number, end: number, change: (area: Vma) => void): void {
    this.split(start);
    this.split(end);
    const from = this.indexFrom(start);
    let to = from;
    while (to < this.areas.length && (this.areas[to] as Vma).end <= end) {
      const area = this.areas[to++] as Vma;
      this.account(area.start, area.end, area.flags, -1);
      change(area);
      this.account(area.start, area.end, area.flags, 1);
    }
    for (let i = to; i >= from - 1; i--) this.merge(i);
    this.last = undefined;
  }

  /** Lets `area` begin lower, at `start`: a stack that grows. Nothing may be mapped there. */
  growDown(area: Vma, start: number): void {
    this.account(start, area.start, area.flags, 1);
    area.start = start;
  }

  /** The highest gap of `length` bytes that ends at or below `ceiling` and lies above `floor`; -1 when there is none. */
  findGap(length: number, ceiling: number, floor: number): number {
    let top = ceiling;
    for (let i = this.indexFrom(ceiling); i >= 0; i--) {
      const area = this.areas[i];
      if (area === undefined || area.start >= top) continue;
      if (top - Math.max(area.end, floor) >= length) return top - length;
      top = Math.min(top, area.start);
    }
    return top - floor >= length ? top - length : -1;
  }

  /** The areas in order of address. */
  list(): readonly Readonly<Vma>[] {
    return this.areas;
  }

  private account(start: number, end: number, flags: number, sign: 1 | -1): void {
    const pages = (sign * (end - start)) / PAGE_BYTES;
    this.totalPages += pages;
    if (flags & VM_LOCKED) this.lockedPages += pages;
    if (flags & VM_ACCOUNT) this.accountedPages += pages;
  }

  /** Index of the first area that ends above `address`. */
  private indexFrom(address: number): number {
    let low = 0;
    let high = this.areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.areas[middle] as Vma).end > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Makes `address` a boundary. */
  private split(address: number): void {
    const index = this.indexFrom(address);
    const area = this.areas[index];
    if (area === undefined || area.start >= address) return;
    this.onCut(address);
    this.areas.splice(index, 0, { ...area, end: address });
    if (area.file !== undefined) area.fileOffset += address - area.start;
    area.start = address;
  }

  /** Joins area `index` with the next one where they touch and are alike. */
  private merge(index: number): void {
    const area = this.areas[index];
    const next = this.areas[index + 1];
    if (!area || !next || area.end !== next.start) return;
    if (area.prot !== next.prot || area.flags !== next.flags || area.file !== next.file) return;
    if (area.flags & VM_PFNMAP) return;
    if (area.file && area.fileOffset + area.end - area.start !== next.fileOffset) return;
    area.end = next.end;
    this.areas.splice(index + 1, 1);
  }
}
