/**
 * Locking memory: mlock, munlock, mlockall, munlockall (mm/mlock.c).
 *
 * Locked pages are present and are never reclaimed; they may still be migrated, which is what sets them
 * apart from pinned ones (seed 000: "mlock really does *not* pin pages").
 */
import type { Sim } from '../../sched/completion.ts';
import { ORIGIN_LOCK, PAGE_BYTES } from '../physical/frames.ts';
import { lockPage, reconsiderUnevictable } from '../virtual/mlock-pages.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { PTE_PRESENT, pteNumber } from '../virtual/page-table.ts';
import { VM_HUGETLB, VM_LOCKED, VM_PFNMAP } from '../virtual/vma.ts';
import { populate } from './mapping-calls.ts';
import { OP_MLOCK, OP_MUNLOCK, pageUp, type SystemCalls } from './system-calls.ts';

/** mlockall flags: what is mapped now, and what will be. */
export const MCL_CURRENT = 1;
export const MCL_FUTURE = 2;

/** See AddressSpace.mlock. */
export function* mlock(calls: SystemCalls, address: number, length: number): Sim<void> {
  const [start, end] = wholePages(calls, 'mlock', address, length);
  if (start === end) return yield* calls.nothingToDo();
  yield* calls.enter('mlock');
  const { vmas } = calls.mm;
  calls.checkHuge('mlock', start, end);
  checkMayLock(calls, 'mlock');
  let more = 0;
  for (const area of vmas.overlapping(start, end)) {
    if (area.flags & VM_LOCKED) continue;
    more += (Math.min(end, area.end) - Math.max(start, area.start)) / PAGE_BYTES;
  }
  checkShare(calls, 'mlock', more);
  calls.checkCuts('mlock', start, end);
  const isWhole = vmas.covers(start, end);
  setLocked(calls.mm, start, end, true);
  calls.leave(OP_MLOCK, start, end - start);
  yield* populate(calls, start, end, ORIGIN_LOCK);
  if (!isWhole) {
    const what = `0x${start.toString(16)} to 0x${end.toString(16)} is not mapped as a whole`;
    throw calls.refuse('ENOMEM', 'mlock', what, 'a range without holes');
  }
}

/** See AddressSpace.munlock. */
export function* munlock(calls: SystemCalls, address: number, length: number): Sim<void> {
  const [start, end] = wholePages(calls, 'munlock', address, length);
  if (start === end) return yield* calls.nothingToDo();
  yield* calls.enter('munlock');
  calls.checkHuge('munlock', start, end);
  calls.checkCuts('munlock', start, end);
  const isWhole = calls.mm.vmas.covers(start, end);
  setLocked(calls.mm, start, end, false);
  calls.leave(OP_MUNLOCK, start, end - start);
  if (!isWhole) {
    const what = `0x${start.toString(16)} to 0x${end.toString(16)} is not mapped as a whole`;
    throw calls.refuse('ENOMEM', 'munlock', what, 'a range without holes');
  }
}

/** See AddressSpace.mlockall. */
export function* mlockall(calls: SystemCalls, flags: number): Sim<void> {
  if (flags === 0 || flags !== (flags & (MCL_CURRENT | MCL_FUTURE))) {
    throw calls.refuse('EINVAL', 'mlockall', `flags ${flags}`, 'MCL_CURRENT, MCL_FUTURE or both');
  }
  yield* calls.enter('mlockall');
  const { mm } = calls;
  checkMayLock(calls, 'mlockall');
  if (flags & MCL_CURRENT) {
    checkShare(calls, 'mlockall', mm.vmas.totalPages - mm.lockedPages);
  }
  mm.locksFuture = (flags & MCL_FUTURE) !== 0;
  const areas =
    (flags & MCL_CURRENT) === 0 ? [] : mm.vmas.list().map(({ start, end }) => [start, end]);
  for (const [start, end] of areas) setLocked(mm, start, end, true);
  calls.leave(OP_MLOCK, 0, mm.lockedPages * PAGE_BYTES);
  for (const [start, end] of areas) yield* populate(calls, start, end, ORIGIN_LOCK);
}

/** See AddressSpace.munlockall. */
export function* munlockall(calls: SystemCalls): Sim<void> {
  yield* calls.enter('munlockall');
  const { mm } = calls;
  mm.locksFuture = false;
  for (const { start, end } of mm.vmas.list().map((area) => ({ ...area }))) {
    setLocked(mm, start, end, false);
  }
  calls.leave(OP_MUNLOCK, 0, 0);
}

/** Changes the areas of a range and the pages that are present in them. */
function setLocked(mm: MmStruct, start: number, end: number, isLocked: boolean): void {
  const { memory, table, vmas } = mm;
  // Areas that are never reclaimed anyway stay as they are (VM_SPECIAL, huge pages of the pool).
  const exempt = VM_PFNMAP | VM_HUGETLB;
  vmas.change(start, end, (area) => {
    if (area.flags & exempt) return;
    area.flags = isLocked ? area.flags | VM_LOCKED : area.flags & ~VM_LOCKED;
  });
  for (const area of vmas.overlapping(start, end)) {
    if (area.flags & exempt) continue;
    const first = Math.max(start, area.start) / PAGE_BYTES;
    const last = Math.min(end, area.end) / PAGE_BYTES;
    table.forEachUsed(first, last, (_page, pte) => {
      const frame = pteNumber(pte);
      if ((pte & PTE_PRESENT) === 0 || frame === memory.zeroFrame) return;
      if (isLocked) lockPage(memory, frame);
      else reconsiderUnevictable(memory, frame);
    });
  }
}

/** The pages that a range of bytes touches: unlike other calls these take any address. */
function wholePages(
  calls: SystemCalls,
  call: string,
  address: number,
  length: number,
): [start: number, end: number] {
  const start = Math.floor(address / PAGE_BYTES) * PAGE_BYTES;
  if (length === 0 && address >= 0) return [start, start];
  const end = pageUp(address + length);
  calls.range(call, start, end - start);
  return [start, end];
}

function checkMayLock(calls: SystemCalls, call: string): void {
  if (calls.mm.limits.memlockBytes > 0) return;
  calls.fail('EPERM', call, 'the process may not lock memory', 'RLIMIT_MEMLOCK above 0');
}

function checkShare(calls: SystemCalls, call: string, more: number): void {
  const objection = more <= 0 ? undefined : calls.lockObjection(more);
  if (objection === undefined) return;
  calls.fail('ENOMEM', call, `${more} more locked pages exceed ${objection}`, 'fewer pages');
}
