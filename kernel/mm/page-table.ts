/**
 * The page table of a process: virtual page number to page table entry.
 *
 * An entry is an integer: 0 for nothing; otherwise a page frame with PTE_PRESENT, or a swap slot with
 * PTE_SWAP, shifted over the flag bits. Entries stand in leaves of 512, as on x86-64; the upper levels
 * are one map from leaf number to leaf with the last leaf remembered, since accesses cluster.
 */

/** Flag bits of an entry; names and meanings as on x86. */
export const PTE_PRESENT = 1;
export const PTE_WRITE = 2;
export const PTE_DIRTY = 4;
export const PTE_ACCESSED = 8;
/** The entry names a swap slot. */
export const PTE_SWAP = 16;
const PTE_SHIFT = 5;

const LEAF_PAGES = 512;

/** An entry for frame or slot `number` with `flags`. */
export function makePte(number: number, flags: number): number {
  return (number << PTE_SHIFT) | flags;
}

/** The frame, or the swap slot, of an entry. */
export function pteNumber(pte: number): number {
  return pte >>> PTE_SHIFT;
}

interface Leaf {
  readonly entries: Int32Array;
  /** Entries that are not 0; an empty leaf is given back. */
  used: number;
}

export class PageTable {
  private readonly leaves = new Map<number, Leaf>();
  private lastNumber = -1;
  private lastLeaf: Leaf | undefined;
  /** Pages that are present, now and at most so far. */
  presentPages = 0;
  presentPeak = 0;

  /** The entry of virtual page `page`. */
  get(page: number): number {
    const leaf = this.leafOf(page);
    return leaf === undefined ? 0 : leaf.entries[page % LEAF_PAGES];
  }

  /** Sets the entry of virtual page `page`; 0 takes it out. */
  set(page: number, pte: number): void {
    let leaf = this.leafOf(page);
    if (leaf === undefined) {
      if (pte === 0) return;
      leaf = { entries: new Int32Array(LEAF_PAGES), used: 0 };
      const number = Math.floor(page / LEAF_PAGES);
      this.leaves.set(number, leaf);
      this.lastNumber = number;
      this.lastLeaf = leaf;
    }
    const index = page % LEAF_PAGES;
    const before = leaf.entries[index];
    leaf.entries[index] = pte;
    if (before === 0 && pte !== 0) leaf.used++;
    else if (before !== 0 && pte === 0 && --leaf.used === 0) this.drop(page);
    this.presentPages += (pte & PTE_PRESENT) - (before & PTE_PRESENT);
    if (this.presentPages > this.presentPeak) this.presentPeak = this.presentPages;
  }

  /** The first page from `page` on, below `end`, whose entry is not 0; `end` when there is none. */
  nextUsed(page: number, end: number): number {
    let at = page;
    while (at < end) {
      const leaf = this.leafOf(at);
      const leafEnd = (Math.floor(at / LEAF_PAGES) + 1) * LEAF_PAGES;
      if (leaf !== undefined) {
        for (; at < leafEnd && at < end; at++) if (leaf.entries[at % LEAF_PAGES] !== 0) return at;
      }
      at = leafEnd;
    }
    return end;
  }

  /** Calls `visit` for each page of [first, end) whose entry is not 0, in order; it may change it. */
  forEachUsed(first: number, end: number, visit: (page: number, pte: number) => void): void {
    let page = this.nextUsed(first, end);
    while (page < end) {
      visit(page, this.get(page));
      page = this.nextUsed(page + 1, end);
    }
  }

  private leafOf(page: number): Leaf | undefined {
    const number = Math.floor(page / LEAF_PAGES);
    if (number !== this.lastNumber) {
      this.lastNumber = number;
      this.lastLeaf = this.leaves.get(number);
    }
    return this.lastLeaf;
  }

  private drop(page: number): void {
    this.leaves.delete(Math.floor(page / LEAF_PAGES));
    this.lastNumber = -1;
    this.lastLeaf = undefined;
  }
}
