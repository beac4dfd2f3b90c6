/**
 * A range of a process that others map, on this host or on others: the owner's side of XPMEM (S4) and of
 * out-of-band revocation (S14), as a client of the notifiers.
 *
 * A fault of a sharer takes a reference to the page and gives it to the sharer. When the memory manager
 * wants pages back, the segment is recalled: new faults wait, everybody who has one of the pages is asked
 * at the same time, and the invalidation goes on when the last has answered. Only then are the references
 * dropped, so a page is freed only after every sharer has acknowledged. That may take a network round
 * trip: the recall sleeps, which is why only anonymous memory can be shared (its invalidations are never
 * atomic; seeds 000 and 001).
 *
 * Order of locks: mmap lock, page lock, segment lock. After xpmem_pfn.c and xpmem_mmu_notifier.c
 * (hjelmn/xpmem), with patch 6 of seed 000 for the page lock and the exported flag.
 */
import { assert, NS, type TimePs } from '../../transport/index.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import type { Invalidation } from '../mm/notify/invalidation.ts';
import type { MmuNotifier } from '../mm/notify/mmu-notifiers.ts';
import { NO_FRAME, PAGE_BYTES } from '../mm/physical/frames.ts';
import type { MmStruct } from '../mm/virtual/mm-struct.ts';
import { Completion, type Sim, wait } from '../sched/completion.ts';
import { RwLock } from '../sched/rw-lock.ts';
import { Grants } from './grants.ts';
import type { Sharer } from './sharer.ts';

/** Results of `grant` that are no frame: the owner may not access the page; the segment is gone. */
export const GRANT_FAULT = -1;
export const GRANT_GONE = -2;

/** CPU time of the owner. */
export interface SegmentCosts {
  /** Giving one page to a sharer, its reference and the export included. */
  readonly grantPs: TimePs;
  /** Taking one page back after the sharer has let go. */
  readonly takeBackPs: TimePs;
}

export const defaultSegmentCosts: SegmentCosts = {
  grantPs: 200 * NS, // assumed: a few atomic operations and a table entry
  takeBackPs: 50 * NS, // assumed: as unmapPagePs
};

/** What the owner has counted. */
export interface SegmentCounters {
  granted: number;
  /** Faults that waited for a recall, or began again because of one. */
  faultsHeldOff: number;
  recalls: number;
  pagesRecalled: number;
  /** Time that invalidations have spent in recalls, in all and at most. */
  recallPs: TimePs;
  longestRecallPs: TimePs;
}

export class SharedSegment implements MmuNotifier {
  readonly firstPage: number;
  readonly counters: SegmentCounters = {
    granted: 0,
    faultsHeldOff: 0,
    recalls: 0,
    pagesRecalled: 0,
    recallPs: 0,
    longestRecallPs: 0,
  };
  /** False once it has been removed or its process has ended. */
  alive = true;
  private sharers: readonly Sharer[] = [];
  /** Pages by the frame that sharers have, or had: the driver's own reverse map. */
  private readonly exported = new Map<number, number>();
  /** Invalidations of the segment between begin and end ("recalling"), and how many there have been. */
  private recalling = 0;
  private sequence = 0;
  private recalled = new Completion<void>('the end of a recall');
  private readonly lock: RwLock;
  /** What the owner was when it made the segment: exec gives the process other memory. */
  private readonly state: MmStruct;

  private constructor(
    readonly mm: AddressSpace,
    readonly name: string,
    address: number,
    readonly pageCount: number,
    private readonly costs: SegmentCosts,
  ) {
    this.state = mm.state;
    this.firstPage = address / PAGE_BYTES;
    this.lock = new RwLock(`segment ${name}`);
  }

  /** Makes the whole pages of [address, address + length) of process `mm` a segment. */
  static *create(
    mm: AddressSpace,
    name: string,
    address: number,
    length: number,
    costs: SegmentCosts = defaultSegmentCosts,
  ): Sim<SharedSegment> {
    const segment = new SharedSegment(mm, name, address, Math.ceil(length / PAGE_BYTES), costs);
    yield* segment.state.notifiers.attach(segment);
    return segment;
  }

  /** Ends the segment, once: takes everything back from everybody. */
  *destroy(): Sim<void> {
    yield* this.state.notifiers.detach(this);
  }

  /** An empty table for a new sharer. */
  newGrants(): Grants {
    return new Grants(this.state, this, this.firstPage, this.pageCount);
  }

  addSharer(sharer: Sharer): void {
    this.sharers = [...this.sharers, sharer];
  }

  /** A sharer leaves that uses nothing any more: its pages are taken back. */
  *removeSharer(sharer: Sharer): Sim<void> {
    yield* this.lock.lockWrite();
    this.sharers = this.sharers.filter((other) => other !== sharer);
    yield* this.takeBack(sharer, 0, this.pageCount);
    this.lock.unlockWrite();
  }

  /**
   * A fault of `sharer` on page `index`: gives it the page and returns its frame, or GRANT_FAULT or
   * GRANT_GONE. With a frame the segment is locked against recalls until the caller calls `granted`: so
   * what it tells the sharer about the page arrives before a recall of it.
   */
  *grant(sharer: Sharer, index: number, write: boolean): Sim<number> {
    const { mm, lock, counters } = this;
    const { frames, pageLocks, rmapNotifiers, zeroFrame } = mm.memory;
    const page = this.firstPage + index;
    for (;;) {
      while (this.recalling > 0) {
        counters.faultsHeldOff++;
        yield this.recalled;
      }
      if (!this.mayShare(sharer)) return GRANT_GONE;
      const vma = this.state.vmas.find(page * PAGE_BYTES);
      if (vma === undefined || vma.file !== undefined) return GRANT_FAULT;
      const { sequence } = this;
      const frame = yield* mm.pages.get(page, write);
      if (frame === NO_FRAME) return GRANT_FAULT;
      const head = frames.headOf(frame);
      yield* pageLocks.lock(head);
      yield* lock.lockRead();
      if (this.recalling === 0 && this.sequence === sequence && this.mayShare(sharer)) {
        if (frame !== zeroFrame) {
          rmapNotifiers.exportPage(head);
          this.exported.set(head, index);
        }
        sharer.grants.add(index, frame, write);
        counters.granted++;
        pageLocks.unlock(head);
        yield this.costs.grantPs;
        return frame;
      }
      lock.unlockRead();
      pageLocks.unlock(head);
      frames.put(frame);
      counters.faultsHeldOff++;
    }
  }

  /** The sharer has been told of the page that `grant` gave it. */
  granted(): void {
    this.lock.unlockRead();
  }

  *release(): Sim<void> {
    this.alive = false;
    this.sequence++;
    yield* this.recall(0, this.pageCount);
  }

  *invalidateRangeBegin(range: Invalidation): Sim<void> {
    const [first, count] = this.clip(range);
    if (count === 0) return;
    this.recalling++;
    this.sequence++;
    if (!this.sharers.some(({ grants }) => grants.hasAny(first, count))) return;
    assert(!range.atomic, `${this.name} is recalled by who cannot wait`, this.mm.memory.node);
    yield* this.recall(first, count);
  }

  // biome-ignore lint/correctness/useYield: a Sim that takes no time.
  *invalidateRangeEnd(range: Invalidation): Sim<void> {
    if (this.clip(range)[1] === 0 || --this.recalling > 0) return;
    const { recalled } = this;
    this.recalled = new Completion<void>(recalled.purpose);
    recalled.resolve();
  }

  /** The reverse map's way: takes `frame` back wherever it is shared; the caller holds the page lock. */
  *recallFrame(frame: number): Sim<void> {
    const index = this.exported.get(frame);
    if (index === undefined) return;
    this.exported.delete(frame);
    // Mostly the invalidation of the mapping has come first.
    if (!this.sharers.some(({ grants }) => grants.hasFrame(index, frame))) return;
    this.sequence++;
    yield* this.recall(index, 1);
  }

  /** Takes pages back from everybody who has one: asks all, then waits for all. */
  private *recall(first: number, count: number): Sim<void> {
    const { lock, counters } = this;
    const { node } = this.mm.memory;
    const start = node.now;
    counters.recalls++;
    yield* lock.lockWrite();
    const answers: Completion<void>[] = [];
    for (const sharer of this.sharers) {
      if (!sharer.grants.hasAny(first, count)) continue;
      const answer = yield* sharer.revoke(first, count);
      if (answer !== undefined) answers.push(answer);
    }
    for (const answer of answers) yield* wait(answer);
    for (const sharer of this.sharers) yield* this.takeBack(sharer, first, count);
    lock.unlockWrite();
    const spentPs = node.now - start;
    counters.recallPs += spentPs;
    if (spentPs > counters.longestRecallPs) counters.longestRecallPs = spentPs;
  }

  private *takeBack({ grants }: Sharer, first: number, count: number): Sim<void> {
    const taken = grants.removeRange(first, count);
    this.counters.pagesRecalled += taken;
    yield taken * this.costs.takeBackPs;
  }

  private mayShare(sharer: Sharer): boolean {
    // The owner may run another program while its memory lives on: a child of vfork has it.
    const isThere = this.alive && this.mm.state === this.state;
    return isThere && this.sharers.includes(sharer);
  }

  /** First page of the segment in a range of the process, and how many. */
  private clip({ start, end }: Invalidation): [first: number, count: number] {
    const first = Math.max(0, Math.floor(start / PAGE_BYTES) - this.firstPage);
    const last = Math.min(this.pageCount, Math.ceil(end / PAGE_BYTES) - this.firstPage);
    return [first, Math.max(0, last - first)];
  }
}
