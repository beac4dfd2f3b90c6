/**
 * What a process would read at an address, without reading it: no fault, no time. For verification, and for
 * whoever looks at a process from outside, as a debugger does.
 *
 * A page that is not present is where it was put: in a swap slot, in the page cache, on the device of its
 * file; or it is zeros.
 */
import type { MessageHash } from '../../../transport/index.ts';
import type { MappedFile } from '../files/mapped-file.ts';
import type { ContentStore } from '../physical/content.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import { writePattern } from '../physical/pattern.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { isSwapPte, pteNumber } from '../virtual/page-table.ts';
import { filePageOf } from '../virtual/vma.ts';

export class PageBytes {
  private readonly page = new Uint8Array(PAGE_BYTES);
  private readonly words = new Int32Array(this.page.buffer);

  constructor(private readonly mm: MmStruct) {}

  /** Absorbs `length` bytes of `page` from `within` on into `hash`. */
  hashInto(hash: MessageHash, page: number, within: number, length: number): void {
    const [store, place] = this.find(page);
    if (store !== undefined) store.hashInto(hash, place, within, length);
    else {
      this.makeAbsent(page);
      hash.update(this.page, this.words, within, length);
    }
  }

  /** Copies `length` bytes of `page` from `within` on to `target` at `at`. */
  copyTo(target: Uint8Array, at: number, page: number, within: number, length: number): void {
    const [store, place] = this.find(page);
    if (store === undefined) {
      this.makeAbsent(page);
      target.set(this.page.subarray(within, within + length), at);
      return;
    }
    const block = store.sample(place);
    const from = block * PAGE_BYTES + within;
    target.set(store.blocks.bytes.subarray(from, from + length), at);
    store.blocks.release(block);
  }

  /** Where the content of `page` is kept, if it is in memory or in swap. */
  private find(page: number): [store: ContentStore | undefined, place: number] {
    const { table, memory, vmas } = this.mm;
    const { frames, swap } = memory;
    const pte = table.get(page);
    if (pte !== 0) return this.contentOf(pte);
    const vma = vmas.find(page * PAGE_BYTES);
    if (vma?.file === undefined) return [undefined, 0];
    const index = filePageOf(vma, page);
    if (vma.file.huge) {
      const head = vma.file.frameOf(Math.floor(index / 512));
      return head < 0 ? [undefined, 0] : [frames.content, head + (index % 512)];
    }
    const frame = vma.file.frameOf(index);
    if (frame >= 0) return [frames.content, frame];
    const slot = vma.file.slots.get(index);
    return slot === undefined ? [undefined, 0] : [swap.content, slot];
  }

  private contentOf(pte: number): [ContentStore, number] {
    const { frames, swap } = this.mm.memory;
    // The bytes of a page that is migrating are in the old frame until its entries change.
    return isSwapPte(pte) ? [swap.content, pteNumber(pte)] : [frames.content, pteNumber(pte)];
  }

  /** Makes the bytes of a page that is neither in memory nor in swap. */
  private makeAbsent(page: number): void {
    const vma = this.mm.vmas.find(page * PAGE_BYTES);
    this.page.fill(0);
    if (vma?.file?.kind === 'file') this.makeFilePage(vma.file, filePageOf(vma, page));
  }

  private makeFilePage(file: MappedFile, index: number): void {
    const { blocks } = this.mm.memory.frames.content;
    const block = file.stored.get(index);
    if (block === undefined) {
      const made = Math.min(file.length, file.madeBytes) - index * PAGE_BYTES;
      const length = Math.max(0, Math.min(PAGE_BYTES, made));
      writePattern(this.page, this.words, 0, length, file.id, index * PAGE_BYTES);
    } else if (index * PAGE_BYTES < file.length) {
      const from = block * PAGE_BYTES;
      this.page.set(blocks.bytes.subarray(from, from + PAGE_BYTES), 0);
    }
  }
}
