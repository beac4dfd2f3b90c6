/**
 * Calls the clients of a process' notifier list: in whose context, in which order, and what each callback
 * must have done when it returns. Which ranges are announced, and when, is `mmu-notifiers.ts`'s business.
 */
import { assert } from '../../../transport/index.ts';
import { runAtomic } from '../../sched/atomic-section.ts';
import type { Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import type { ExternalReferences } from './external-references.ts';
import { type Invalidation, type InvalidationCause, isRefusable } from './invalidation.ts';
import { NotifierList } from './notifier-list.ts';
import type { RunningRange } from './running-range.ts';

/** A client of the list: struct mmu_notifier_ops of seed 000, patch 1. Absent methods cost nothing. */
export interface MmuNotifier {
  readonly name: string;
  /**
   * The process ends, or the client leaves; called once, before any mapping is torn down. Drops everything
   * in one go, and makes no entry afterwards.
   */
  release?(): Sim<void>;
  /**
   * True when the page at `address` was used through the client's table since it was last asked. The
   * caller holds the page table lock: it must not sleep. A client whose hardware has no accessed bit may
   * drop the entry and say whether there was one.
   */
  agePage?(address: number): Sim<boolean>;
  /**
   * Drops one page, and marks its frame dirty if the device wrote it. The caller holds the page table
   * lock: it must not sleep.
   */
  invalidatePage?(address: number, cause: InvalidationCause): Sim<void>;
  /**
   * Drops a range, marks what the device wrote dirty, and takes no page of it until the end. It may sleep
   * unless `range.atomic`; it may set `range.refused` where `isRefusable(range)`.
   */
  invalidateRangeBegin?(range: Invalidation): Sim<void>;
  /** Entries may be made again; follows each begin. */
  invalidateRangeEnd?(range: Invalidation): Sim<void>;
}

export class NotifierChain {
  readonly list: NotifierList<MmuNotifier>;
  /** Callbacks made so far. */
  callbacks = 0;

  constructor(
    private readonly memory: Memory,
    private readonly references: ExternalReferences,
  ) {
    this.list = new NotifierList(memory.node, memory.srcu);
  }

  /** Tells everybody that a range begins, newest client first, until one refuses. */
  *begin(range: RunningRange): Sim<void> {
    const { srcu } = this.memory;
    const { list } = this;
    range.toldBelow = list.count;
    range.toldFrom = list.count;
    const token = srcu.lock();
    for (let place = list.head; place !== undefined && !range.refused; place = place.next) {
      const { client, number } = place;
      range.toldFrom = number;
      if (!client.invalidateRangeBegin) continue;
      list.checkCall(place, 'invalidateRangeBegin', range.cause);
      yield* this.run(client, client.invalidateRangeBegin(range), 'invalidateRangeBegin', range);
      if (range.refused) this.checkRefusal(client.name, range);
    }
    srcu.unlock(token);
  }

  /** Tells those who heard of its begin that a range ends. */
  *end(range: RunningRange): Sim<void> {
    const { srcu } = this.memory;
    const token = srcu.lock();
    for (let place = this.list.head; place !== undefined; place = place.next) {
      const { client, number } = place;
      const isTold = number >= range.toldFrom && number < range.toldBelow;
      if (!isTold || !client.invalidateRangeEnd) continue;
      this.list.checkCall(place, 'invalidateRangeEnd', range.cause);
      yield* this.run(client, client.invalidateRangeEnd(range), 'invalidateRangeEnd', range);
    }
    srcu.unlock(token);
  }

  /** Has everybody drop one page; the caller holds the page table lock. */
  *invalidatePage(address: number, cause: InvalidationCause): Sim<void> {
    const { srcu, scheduler, node } = this.memory;
    const page = Math.floor(address / PAGE_BYTES);
    const token = srcu.lock();
    for (let place = this.list.head; place !== undefined; place = place.next) {
      const { client } = place;
      if (!client.invalidatePage) continue;
      this.list.checkCall(place, 'invalidatePage', cause);
      this.callbacks++;
      const body = client.invalidatePage(page * PAGE_BYTES, cause);
      yield* runAtomic(scheduler, node, body, client.name, 'invalidatePage', cause);
      if (!this.references.has(client, page)) continue;
      const what = `${client.name} still maps 0x${(page * PAGE_BYTES).toString(16)}`;
      assert(false, `${what} when its invalidatePage returns (${cause})`, node);
    }
    srcu.unlock(token);
  }

  /** True when anybody has used the page at `address` since it was last asked. */
  *agePage(address: number): Sim<boolean> {
    const { srcu, scheduler, node } = this.memory;
    const at = Math.floor(address / PAGE_BYTES) * PAGE_BYTES;
    let young = false;
    const token = srcu.lock();
    for (let place = this.list.head; place !== undefined; place = place.next) {
      const { client } = place;
      if (!client.agePage) continue;
      this.list.checkCall(place, 'agePage', 'ageing');
      this.callbacks++;
      const body = client.agePage(at);
      if (yield* runAtomic(scheduler, node, body, client.name, 'agePage', 'ageing')) young = true;
    }
    srcu.unlock(token);
    return young;
  }

  /**
   * Takes everybody off the list and has them let go of everything, then waits for a grace period, so
   * that they may be freed (mmu_notifier_release).
   */
  *release(cause: InvalidationCause): Sim<void> {
    const { list, memory } = this;
    if (list.head === undefined) return;
    while (list.head !== undefined) {
      const { client } = list.head;
      // On the list until it has let go: reclaim may want one of its pages meanwhile.
      if (client.release) {
        this.callbacks++;
        yield* client.release();
      }
      if (list.has(client)) list.remove(client);
      this.references.reconsider();
      const left = this.references.countOf(client);
      const what = `${client.name} keeps ${left} entries when its release returns (${cause})`;
      assert(left === 0, what, memory.node);
    }
    yield* memory.srcu.synchronize();
  }

  /** Asserts that whoever refuses `range` may: `name` has just set `refused`. */
  checkRefusal(name: string, range: Invalidation): void {
    if (isRefusable(range)) return;
    assert(false, `${name} refuses what must happen now (${range.cause})`, this.memory.node);
  }

  private run(
    client: MmuNotifier,
    body: Sim<void>,
    call: string,
    { atomic, cause }: Invalidation,
  ): Sim<void> {
    this.callbacks++;
    const { scheduler, node } = this.memory;
    return atomic ? runAtomic(scheduler, node, body, client.name, call, cause) : body;
  }
}
