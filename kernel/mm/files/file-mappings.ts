/**
 * Walking all mappings of a file (i_mmap): what truncate, hole punching and execute-in-place do when pages of
 * a file change under the processes that map it.
 *
 * The lock of the file's mappings is held meanwhile. In the kernels of the seeds it was a spinlock, so the
 * notifiers of the list must not sleep ("Locks are only held for truncate and huge pages": seed 000, patch 2).
 * It has been a sleeping lock since Linux 3.0, which is what interval notifiers and page faults of adapters
 * need; a process with such subscriptions is treated by that rule, every other by the older, stricter one.
 */
import type { Sim } from '../../sched/completion.ts';
import type { SpinLock } from '../../sched/spin-lock.ts';
import type { Memory } from '../memory.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { filePageOf, type Vma } from '../virtual/vma.ts';
import type { MappedFile } from './mapped-file.ts';

/** A piece of a process that shows pages of the file: virtual pages [first, end). */
export type VisitMapping = (
  mm: MmStruct,
  vma: Readonly<Vma>,
  first: number,
  end: number,
  /** The lock is held as a spinlock: nobody may sleep. */
  atomic: boolean,
) => Sim<void>;

/**
 * Takes the lock of a file's mappings for a change of [start, end), by the older rule; false, and it is not
 * taken, where the process has subscriptions there.
 */
export function* lockMappings(
  mm: MmStruct,
  lock: SpinLock,
  start: number,
  end: number,
): Sim<boolean> {
  const { intervals } = mm.notifiers;
  if (intervals.hits(start, end)) return false;
  yield* lock.lock();
  // Somebody may have subscribed while the lock was waited for.
  if (!intervals.hits(start, end)) return true;
  lock.unlock();
  return false;
}

/** Calls `visit` for each piece of each process that maps pages [firstIndex, endIndex) of the file. */
export function* forEachMapping(
  memory: Memory,
  file: MappedFile,
  firstIndex: number,
  endIndex: number,
  visit: VisitMapping,
): Sim<void> {
  for (const mm of [...memory.mms]) {
    if (mm === undefined) continue;
    for (const vma of mm.vmas.list().filter((area) => area.file === file)) {
      const start = vma.start / PAGE_BYTES;
      const offset = filePageOf(vma, start) - start;
      const first = Math.max(start, firstIndex - offset);
      const end = Math.min(vma.end / PAGE_BYTES, endIndex - offset);
      if (first >= end) continue;
      const spins = yield* lockMappings(mm, file.mappingLock, first * PAGE_BYTES, end * PAGE_BYTES);
      yield* visit(mm, vma, first, end, spins);
      if (spins) file.mappingLock.unlock();
    }
  }
}
