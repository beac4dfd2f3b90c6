/**
 * Whether a page has been used since reclaim last asked: the accessed bits of its mappings, and what
 * notifier clients know (mm/rmap.c: page_referenced). Asking clears the bits.
 */
import type { Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { FRAME_DIRTY, FRAME_HUGE, PAGE_BYTES } from '../physical/frames.ts';
import { PTE_ACCESSED, PTE_DIRTY, PTE_PRESENT } from '../virtual/page-table.ts';

export class PageAge {
  /** Of the page that was looked at last: mappings through which it was used. */
  referenced = 0;
  /** Of the same page: somebody has written it since it was last clean. */
  isDirty = false;
  /** Of the same page: mappings whose processes have notifier clients, who were not asked yet. */
  private unasked = 0;
  private mappings = 0;
  private isHuge = false;

  constructor(private readonly memory: Memory) {}

  /**
   * Looks at the page tables; returns the CPU time that it took. The answers are in `referenced` and
   * `isDirty`, good until anybody sleeps. `needsClients` says that `askClients` has to follow.
   */
  look(frame: number): number {
    const { frames, rmap, costs } = this.memory;
    this.referenced = 0;
    this.unasked = 0;
    this.mappings = 0;
    this.isDirty = (frames.flags[frame] & FRAME_DIRTY) !== 0;
    this.isHuge = (frames.flags[frame] & FRAME_HUGE) !== 0;
    rmap.forEach(frame, this.visit);
    return this.mappings * costs.agePagePs;
  }

  get needsClients(): boolean {
    return this.unasked > 0;
  }

  /** Asks the notifier clients of a page; returns through how many mappings they have used it. */
  *askClients(frame: number): Sim<number> {
    const { memory } = this;
    let young = 0;
    for (const { mm: id, page } of memory.rmap.list(frame)) {
      const mm = memory.mms[id];
      if (mm === undefined || mm.notifiers.idle) continue;
      yield* mm.tableLock.lock();
      if (yield* mm.notifiers.agePage(page * PAGE_BYTES)) young++;
      mm.tableLock.unlock();
    }
    return young;
  }

  private readonly visit = (id: number, page: number): void => {
    const { table, notifiers } = this.memory.mmOf(id);
    this.mappings++;
    if (!notifiers.idle) this.unasked++;
    const pte = this.isHuge ? table.getHuge(page) : table.get(page);
    if ((pte & PTE_PRESENT) === 0) return;
    if ((pte & PTE_DIRTY) !== 0) this.isDirty = true;
    if ((pte & PTE_ACCESSED) === 0) return;
    this.referenced++;
    if (this.isHuge) table.setHuge(page, pte & ~PTE_ACCESSED);
    else table.set(page, pte & ~PTE_ACCESSED);
  };
}
