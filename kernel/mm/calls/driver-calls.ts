/**
 * What a driver does to a mapping of its own device file: remap_pfn_range and apply_to_page_range
 * (mm/memory.c). No system calls; the process has called mmap of the driver, which holds the mmap lock.
 */
import { assert } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import { CAUSE_CLEAR } from '../notify/invalidation.ts';
import { beginRange, lockTable, zapEntries } from '../page-range.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import { makePte, PTE_ACCESSED, PTE_PRESENT, PTE_WRITE, pteNumber } from '../virtual/page-table.ts';
import { PROT_WRITE, VM_PFNMAP } from '../virtual/vma.ts';
import type { SystemCalls } from './system-calls.ts';

/** See AddressSpace.remapPfnRange. */
export function* remapPfnRange(
  calls: SystemCalls,
  address: number,
  length: number,
  frame: number,
): Sim<void> {
  const [start, end] = calls.range('remap_pfn_range', address, length);
  const { mm } = calls;
  yield* mm.lock.lockWrite();
  const { vmas, table, memory } = mm;
  if (!vmas.covers(start, end)) {
    mm.lock.unlockWrite();
    throw calls.notMapped('remap_pfn_range', address);
  }
  const range = yield* beginRange(mm, start, end, CAUSE_CLEAR);
  yield* lockTable(mm);
  const first = start / PAGE_BYTES;
  const last = end / PAGE_BYTES;
  zapEntries(mm, first, last);
  let prot = 0;
  vmas.change(start, end, (area) => {
    area.flags |= VM_PFNMAP;
    prot = area.prot;
  });
  mm.hasDeviceMemory = true;
  const rights = PTE_PRESENT | PTE_ACCESSED | ((prot & PROT_WRITE) !== 0 ? PTE_WRITE : 0);
  for (let page = first; page < last; page++)
    table.set(page, makePte(frame + page - first, rights));
  mm.tableLock.unlock();
  yield* mm.notifiers.end(range);
  yield (last - first) * memory.costs.unmapPagePs;
  mm.lock.unlockWrite();
}

/** See AddressSpace.applyToPageRange. */
export function* applyToPageRange(
  calls: SystemCalls,
  address: number,
  length: number,
  change: (page: number, pte: number) => number,
): Sim<void> {
  const [start, end] = calls.range('apply_to_page_range', address, length);
  const { mm } = calls;
  yield* mm.lock.lockWrite();
  const { table, memory } = mm;
  const range = yield* beginRange(mm, start, end, CAUSE_CLEAR);
  yield* lockTable(mm);
  for (let page = start / PAGE_BYTES; page < end / PAGE_BYTES; page++) {
    const pte = table.get(page);
    const changed = change(page, pte);
    if (changed === pte) continue;
    // Counts and reverse map stay right as long as the page stays the same one.
    const isSame = (changed & PTE_PRESENT) !== 0 && pteNumber(changed) === pteNumber(pte);
    assert(isSame && pte !== 0, 'apply_to_page_range puts another page in place', memory.node);
    table.set(page, changed);
  }
  mm.tableLock.unlock();
  yield* mm.notifiers.end(range);
  yield ((end - start) / PAGE_BYTES) * memory.costs.unmapPagePs;
  mm.lock.unlockWrite();
}
