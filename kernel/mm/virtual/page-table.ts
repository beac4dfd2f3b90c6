/**
 * The page table of a process: virtual page number to page table entry, four levels of 512 entries as
 * on x86-64 (PGD, PUD, PMD, PTE).
 *
 * An entry is an integer: 0 for nothing; a page frame with PTE_PRESENT; a swap slot with PTE_SWAP; or
 * a frame that is on its way to another one with PTE_MIGRATION (a migration entry of linux/swapops.h).
 * A PMD may hold a huge page of 512 frames instead of a table: `get` answers for each of its pages as
 * if they had entries, `set` needs it to be split first.
 *
 * Pure bookkeeping: no counts of frames, no notifiers, no time.
 */
import { assert } from '../../../transport/index.ts';
import { HUGE_PAGES } from '../physical/free-lists.ts';

/** Flag bits of an entry; names and meanings as on x86. */
export const PTE_PRESENT = 1;
/** Of a present entry and of a migration entry: may be written. */
export const PTE_WRITE = 2;
export const PTE_DIRTY = 4;
export const PTE_ACCESSED = 8;
/** Not present: the entry names a swap slot. */
export const PTE_SWAP = 16;
/** Not present: the entry names a frame that is being migrated. PTE_DIRTY keeps its meaning. */
export const PTE_MIGRATION = PTE_SWAP | PTE_ACCESSED;
const PTE_SHIFT = 5;

const TABLE_ENTRIES = 512;
/** Empty tables that are kept for the next use. */
const MAX_SPARE = 8;

/** An entry for frame or slot `number` with `flags`. */
export function makePte(number: number, flags: number): number {
  return (number << PTE_SHIFT) | flags;
}

/** The frame, or the swap slot, of an entry. */
export function pteNumber(pte: number): number {
  return pte >>> PTE_SHIFT;
}

/** True for an entry that names a swap slot. */
export function isSwapPte(pte: number): boolean {
  return (pte & (PTE_PRESENT | PTE_MIGRATION)) === PTE_SWAP;
}

/** True for a migration entry. */
export function isMigrationPte(pte: number): boolean {
  return (pte & (PTE_PRESENT | PTE_MIGRATION)) === PTE_MIGRATION;
}

/** The lowest table: 512 pages, or one huge page in its place. */
interface Leaf {
  readonly entries: Int32Array;
  /** Entries that are not 0; an empty leaf is given back. */
  used: number;
  /** Entry of the huge page, with the number of its first frame; 0 for a table. */
  huge: number;
}

interface Upper<T> {
  readonly entries: (T | undefined)[];
  used: number;
}

const NO_ENTRIES = new Int32Array(0);

function newUpper<T>(): Upper<T> {
  return { entries: new Array<T | undefined>(TABLE_ENTRIES).fill(undefined), used: 0 };
}

export class PageTable {
  /** PGD of PUDs of PMDs of leaves. */
  private readonly root: Upper<Upper<Upper<Leaf>>> = newUpper();
  /** Tables that are empty again, for the next that are wanted: programs map and unmap in turns. */
  private readonly spareTables: Int32Array[] = [];
  private readonly spareUppers: Upper<never>[] = [];
  private lastNumber = -1;
  private lastLeaf: Leaf | undefined;
  /** Pages that are present, now and at most so far; a huge page counts 512. */
  presentPages = 0;
  presentPeak = 0;
  /** Pages that tables take up, the root not counted (mm_pgtables_bytes). */
  tablePages = 0;

  /** The entry of virtual page `page`. */
  get(page: number): number {
    const leaf = this.leafOf(Math.floor(page / TABLE_ENTRIES));
    if (leaf === undefined) return 0;
    const index = page % TABLE_ENTRIES;
    return leaf.huge === 0 ? leaf.entries[index] : leaf.huge + (index << PTE_SHIFT);
  }

  /** Sets the entry of virtual page `page`, which no huge page may cover; 0 takes it out. */
  set(page: number, pte: number): void {
    const number = Math.floor(page / TABLE_ENTRIES);
    let leaf = this.leafOf(number);
    if (leaf === undefined) {
      if (pte === 0) return;
      const entries = this.spareTables.pop() ?? new Int32Array(TABLE_ENTRIES);
      leaf = { entries, used: 0, huge: 0 };
      this.addLeaf(number, leaf);
    }
    assert(leaf.huge === 0, 'an entry is set inside a huge page');
    const index = page % TABLE_ENTRIES;
    const before = leaf.entries[index];
    leaf.entries[index] = pte;
    if (before === 0 && pte !== 0) leaf.used++;
    else if (before !== 0 && pte === 0 && --leaf.used === 0) this.dropLeaf(number);
    this.count((pte & PTE_PRESENT) - (before & PTE_PRESENT));
  }

  /** Sets flag bits in the present entry of `page`, or of the huge page that covers it. */
  mark(page: number, flags: number): void {
    const leaf = this.leafOf(Math.floor(page / TABLE_ENTRIES)) as Leaf;
    if (leaf.huge === 0) leaf.entries[page % TABLE_ENTRIES] |= flags;
    else leaf.huge |= flags;
  }

  /** Puts a table of 512 entries for the single pages in place of the huge page around `page`. */
  splitHuge(page: number): void {
    const number = Math.floor(page / TABLE_ENTRIES);
    const { huge } = this.leafOf(number) as Leaf;
    assert(huge !== 0, 'no huge page is there to split');
    this.setHuge(page, 0);
    const entries = new Int32Array(TABLE_ENTRIES);
    for (let index = 0; index < TABLE_ENTRIES; index++)
      entries[index] = huge + (index << PTE_SHIFT);
    this.addLeaf(number, { entries, used: TABLE_ENTRIES, huge: 0 });
    this.count((huge & PTE_PRESENT) * HUGE_PAGES);
  }

  /** The entry of the huge page that covers `page`, its frame being the first one; 0 when none does. */
  getHuge(page: number): number {
    return this.leafOf(Math.floor(page / TABLE_ENTRIES))?.huge ?? 0;
  }

  /** Puts a huge page over the 512 pages around `page`, where nothing may be; 0 takes it out. */
  setHuge(page: number, pte: number): void {
    const number = Math.floor(page / TABLE_ENTRIES);
    const leaf = this.leafOf(number);
    if (leaf === undefined) {
      if (pte === 0) return;
      this.addLeaf(number, { entries: NO_ENTRIES, used: 0, huge: pte });
      this.count((pte & PTE_PRESENT) * HUGE_PAGES);
      return;
    }
    assert(leaf.huge !== 0, 'a huge page is put over a table');
    this.count(((pte & PTE_PRESENT) - (leaf.huge & PTE_PRESENT)) * HUGE_PAGES);
    leaf.huge = pte;
    if (pte === 0) this.dropLeaf(number);
  }

  /** The first page from `page` on, below `end`, whose entry is not 0; `end` when there is none. */
  nextUsed(page: number, end: number): number {
    let at = page;
    while (at < end) {
      const number = Math.floor(at / TABLE_ENTRIES);
      const leaf = this.leafOf(number);
      if (leaf === undefined) {
        at = this.skipAbsent(number) * TABLE_ENTRIES;
        continue;
      }
      if (leaf.huge !== 0) return at;
      const stop = Math.min(end - number * TABLE_ENTRIES, TABLE_ENTRIES);
      const { entries } = leaf;
      for (let index = at - number * TABLE_ENTRIES; index < stop; index++) {
        if (entries[index] !== 0) return number * TABLE_ENTRIES + index;
      }
      at = (number + 1) * TABLE_ENTRIES;
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

  private leafOf(number: number): Leaf | undefined {
    if (number !== this.lastNumber) {
      this.lastNumber = number;
      this.lastLeaf =
        this.root.entries[number >>> 18]?.entries[(number >>> 9) & 511]?.entries[number & 511];
    }
    return this.lastLeaf;
  }

  /** The next leaf number after absent leaf `number` that could be there: past the highest absent level. */
  private skipAbsent(number: number): number {
    const pud = this.root.entries[number >>> 18];
    if (pud === undefined) return ((number >>> 18) + 1) * 2 ** 18;
    const pmd = pud.entries[(number >>> 9) & 511];
    if (pmd === undefined) return ((number >>> 9) + 1) * 512;
    return number + 1;
  }

  private addLeaf(number: number, leaf: Leaf): void {
    let pud = this.root.entries[number >>> 18];
    if (pud === undefined) {
      pud = this.takeUpper();
      this.root.entries[number >>> 18] = pud;
      this.tablePages++;
    }
    let pmd = pud.entries[(number >>> 9) & 511];
    if (pmd === undefined) {
      pmd = this.takeUpper();
      pud.entries[(number >>> 9) & 511] = pmd;
      pud.used++;
      this.tablePages++;
    }
    pmd.entries[number & 511] = leaf;
    pmd.used++;
    if (leaf.huge === 0) this.tablePages++;
    this.lastNumber = number;
    this.lastLeaf = leaf;
  }

  private dropLeaf(number: number): void {
    const pud = this.root.entries[number >>> 18] as Upper<Upper<Leaf>>;
    const pmd = pud.entries[(number >>> 9) & 511] as Upper<Leaf>;
    const { entries } = pmd.entries[number & 511] as Leaf;
    if (entries !== NO_ENTRIES) {
      this.tablePages--;
      if (this.spareTables.length < MAX_SPARE) this.spareTables.push(entries);
    }
    pmd.entries[number & 511] = undefined;
    if (--pmd.used === 0) {
      pud.entries[(number >>> 9) & 511] = undefined;
      this.tablePages--;
      this.keepUpper(pmd);
      if (--pud.used === 0) {
        this.root.entries[number >>> 18] = undefined;
        this.tablePages--;
        this.keepUpper(pud);
      }
    }
    this.lastNumber = -1;
    this.lastLeaf = undefined;
  }

  private takeUpper<T>(): Upper<T> {
    return this.spareUppers.pop() ?? newUpper();
  }

  private keepUpper(upper: Upper<unknown>): void {
    if (this.spareUppers.length < MAX_SPARE) this.spareUppers.push(upper as Upper<never>);
  }

  private count(pages: number): void {
    this.presentPages += pages;
    if (this.presentPages > this.presentPeak) this.presentPeak = this.presentPages;
  }
}
