/**
 * The mappings of an address space: a sorted list of virtual memory areas (mm/vma.c).
 *
 * Areas never overlap, and neighbours with equal rights are one area, as Linux merges anonymous
 * mappings. All mappings are private and anonymous; a file mapping of a recorded program becomes one.
 * Pure bookkeeping: nothing here touches page tables or takes time.
 */

/** PROT_* bits. */
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;

/** Bytes [start, end), both on page boundaries. */
export interface Vma {
  start: number;
  end: number;
  prot: number;
}

export class VmaList {
  private areas: Vma[] = [];

  /** The area that holds `address`. */
  find(address: number): Vma | undefined {
    const area = this.areas[this.indexFrom(address)];
    return area !== undefined && area.start <= address ? area : undefined;
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

  /** Adds [start, end), which must be free, and merges it with its neighbours. */
  insert(start: number, end: number, prot: number): void {
    const index = this.indexFrom(start);
    this.areas.splice(index, 0, { start, end, prot });
    this.merge(index);
    if (index > 0) this.merge(index - 1);
  }

  /** Takes [start, end) out, cutting areas that reach beyond it. */
  remove(start: number, end: number): void {
    this.split(start);
    this.split(end);
    const from = this.indexFrom(start);
    let to = from;
    while (to < this.areas.length && this.areas[to].end <= end) to++;
    this.areas.splice(from, to - from);
  }

  /** Gives what is mapped of [start, end) other rights. */
  protect(start: number, end: number, prot: number): void {
    this.split(start);
    this.split(end);
    const from = this.indexFrom(start);
    let to = from;
    while (to < this.areas.length && this.areas[to].end <= end) this.areas[to++].prot = prot;
    for (let i = to; i >= from - 1; i--) this.merge(i);
  }

  /** The areas in order of address. */
  list(): readonly Readonly<Vma>[] {
    return this.areas;
  }

  /** Index of the first area that ends above `address`. */
  private indexFrom(address: number): number {
    let low = 0;
    let high = this.areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.areas[middle].end > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Makes `address` a boundary. */
  private split(address: number): void {
    const index = this.indexFrom(address);
    const area = this.areas[index];
    if (area === undefined || area.start >= address) return;
    this.areas.splice(index, 0, { start: area.start, end: address, prot: area.prot });
    area.start = address;
  }

  /** Joins area `index` with the next one where they touch and are alike. */
  private merge(index: number): void {
    const area = this.areas[index];
    const next = this.areas[index + 1];
    if (!area || !next || area.end !== next.start || area.prot !== next.prot) return;
    area.end = next.end;
    this.areas.splice(index + 1, 1);
  }
}
