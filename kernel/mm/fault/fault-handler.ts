/**
 * Making one page of a process present: the work of handle_mm_fault (mm/memory.c) for anonymous
 * memory, for CPU accesses, pins and page faults of the adapter alike.
 *
 * Works on single pages with the mmap lock held for reading by the caller. Everything that can be
 * done without sleeping goes through `tryHandle`, which only adds up the CPU time it took, so that a
 * run of ordinary faults costs the model one event.
 */
import type { Sim } from '../../sched/completion.ts';
import { FRAME_SWAP_BACKED, ORIGIN_CPU } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import {
  makePte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_SWAP,
  PTE_WRITE,
  pteNumber,
} from '../virtual/page-table.ts';
import { PROT_READ, PROT_WRITE, type Vma } from '../virtual/vma.ts';

export class FaultHandler {
  /** CPU time of what tryHandle has done and the caller has not yet spent. */
  pendingPs = 0;

  constructor(private readonly mm: MmStruct) {}

  /** True when an access of that kind to a page of `vma` is allowed at all. */
  static allows(vma: Vma, write: boolean): boolean {
    return (vma.prot & (write ? PROT_WRITE : PROT_READ)) !== 0;
  }

  /**
   * Makes `page` of `vma` present, and writable for a write, if that needs no sleep; returns its
   * frame, or -1. The access must be allowed.
   */
  tryHandle(page: number, vma: Vma, write: boolean, origin = ORIGIN_CPU): number {
    const { table, memory } = this.mm;
    const { counters, costs, reclaim } = memory;
    const pte = table.get(page);
    const wanted = PTE_PRESENT | (write ? PTE_WRITE : 0);
    if ((pte & wanted) === wanted) {
      const touched = pte | PTE_ACCESSED | (write ? PTE_DIRTY : 0);
      if (touched !== pte) table.set(page, touched);
      return pteNumber(pte);
    }
    if (pte & PTE_SWAP) return -1;
    if (pte & PTE_PRESENT) {
      // The mapping has become writable since the page was mapped: no copy, the page is ours alone.
      counters.pgfault++;
      this.pendingPs += costs.minorFaultPs;
      table.set(page, pte | PTE_WRITE | PTE_DIRTY | PTE_ACCESSED);
      return pteNumber(pte);
    }
    const frame = reclaim.tryAllocate(this.mm);
    if (frame < 0) return -1;
    counters.pgfault++;
    this.pendingPs += costs.minorFaultPs;
    this.install(page, frame, vma, write, origin);
    return frame;
  }

  /** The same for what may sleep, for memory or for the swap device. */
  *handle(page: number, vma: Vma, write: boolean, origin = ORIGIN_CPU): Sim<number> {
    const { table, memory } = this.mm;
    const { frames, reclaim, counters, costs } = memory;
    for (;;) {
      const ready = this.tryHandle(page, vma, write, origin);
      if (ready >= 0) return ready;
      yield* this.spend();
      const frame = yield* reclaim.allocate(this.mm);
      const pte = table.get(page);
      if (pte & PTE_SWAP) yield* this.swapIn(page, pteNumber(pte), frame, vma, write, origin);
      else if (pte & PTE_PRESENT) frames.put(frame);
      else {
        counters.pgfault++;
        this.pendingPs += costs.minorFaultPs;
        this.install(page, frame, vma, write, origin);
      }
    }
  }

  /** Spends the CPU time that has piled up. */
  *spend(): Sim<void> {
    const spanPs = this.pendingPs;
    this.pendingPs = 0;
    if (spanPs > 0) yield spanPs;
  }

  private *swapIn(
    page: number,
    slot: number,
    frame: number,
    vma: Vma,
    write: boolean,
    origin: number,
  ): Sim<void> {
    const { table, memory } = this.mm;
    const { frames, swap, node, timers, costs, counters } = memory;
    const entry = table.get(page);
    const ready = swap.startRead(slot, node.now);
    if (ready > node.now) {
      counters.pgmajfault++;
      counters.pswpin++;
      yield* timers.sleep(ready - node.now);
    }
    counters.pgfault++;
    yield costs.majorFaultPs;
    if (table.get(page) !== entry) {
      // Somebody else read it in, or it was unmapped, meanwhile.
      frames.put(frame);
      return;
    }
    swap.content.moveTo(slot, frames.content, frame);
    swap.release(slot);
    frames.markDirty(frame);
    this.install(page, frame, vma, write, origin);
  }

  private install(page: number, frame: number, vma: Vma, write: boolean, origin: number): void {
    const { table, memory, id } = this.mm;
    const { frames, lru, rmap } = memory;
    const writable = (vma.prot & PROT_WRITE) !== 0 ? PTE_WRITE : 0;
    const dirty = write ? PTE_DIRTY : 0;
    table.set(page, makePte(frame, PTE_PRESENT | PTE_ACCESSED | writable | dirty));
    frames.flags[frame] |= FRAME_SWAP_BACKED;
    frames.origins[frame] = origin;
    rmap.map(frame, id, page);
    lru.add(frame, false);
  }
}
