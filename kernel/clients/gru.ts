/**
 * The SGI GRU as a client of the notifiers (S6): a device with translation buffers and no page table.
 *
 * Each thread that uses the device has a context with a TLB of its own. A miss is served from the page
 * table of the process, and no reference to the page is kept: nothing tells the driver when to drop one.
 * So an invalidation is nothing but a flush of every context in use: one write to the device, whatever
 * the size of the range (Steiner, seed 001). A context that is not in use is not flushed; its address
 * space identifier is zeroed, so that it finds an empty TLB when it comes back.
 *
 * Without references, what keeps a stale translation out is this: nothing is inserted while an
 * invalidation is running (`rangeActive`), and the device ignores an insertion when a flush has come
 * between the read of the fault and the insertion. After drivers/misc/sgi-gru (grufault.c, grutlbpurge.c).
 *
 * Simplified: one context to a GRU, replacement in turn, base pages only, interrupts run on the CPU of the
 * thread that waits for them.
 */
import { NS, type TimePs, US } from '../../transport/index.ts';
import { SystemCallError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import type { Invalidation, InvalidationCause } from '../mm/notify/invalidation.ts';
import type { MmuNotifier, MmuNotifiers } from '../mm/notify/mmu-notifiers.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import { PTE_DIRTY } from '../mm/virtual/page-table.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import { GruContext } from './gru-context.ts';

/** What the device and its driver cost, in picoseconds of CPU time unless a name says otherwise. */
export interface GruCosts {
  /** Flush of one context: a write of a cache line to the device, and its answer. */
  readonly flushPs: TimePs;
  /** Zeroing the identifier of a context that is not in use. */
  readonly zeroAsidPs: TimePs;
  /** Interrupt of a TLB miss, up to the driver. */
  readonly interruptPs: TimePs;
  /** Call into the driver for a miss that the interrupt could not serve. */
  readonly callPs: TimePs;
  /** Walk of the page table in software. */
  readonly walkPs: TimePs;
  /** Writing one translation into the device. */
  readonly insertPs: TimePs;
  /** Loading a context that was not in use. */
  readonly loadPs: TimePs;
  /** Access of the device to a page that its TLB has; not CPU time. */
  readonly accessPs: TimePs;
}

export const defaultGruCosts: GruCosts = {
  flushPs: 300 * NS, // Steiner, seed 001: "should take a few 100 nsec"
  zeroAsidPs: 10 * NS, // assumed: a cache miss
  interruptPs: 1 * US, // assumed
  callPs: 500 * NS, // assumed: a system call and a few look-ups
  walkPs: 50 * NS, // assumed: four levels
  insertPs: 300 * NS, // assumed: a write to the device, as a flush
  loadPs: 2 * US, // assumed: a context's registers
  accessPs: 500 * NS, // assumed: memory over the device
};

export interface GruPlan {
  readonly name?: string;
  /** Translations that the TLB of a context holds; 64 (assumed) when not given. */
  readonly tlbEntries?: number;
  readonly costs?: GruCosts;
}

/** What the driver has counted (the statistics file of the GRU driver). */
export interface GruCounters {
  misses: number;
  /** Misses that the interrupt handler could not serve. */
  userPolling: number;
  /** Insertions that the device ignored because a flush came first. */
  insertsIgnored: number;
  /** Insertions put off because an invalidation was running. */
  insertsDeferred: number;
  flushes: number;
  /** Contexts that an invalidation did not have to flush. */
  flushesSkipped: number;
}

/** What an attempt to insert a translation came to. */
type Insertion = 'done' | 'retry' | 'sleep' | 'fault';

export class Gru implements MmuNotifier {
  readonly name: string;
  readonly costs: GruCosts;
  readonly counters: GruCounters = {
    misses: 0,
    userPolling: 0,
    insertsIgnored: 0,
    insertsDeferred: 0,
    flushes: 0,
    flushesSkipped: 0,
  };
  private readonly contexts: GruContext[] = [];
  private readonly tlbEntries: number;
  /** Invalidations between begin and end (ms_range_active), and who waits for there to be none. */
  private rangeActive = 0;
  private inactive = new Completion<void>('the end of an invalidation');
  private alive = true;

  /** Those of the program that opened the device: exec gives the process others. */
  readonly notifiers: MmuNotifiers;

  private constructor(
    readonly mm: AddressSpace,
    { name = 'gru', tlbEntries = 64, costs = defaultGruCosts }: GruPlan,
  ) {
    this.notifiers = mm.notifiers;
    this.name = name;
    this.tlbEntries = tlbEntries;
    this.costs = costs;
  }

  /** Opens the device for process `mm`: registers its notifier. */
  static *open(mm: AddressSpace, plan: GruPlan = {}): Sim<Gru> {
    const gru = new Gru(mm, plan);
    yield* gru.notifiers.attach(gru);
    return gru;
  }

  /** A context for one thread; it is loaded when it is first used. */
  createContext(): GruContext {
    const context = new GruContext(this, this.tlbEntries);
    this.contexts.push(context);
    return context;
  }

  /** Closes the device, once: empties all TLBs and unregisters. */
  *close(): Sim<void> {
    yield* this.notifiers.detach(this);
  }

  /**
   * Serves a TLB miss of `context`: from the interrupt where that needs no sleep, else in user polling
   * mode, in the context of the process.
   * @throws SystemCallError EFAULT where the process may not access the page; ESRCH after it has ended
   */
  *miss(context: GruContext, page: number, write: boolean): Sim<void> {
    const { costs, counters, mm } = this;
    counters.misses++;
    yield costs.interruptPs;
    // The handler only tries: it must not sleep for the mmap lock.
    const { scheduler } = mm.memory;
    if (this.isThere && mm.state.lock.tryLockRead()) {
      scheduler.enterAtomic();
      const outcome = yield* this.tryInsert(context, page, write, true);
      scheduler.leaveAtomic();
      mm.state.lock.unlockRead();
      if (outcome === 'done') return;
    }
    counters.userPolling++;
    yield costs.callPs;
    // A context that has left the device meanwhile misses again when it is back.
    while (context.isLoaded) {
      while (this.rangeActive > 0) yield this.inactive;
      if (!this.isThere) throw this.refuse('ESRCH', 'the process of the device has ended');
      const outcome = yield* this.tryInsert(context, page, write, false);
      if (outcome === 'done') return;
      if (outcome === 'fault') {
        const where = `0x${(page * PAGE_BYTES).toString(16)}`;
        throw this.refuse('EFAULT', `no memory to ${write ? 'write' : 'read'} at ${where}`);
      }
    }
  }

  /** False once the process has ended or runs another program; its memory may live on (a child of vfork). */
  private get isThere(): boolean {
    return this.alive && this.mm.notifiers === this.notifiers;
  }

  *release(): Sim<void> {
    this.alive = false;
    yield* this.flushRange(0, Number.POSITIVE_INFINITY);
  }

  /** The caller holds the page table lock and has cleared the entry: who walks now finds nothing. */
  *invalidatePage(address: number, _cause: InvalidationCause): Sim<void> {
    yield* this.flushRange(address, address + PAGE_BYTES);
  }

  *invalidateRangeBegin({ start, end }: Invalidation): Sim<void> {
    // Raised before the flush: an insertion that has begun is flushed or ignored, a later one waits.
    this.rangeActive++;
    yield* this.flushRange(start, end);
  }

  // biome-ignore lint/correctness/useYield: a Sim that takes no time.
  *invalidateRangeEnd(_range: Invalidation): Sim<void> {
    if (--this.rangeActive > 0) return;
    const inactive = this.inactive;
    this.inactive = new Completion<void>(inactive.purpose);
    inactive.resolve();
  }

  /** gru_flush_tlb_range: one flush for each context in use. */
  private *flushRange(start: number, end: number): Sim<void> {
    const { costs, counters } = this;
    const first = Math.floor(start / PAGE_BYTES);
    const last = Math.ceil(end / PAGE_BYTES);
    for (const context of this.contexts) {
      if (context.isLoaded) {
        counters.flushes++;
        yield costs.flushPs;
        context.flush(first, last);
      } else if (context.hasAsid) {
        counters.flushesSkipped++;
        yield costs.zeroAsidPs;
        context.zeroAsid();
      }
    }
  }

  /**
   * gru_try_dropin: looks the page up and inserts it. `isAtomic`: in the interrupt, where only what the
   * page table has can be used. No reference is held when it is in.
   */
  private *tryInsert(
    context: GruContext,
    page: number,
    write: boolean,
    isAtomic: boolean,
  ): Sim<Insertion> {
    const { mm, costs, counters } = this;
    const { tableLock, table } = mm.state;
    const { frames } = mm.memory;
    // The fault is read first: a flush from here on makes the device ignore the insertion.
    const flushes = context.flushCount;
    if (this.rangeActive > 0) {
      counters.insertsDeferred++;
      return 'sleep';
    }
    yield* tableLock.lock();
    yield costs.walkPs;
    let frame = mm.pages.followPage(page, write);
    // A clean page is not entered as writable: its first write has to be seen (grufault.c).
    if (write && (table.get(page) & PTE_DIRTY) === 0) frame = -1;
    tableLock.unlock();
    if (frame < 0) {
      if (isAtomic) return 'sleep';
      frame = yield* mm.pages.get(page, write);
      if (frame < 0) return 'fault';
      frames.put(frame);
    }
    yield costs.insertPs;
    if (context.flushCount !== flushes || !context.isLoaded || !this.alive) {
      counters.insertsIgnored++;
      return 'retry';
    }
    context.insert(page, frame, write);
    return 'done';
  }

  private refuse(errno: 'EFAULT' | 'ESRCH', what: string): SystemCallError {
    return new SystemCallError(errno, 'gru', what, this.mm.name, 'memory of the process');
  }
}
