/**
 * Half-open intervals, found by overlap in logarithmic time: the interval tree of lib/interval_tree.c, as
 * a treap whose priorities are hashes of the order of insertion, so that it is balanced and the same in
 * every run. Knows nothing of what the intervals are.
 */

/** What the tree holds. It must not change while it is in there. */
export interface Interval {
  readonly start: number;
  readonly end: number;
}

class Branch<T extends Interval> {
  left: Branch<T> | undefined;
  right: Branch<T> | undefined;
  /** The largest end of this interval and all below it. */
  maxEnd: number;
  readonly priority: number;

  constructor(
    readonly item: T,
    /** Intervals of equal start stand in the order of their insertion. */
    readonly number: number,
  ) {
    this.maxEnd = item.end;
    this.priority = hash(number);
  }
}

export class IntervalTree<T extends Interval> {
  private root: Branch<T> | undefined;
  private readonly branches = new Map<T, Branch<T>>();
  private inserted = 0;

  get size(): number {
    return this.branches.size;
  }

  /** Intervals one below the other at most. */
  get depth(): number {
    return depthOf(this.root);
  }

  has(item: T): boolean {
    return this.branches.has(item);
  }

  insert(item: T): void {
    const branch = new Branch(item, this.inserted++);
    this.branches.set(item, branch);
    this.root = insertInto(this.root, branch);
  }

  /** Removes `item`; false when it is not there. */
  remove(item: T): boolean {
    const branch = this.branches.get(item);
    if (branch === undefined) return false;
    this.branches.delete(item);
    this.root = removeFrom(this.root, branch);
    return true;
  }

  /** True when an interval overlaps [start, end). */
  hits(start: number, end: number): boolean {
    let at = this.root;
    while (at !== undefined && at.maxEnd > start) {
      if (at.item.start < end && start < at.item.end) return true;
      // If the left side reaches beyond the start and overlaps nothing, then nothing on the right does.
      at = at.left !== undefined && at.left.maxEnd > start ? at.left : at.right;
    }
    return false;
  }

  /** The intervals that overlap [start, end), in order of their starts. */
  overlapping(start: number, end: number): T[] {
    const found: T[] = [];
    collect(this.root, start, end, found);
    return found;
  }
}

function depthOf<T extends Interval>(at: Branch<T> | undefined): number {
  return at === undefined ? 0 : 1 + Math.max(depthOf(at.left), depthOf(at.right));
}

function collect<T extends Interval>(
  at: Branch<T> | undefined,
  start: number,
  end: number,
  found: T[],
): void {
  if (at === undefined || at.maxEnd <= start) return;
  collect(at.left, start, end, found);
  if (at.item.start >= end) return;
  if (at.item.end > start) found.push(at.item);
  collect(at.right, start, end, found);
}

function insertInto<T extends Interval>(at: Branch<T> | undefined, branch: Branch<T>): Branch<T> {
  if (at === undefined) return branch;
  if (branch.priority > at.priority) {
    split(at, branch, branch);
    return update(branch);
  }
  if (isBefore(branch, at)) at.left = insertInto(at.left, branch);
  else at.right = insertInto(at.right, branch);
  return update(at);
}

function removeFrom<T extends Interval>(
  at: Branch<T> | undefined,
  branch: Branch<T>,
): Branch<T> | undefined {
  if (at === undefined) return undefined;
  if (at === branch) return merge(at.left, at.right);
  if (isBefore(branch, at)) at.left = removeFrom(at.left, branch);
  else at.right = removeFrom(at.right, branch);
  return update(at);
}

/** Divides `at` into what comes before `pivot` and what comes after it: the sides of `into`. */
function split<T extends Interval>(
  at: Branch<T> | undefined,
  pivot: Branch<T>,
  into: Branch<T>,
): void {
  if (at === undefined) {
    into.left = undefined;
    into.right = undefined;
  } else if (isBefore(pivot, at)) {
    split(at.left, pivot, into);
    at.left = into.right;
    into.right = update(at);
  } else {
    split(at.right, pivot, into);
    at.right = into.left;
    into.left = update(at);
  }
}

function merge<T extends Interval>(
  left: Branch<T> | undefined,
  right: Branch<T> | undefined,
): Branch<T> | undefined {
  if (left === undefined) return right;
  if (right === undefined) return left;
  if (left.priority > right.priority) {
    left.right = merge(left.right, right);
    return update(left);
  }
  right.left = merge(left, right.left);
  return update(right);
}

function update<T extends Interval>(at: Branch<T>): Branch<T> {
  const { left, right } = at;
  let maxEnd = at.item.end;
  if (left !== undefined && left.maxEnd > maxEnd) maxEnd = left.maxEnd;
  if (right !== undefined && right.maxEnd > maxEnd) maxEnd = right.maxEnd;
  at.maxEnd = maxEnd;
  return at;
}

function isBefore<T extends Interval>(a: Branch<T>, b: Branch<T>): boolean {
  return a.item.start < b.item.start || (a.item.start === b.item.start && a.number < b.number);
}

/** A mix of the bits of `number` (the finalizer of MurmurHash3). */
function hash(number: number): number {
  let mixed = Math.imul(number ^ (number >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
