/**
 * The shadow MMU of a virtual machine: memory slots, shadow tables and the chains that lead from a guest
 * frame to its entries (arch/x86/kvm/mmu.c).
 *
 * Pure bookkeeping, under the caller's mmu_lock: no time, no references, no notifiers; those are `kvm.ts`'s.
 */
import type { Frames } from '../mm/physical/frames.ts';
import { NO_SPTE, ShadowEntries, SPTE_ACCESSED, SPTE_DIRTY, SPTE_WRITE } from './shadow-entries.ts';

/** Guest frames [firstGfn, firstGfn + pageCount) are the pages of the process from `address` on. */
export interface MemorySlot {
  readonly firstGfn: number;
  readonly pageCount: number;
  readonly address: number;
  readonly readOnly?: boolean;
}

export interface Slot extends MemorySlot {
  /** Going away: no new entries. It stays in the list, for invalidations, until it has none. */
  isLeaving: boolean;
  /** Head of the chain of each guest frame. */
  readonly chains: Int32Array;
}

/** Results of `enter` that are no frame: nothing was replaced; the entry was there already. */
export const ENTER_NEW = -1;
export const ENTER_SAME = -2;

export class ShadowMmu {
  slots: readonly Slot[] = [];
  private readonly entries = new ShadowEntries();
  /** Shadow tables, one for each guest address space: guest virtual page to entry. */
  private readonly shadows: Map<number, number>[] = [];

  constructor(private readonly frames: Frames) {}

  /** Entries in all shadow tables. */
  get entryCount(): number {
    return this.entries.count;
  }

  /** An empty shadow table; its number. */
  addSpace(): number {
    return this.shadows.push(new Map()) - 1;
  }

  /** Adds a slot; false when some of its guest frames are another's. */
  addSlot(slot: MemorySlot): boolean {
    const { firstGfn, pageCount } = slot;
    for (const other of this.slots) {
      const isBefore = firstGfn + pageCount <= other.firstGfn;
      if (!isBefore && firstGfn < other.firstGfn + other.pageCount) return false;
    }
    const chains = new Int32Array(pageCount).fill(NO_SPTE);
    this.slots = [...this.slots, { ...slot, chains, isLeaving: false }];
    return true;
  }

  removeSlot(slot: Slot): void {
    this.slots = this.slots.filter((other) => other !== slot);
  }

  /** The slot that a fault on guest frame `gfn` may use. */
  slotOf(gfn: number): Slot | undefined {
    return this.slots.find(
      ({ firstGfn, pageCount, isLeaving }) =>
        firstGfn <= gfn && gfn < firstGfn + pageCount && !isLeaving,
    );
  }

  /** The frame that guest space `space` may access at `page`, or -1 where its shadow table says nothing. */
  access(space: number, page: number, write: boolean): number {
    const { entries } = this;
    const spte = this.shadows[space].get(page);
    if (spte === undefined || (write && (entries.flags[spte] & SPTE_WRITE) === 0)) return -1;
    entries.flags[spte] |= SPTE_ACCESSED | (write ? SPTE_DIRTY : 0);
    return entries.frames[spte];
  }

  /**
   * Enters a translation of guest virtual page `page` to `frame`, page `index` of a slot. Returns the frame
   * of the entry that it replaced, ENTER_NEW, or ENTER_SAME when only a right was added.
   */
  enter(
    space: number,
    page: number,
    slot: Slot,
    index: number,
    frame: number,
    write: boolean,
  ): number {
    const { entries } = this;
    const shadow = this.shadows[space];
    const old = shadow.get(page);
    const flags = SPTE_ACCESSED | (write ? SPTE_WRITE : 0);
    if (old !== undefined && entries.frames[old] === frame) {
      entries.flags[old] |= flags;
      return ENTER_SAME;
    }
    const replaced = old === undefined ? ENTER_NEW : this.remove(slot, index, old);
    slot.chains[index] = entries.add(frame, flags, space, page, slot.chains[index]);
    shadow.set(page, slot.chains[index]);
    return replaced;
  }

  /** Takes one entry of page `index` of a slot out; returns its frame, or -1 when there is none left. */
  take(slot: Slot, index: number): number {
    const spte = slot.chains[index];
    return spte === NO_SPTE ? -1 : this.remove(slot, index, spte);
  }

  /** True when an entry of page `index` has been used since this was last asked. */
  testAndClearAccessed(slot: Slot, index: number): boolean {
    const { flags, next } = this.entries;
    let young = false;
    for (let spte = slot.chains[index]; spte !== NO_SPTE; spte = next[spte]) {
      if (flags[spte] & SPTE_ACCESSED) young = true;
      flags[spte] &= ~SPTE_ACCESSED;
    }
    return young;
  }

  /** Takes an entry out of chain and shadow table; what the guest wrote makes the frame dirty. */
  private remove(slot: Slot, index: number, spte: number): number {
    const { entries } = this;
    const frame = entries.frames[spte];
    if (slot.chains[index] === spte) slot.chains[index] = entries.next[spte];
    else {
      let before = slot.chains[index];
      while (entries.next[before] !== spte) before = entries.next[before];
      entries.next[before] = entries.next[spte];
    }
    this.shadows[entries.spaces[spte]].delete(entries.pages[spte]);
    if (entries.flags[spte] & SPTE_DIRTY) this.frames.markDirty(frame);
    entries.give(spte);
    return frame;
  }
}
