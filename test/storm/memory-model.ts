/**
 * What the memory of one process should hold, kept outside of the code under test: an array of pages, each
 * with its rights and its bytes. Nothing here knows of frames, swap, copy on write or devices.
 */
import { PROT_READ, PROT_WRITE } from '../../kernel/index.ts';

export const PAGE = 4096;
export const RW = PROT_READ | PROT_WRITE;

interface ModelPage {
  prot: number;
  bytes: Uint8Array;
}

export class MemoryModel {
  private readonly pages: (ModelPage | undefined)[];

  constructor(readonly pageCount: number) {
    this.pages = new Array<ModelPage | undefined>(pageCount).fill(undefined);
  }

  /** What a child sees after fork. */
  copy(): MemoryModel {
    const child = new MemoryModel(this.pageCount);
    this.pages.forEach((page, i) => {
      if (page) child.pages[i] = { prot: page.prot, bytes: page.bytes.slice() };
    });
    return child;
  }

  map(first: number, count: number, prot: number): void {
    for (let i = first; i < first + count; i++) {
      this.pages[i] = { prot, bytes: new Uint8Array(PAGE) };
    }
  }

  unmap(first: number, count: number): void {
    for (let i = first; i < first + count; i++) this.pages[i] = undefined;
  }

  protect(first: number, count: number, prot: number): void {
    for (let i = first; i < first + count; i++) {
      const page = this.pages[i];
      if (page) page.prot = prot;
    }
  }

  zero(first: number, count: number): void {
    for (let i = first; i < first + count; i++) this.pages[i]?.bytes.fill(0);
  }

  /** Moves pages to other places, over whatever is there. */
  move(first: number, count: number, to: number): void {
    const moved = this.pages.slice(first, first + count);
    this.unmap(first, count);
    moved.forEach((page, i) => {
      this.pages[to + i] = page;
    });
  }

  /** True when all of these pages are mapped, with that right. */
  allows(first: number, count: number, right: number): boolean {
    for (let i = first; i < first + count; i++) {
      if (((this.pages[i]?.prot ?? 0) & right) !== right) return false;
    }
    return count > 0 && first + count <= this.pageCount;
  }

  /** True when these pages are mapped with the same rights: one area, as mremap wants it. */
  isUniform(first: number, count: number): boolean {
    const prot = this.pages[first]?.prot;
    for (let i = first; i < first + count; i++) if (this.pages[i]?.prot !== prot) return false;
    return prot !== undefined;
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const page = Math.floor((offset + done) / PAGE);
      const within = offset + done - page * PAGE;
      const piece = Math.min(bytes.length - done, PAGE - within);
      this.pages[page]?.bytes.set(bytes.subarray(done, done + piece), within);
      done += piece;
    }
  }

  /** The bytes there; zeros where nothing is mapped. */
  read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const page = Math.floor((offset + done) / PAGE);
      const within = offset + done - page * PAGE;
      const piece = Math.min(length - done, PAGE - within);
      const from = this.pages[page]?.bytes;
      if (from) bytes.set(from.subarray(within, within + piece), done);
      done += piece;
    }
    return bytes;
  }
}
