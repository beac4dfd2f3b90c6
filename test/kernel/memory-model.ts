/**
 * An independent model of what processes see in their memory: for each page who shares what with whom, and
 * the first bytes. It knows nothing of frames, page tables, swap or the page cache.
 */
import { patternByte } from '../../kernel/mm/physical/pattern.ts';

/** Bytes of each page that are modelled. */
export const SHOWN = 16;
export const READ = 1;
export const WRITE = 2;

/** What several mappings may show: a file, or shared memory. */
export class SharedObject {
  private readonly written = new Map<number, Uint8Array>();

  /** `seed` is the pattern of a file; shared memory has none. */
  constructor(
    private readonly seed: number | undefined,
    public pageCount: number,
  ) {}

  get isFile(): boolean {
    return this.seed !== undefined;
  }

  bytes(index: number): Uint8Array {
    const known = this.written.get(index);
    if (known) return known;
    const { seed } = this;
    if (seed === undefined) return new Uint8Array(SHOWN);
    return Uint8Array.from({ length: SHOWN }, (_, i) => patternByte(seed, index * 4096 + i));
  }

  write(index: number, change: (bytes: Uint8Array) => void): void {
    const bytes = this.bytes(index).slice();
    change(bytes);
    this.written.set(index, bytes);
  }

  /** Pages [first, end) become zeros. */
  punch(first: number, end: number): void {
    for (let index = first; index < end; index++) this.written.set(index, new Uint8Array(SHOWN));
  }
}

export interface ModelPage {
  prot: number;
  shared: boolean;
  locked: boolean;
  dontFork: boolean;
  /** Memory is promised for it: part of what makes neighbouring mappings one. */
  accounted: boolean;
  object: SharedObject | undefined;
  index: number;
  /** What it may hold, of a private page that was written: several answers after MADV_FREE, until it is read. */
  own: Uint8Array[] | undefined;
  /** MADV_FREE: it may become zeros at any time. */
  lazy: boolean;
  /** The process has accessed it since it was mapped or emptied. */
  touched: boolean;
}

export class ModelProcess {
  pages = new Map<number, ModelPage>();

  private *range(first: number, count: number): Generator<[number, ModelPage | undefined]> {
    for (let page = first; page < first + count; page++) yield [page, this.pages.get(page)];
  }

  map(first: number, count: number, page: Omit<ModelPage, 'own' | 'lazy' | 'touched'>): void {
    for (let i = 0; i < count; i++) {
      const at = { ...page, index: page.index + i, own: undefined, lazy: false, touched: false };
      this.pages.set(first + i, at);
    }
  }

  unmap(first: number, count: number): void {
    for (let page = first; page < first + count; page++) this.pages.delete(page);
  }

  isWhole(first: number, count: number): boolean {
    for (const [, page] of this.range(first, count)) if (!page) return false;
    return true;
  }

  /** Pages of the range that are mapped. */
  mapped(first: number, count: number): ModelPage[] {
    return [...this.range(first, count)].flatMap(([, page]) => (page ? [page] : []));
  }

  /** True when the range is part of one mapping. */
  isOneMapping(first: number, count: number): boolean {
    const start = this.pages.get(first);
    if (!start) return false;
    for (const [at, page] of this.range(first, count)) {
      if (!page) return false;
      for (const key of ['prot', 'shared', 'locked', 'dontFork', 'accounted', 'object'] as const) {
        if (page[key] !== start[key]) return false;
      }
      if (page.object && page.index !== start.index + at - first) return false;
    }
    return true;
  }

  /** 'SIGSEGV', 'SIGBUS' or undefined for an access to a page. */
  signal(at: number, write: boolean): string | undefined {
    const page = this.pages.get(at);
    if (!page || (page.prot & (write ? WRITE : READ)) === 0) return 'SIGSEGV';
    const beyond = page.object !== undefined && page.index >= page.object.pageCount;
    return beyond && page.own === undefined ? 'SIGBUS' : undefined;
  }

  write(at: number, change: (bytes: Uint8Array) => void): void {
    const page = this.pages.get(at) as ModelPage;
    page.touched = true;
    page.lazy = false;
    if (page.shared) {
      (page.object as SharedObject).write(page.index, change);
      return;
    }
    page.own = this.candidates(page).map((bytes) => {
      const copy = bytes.slice();
      change(copy);
      return copy;
    });
  }

  /** Notes what the process sees; returns false when it must not be that. */
  observe(at: number, seen: Uint8Array): boolean {
    const page = this.pages.get(at) as ModelPage;
    const fits = this.candidates(page).some((bytes) => Buffer.compare(bytes, seen) === 0);
    if (page.own !== undefined) page.own = page.lazy ? [seen, new Uint8Array(SHOWN)] : [seen];
    return fits;
  }

  /** The pages go, the mapping stays. */
  empty(page: ModelPage): void {
    page.own = undefined;
    page.lazy = false;
    page.touched = false;
  }

  fork(): ModelProcess {
    const child = new ModelProcess();
    for (const [at, page] of this.pages) {
      if (page.dontFork) continue;
      child.pages.set(at, { ...page, own: page.own?.map((bytes) => bytes.slice()), locked: false });
    }
    return child;
  }

  private candidates(page: ModelPage): Uint8Array[] {
    if (page.own) return page.own;
    if (!page.object || page.index >= page.object.pageCount) return [new Uint8Array(SHOWN)];
    return [page.object.bytes(page.index)];
  }
}
