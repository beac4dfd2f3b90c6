/**
 * Which pages of a segment one sharer has, and in which frames: the entries of its page table as the
 * owner knows them. Each is an entry of the ledger and holds a reference to its frame.
 *
 * Owns entries and references; who may have which page when is `shared-segment.ts`'s.
 */
import type { ExternalClient } from '../mm/notify/external-references.ts';
import { NO_FRAME } from '../mm/physical/frames.ts';
import type { MmStruct } from '../mm/virtual/mm-struct.ts';

export class Grants {
  /** Pages that the sharer has. */
  count = 0;
  private readonly frames: Int32Array;
  private readonly writable: Uint8Array;

  /** None yet, of a segment of `pageCount` pages from page `firstPage` of `mm` on; `client` has the entries. */
  constructor(
    private readonly mm: MmStruct,
    private readonly client: ExternalClient,
    private readonly firstPage: number,
    readonly pageCount: number,
  ) {
    this.frames = new Int32Array(pageCount).fill(NO_FRAME);
    this.writable = new Uint8Array(pageCount);
  }

  /** The frame of page `index` where the sharer may use it so, else NO_FRAME. */
  frameOf(index: number, write: boolean): number {
    return write && this.writable[index] === 0 ? NO_FRAME : this.frames[index];
  }

  has(index: number): boolean {
    return this.frames[index] !== NO_FRAME;
  }

  /** True when the sharer has page `index`, and in that frame. */
  hasFrame(index: number, frame: number): boolean {
    return this.frames[index] === frame;
  }

  /** True when one of [first, first + count) is the sharer's. */
  hasAny(first: number, count: number): boolean {
    if (this.count === 0) return false;
    for (let index = first; index < first + count; index++) if (this.has(index)) return true;
    return false;
  }

  /** Gives page `index` to the sharer; the caller's reference becomes the entry's. */
  add(index: number, frame: number, write: boolean): void {
    const { memory, notifiers } = this.mm;
    if (this.frames[index] === frame) {
      // Only the right to write was missing.
      this.writable[index] |= write ? 1 : 0;
      memory.frames.put(frame);
      return;
    }
    this.remove(index);
    this.frames[index] = frame;
    this.writable[index] = write ? 1 : 0;
    this.count++;
    memory.frames.giveToClient(frame);
    notifiers.references.insert(this.client, this.firstPage + index, frame);
  }

  /** Takes pages [first, first + count) back from a sharer that no longer uses them; returns how many. */
  removeRange(first: number, count: number): number {
    if (this.count === 0) return 0;
    let removed = 0;
    for (let index = first; index < first + count; index++) if (this.remove(index)) removed++;
    return removed;
  }

  private remove(index: number): boolean {
    const frame = this.frames[index];
    if (frame === NO_FRAME) return false;
    const { memory, notifiers } = this.mm;
    this.frames[index] = NO_FRAME;
    this.count--;
    // Whatever could be written may have been.
    if (this.writable[index] !== 0) memory.frames.markDirty(frame);
    notifiers.references.drop(this.client, this.firstPage + index, frame);
    memory.frames.putFromClient(frame);
    return true;
  }
}
