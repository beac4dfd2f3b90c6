/** Atomic operations on their way to memory and back: which responder asked for each. */
import { assert, type TimePs } from '../../transport/index.ts';
import type { BusPort } from './bus-port.ts';

/** What asked for an atomic operation. */
export interface AtomicWaiter {
  /** What stood in memory before it, in two halves. */
  onOriginal(high: number, low: number, now: TimePs): void;
}

export class AtomicTags {
  private readonly owners: (AtomicWaiter | undefined)[] = [undefined];
  private readonly free: number[] = [];

  constructor(private readonly bus: BusPort) {}

  /**
   * Sends an AtomicOp (ATOMIC_ADD, ATOMIC_COMPARE_SWAP) on the eight bytes at `within` of page frame
   * `page`. `data` is what to add or to put there, `compare` what must stand there for that.
   */
  start(
    readyPs: TimePs,
    page: number,
    within: number,
    operation: number,
    dataHigh: number,
    dataLow: number,
    compareHigh: number,
    compareLow: number,
    owner: AtomicWaiter,
  ): void {
    const tag = this.free.pop() ?? this.owners.length;
    this.owners[tag] = owner;
    this.bus.dmaAtomic(
      readyPs,
      tag,
      page,
      within,
      operation,
      dataHigh,
      dataLow,
      compareHigh,
      compareLow,
    );
  }

  /** A DMA_ATOMIC_DATA frame has brought the original value of the operation with this tag. */
  arrived(tag: number, high: number, low: number, now: TimePs): void {
    const owner = this.owners[tag];
    assert(owner !== undefined, 'an atomic result under a tag that is not in flight');
    this.owners[tag] = undefined;
    this.free.push(tag);
    owner.onOriginal(high, low, now);
  }

  /** Operations in flight: none may be left at the end of a run. */
  get inFlight(): number {
    return this.owners.length - 1 - this.free.length;
  }
}
