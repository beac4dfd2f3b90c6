/**
 * Notifiers of whoever keeps a reverse map of its own (seed 000, patch 5: mmu_rmap_notifier, made for
 * XPMEM): a process on another machine maps the page, and must acknowledge that it has let go before the
 * page is freed, which takes a message and so a sleep. The list is one for the machine, because a page
 * alone does not say whose it is; a flag of the page says whether anybody has to be asked at all.
 *
 * Called for a page that is locked and referenced, with no spinlock held, after the processes' own entries
 * have gone (try_to_unmap) or have been cleaned (page_mkclean). A page whose flag is not set costs a test
 * of that flag.
 */
import { assert } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import { SpinLock } from '../../sched/spin-lock.ts';
import type { Memory } from '../memory.ts';
import { FRAME_EXTERNAL_RMAP } from '../physical/frames.ts';
import type { InvalidationCause } from './invalidation.ts';
import { NotifierList } from './notifier-list.ts';

/** A client: struct mmu_rmap_notifier_ops of seed 000, patch 5. */
export interface RmapNotifier {
  readonly name: string;
  /**
   * Removes every entry for page frame `frame` that the client's own reverse map knows, and returns when
   * each remote has acknowledged. May sleep; the page is locked, so no new entry is made meanwhile by
   * whoever locks pages to export them.
   */
  invalidatePage(frame: number, cause: InvalidationCause): Sim<void>;
}

export class RmapNotifiers {
  /** Pages that clients were asked about. */
  invalidations = 0;
  private readonly list: NotifierList<RmapNotifier>;
  /** mmu_notifier_list_lock. */
  private readonly lock: SpinLock;

  constructor(private readonly memory: Memory) {
    this.list = new NotifierList(memory.node, memory.srcu);
    this.lock = new SpinLock(memory.scheduler, 'rmap notifier list');
  }

  /** Registers a client (mmu_rmap_notifier_register); it hears of everything after a grace period. */
  *register(client: RmapNotifier): Sim<void> {
    yield* this.lock.lock();
    this.list.add(client);
    this.lock.unlock();
    yield* this.memory.srcu.synchronize();
  }

  /** Unregisters a client; when this returns, nobody calls it any more. */
  *unregister(client: RmapNotifier): Sim<void> {
    yield* this.lock.lock();
    this.list.remove(client);
    this.lock.unlock();
    yield* this.memory.srcu.synchronize();
    this.list.free(client);
  }

  /** Marks a page as exported (mmu_rmap_export_page), before it is put on an external reverse map. */
  exportPage(frame: number): void {
    const { frames, pageLocks, node } = this.memory;
    const head = frames.headOf(frame);
    assert(pageLocks.isLocked(head), 'a page is exported that is not locked', node);
    frames.flags[head] |= FRAME_EXTERNAL_RMAP;
  }

  /** True when somebody has to be asked before the page may go. */
  isExported(frame: number): boolean {
    const { frames } = this.memory;
    return (frames.flags[frames.headOf(frame)] & FRAME_EXTERNAL_RMAP) !== 0;
  }

  /**
   * Has every client drop an exported page, and clears its flag; nothing to do for any other. The caller
   * holds the page lock and a reference, and no spinlock.
   */
  *invalidatePage(frame: number, cause: InvalidationCause): Sim<void> {
    if (!this.isExported(frame)) return;
    const { frames, pageLocks, srcu, scheduler, node } = this.memory;
    const head = frames.headOf(frame);
    assert(pageLocks.isLocked(head), 'an exported page is invalidated and not locked', node);
    const depth = scheduler.current?.atomicDepth ?? 0;
    assert(depth === 0, 'an exported page is invalidated by somebody who must not sleep', node);
    this.invalidations++;
    const token = srcu.lock();
    for (let place = this.list.head; place !== undefined; place = place.next) {
      this.list.checkCall(place, 'invalidatePage', cause);
      yield* place.client.invalidatePage(frame, cause);
    }
    srcu.unlock(token);
    frames.flags[head] &= ~FRAME_EXTERNAL_RMAP;
  }
}
