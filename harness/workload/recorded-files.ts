/**
 * The files that recorded processes map, as the memory of one host has them.
 *
 * Programs and libraries were in the page cache when the recording was made (a dozen major faults in
 * a whole run). Segments in /dev/shm and System V segments are shared memory: a page of them exists
 * once somebody has touched it.
 */
import type { AddressSpace } from '../../kernel/index.ts';

type Memory = AddressSpace['memory'];
export type RecordedFile = ReturnType<Memory['files']['open']>;

/** Where the kernel keeps shared memory that has a name, and how the recording names segments. */
const SHARED_MEMORY = /^(\/dev\/shm\/|SYSV )/;

export class RecordedFiles {
  private readonly segments = new Map<string, RecordedFile>();

  /** Processes of one host that map one path share the file. */
  constructor(private readonly memory: Memory) {}

  /** The file at `path`; undefined for `''`, which is anonymous memory. */
  open(path: string): RecordedFile | undefined {
    if (path === '') return undefined;
    const { files } = this.memory;
    if (!SHARED_MEMORY.test(path)) return files.open(path, true);
    let segment = this.segments.get(path);
    if (segment === undefined) {
      segment = files.createShared(path);
      this.segments.set(path, segment);
    }
    return segment;
  }
}
