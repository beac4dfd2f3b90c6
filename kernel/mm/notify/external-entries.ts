/**
 * Entries of page tables and TLBs outside of a process' own page table, by virtual page: storage for
 * the ledger (`external-references.ts`), which says what they mean.
 *
 * A page has as many entries as there are clients that map it, nearly always none or one. Pages that
 * have any are found through sparse tables of 1 GiB each, so that a range without entries is passed over
 * quickly and 64 GiB with few pages cost little.
 */
import { SparseTable } from '../../../transport/index.ts';

/** Pages of one sparse table: 1 GiB. */
const AREA_PAGES = 2 ** 18;
const NONE = 0;

export class ExternalEntries {
  /** Entries in all. */
  count = 0;
  private readonly areas = new Map<number, SparseTable>();
  private lastNumber = -1;
  private lastArea: SparseTable | undefined;
  /** Of each entry: who has it, the frame it names, the next entry of the same page. */
  private clients: Int32Array = new Int32Array(64);
  private frames: Int32Array = new Int32Array(64);
  private nexts: Int32Array = new Int32Array(64);
  private used = 1;
  private freeEntry = NONE;

  /** Adds an entry of client number `client` that maps `page` to `frame`. */
  add(page: number, client: number, frame: number): void {
    const area = this.areaOf(page) ?? this.newArea(page);
    const at = page % AREA_PAGES;
    const entry = this.take();
    this.clients[entry] = client;
    this.frames[entry] = frame;
    this.nexts[entry] = area.get(at);
    area.set(at, entry);
    this.count++;
  }

  /** Removes an entry of client number `client` that maps `page` to `frame`; false when there is none. */
  remove(page: number, client: number, frame: number): boolean {
    const area = this.areaOf(page);
    if (area === undefined) return false;
    const at = page % AREA_PAGES;
    let before = NONE;
    for (let entry = area.get(at); entry !== NONE; before = entry, entry = this.nexts[entry]) {
      if (this.clients[entry] !== client || this.frames[entry] !== frame) continue;
      if (before === NONE) area.set(at, this.nexts[entry]);
      else this.nexts[before] = this.nexts[entry];
      this.nexts[entry] = this.freeEntry;
      this.freeEntry = entry;
      this.count--;
      return true;
    }
    return false;
  }

  /** True when `client` has an entry at `page`. */
  has(page: number, client: number): boolean {
    let entry = this.areaOf(page)?.get(page % AREA_PAGES) ?? NONE;
    while (entry !== NONE && this.clients[entry] !== client) entry = this.nexts[entry];
    return entry !== NONE;
  }

  /** The first page from `from` on, and before `end`, that has an entry; `end` where there is none. */
  nextUsed(from: number, end: number): number {
    if (this.count === 0) return end;
    for (const number of this.areasOf(from, end)) {
      const start = number * AREA_PAGES;
      const first = Math.max(from - start, 0);
      const stop = Math.min(end - start, AREA_PAGES);
      const found = (this.areas.get(number) as SparseTable).nextUsed(first, stop);
      if (found < stop) return start + found;
    }
    return end;
  }

  /** Calls `visit` for each entry of `page`, newest first. */
  forEachOf(page: number, visit: (client: number, frame: number) => void): void {
    let entry = this.areaOf(page)?.get(page % AREA_PAGES) ?? NONE;
    for (; entry !== NONE; entry = this.nexts[entry])
      visit(this.clients[entry], this.frames[entry]);
  }

  /** Numbers of the areas that exist in a range, in order. */
  private areasOf(from: number, end: number): readonly number[] {
    const first = Math.floor(from / AREA_PAGES);
    const last = Math.floor((end - 1) / AREA_PAGES);
    if (first === last) return this.areas.has(first) ? [first] : [];
    const numbers = [...this.areas.keys()].filter((number) => number >= first && number <= last);
    return numbers.sort((a, b) => a - b);
  }

  private areaOf(page: number): SparseTable | undefined {
    const number = Math.floor(page / AREA_PAGES);
    if (number !== this.lastNumber) {
      this.lastNumber = number;
      this.lastArea = this.areas.get(number);
    }
    return this.lastArea;
  }

  private newArea(page: number): SparseTable {
    const area = new SparseTable(AREA_PAGES);
    this.areas.set(Math.floor(page / AREA_PAGES), area);
    this.lastNumber = -1;
    return area;
  }

  private take(): number {
    const entry = this.freeEntry;
    if (entry !== NONE) {
      this.freeEntry = this.nexts[entry];
      return entry;
    }
    if (this.used === this.clients.length) this.grow();
    return this.used++;
  }

  private grow(): void {
    this.clients = grown(this.clients);
    this.frames = grown(this.frames);
    this.nexts = grown(this.nexts);
  }
}

function grown(old: Int32Array): Int32Array {
  const array = new Int32Array(Math.ceil(old.length * 1.5));
  array.set(old);
  return array;
}
