/**
 * Faults on pages of files and of shared memory: do_read_fault, do_cow_fault and do_shared_fault of
 * mm/memory.c, with the pages around a read fault that the page cache has (fault-around), and the zero page
 * in the holes of a file that is executed in place (mm/filemap_xip.c).
 */
import type { Sim } from '../../sched/completion.ts';
import { forEachMapping } from '../files/file-mappings.ts';
import type { MappedFile } from '../files/mapped-file.ts';
import { CAUSE_CLEAR } from '../notify/invalidation.ts';
import { zapRange } from '../page-range.ts';
import {
  FRAME_DIRTY,
  FRAME_PINNED,
  NO_FRAME,
  ORIGIN_AROUND,
  ORIGIN_PIN,
  PAGE_BYTES,
} from '../physical/frames.ts';
import { lockPage } from '../virtual/mlock-pages.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import {
  makePte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_WRITE,
  pteNumber,
} from '../virtual/page-table.ts';
import {
  filePageOf,
  PROT_WRITE,
  VM_LOCKED,
  VM_RAND_READ,
  VM_SHARED,
  type Vma,
} from '../virtual/vma.ts';
import type { FaultHandler } from './fault-handler.ts';
import { MUST_SLEEP } from './fault-result.ts';

/** True when `page` lies beyond the end of the file that `vma` maps. */
export function isBeyondEnd(page: number, vma: Vma): boolean {
  return filePageOf(vma, page) * PAGE_BYTES >= (vma.file as MappedFile).length;
}

/** True for an entry that shows the hole of a file to a mapping whose writes go to the file. */
export function isHole(mm: MmStruct, pte: number, vma: Vma): boolean {
  return (vma.flags & VM_SHARED) !== 0 && pteNumber(pte) === mm.memory.zeroFrame;
}

/** Maps `page`, which has no entry, if the page cache has it; see FaultHandler.tryHandle. */
export function tryFileFault(
  handler: FaultHandler,
  page: number,
  vma: Vma,
  write: boolean,
  origin: number,
): number {
  const { mm } = handler;
  const { files, frames, settings } = mm.memory;
  const file = vma.file as MappedFile;
  if (isBeyondEnd(page, vma)) return MUST_SLEEP;
  const index = filePageOf(vma, page);
  const isShared = (vma.flags & VM_SHARED) !== 0;
  const cached = files.tryFrame(file, index, mm);
  if (cached < 0 && !(file.kind === 'xip' && !file.pages.has(index))) return MUST_SLEEP;
  const isPin = origin === ORIGIN_PIN;
  // The zero page is never pinned, whatever the rules at fork.
  const takesCopy =
    !isShared && (write || (isPin && (settings.pinnedAtFork === 'copied' || cached < 0)));
  if (takesCopy) {
    // The cache keeps the page while memory for its copy is looked for.
    const copy = handler.takeFrame();
    if (copy < 0) return MUST_SLEEP;
    if (cached >= 0) frames.content.copyTo(cached, frames.content, copy);
    handler.countFault();
    handler.pendingPs += mm.memory.costs.copyPagePs;
    handler.installAnonymous(page, copy, vma, write, origin);
    frames.markDirty(copy);
    return copy;
  }
  if (cached < 0) {
    if (write || isPin) return MUST_SLEEP;
    handler.countFault();
    mm.table.set(page, makePte(mm.memory.zeroFrame, PTE_PRESENT | PTE_ACCESSED));
    return mm.memory.zeroFrame;
  }
  handler.countFault();
  // Only a file that is written back needs to see the first write to each page (vma_wants_writenotify).
  const isFree = isShared && file.kind !== 'file' && (vma.prot & PROT_WRITE) !== 0;
  const rights = (write || isFree ? PTE_WRITE : 0) | (write ? PTE_DIRTY : 0);
  if (write) frames.flags[cached] |= FRAME_DIRTY;
  mapCached(mm, page, cached, vma, rights, origin);
  if (!write) mapAround(handler, page, vma, isFree ? PTE_WRITE : 0);
  return cached;
}

/**
 * Brings the page that `page` shows into the page cache and returns its frame with a reference; NO_FRAME when
 * there was nothing to bring. The hole of an execute-in-place file gets memory when it is written.
 */
export function* readFilePage(
  handler: FaultHandler,
  page: number,
  vma: Vma,
  write: boolean,
): Sim<number> {
  const { mm } = handler;
  const { memory } = mm;
  const file = vma.file as MappedFile;
  const index = filePageOf(vma, page);
  if (file.kind === 'xip') {
    const fills = (vma.flags & VM_SHARED) !== 0 && !file.pages.has(index);
    if (fills) yield* fillXipHole(mm, file, index);
    return NO_FRAME;
  }
  if (file.kind === 'file' && !file.warm && !file.pages.has(index)) memory.counters.pgmajfault++;
  const ahead = (vma.flags & VM_RAND_READ) !== 0 ? 1 : memory.settings.readAheadPages;
  const frame = yield* memory.files.read(file, index, mm, write ? 1 : ahead);
  return frame;
}

/** A hole of an execute-in-place file gets memory; whoever shows the zero page there loses it (__xip_unmap). */
function* fillXipHole(mm: MmStruct, file: MappedFile, index: number): Sim<void> {
  const { memory } = mm;
  const frame = yield* memory.reclaim.allocate(mm);
  if (!file.pages.has(index)) {
    // Memory of a device, as far as reclaim and migration are concerned.
    memory.frames.flags[frame] |= FRAME_PINNED;
    memory.files.insert(file, index, frame);
  }
  memory.frames.put(frame);
  yield* forEachMapping(memory, file, index, index + 1, (other, _vma, first, _end, atomic) => {
    const isZero = (page: number) => pteNumber(other.table.get(page)) === memory.zeroFrame;
    const start = first * PAGE_BYTES;
    return zapRange(other, start, start + PAGE_BYTES, CAUSE_CLEAR, atomic, isZero);
  });
}

/** Maps the pages around `page` that the page cache has, as far as nothing is there (do_fault_around). */
function mapAround(handler: FaultHandler, page: number, vma: Vma, rights: number): void {
  const { mm } = handler;
  const { memory, table } = mm;
  const { files, settings, costs } = memory;
  const file = vma.file as MappedFile;
  const window = settings.faultAroundPages;
  if (window < 2 || file.kind === 'xip' || file.huge) return;
  const first = Math.max(vma.start / PAGE_BYTES, Math.floor(page / window) * window);
  const end = Math.min(vma.end / PAGE_BYTES, (Math.floor(page / window) + 1) * window);
  let mapped = 0;
  for (let other = first; other < end; other++) {
    if (table.get(other) !== 0 || isBeyondEnd(other, vma)) continue;
    const index = filePageOf(vma, other);
    // Shared memory that nobody has asked for does not exist yet; a warm file is in memory.
    if (!file.pages.has(index) && !file.warm) continue;
    const frame = files.tryFrame(file, index, mm);
    if (frame < 0) continue;
    mapCached(mm, other, frame, vma, rights, ORIGIN_AROUND);
    mapped++;
  }
  handler.pendingPs += mapped * costs.faultAroundPs;
}

/** Maps a page of the page cache. */
function mapCached(
  mm: MmStruct,
  page: number,
  frame: number,
  vma: Vma,
  rights: number,
  origin: number,
): void {
  const { memory, table } = mm;
  const { frames, rmap } = memory;
  if (frames.mapCounts[frame] === 0) frames.origins[frame] = origin;
  frames.get(frame);
  rmap.map(frame, mm.id, page);
  table.set(page, makePte(frame, PTE_PRESENT | PTE_ACCESSED | rights));
  if (vma.flags & VM_LOCKED) lockPage(memory, frame);
}
