/**
 * What the memory of one process should hold, kept outside of the code under test: an array of pages, each
 * with its rights and its bytes. Nothing here knows of frames, swap, copy on write or devices.
 *
 * A page has one content, but for memory that was given away lazily (MADV_FREE): until it is written it may
 * hold what it held, or zeros from some moment on, and what is seen of it decides.
 */
import { PROT_READ, PROT_WRITE } from '../../kernel/index.ts';

export const PAGE = 4096;
export const RW = PROT_READ | PROT_WRITE;
const ZEROS = new Uint8Array(PAGE);

interface ModelPage {
  prot: number;
  /** What it may hold: one content, but after MADV_FREE. */
  may: Uint8Array[];
  /** It may become zeros at any time. */
  isLazy: boolean;
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
      if (page) child.pages[i] = { ...page, may: page.may.map((bytes) => bytes.slice()) };
    });
    return child;
  }

  /** A copy of one page, as a model of its own. */
  pick(index: number): MemoryModel {
    const picked = new MemoryModel(1);
    const page = this.pages[index];
    if (page) picked.pages[0] = { ...page, may: page.may.map((bytes) => bytes.slice()) };
    return picked;
  }

  map(first: number, count: number, prot: number): void {
    for (let i = first; i < first + count; i++) {
      this.pages[i] = { prot, may: [new Uint8Array(PAGE)], isLazy: false };
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
    for (let i = first; i < first + count; i++) {
      const page = this.pages[i];
      if (!page) continue;
      page.may = [new Uint8Array(PAGE)];
      page.isLazy = false;
    }
  }

  /** The pages may become zeros until they are written (MADV_FREE). */
  free(first: number, count: number): void {
    for (let i = first; i < first + count; i++) {
      const page = this.pages[i];
      if (!page) continue;
      page.isLazy = true;
      addZeros(page);
    }
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
    forEachPiece(offset, bytes.length, (index, within, from, length) => {
      const page = this.pages[index];
      if (!page) return;
      for (const content of page.may) content.set(bytes.subarray(from, from + length), within);
      page.isLazy = false;
    });
  }

  /** Compares what was seen from `offset` on with what may be there: zeros where nothing is mapped. */
  expect(offset: number, seen: Uint8Array, what: string): void {
    forEachPiece(offset, seen.length, (index, within, from, length) => {
      const piece = seen.subarray(from, from + length);
      const page = this.pages[index];
      const may = page?.may ?? [ZEROS];
      const fitting = may.filter(
        (content) => Buffer.compare(piece, content.subarray(within, within + length)) === 0,
      );
      const [first] = may as [Uint8Array];
      if (fitting.length === 0) {
        const at = piece.findIndex((byte, i) => byte !== first[within + i]);
        const place = `byte ${within + at} of page ${index}`;
        throw new Error(`${what}: ${place} is ${piece[at]}, not ${first[within + at]}`);
      }
      if (!page || may.length === 1) return;
      page.may = fitting;
      if (page.isLazy) addZeros(page);
    });
  }
}

function addZeros(page: ModelPage): void {
  if (!page.may.some((content) => Buffer.compare(content, ZEROS) === 0)) {
    page.may.push(new Uint8Array(PAGE));
  }
}

/** Splits a range of bytes at page boundaries. */
function forEachPiece(
  offset: number,
  byteCount: number,
  use: (page: number, within: number, from: number, length: number) => void,
): void {
  for (let done = 0; done < byteCount; ) {
    const page = Math.floor((offset + done) / PAGE);
    const within = offset + done - page * PAGE;
    const length = Math.min(byteCount - done, PAGE - within);
    use(page, within, done, length);
    done += length;
  }
}
