/**
 * Writing dirty pages of files to their device (mm/page-writeback.c, page_mkclean of mm/rmap.c).
 *
 * Before a page is written every mapping of it loses its right to write, so that the next write is seen as a
 * fault and makes the page dirty again. That is a place where page tables outside must be told.
 */
import { assert } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { CAUSE_PROTECTION } from '../notify/invalidation.ts';
import { FRAME_DIRTY, FRAME_WRITEBACK, PAGE_BYTES } from '../physical/frames.ts';
import { PTE_DIRTY, PTE_PRESENT, PTE_WRITE, pteNumber } from '../virtual/page-table.ts';
import type { MappedFile } from './mapped-file.ts';

/** Takes the right to write from all mappings of a page; true when one of them had written it (page_mkclean). */
export function* makeClean(memory: Memory, frame: number): Sim<boolean> {
  const { rmap, costs } = memory;
  let wasDirty = false;
  for (const { mm: id, page } of rmap.list(frame)) {
    const mm = memory.mms[id];
    if (mm === undefined) continue;
    const address = page * PAGE_BYTES;
    const range = yield* mm.notifiers.begin(address, address + PAGE_BYTES, CAUSE_PROTECTION);
    yield costs.unmapPagePs;
    yield* mm.tableLock.lock();
    const pte = mm.table.get(page);
    if (
      (pte & PTE_PRESENT) !== 0 &&
      pteNumber(pte) === frame &&
      (pte & (PTE_WRITE | PTE_DIRTY)) !== 0
    ) {
      yield* mm.notifiers.invalidatePage(address, CAUSE_PROTECTION);
      mm.table.set(page, pte & ~(PTE_WRITE | PTE_DIRTY));
      if (pte & PTE_DIRTY) wasDirty = true;
    }
    mm.tableLock.unlock();
    yield* mm.notifiers.end(range);
  }
  yield* memory.rmapNotifiers.invalidatePage(frame, CAUSE_PROTECTION);
  return wasDirty;
}

/** Writes a page of a file to its device; the caller holds a reference and the page lock. */
export function* writeBack(memory: Memory, frame: number): Sim<void> {
  const { frames, files, node, timers, pageLocks } = memory;
  assert(pageLocks.isLocked(frame), 'a page is written back that is not locked', node);
  const file = files.file(frames.files[frame]);
  // Before its mappings: what is written again while they are asked makes the page dirty again.
  const wasDirty = (frames.flags[frame] & FRAME_DIRTY) !== 0;
  frames.flags[frame] &= ~FRAME_DIRTY;
  const wasMapped = yield* makeClean(memory, frame);
  if (!wasMapped && !wasDirty) return;
  const index = frames.fileIndexes[frame];
  const { content } = frames;
  // Truncated meanwhile: the device must not keep it.
  if (index * PAGE_BYTES >= file.length) return;
  frames.flags[frame] |= FRAME_WRITEBACK;
  const before = file.stored.get(index);
  if (before !== undefined) content.blocks.release(before);
  file.stored.set(index, content.sample(frame));
  const ready = files.device.transmit(node.now, PAGE_BYTES);
  yield* timers.sleep(ready - node.now);
  frames.flags[frame] &= ~FRAME_WRITEBACK;
}

/** Writes all dirty pages of a file. */
export function* syncFile(memory: Memory, file: MappedFile): Sim<void> {
  const { frames, pageLocks } = memory;
  if (file.kind !== 'file') return;
  for (const [index, frame] of [...file.pages]) {
    if (file.frameOf(index) !== frame || (frames.flags[frame] & FRAME_DIRTY) === 0) continue;
    frames.get(frame);
    yield* pageLocks.lock(frame);
    if (file.frameOf(index) === frame) yield* writeBack(memory, frame);
    pageLocks.unlock(frame);
    frames.put(frame);
  }
}
