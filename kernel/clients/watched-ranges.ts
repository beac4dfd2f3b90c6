/**
 * Ranges of addresses that somebody watches, each under a number of its own: what ummunotify, the
 * filters of the perf ring and the malloc hooks search when memory changes.
 *
 * Sorted by start, as the tree of the ummunotify driver is; ranges may overlap. Pure bookkeeping: what
 * a search costs is charged by who searches, from `visited`.
 */

/** Bytes [start, end) under the number `cookie`. */
export interface WatchedRange {
  readonly cookie: number;
  readonly start: number;
  readonly end: number;
}

export class WatchedRanges<R extends WatchedRange> {
  private readonly sorted: R[] = [];
  private readonly byCookie = new Map<number, R>();
  /** Length of the longest range so far: nothing that begins further below can reach an address. */
  private longestBytes = 0;

  get size(): number {
    return this.byCookie.size;
  }

  get(cookie: number): R | undefined {
    return this.byCookie.get(cookie);
  }

  /** All ranges, by start. */
  list(): readonly R[] {
    return this.sorted;
  }

  /** Adds a range; false, and nothing is added, when its cookie is taken. */
  add(range: R): boolean {
    if (this.byCookie.has(range.cookie)) return false;
    this.byCookie.set(range.cookie, range);
    this.sorted.splice(this.firstFrom(range.start), 0, range);
    this.longestBytes = Math.max(this.longestBytes, range.end - range.start);
    return true;
  }

  /** Takes a range out and returns it; undefined when there is none under that cookie. */
  remove(cookie: number): R | undefined {
    const range = this.byCookie.get(cookie);
    if (range === undefined) return undefined;
    this.byCookie.delete(cookie);
    let at = this.firstFrom(range.start);
    while (this.sorted[at] !== range) at++;
    this.sorted.splice(at, 1);
    return range;
  }

  /** Calls `hit` for each range that has a byte of [start, end), by start; `hit` must not change the set. */
  forEachOverlap(start: number, end: number, hit: (range: R) => void): void {
    const { sorted } = this;
    for (let at = this.firstFrom(start - this.longestBytes); at < sorted.length; at++) {
      const range = sorted[at] as R;
      if (range.start >= end) return;
      if (range.end > start) hit(range);
    }
  }

  /** The first range that holds [start, end) as a whole and that `suits`. */
  findCover(start: number, end: number, suits: (range: R) => boolean): R | undefined {
    const { sorted } = this;
    for (let at = this.firstFrom(end - this.longestBytes); at < sorted.length; at++) {
      const range = sorted[at] as R;
      if (range.start > start) return undefined;
      if (range.end >= end && suits(range)) return range;
    }
    return undefined;
  }

  /**
   * Ranges that a walk in order of start looks at before it may stop: those that begin below `end`.
   * The ummunotify driver walks its tree from the first range on.
   */
  visited(end: number): number {
    return this.firstFrom(end);
  }

  /** Index of the first range that begins at `start` or above. */
  private firstFrom(start: number): number {
    let low = 0;
    let high = this.sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.sorted[middle] as R).start < start) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
