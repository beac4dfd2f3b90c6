/**
 * KVM as a client of the notifiers (S5): a virtual machine whose guest memory is memory of a process.
 *
 * Memory slots say which guest frames (gfn) are which addresses of the process. Guests run on shadow page
 * tables: each entry (spte) translates a guest virtual page straight to a page frame and holds a
 * reference to it, and each guest frame has a chain of the entries that map it, KVM's own reverse map. So
 * an invalidation is work for each page, and for each entry, however large the range that is announced;
 * only the lock and the look-up of the slot can be shared by several pages (Arcangeli, seed 001).
 * `batchPages` says by how many: 1 is invalidate_page for each page, 512 the page table lock's worth.
 *
 * A fault races with invalidations: it notes `sequence`, looks the page up without a lock, takes mmu_lock,
 * and starts again when an invalidation is running or has ended meanwhile (mmu_notifier_retry, seeds
 * later than these). After virt/kvm/kvm_main.c and arch/x86/kvm/mmu.c.
 *
 * Simplified: the translation cache of a vcpu is not modelled but for what it costs to flush, guest page
 * tables are data of the model, and a fault that meets a running invalidation sleeps until its end, where
 * Linux goes back to the guest and faults again.
 */
import { NS, type TimePs, US } from '../../transport/index.ts';
import { SystemCallError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import type { Invalidation, InvalidationCause } from '../mm/notify/invalidation.ts';
import type { MmuNotifier, MmuNotifiers } from '../mm/notify/mmu-notifiers.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import { SpinLock } from '../sched/spin-lock.ts';
import { ENTER_NEW, ENTER_SAME, type MemorySlot, ShadowMmu, type Slot } from './shadow-mmu.ts';
import { Vcpu } from './vcpu.ts';

/** What KVM's work costs, in picoseconds of CPU time. */
export interface KvmCosts {
  /** Exit of a vcpu for a shadow page fault, and entry again. */
  readonly exitPs: TimePs;
  /** Taking and releasing mmu_lock when nobody else has it. */
  readonly lockPs: TimePs;
  /** Finding the memory slots of a range. */
  readonly slotLookupPs: TimePs;
  /** Looking at the chain of one guest frame. */
  readonly rmapPagePs: TimePs;
  /** Clearing one entry and taking it out of its chain. */
  readonly dropSptePs: TimePs;
  /** Setting one entry and putting it into its chain. */
  readonly setSptePs: TimePs;
  /** Flushing the translations of the vcpus: an interprocessor interrupt and its answer, where any runs. */
  readonly flushPs: TimePs;
  /** What each running vcpu adds to it. */
  readonly flushVcpuPs: TimePs;
  /** Access of a guest to a page that its shadow table has. */
  readonly guestAccessPs: TimePs;
}

export const defaultKvmCosts: KvmCosts = {
  exitPs: 2 * US, // assumed: the order of a VMX round trip of 2008
  lockPs: 40 * NS, // assumed: two atomic operations
  slotLookupPs: 50 * NS, // assumed: a walk over a few slots
  rmapPagePs: 20 * NS, // assumed: a cache miss
  dropSptePs: 50 * NS, // assumed: as unmapPagePs of the host
  setSptePs: 100 * NS, // assumed
  flushPs: 2 * US, // assumed: the order of smp_call_function
  flushVcpuPs: 200 * NS, // assumed
  guestAccessPs: 20 * NS, // assumed: as pageAccessPs of the host
};

export interface KvmPlan {
  readonly name?: string;
  /** Pages that an invalidation handles under one hold of mmu_lock; 512 when not given, Infinity for all. */
  readonly batchPages?: number;
  readonly costs?: KvmCosts;
}

/** What the machine has counted. */
export interface KvmCounters {
  faults: number;
  retries: number;
  invalidations: number;
  /** Pages that invalidations looked at, and entries that they dropped. */
  pagesInvalidated: number;
  sptesDropped: number;
  flushes: number;
}

export class Kvm implements MmuNotifier {
  readonly name: string;
  readonly costs: KvmCosts;
  /** mmu_lock. */
  readonly lock: SpinLock;
  readonly counters: KvmCounters = {
    faults: 0,
    retries: 0,
    invalidations: 0,
    pagesInvalidated: 0,
    sptesDropped: 0,
    flushes: 0,
  };
  private readonly mmu: ShadowMmu;
  private readonly batchPages: number;
  private readonly vcpus: Vcpu[] = [];
  /** Invalidations between begin and end, and those that have ended (mmu_notifier_count and _seq). */
  private running = 0;
  private sequence = 0;
  private allEnded = new Completion<void>('the end of an invalidation');
  private alive = true;
  /** Frames whose entries are gone and whose references are to be dropped after the flush, with their pages. */
  private dropped = new Int32Array(512);
  private droppedPages = new Float64Array(512);

  /** Those of the program that made the machine: exec gives the process others. */
  private readonly notifiers: MmuNotifiers;

  private constructor(
    readonly mm: AddressSpace,
    { name = 'kvm', batchPages = 512, costs = defaultKvmCosts }: KvmPlan,
  ) {
    this.notifiers = mm.notifiers;
    this.mmu = new ShadowMmu(mm.memory.frames);
    this.name = name;
    this.costs = costs;
    this.batchPages = batchPages;
    this.lock = new SpinLock(mm.memory.scheduler, `mmu_lock ${name}`);
  }

  /** A virtual machine in process `mm` (KVM_CREATE_VM): registers its notifier. */
  static *create(mm: AddressSpace, plan: KvmPlan = {}): Sim<Kvm> {
    const kvm = new Kvm(mm, plan);
    yield* kvm.notifiers.attach(kvm);
    return kvm;
  }

  /** Entries in all shadow tables, which is how many references the machine holds. */
  get spteCount(): number {
    return this.mmu.entryCount;
  }

  /**
   * KVM_SET_USER_MEMORY_REGION.
   * @throws SystemCallError EINVAL: no whole pages, or guest frames of another slot
   */
  addSlot(slot: MemorySlot): void {
    const { firstGfn, pageCount, address } = slot;
    if (!(pageCount > 0) || !Number.isInteger(pageCount) || address % PAGE_BYTES !== 0) {
      throw this.refuse('EINVAL', `a slot of ${pageCount} pages at 0x${address.toString(16)}`);
    }
    if (!this.mmu.addSlot(slot)) {
      throw this.refuse('EINVAL', `slot at gfn ${firstGfn} overlaps another one`);
    }
  }

  /**
   * Takes the slot of guest frame `firstGfn` away with all its entries.
   * @throws SystemCallError EINVAL when there is no such slot
   */
  *removeSlot(firstGfn: number): Sim<void> {
    const slot = this.mmu.slots.find((candidate) => candidate.firstGfn === firstGfn);
    if (slot === undefined) throw this.refuse('EINVAL', `there is no slot at gfn ${firstGfn}`);
    slot.isLeaving = true;
    this.sequence++;
    yield* this.dropSlotPages(slot, 0, slot.pageCount);
    this.mmu.removeSlot(slot);
  }

  /** A vcpu. `pages` is the page table of its guest process: guest virtual page to guest frame. */
  createVcpu(pages: ReadonlyMap<number, number>): Vcpu {
    const vcpu = new Vcpu(this, pages, this.mmu.addSpace());
    this.vcpus.push(vcpu);
    return vcpu;
  }

  /** Ends the machine, once: drops everything and unregisters. */
  *destroy(): Sim<void> {
    yield* this.notifiers.detach(this);
  }

  /** The frame that guest space `space` may access at `page`, or -1 where its shadow table says nothing. */
  access(space: number, page: number, write: boolean): number {
    return this.mmu.access(space, page, write);
  }

  /**
   * A shadow page fault: enters the translation of guest virtual page `page`, which is guest frame `gfn`.
   * @throws SystemCallError EFAULT: no slot has it (Linux: an access to a device), the slot is read-only,
   * or the process may not access the memory; ESRCH after the process has ended
   */
  *fault(space: number, page: number, gfn: number, write: boolean): Sim<void> {
    const { mm, lock, costs, counters } = this;
    const { frames } = mm.memory;
    counters.faults++;
    for (;;) {
      yield costs.exitPs;
      // Its memory may live on without it: a child of vfork has it.
      const isThere = this.alive && mm.notifiers === this.notifiers;
      if (!isThere) throw this.refuse('ESRCH', 'the process of the machine has ended');
      const slot = this.mmu.slotOf(gfn);
      if (slot === undefined || (write && slot.readOnly)) {
        throw this.refuse('EFAULT', `no memory to ${write ? 'write' : 'read'} at gfn ${gfn}`);
      }
      const index = gfn - slot.firstGfn;
      const virtualPage = slot.address / PAGE_BYTES + index;
      const sequence = this.sequence;
      const frame = yield* mm.pages.get(virtualPage, write);
      if (frame < 0) {
        throw this.refuse('EFAULT', `0x${(virtualPage * PAGE_BYTES).toString(16)} of the process`);
      }
      yield* lock.lock();
      yield costs.lockPs;
      if (this.running === 0 && this.sequence === sequence) {
        const replaced = this.mmu.enter(space, page, slot, index, frame, write);
        this.takeOver(virtualPage, frame, replaced);
        yield costs.setSptePs;
        lock.unlock();
        return;
      }
      lock.unlock();
      frames.put(frame);
      counters.retries++;
      while (this.running > 0) yield this.allEnded;
    }
  }

  *release(): Sim<void> {
    this.alive = false;
    this.sequence++;
    const { slots } = this.mmu;
    for (const slot of slots) yield* this.dropSlotPages(slot, 0, slot.pageCount);
    for (const slot of slots) this.mmu.removeSlot(slot);
  }

  *agePage(address: number): Sim<boolean> {
    const { costs, lock } = this;
    const page = address / PAGE_BYTES;
    let young = false;
    yield* lock.lock();
    yield costs.lockPs + costs.slotLookupPs;
    for (const slot of this.mmu.slots) {
      const index = page - slot.address / PAGE_BYTES;
      if (index < 0 || index >= slot.pageCount) continue;
      yield costs.rmapPagePs;
      if (this.mmu.testAndClearAccessed(slot, index)) young = true;
    }
    lock.unlock();
    return young;
  }

  *invalidatePage(address: number, _cause: InvalidationCause): Sim<void> {
    this.sequence++;
    yield* this.dropRange(address, address + PAGE_BYTES);
  }

  *invalidateRangeBegin({ start, end }: Invalidation): Sim<void> {
    yield* this.lock.lock();
    yield this.costs.lockPs;
    this.running++;
    this.lock.unlock();
    yield* this.dropRange(start, end);
  }

  *invalidateRangeEnd(_range: Invalidation): Sim<void> {
    yield* this.lock.lock();
    this.sequence++;
    this.running--;
    this.lock.unlock();
    if (this.running > 0) return;
    const ended = this.allEnded;
    this.allEnded = new Completion<void>(ended.purpose);
    ended.resolve();
  }

  /** The reference of a new entry is the caller's, unless the entry was there already. */
  private takeOver(virtualPage: number, frame: number, replaced: number): void {
    const { frames } = this.mm.memory;
    if (replaced === ENTER_SAME) {
      frames.put(frame);
      return;
    }
    if (replaced !== ENTER_NEW) this.letGo(virtualPage, replaced);
    frames.giveToClient(frame);
    this.notifiers.references.insert(this, virtualPage, frame);
  }

  /** Drops the entries of the pages of the process in [start, end). */
  private *dropRange(start: number, end: number): Sim<void> {
    this.counters.invalidations++;
    for (const slot of this.mmu.slots) {
      const first = Math.max(0, Math.floor((start - slot.address) / PAGE_BYTES));
      const last = Math.min(slot.pageCount, Math.ceil((end - slot.address) / PAGE_BYTES));
      if (first < last) yield* this.dropSlotPages(slot, first, last);
    }
  }

  /** Drops the entries of guest frames [first, last) of a slot, so many under one hold of mmu_lock. */
  private *dropSlotPages(slot: Slot, first: number, last: number): Sim<void> {
    const { lock, costs, counters, batchPages } = this;
    for (let from = first; from < last; ) {
      const to = Math.min(last, from + batchPages);
      yield* lock.lock();
      let dropped = 0;
      for (let index = from; index < to; index++) {
        for (;;) {
          const frame = this.mmu.take(slot, index);
          if (frame < 0) break;
          if (dropped === this.dropped.length) this.growDropped();
          this.droppedPages[dropped] = slot.address / PAGE_BYTES + index;
          this.dropped[dropped++] = frame;
        }
      }
      counters.pagesInvalidated += to - from;
      counters.sptesDropped += dropped;
      const flushPs = dropped > 0 ? this.flush() : 0;
      const pagesPs = (to - from) * costs.rmapPagePs + dropped * costs.dropSptePs;
      yield costs.lockPs + costs.slotLookupPs + pagesPs + flushPs;
      // Not before the flush: until then a vcpu may still use the translations.
      for (let i = 0; i < dropped; i++) {
        this.letGo(this.droppedPages[i], this.dropped[i]);
      }
      lock.unlock();
      from = to;
    }
  }

  private letGo(virtualPage: number, frame: number): void {
    this.notifiers.references.drop(this, virtualPage, frame);
    this.mm.memory.frames.putFromClient(frame);
  }

  /** What a flush costs with the vcpus that are in their guests now. */
  private flush(): TimePs {
    let running = 0;
    for (const vcpu of this.vcpus) if (vcpu.running) running++;
    if (running === 0) return 0;
    this.counters.flushes++;
    return this.costs.flushPs + running * this.costs.flushVcpuPs;
  }

  private growDropped(): void {
    const longer = new Int32Array(this.dropped.length * 2);
    longer.set(this.dropped);
    this.dropped = longer;
    const pages = new Float64Array(longer.length);
    pages.set(this.droppedPages);
    this.droppedPages = pages;
  }

  private refuse(errno: 'EINVAL' | 'EFAULT' | 'ESRCH', what: string): SystemCallError {
    return new SystemCallError(errno, 'kvm', what, this.mm.name, 'memory of a slot');
  }
}
