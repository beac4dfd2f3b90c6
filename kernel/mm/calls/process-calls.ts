/**
 * What a process' life does to its memory: fork, exec and exit (kernel/fork.c, fs/exec.c, exit_mmap of
 * mm/mmap.c).
 */
import { assert } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import { CAUSE_UNMAP } from '../notify/invalidation.ts';
import { zapEntries, zapRange } from '../page-range.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import { copyRange } from '../virtual/copy-range.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { VM_DONTCOPY, VM_HUGETLB, VM_LOCKED, VM_SHARED, type Vma } from '../virtual/vma.ts';
import { ADDRESS_LIMIT, OP_EXEC, OP_EXIT, OP_FORK, type SystemCalls } from './system-calls.ts';

/** The address space of a child, with what the parent has; see AddressSpace.fork. */
export function* fork(calls: SystemCalls, name: string): Sim<MmStruct> {
  yield* calls.enter('fork');
  const { mm, memory } = calls;
  const { settings, costs } = memory;
  const areas = mm.vmas.list().filter(({ flags }) => (flags & VM_DONTCOPY) === 0);
  let accounted = 0;
  for (const area of areas) accounted += accountedPages(area);
  calls.checkCommit('fork', settings.overcommit === 'never' ? accounted : 0);
  yield costs.forkPs;
  const child = memory.createMm(name, mm.limits);
  child.group = mm.group;
  child.homeNode = mm.homeNode;
  child.breakStart = mm.breakStart;
  child.breakEnd = mm.breakEnd;
  child.hasDeviceMemory = mm.hasDeviceMemory;
  child.oomScoreAdj = mm.oomScoreAdj;
  const progress = { entriesLeft: settings.forkFailsAfterEntries };
  let isWhole = true;
  for (const area of [...areas]) {
    // Locks are not inherited (mlock(2)).
    const kind = { prot: area.prot, flags: area.flags & ~VM_LOCKED, file: area.file };
    child.vmas.insert(area.start, area.end, kind, area.fileOffset);
    isWhole = yield* copyRange(mm, child, area, progress);
    if (!isWhole) break;
  }
  if (!isWhole || mm.killed !== undefined) {
    mm.lock.unlockWrite();
    yield* endMm(child);
    if (mm.killed !== undefined) throw mm.killed;
    throw calls.refuse('ENOMEM', 'fork', 'memory ran out while pages were copied', 'more memory');
  }
  // Killed or not, the child is there.
  mm.lock.unlockWrite();
  calls.record(OP_FORK, 0, child.vmas.totalPages * PAGE_BYTES);
  return child;
}

/** The address space of a new program for the process; what it had goes, unless others share it. */
export function* exec(calls: SystemCalls): Sim<MmStruct> {
  yield* calls.enter('exec');
  const { mm, memory } = calls;
  mm.lock.unlockWrite();
  yield memory.costs.forkPs;
  // The OOM killer may have ended the process meanwhile.
  if (mm.killed !== undefined) throw mm.killed;
  const fresh = memory.createMm(mm.name, mm.limits);
  fresh.group = mm.group;
  fresh.homeNode = mm.homeNode;
  fresh.oomScoreAdj = mm.oomScoreAdj;
  fresh.endProcess = mm.endProcess;
  yield* leaveMm(mm);
  calls.record(OP_EXEC, 0, 0);
  return fresh;
}

/** See AddressSpace.exit. */
export function* exit(calls: SystemCalls): Sim<void> {
  const { mm, memory } = calls;
  // Somebody else may be ending it already: the OOM killer.
  if (!mm.alive || mm.users === 0) return;
  yield memory.costs.systemCallPs;
  yield* leaveMm(mm);
  calls.record(OP_EXIT, 0, 0);
}

/** One user of an address space less; it ends with the last one (mmput). */
function* leaveMm(mm: MmStruct): Sim<void> {
  assert(mm.users > 0, 'an address space has more users than it knows', mm.memory.node);
  if (--mm.users === 0) yield* endMm(mm);
}

/**
 * exit_mmap: the notifiers are released, all in one go and before any mapping is torn down, so that nobody has
 * to be told of each mapping afterwards; then everything goes.
 */
export function* endMm(mm: MmStruct): Sim<void> {
  const { memory, vmas, notifiers } = mm;
  const { costs, hugePool, files, settings } = memory;
  const isFirst = settings.notifierRelease === 'first';
  if (isFirst) yield* notifiers.release();
  yield* mm.lock.lockWrite();
  mm.alive = false;
  if (!isFirst) {
    // Seed 002: "This way each vma must be processed individually."
    for (const { start, end } of [...vmas.list()]) yield* zapRange(mm, start, end, CAUSE_UNMAP);
    yield* notifiers.release();
  }
  if (!mm.tableLock.tryLock()) yield* mm.tableLock.lock();
  let zapped = 0;
  for (const { start, end } of vmas.list()) {
    zapped += zapEntries(mm, start / PAGE_BYTES, end / PAGE_BYTES);
  }
  mm.tableLock.unlock();
  hugePool.unreserve(mm.hugeReserved);
  mm.hugeReserved = 0;
  const shared = new Set(
    vmas.list().map(({ file, flags }) => (flags & VM_SHARED ? file : undefined)),
  );
  vmas.remove(0, ADDRESS_LIMIT);
  mm.lock.unlockWrite();
  yield zapped * costs.unmapPagePs + costs.forkPs;
  for (const file of shared) if (file?.unnamed) yield* files.endIfUnmapped(file);
  memory.mms[mm.id] = undefined;
}

function accountedPages(area: Readonly<Vma>): number {
  const counts = (area.flags & (VM_SHARED | VM_HUGETLB)) === 0 && area.prot & 2;
  return counts ? (area.end - area.start) / PAGE_BYTES : 0;
}
