/**
 * Pages whose invalidation was put off: each keeps its frame by a reference until the adapter has let go
 * of it, and they are cut into batches, each for one flush of the hardware. RxJS on virtual time.
 */
import {
  buffer,
  exhaustMap,
  filter,
  merge,
  type Observable,
  of,
  Subject,
  skip,
  take,
  timer,
} from 'rxjs';
import type { Memory } from '../mm/memory.ts';
import { VirtualScheduler } from '../rx/virtual-scheduler.ts';
import type { PostponedPolicy } from './postponed-policy.ts';

/** One of them. */
export interface PostponedPage {
  /** Counted from the region's first. */
  readonly page: number;
  readonly frame: number;
  /** Block with the content when it was put off; a block that somebody holds is never written. */
  readonly block: number;
}

export class PostponedPages {
  /** Batches as they are due: so long after their first page, or full. */
  readonly batches$: Observable<readonly PostponedPage[]>;
  private readonly byPage = new Map<number, PostponedPage>();
  private readonly postponed$ = new Subject<PostponedPage>();

  constructor(
    private readonly memory: Memory,
    { batchPs, batchPages }: PostponedPolicy,
  ) {
    const clock = new VirtualScheduler(memory.timers);
    // The first page of a batch sets its clock; nothing ticks while nothing waits.
    const full$ = batchPages > 1 ? this.postponed$.pipe(skip(batchPages - 2)) : of(0);
    const due$ = this.postponed$.pipe(
      exhaustMap(() => merge(timer(batchPs, clock), full$).pipe(take(1))),
    );
    this.batches$ = this.postponed$.pipe(
      buffer(due$),
      filter((batch) => batch.length > 0),
    );
  }

  get size(): number {
    return this.byPage.size;
  }

  has(page: number): boolean {
    return this.byPage.has(page);
  }

  /** True when one of [first, first + count) waits. */
  hasAny(first: number, count: number): boolean {
    if (this.byPage.size === 0) return false;
    for (let page = first; page < first + count; page++) if (this.byPage.has(page)) return true;
    return false;
  }

  /** True for a page that has not been let go of since it was put off. */
  isWaiting(one: PostponedPage): boolean {
    return this.byPage.get(one.page) === one;
  }

  /** The `count` that have waited longest. */
  oldest(count: number): PostponedPage[] {
    return [...this.byPage.values()].slice(0, count);
  }

  /** Puts a page off, and holds its frame. */
  hold(page: number, frame: number): void {
    const { frames } = this.memory;
    frames.get(frame);
    const one = { page, frame, block: frames.content.sample(frame) };
    this.byPage.set(page, one);
    this.postponed$.next(one);
  }

  /**
   * The adapter has let go of a page: so does this. True when the page was written since it was put off.
   */
  release(page: number): boolean {
    const { frames } = this.memory;
    const { content } = frames;
    const { frame, block } = this.byPage.get(page) as PostponedPage;
    this.byPage.delete(page);
    const now = content.sample(frame);
    content.blocks.release(now);
    content.blocks.release(block);
    frames.put(frame);
    return now !== block;
  }
}
