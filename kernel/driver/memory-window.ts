/** A memory window of type 2: rights to a range of a region, bound and invalidated by work requests. */
export interface MemoryWindow {
  readonly pd: number;
  /** The key of its last binding that was posted (or, before the first, the one it came with). */
  rkey: number;
}
