/**
 * Which pages of a region the adapter has written since they were last asked for: a bit for each page.
 *
 * No adapter of the time had it for regions; those of today log the pages that a virtual function writes, for
 * the migration of virtual machines (mlx5 page tracker, VFIO_DEVICE_FEATURE_DMA_LOGGING), and IOMMUs have
 * dirty bits that are read and cleared at once. A page counts as written when its address is translated for
 * a write, which is before the write leaves for memory.
 */
export class DirtyLog {
  private readonly bits: Uint8Array;

  /** For pages 0 to `pageCount` - 1 of a region; none is written. */
  constructor(pageCount: number) {
    this.bits = new Uint8Array(Math.ceil(pageCount / 8));
  }

  /** The adapter is about to write the page. */
  note(page: number): void {
    this.bits[page >>> 3] |= 1 << (page & 7);
  }

  /** Whether the page was written; it counts as not written afterwards. */
  take(page: number): boolean {
    const bit = 1 << (page & 7);
    const wasWritten = (this.bits[page >>> 3] & bit) !== 0;
    this.bits[page >>> 3] &= ~bit;
    return wasWritten;
  }
}
