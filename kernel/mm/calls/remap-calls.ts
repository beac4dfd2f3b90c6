/**
 * Calls that give mapped pages other addresses, or addresses other pages: mremap and remap_file_pages
 * (mm/mremap.c, mm/mmap.c).
 */
import type { Sim } from '../../sched/completion.ts';
import { HUGE_BYTES } from '../fault/huge-fault.ts';
import { moveRange } from '../page-range.ts';
import { ORIGIN_LOCK, ORIGIN_POPULATE, PAGE_BYTES } from '../physical/frames.ts';
import {
  filePageOf,
  VM_ACCOUNT,
  VM_HUGETLB,
  VM_LOCKED,
  VM_PFNMAP,
  VM_SHARED,
  type Vma,
} from '../virtual/vma.ts';
import { populate } from './mapping-calls.ts';
import { OP_MREMAP, OP_REMAP_FILE_PAGES, type SystemCalls } from './system-calls.ts';

/** See AddressSpace.mremap. */
export function* mremap(
  calls: SystemCalls,
  oldAddress: number,
  oldLength: number,
  newAddress: number,
  newLength: number,
): Sim<void> {
  const [oldStart, oldEnd] = calls.range('mremap', oldAddress, oldLength);
  const [newStart, newEnd] = calls.range('mremap', newAddress, newLength);
  if (newStart !== oldStart && newStart < oldEnd && oldStart < newEnd) {
    const where = `0x${newAddress.toString(16)} + ${newLength} overlaps the range that moves there`;
    throw calls.refuse('EINVAL', 'mremap', where, 'an address outside of it');
  }
  yield* calls.enter('mremap');
  const { mm } = calls;
  const { vmas } = mm;
  const vma = vmas.find(oldStart);
  if (vma === undefined || vma.end < oldEnd) {
    mm.lock.unlockWrite();
    throw calls.notMapped('mremap', oldAddress);
  }
  checkRemap(calls, vma, oldStart, oldEnd, newStart, newEnd);
  const kind = { prot: vma.prot, flags: vma.flags, file: vma.file };
  const offset = vma.fileOffset + oldStart - vma.start;
  if (newStart === oldStart) {
    if (newEnd < oldEnd) yield* calls.unmap(newEnd, oldEnd);
    else if (newEnd > oldEnd) {
      yield* calls.unmap(oldEnd, newEnd);
      vmas.insert(oldEnd, newEnd, kind, offset + oldEnd - oldStart);
    }
  } else {
    yield* calls.unmap(newStart, newEnd);
    const moved = Math.min(oldEnd - oldStart, newEnd - newStart);
    if (oldStart + moved < oldEnd) yield* calls.unmap(oldStart + moved, oldEnd);
    vmas.insert(newStart, newEnd, kind, offset);
    yield* moveRange(mm, oldStart, oldStart + moved, newStart);
    vmas.remove(oldStart, oldEnd);
  }
  calls.leave(OP_MREMAP, newStart, newEnd - newStart);
  const grown = newEnd - newStart > oldEnd - oldStart;
  if (grown && (kind.flags & VM_LOCKED) !== 0) {
    yield* populate(calls, newStart + oldEnd - oldStart, newEnd, ORIGIN_LOCK);
  }
}

/**
 * See AddressSpace.remapFilePages. As today's kernel does it: the range becomes a mapping of its own, of other
 * pages of the file (mm/mmap.c since Linux 4.0).
 */
export function* remapFilePages(
  calls: SystemCalls,
  address: number,
  length: number,
  filePage: number,
): Sim<void> {
  const [start, end] = calls.range('remap_file_pages', address, length);
  if (!Number.isSafeInteger(filePage) || filePage < 0) {
    throw calls.refuse('EINVAL', 'remap_file_pages', `page ${filePage}`, 'a page of the file');
  }
  yield* calls.enter('remap_file_pages');
  const { vmas } = calls.mm;
  const vma = vmas.find(start);
  const isShared = vma?.file !== undefined && (vma.flags & VM_SHARED) !== 0;
  if (vma === undefined || !isShared || end > vma.end || (vma.flags & VM_HUGETLB) !== 0) {
    const what = `no shared file is mapped at 0x${start.toString(16)} + ${length}`;
    calls.fail('EINVAL', 'remap_file_pages', what, 'part of one shared mapping of a file');
  }
  calls.checkCuts('remap_file_pages', start, end);
  const kind = { prot: vma.prot, flags: vma.flags, file: vma.file };
  const isSame = filePageOf(vma, start / PAGE_BYTES) === filePage;
  if (!isSame) {
    const unnamed = vma.file?.unnamed ?? false;
    // The object must outlive the moment without a mapping.
    if (vma.file !== undefined) vma.file.unnamed = false;
    yield* calls.unmap(start, end);
    vmas.insert(start, end, kind, filePage * PAGE_BYTES);
    if (kind.file !== undefined) kind.file.unnamed = unnamed;
  }
  calls.leave(OP_REMAP_FILE_PAGES, start, end - start);
  yield* populate(calls, start, end, ORIGIN_POPULATE);
}

/** What mremap refuses once it knows the area; the lock is held for writing. */
function checkRemap(
  calls: SystemCalls,
  vma: Vma,
  oldStart: number,
  oldEnd: number,
  newStart: number,
  newEnd: number,
): void {
  const grownPages = (newEnd - newStart - (oldEnd - oldStart)) / PAGE_BYTES;
  if (vma.flags & VM_HUGETLB) {
    for (const address of [oldStart, oldEnd, newStart, newEnd]) {
      if (address % HUGE_BYTES === 0) continue;
      const what = `0x${address.toString(16)} lies within a huge page`;
      calls.fail('EINVAL', 'mremap', what, 'multiples of 2 MiB');
    }
    if (grownPages > 0)
      calls.fail('EINVAL', 'mremap', 'a mapping of huge pages grows', 'no growth');
  }
  calls.checkHuge('mremap', newStart, newEnd);
  if (grownPages > 0 && (vma.flags & VM_PFNMAP) !== 0) {
    calls.fail('EFAULT', 'mremap', "a mapping of a driver's memory grows", 'no growth');
  }
  if (vma.flags & VM_LOCKED && grownPages > 0) {
    const objection = calls.lockObjection(grownPages);
    if (objection !== undefined) {
      const what = `${grownPages} more locked pages exceed ${objection}`;
      calls.fail('EAGAIN', 'mremap', what, 'fewer pages');
    }
  }
  if (vma.flags & VM_ACCOUNT) calls.checkCommit('mremap', grownPages);
  calls.checkMapCount('mremap', 3);
}
