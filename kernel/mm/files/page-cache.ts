/**
 * The page cache: files by path, and their pages in memory (mm/filemap.c).
 */
import type { Memory } from '../memory.ts';
import { MappedFile } from './mapped-file.ts';

export class PageCache {
  /** Files by number; number 0 is none. */
  private readonly files: (MappedFile | undefined)[] = [undefined];
  private readonly byPath = new Map<string, MappedFile>();

  constructor(readonly memory: Memory) {}

  /** The file at `path`; there is one of any length wherever one is asked for. */
  open(path: string): MappedFile {
    const known = this.byPath.get(path);
    if (known) return known;
    const file = new MappedFile(this.files.length, path, 'file', Number.POSITIVE_INFINITY);
    this.files.push(file);
    this.byPath.set(path, file);
    return file;
  }

  /** A fresh object for MAP_SHARED without a file. */
  createShared(name: string): MappedFile {
    const bytes = Number.POSITIVE_INFINITY;
    const file = new MappedFile(this.files.length, name, 'shared memory', bytes);
    this.files.push(file);
    return file;
  }

  /** Every file there has been. */
  all(): MappedFile[] {
    return this.files.filter((file) => file !== undefined);
  }

  /** The file with that number. */
  file(id: number): MappedFile {
    return this.files[id] as MappedFile;
  }
}
