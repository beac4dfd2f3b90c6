/**
 * The pool of huge pages that are set aside at boot for MAP_HUGETLB (mm/hugetlb.c, vm.nr_hugepages).
 *
 * Pages of the pool never return to the free lists and are never reclaimed. The pool holds a reference to
 * each of them; a page without any other is free. Mappings reserve pages in advance, so that a fault finds
 * one.
 */
import { Failure } from '../../../transport/index.ts';
import { type Frames, NO_FRAME } from './frames.ts';

export class HugePool {
  private readonly heads: number[] = [];
  /** Huge pages promised to mappings that have not taken them yet. */
  reserved = 0;

  /** @throws Failure E_OPERATION when memory has no room for so many */
  constructor(
    private readonly frames: Frames,
    count: number,
    place: string,
  ) {
    for (let i = 0; i < count; i++) {
      let head = NO_FRAME;
      for (let node = 0; node < frames.nodeCount && head < 0; node++) {
        head = frames.allocateHuge((i + node) % frames.nodeCount);
      }
      if (head < 0) {
        const message = `${count} huge pages of 2 MiB do not fit into memory`;
        throw new Failure('E_OPERATION', message, place, `at most ${i}`);
      }
      this.heads.push(head);
    }
  }

  /** Huge pages of the pool (HugePages_Total). */
  get total(): number {
    return this.heads.length;
  }

  /** Huge pages that nobody uses (HugePages_Free). */
  get free(): number {
    let free = 0;
    for (const head of this.heads) if (this.frames.references[head] === 1) free++;
    return free;
  }

  /** True for the first frame of a page of the pool. */
  owns(head: number): boolean {
    return this.heads.includes(head);
  }

  /** Promises `count` pages to a mapping; false when there are not so many left. */
  reserve(count: number): boolean {
    if (this.free - this.reserved < count) return false;
    this.reserved += count;
    return true;
  }

  /** Takes a promise back, or notes that it was kept. */
  unreserve(count: number): void {
    this.reserved -= count;
  }

  /**
   * A zeroed huge page with a reference for the caller besides the pool's, or NO_FRAME. Whoever has no
   * promise gets none of those that are promised to others (alloc_hugetlb_folio).
   */
  take(isPromised: boolean): number {
    if (!isPromised && this.free <= this.reserved) return NO_FRAME;
    const head = this.heads.find((candidate) => this.frames.references[candidate] === 1);
    if (head === undefined) return NO_FRAME;
    this.frames.renew(head);
    this.frames.get(head);
    return head;
  }
}
