/**
 * Hears every change of one process' mappings for somebody who has no page table of his own and only
 * wants to know: the two tracepoints (invalidate_page, invalidate_range_start) that ummunotify and the
 * perf proposal of seed 003 both sit on.
 *
 * A site that announces a range and then drops its pages one by one is one change, reported once.
 */
import type { AddressSpace } from '../mm/address-space.ts';
import type { Invalidation, InvalidationCause } from '../mm/notify/invalidation.ts';
import type { MmuNotifier } from '../mm/notify/mmu-notifiers.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';

/** Told of bytes [start, end) before they change; the caller may be atomic, so it must not sleep. */
export type OnChange = (start: number, end: number, cause: InvalidationCause) => Sim<void>;

export class InvalidationTap implements MmuNotifier {
  /** Ranges that have been announced and have not ended. */
  private readonly running: Invalidation[] = [];
  private isListening = false;

  constructor(
    readonly name: string,
    private readonly mm: AddressSpace,
    private readonly onChange: OnChange,
  ) {}

  /** Begins to listen: when it returns, nothing is missed any more. */
  *open(): Sim<void> {
    yield* this.mm.notifiers.attach(this);
    this.isListening = true;
  }

  /** Stops listening; nothing is left to do when the process has ended. */
  *close(): Sim<void> {
    if (!this.isListening) return;
    this.isListening = false;
    yield* this.mm.notifiers.detach(this);
  }

  /** The process ends: there is nothing to hear any more. */
  *release(): Sim<void> {
    this.isListening = false;
    yield 0;
  }

  *invalidatePage(address: number, cause: InvalidationCause): Sim<void> {
    if (this.running.some(({ start, end }) => start <= address && address < end)) return;
    yield* this.onChange(address, address + PAGE_BYTES, cause);
  }

  *invalidateRangeBegin(range: Invalidation): Sim<void> {
    this.running.push(range);
    yield* this.onChange(range.start, range.end, range.cause);
  }

  *invalidateRangeEnd(range: Invalidation): Sim<void> {
    this.running.splice(this.running.indexOf(range), 1);
    yield 0;
  }
}
