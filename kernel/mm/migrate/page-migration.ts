/**
 * Moving pages to other frames while processes use them (mm/migrate.c: migrate_pages, unmap_and_move).
 *
 * A page is locked, every mapping of it becomes a migration entry (and every device behind a notifier lets
 * go), the bytes are copied, the page cache gets the new frame, and every migration entry becomes an
 * ordinary one again, of the new frame, or of the old one where something went wrong. Whoever faults in
 * between waits for the page lock. A page that somebody holds a reference to cannot move: it is tried in
 * ten passes, in the hope that the reference goes away, and stays.
 *
 * Owns no policy: which pages move, and where to, is `move-pages.ts`, `compaction.ts`, `hotplug.ts` and
 * `long-term-pin.ts`. Simpler than Linux: no file system takes part, and a page is checked once more after
 * its copy where Linux freezes its reference count before.
 */
import { assert } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { CAUSE_MIGRATE } from '../notify/invalidation.ts';
import {
  FRAME_ACTIVE,
  FRAME_ANON_EXCLUSIVE,
  FRAME_DIRTY,
  FRAME_HUGE,
  FRAME_LRU,
  FRAME_PINNED,
  FRAME_REFERENCED,
  FRAME_SWAP_BACKED,
  FRAME_SWAP_CACHE,
  FRAME_UNEVICTABLE,
  FRAME_WRITEBACK,
  NO_FRAME,
  PAGE_BYTES,
} from '../physical/frames.ts';
import { HUGE_PAGES } from '../physical/free-lists.ts';
import { tryToUnmap } from '../reclaim/try-to-unmap.ts';
import { splitHugePage } from '../virtual/huge-pages.ts';
import { lockPage, reconsiderUnevictable } from '../virtual/mlock-pages.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import {
  isMigrationPte,
  makePte,
  PTE_DIRTY,
  PTE_MIGRATION,
  PTE_PRESENT,
  PTE_WRITE,
  pteNumber,
} from '../virtual/page-table.ts';
import { VM_LOCKED } from '../virtual/vma.ts';
import { MigrationEntries } from './migration-entries.ts';

/** Passes over the pages of one call (NR_MAX_MIGRATE_PAGES_RETRY). */
export const MIGRATE_PASSES = 10;
/** Passes that do not sleep for a page lock or for writeback (`force = pass > 2`). */
const PASSES_WITHOUT_SLEEP = 3;

/** What became of a page: errno values of Linux. */
export const MIGRATED = 0;
/** In use by somebody who cannot be asked to let go, or refused by a client: EBUSY. */
export const MIGRATE_BUSY = -16;
/** No frame to move it to: ENOMEM. */
export const MIGRATE_NO_MEMORY = -12;
/** To be tried again: EAGAIN. Not the final word of `migrate`. */
export const MIGRATE_AGAIN = -11;
/** Of `begin`: nobody has the page any more, so there is nothing to move. */
export const NO_TARGET = -1;

/** The frame that the page in `frame` moves to, with one reference for the caller; NO_FRAME when there is none. */
export type TargetSource = (frame: number) => number;

/** Flags that a page takes along (migrate_page_states). */
const KEPT_FLAGS =
  FRAME_ACTIVE |
  FRAME_ANON_EXCLUSIVE |
  FRAME_DIRTY |
  FRAME_REFERENCED |
  FRAME_SWAP_BACKED |
  FRAME_UNEVICTABLE;

export class PageMigration {
  readonly entries = new MigrationEntries();

  constructor(private readonly memory: Memory) {}

  /**
   * Takes a page off its LRU list with a reference, so that nobody else works on it (isolate_lru_page).
   * False for a page that is on none: free, being worked on by somebody else, or marked as pinned.
   */
  isolate(frame: number): boolean {
    const { frames, lru, hugePool } = this.memory;
    const flags = frames.flags[frame];
    if ((flags & FRAME_LRU) === 0 || (flags & FRAME_PINNED) !== 0) return false;
    if ((flags & FRAME_HUGE) !== 0 && hugePool.owns(frame)) return false;
    frames.get(frame);
    lru.remove(frame);
    // It goes back to the list that it came from.
    frames.flags[frame] |= flags & FRAME_ACTIVE;
    return true;
  }

  /** Undoes `isolate` (putback_lru_page). */
  putBack(frame: number): void {
    const { frames, lru } = this.memory;
    const flags = frames.flags[frame];
    if (frames.isOwned(frame) && (flags & (FRAME_LRU | FRAME_PINNED)) === 0) {
      lru.add(frame, (flags & FRAME_ACTIVE) !== 0);
    }
    frames.put(frame);
  }

  /**
   * Moves isolated pages to frames that `target` gives. Says in `status` what became of each: MIGRATED,
   * MIGRATE_BUSY or MIGRATE_NO_MEMORY. Returns how many stayed. None is isolated afterwards.
   */
  *migrate(isolated: readonly number[], target: TargetSource, status: Int32Array): Sim<number> {
    const { counters } = this.memory;
    status.fill(MIGRATE_AGAIN, 0, isolated.length);
    let staying = isolated.length;
    for (let pass = 0; pass < MIGRATE_PASSES; pass++) {
      const isLast = pass === MIGRATE_PASSES - 1;
      let again = 0;
      for (let i = 0; i < isolated.length; i++) {
        if (status[i] !== MIGRATE_AGAIN) continue;
        const frame = isolated[i] as number;
        let result = yield* this.migrateOne(frame, target, pass >= PASSES_WITHOUT_SLEEP);
        if (result === MIGRATE_AGAIN && isLast) result = MIGRATE_BUSY;
        status[i] = result;
        if (result === MIGRATE_AGAIN) again++;
        else if (result === MIGRATED) staying--;
        else {
          counters.pgmigrate_fail += this.pagesOf(frame);
          this.putBack(frame);
        }
      }
      if (again === 0) break;
    }
    return staying;
  }

  /** A frame of `node` to move a page to, above the node's reserve; huge for a huge page. */
  allocateOn(node: number, frame: number): number {
    const { frames, nodes } = this.memory;
    const home = nodes[node];
    const isHuge = (frames.flags[frame] & FRAME_HUGE) !== 0;
    const wanted = isHuge ? HUGE_PAGES : 1;
    const free = frames.freeLists.freeCounts[node];
    if (home === undefined || free - wanted < home.watermarks.min) return NO_FRAME;
    return isHuge ? frames.allocateHuge(node) : frames.allocate(node);
  }

  /**
   * Locks an isolated page and makes every mapping of it a migration entry; devices have let go of it, and
   * nobody but the caller uses it. Returns the frame that it is to move to, locked and with a reference, or
   * what became of the page: NO_TARGET when everybody has let go of it for good (the isolated reference is
   * gone), MIGRATE_AGAIN, MIGRATE_NO_MEMORY. `mayWait`: sleep for the page lock.
   */
  *begin(frame: number, target: TargetSource, mayWait: boolean): Sim<number> {
    const { frames, pageLocks, timers, costs } = this.memory;
    if (!pageLocks.tryLock(frame)) {
      if (!mayWait) return MIGRATE_AGAIN;
      yield* pageLocks.lock(frame);
    }
    yield costs.migratePagePs;
    if ((frames.flags[frame] & FRAME_WRITEBACK) !== 0) {
      if (mayWait) yield* timers.sleep(costs.swapLatencyPs);
      pageLocks.unlock(frame);
      return MIGRATE_AGAIN;
    }
    if (frames.references[frame] === 1) {
      pageLocks.unlock(frame);
      frames.put(frame);
      return NO_TARGET;
    }
    let to = this.isInPieces(frame) ? NO_FRAME : target(frame);
    if (to === NO_FRAME && this.split(frame)) to = target(frame);
    if (to === NO_FRAME) {
      const isHeld = this.isInPieces(frame);
      pageLocks.unlock(frame);
      return isHeld ? MIGRATE_AGAIN : MIGRATE_NO_MEMORY;
    }
    assert(pageLocks.tryLock(to), 'the target of a migration is locked', this.memory.node);
    if ((yield* this.unmap(frame)) && this.isAlone(frame)) return to;
    this.end(frame, to, false);
    return MIGRATE_AGAIN;
  }

  /**
   * Ends what `begin` began: everybody finds the page in `to` if it has `moved` there, else in `frame` again.
   * Where it moved, the isolated reference is gone, else it is the caller's.
   */
  end(frame: number, to: number, moved: boolean): void {
    const { frames, pageLocks, counters } = this.memory;
    if (moved) {
      counters.pgmigrate_success += this.pagesOf(frame);
      this.takeOver(frame, to);
    }
    this.restore(frame, moved ? to : frame);
    pageLocks.unlock(frame);
    pageLocks.unlock(to);
    if (!moved) frames.put(to);
    else {
      this.putBack(to);
      frames.put(frame);
    }
  }

  /** True when nobody but the page cache, notifier clients and the caller holds the page. */
  isAlone(frame: number): boolean {
    const { frames } = this.memory;
    return frames.mapCounts[frame] === 0 && frames.extraReferences(frame, 1) === 0;
  }

  /** One attempt at one page. Where it is MIGRATED the isolated reference is gone, else it is the caller's. */
  private *migrateOne(frame: number, target: TargetSource, mayWait: boolean): Sim<number> {
    const to = yield* this.begin(frame, target, mayWait);
    if (to < 0) return to === NO_TARGET ? MIGRATED : to;
    const moved = yield* this.copy(frame, to);
    this.end(frame, to, moved);
    return moved ? MIGRATED : MIGRATE_AGAIN;
  }

  /** Pages of 4 KiB that the page in `frame` has. */
  private pagesOf(frame: number): number {
    return (this.memory.frames.flags[frame] & FRAME_HUGE) !== 0 ? HUGE_PAGES : 1;
  }

  /** True for a huge page that a process maps by entries for its single pages. */
  private isInPieces(frame: number): boolean {
    const { frames, rmap } = this.memory;
    if ((frames.flags[frame] & FRAME_HUGE) === 0) return false;
    let inPieces = false;
    rmap.forEach(frame, (mm, page) => {
      if (this.memory.mmOf(mm).table.getHuge(page) === 0) inPieces = true;
    });
    return inPieces;
  }

  /** Makes single pages of a huge page, of which `frame` stays the caller's; false where that cannot be. */
  private split(frame: number): boolean {
    const { memory } = this;
    if ((memory.frames.flags[frame] & FRAME_HUGE) === 0) return false;
    return splitHugePage(memory, frame, 1);
  }

  private unmap(frame: number): Sim<boolean> {
    const { memory, entries } = this;
    return tryToUnmap(memory, frame, CAUSE_MIGRATE, (pte, mm, page) => {
      entries.add(frame, mm.id, page);
      return makePte(frame, PTE_MIGRATION | (pte & (PTE_WRITE | PTE_DIRTY)));
    });
  }

  /** Copies a page that nobody uses; false when somebody has found it meanwhile. */
  private *copy(from: number, to: number): Sim<boolean> {
    const { frames, costs } = this.memory;
    const pages = this.pagesOf(from);
    yield pages * costs.copyPagePs;
    if (!this.isAlone(from)) return false;
    for (let i = 0; i < pages; i++) frames.content.moveTo(from + i, frames.content, to + i);
    return true;
  }

  /** Gives `to` what makes the page that page: state, origin, cgroup, its place in a file. */
  private takeOver(from: number, to: number): void {
    const { frames, files, groups, swapCache } = this.memory;
    frames.flags[to] |= frames.flags[from] & KEPT_FLAGS;
    const pages = this.pagesOf(from);
    for (let i = 0; i < pages; i++) {
      frames.origins[to + i] = frames.origins[from + i];
      const group = frames.groups[from + i];
      groups.uncharge(from + i);
      groups.charge(to + i, group);
    }
    if ((frames.flags[from] & FRAME_SWAP_CACHE) !== 0) swapCache.move(from, to);
    const file = frames.files[from];
    if (file === 0) return;
    const index = frames.fileIndexes[from];
    files.file(file).pages.set(index, to);
    frames.files[to] = file;
    frames.fileIndexes[to] = index;
    frames.files[from] = 0;
    frames.get(to);
    frames.put(from);
  }

  /** Makes the migration entries of `from` ordinary ones of `to` (remove_migration_ptes). */
  private restore(from: number, to: number): void {
    this.entries.take(from, (id, page) => {
      const mm = this.memory.mms[id];
      if (mm !== undefined) this.restoreEntry(mm, page, from, to);
    });
    // Areas may have been unlocked meanwhile.
    const { memory } = this;
    if ((memory.frames.flags[to] & FRAME_UNEVICTABLE) !== 0) reconsiderUnevictable(memory, to);
  }

  private restoreEntry(mm: MmStruct, page: number, from: number, to: number): void {
    const { frames, rmap } = this.memory;
    const { table } = mm;
    const huge = table.getHuge(page);
    const pte = huge === 0 ? table.get(page) : huge;
    // Unmapped meanwhile: nobody misses it. A huge page may have been cut into pieces.
    const piece = pteNumber(pte) - from;
    const pieces = (frames.flags[from] & FRAME_HUGE) !== 0 ? HUGE_PAGES : 1;
    if (!isMigrationPte(pte) || piece < 0 || piece >= pieces) return;
    const entry = makePte(to + piece, PTE_PRESENT | (pte & (PTE_WRITE | PTE_DIRTY)));
    if (huge === 0) table.set(page, entry);
    else table.setHuge(page, entry);
    frames.get(to);
    rmap.map(to, mm.id, page);
    // The area may have been locked meanwhile, when there was no page to mark.
    const vma = mm.vmas.find(page * PAGE_BYTES);
    if (vma !== undefined && (vma.flags & VM_LOCKED) !== 0) lockPage(this.memory, to);
  }
}
