/**
 * A file as mappings see it: the pages of it that the page cache holds (struct address_space).
 *
 * Two kinds. A *file* has its content on a device: pages are read when they are missed and written back
 * when they are dirty. *Shared memory* (MAP_SHARED without a file, shm) has none: its pages are swapped.
 * Owns which frame, or which swap slot, holds each page; who reads and writes them is `page-cache.ts`.
 */
import { NO_FRAME } from '../physical/frames.ts';

export class MappedFile {
  /** Frame of each page that is in the page cache. */
  readonly pages = new Map<number, number>();
  /** Swap slot of each page of shared memory that is swapped out. */
  readonly slots = new Map<number, number>();

  constructor(
    /** 1 and up: `frames.files` names it. */
    readonly id: number,
    readonly path: string,
    readonly kind: 'file' | 'shared memory',
    /** Bytes; an access to a page beyond is a bus error. */
    public length: number,
  ) {}

  /** Frame of page `index`, or NO_FRAME. */
  frameOf(index: number): number {
    return this.pages.get(index) ?? NO_FRAME;
  }
}
