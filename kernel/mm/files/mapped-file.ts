/**
 * A file as mappings see it: the pages of it that the page cache holds (struct address_space).
 *
 * Three kinds. A *file* has its content on a device: pages are read when they are missed and written back
 * when they are dirty. *Shared memory* (MAP_SHARED without a file, shm) has none: its pages are swapped.
 * An *xip* file lies in memory that the processor reaches directly (execute in place, mm/filemap_xip.c):
 * its pages are mapped as they are, and a hole shows the zero page until somebody writes it.
 *
 * Owns which frame, which swap slot or which block of the device holds each page; who reads and writes them
 * is `page-cache.ts`.
 */
import type { SpinLock } from '../../sched/spin-lock.ts';
import { NO_FRAME } from '../physical/frames.ts';

export type FileKind = 'file' | 'shared memory' | 'xip';

export class MappedFile {
  /** Frame of each page that is in the page cache; of huge pages, by number of the huge page. */
  readonly pages = new Map<number, number>();
  /** Swap slot of each page of shared memory that is swapped out. */
  readonly slots = new Map<number, number>();
  /** What has been written to the device, by page: blocks of the BlockPool. Other pages are as they were made. */
  readonly stored = new Map<number, number>();
  /** Pages that a warm file has lost from the page cache: they are read from the device. */
  readonly dropped = new Set<number>();
  /** Bytes from here on are zeros where nothing was written: the shortest length so far. */
  madeBytes = Number.POSITIVE_INFINITY;
  /** Shared memory that mmap made: it ends with its last mapping. */
  unnamed = false;

  constructor(
    /** 1 and up: `frames.files` names it. */
    readonly id: number,
    readonly path: string,
    readonly kind: FileKind,
    /** Bytes; an access to a page beyond is a bus error. */
    public length: number,
    /** Somebody has read it before: its pages are in memory already when they are first asked for. */
    readonly warm: boolean,
    /** Made of huge pages of the pool (MAP_HUGETLB | MAP_SHARED). */
    readonly huge: boolean,
    /** Held while mappings of the file are walked (i_mmap_lock, a spinlock when the seeds were written). */
    readonly mappingLock: SpinLock,
  ) {}

  /** Frame of page `index`, or NO_FRAME. */
  frameOf(index: number): number {
    return this.pages.get(index) ?? NO_FRAME;
  }
}
