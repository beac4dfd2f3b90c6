/**
 * A table of 32-bit entries of which most may be 0: page tables of adapters and their driver's copies.
 *
 * Two levels. The directory has a place for each leaf of 16 entries; leaves that were never written
 * share leaf 0, which stays zero. So a table of which few entries were ever set takes a sixteenth of
 * the room of a plain one, a full one little more, and reading is two loads without a branch.
 * Sixteen because pages that are touched at random seldom have neighbours: with leaves of a page,
 * 1 % of the pages at random would fill nearly every leaf. Does not own what an entry means.
 */
const LEAF_SHIFT = 4;
const LEAF = 1 << LEAF_SHIFT;
const LEAF_MASK = LEAF - 1;
/** Leaves that a new table has room for. */
const FIRST_LEAVES = 4;

export class SparseTable {
  /** Number of each leaf, 0 where there is none. */
  private readonly directory: Int32Array;
  /** Entries of leaf n start at n * LEAF; those of leaf 0 are zero. */
  private leaves: Int32Array;
  private leafCount = 1;

  /** All of the `length` entries are 0. */
  constructor(readonly length: number) {
    const leaves = Math.ceil(length / LEAF);
    this.directory = new Int32Array(leaves);
    this.leaves = new Int32Array(Math.min(FIRST_LEAVES, leaves + 1) * LEAF);
  }

  /** The entry at `index`; 0 outside the table. */
  get(index: number): number {
    const leaf = this.directory[index >>> LEAF_SHIFT];
    return leaf === undefined ? 0 : this.leaves[leaf * LEAF + (index & LEAF_MASK)];
  }

  /** Sets the entry at `index`, which is inside the table. */
  set(index: number, entry: number): void {
    let leaf = this.directory[index >>> LEAF_SHIFT];
    if (leaf === 0) {
      if (entry === 0) return;
      leaf = this.newLeaf(index >>> LEAF_SHIFT);
    }
    this.leaves[leaf * LEAF + (index & LEAF_MASK)] = entry;
  }

  /** The first index from `from` on, and before `end`, whose entry is not 0; `end` where there is none. */
  nextUsed(from: number, end: number): number {
    const { directory, leaves } = this;
    let index = from;
    while (index < end) {
      const leaf = directory[index >>> LEAF_SHIFT];
      if (leaf === 0) {
        index = ((index >>> LEAF_SHIFT) + 1) << LEAF_SHIFT;
        continue;
      }
      if (leaves[leaf * LEAF + (index & LEAF_MASK)] !== 0) return index;
      index++;
    }
    return end;
  }

  private newLeaf(place: number): number {
    const leaf = this.leafCount++;
    if ((leaf + 1) * LEAF > this.leaves.length) {
      // Half as much again: of a large table, doubling would leave too much unused.
      const most = (this.directory.length + 1) * LEAF;
      const grown = Math.ceil(this.leafCount * 1.5) * LEAF;
      const leaves = new Int32Array(Math.min(most, grown));
      leaves.set(this.leaves);
      this.leaves = leaves;
    }
    this.directory[place] = leaf;
    return leaf;
  }
}
