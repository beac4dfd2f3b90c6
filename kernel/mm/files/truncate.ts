/**
 * Pages of a file that cease to be: truncate and hole punching (mm/truncate.c, unmap_mapping_range of
 * mm/memory.c).
 *
 * The length changes first, so that no new fault finds a page; then every process loses its pages, in
 * atomic context; then the page cache does, once whoever is at work on a page has let go of it.
 */
import { SystemCallError } from '../../errno.ts';
import type { Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { CAUSE_CLEAR } from '../notify/invalidation.ts';
import { zapRange } from '../page-range.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import { filePageOf } from '../virtual/vma.ts';
import { forEachMapping } from './file-mappings.ts';
import type { MappedFile } from './mapped-file.ts';

/** Sets the length of the file; see PageCache.truncate. */
export function* truncateFile(memory: Memory, file: MappedFile, bytes: number): Sim<void> {
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    const what = `${bytes} is no length of ${file.path}`;
    throw new SystemCallError('EINVAL', 'truncate', what, memory.node.name, '0 or more bytes');
  }
  const old = file.length;
  file.madeBytes = Math.min(file.madeBytes, old, bytes);
  file.length = bytes;
  if (bytes >= old) return;
  const first = Math.ceil(bytes / PAGE_BYTES);
  yield* discard(memory, file, first, Number.MAX_SAFE_INTEGER, new Set(), () => {});
  // Not before: a page may have been on its way to the device.
  cutStored(memory, file, bytes);
  const within = bytes % PAGE_BYTES;
  const last = file.frameOf(first - 1);
  if (within > 0 && last >= 0) {
    memory.files.zeroTail(last, within);
    memory.frames.markDirty(last);
  }
}

/** The device forgets what was written beyond `bytes`. */
function cutStored(memory: Memory, file: MappedFile, bytes: number): void {
  const { blocks } = memory.frames.content;
  for (const [index, block] of [...file.stored]) {
    const left = bytes - index * PAGE_BYTES;
    if (left >= PAGE_BYTES) continue;
    file.stored.delete(index);
    if (left > 0) {
      const cut = blocks.allocate();
      const [from, to] = [block * PAGE_BYTES, cut * PAGE_BYTES];
      blocks.bytes.copyWithin(to, from, from + left);
      blocks.bytes.fill(0, to + left, to + PAGE_BYTES);
      file.stored.set(index, cut);
    }
    blocks.release(block);
  }
}

/** Makes pages [first, end) of the file zeros; see PageCache.punch. */
export function* punchHole(
  memory: Memory,
  file: MappedFile,
  first: number,
  end: number,
): Sim<void> {
  const { blocks } = memory.frames.content;
  // Faults and read-ahead may bring a page back at any time (Linux keeps them out by the invalidate lock), so
  // the device forgets each page in the moment in which it is not in memory.
  const isGone = new Set<number>();
  const forget = (index: number): void => {
    if (isGone.has(index) || file.pages.has(index) || file.slots.has(index)) return;
    isGone.add(index);
    if (file.kind !== 'file') return;
    const block = file.stored.get(index);
    if (block !== undefined) blocks.release(block);
    file.stored.set(index, 0);
  };
  for (let index = first; index < end; index++) forget(index);
  yield* discard(memory, file, first, end, isGone, forget);
  // Those that reclaim has written and taken since they were looked at.
  for (let index = first; index < end; index++) forget(index);
}

/**
 * Takes the pages out of all processes, the page cache and swap, without writing them, but for those that are
 * gone already; `removed` is called with each that may have been taken out.
 */
function* discard(
  memory: Memory,
  file: MappedFile,
  first: number,
  end: number,
  isGone: ReadonlySet<number>,
  removed: (index: number) => void,
): Sim<void> {
  const { swap, frames, pageLocks } = memory;
  const isLeft = (index: number): boolean => index >= first && index < end && !isGone.has(index);
  for (;;) {
    yield* forEachMapping(memory, file, first, end, (mm, vma, from, to, atomic) =>
      zapRange(mm, from * PAGE_BYTES, to * PAGE_BYTES, CAUSE_CLEAR, atomic, (page) => {
        // The process may have put something else there while its notifiers were told.
        const now = mm.vmas.find(page * PAGE_BYTES);
        if (now?.file !== file || now.start > page * PAGE_BYTES) return false;
        const index = filePageOf(now, page);
        return index >= first && index < end && vma.file === file;
      }),
    );
    for (const [index, slot] of [...file.slots]) {
      if (!isLeft(index)) continue;
      file.slots.delete(index);
      swap.release(slot);
      removed(index);
    }
    for (const [index, frame] of [...file.pages]) {
      if (!isLeft(index)) continue;
      // Reclaim may have taken it while others were waited for.
      if (file.frameOf(index) !== frame) {
        removed(index);
        continue;
      }
      frames.get(frame);
      yield* pageLocks.lock(frame);
      // Whoever punches a hole meets faults that bring pages back: those are taken out again.
      if (frames.mapCounts[frame] === 0 && file.frameOf(index) === frame)
        memory.files.remove(frame);
      removed(index);
      pageLocks.unlock(frame);
      frames.put(frame);
    }
    // Reclaim may have moved a page to swap, or a fault brought one back, while others were waited for.
    if (![...file.pages.keys(), ...file.slots.keys()].some(isLeft)) return;
  }
}
