/** Tags of DMA reads in flight: who asked, and for which of its places. */
import { assert, type TimePs } from '../../transport/index.ts';

/** What asked for a DMA read. */
export interface BurstWaiter {
  /** The data of the read at `place` have come; the reference on `burst` (0: no data) passes on. */
  onData(place: number, generation: number, burst: number, now: TimePs): void;
}

export class GatherTags {
  private readonly owners: (BurstWaiter | undefined)[] = [undefined];
  private readonly places: number[] = [0];
  private readonly generations: number[] = [0];
  private readonly free: number[] = [];

  /** A tag for a read of `owner`; tags start at 1. */
  take(owner: BurstWaiter, place: number, generation: number): number {
    const tag = this.free.pop() ?? this.owners.length;
    this.owners[tag] = owner;
    this.places[tag] = place;
    this.generations[tag] = generation;
    return tag;
  }

  /** The data of the read with `tag` are in `burst`, whose reference passes on. */
  arrived(tag: number, burst: number, now: TimePs): void {
    const owner = this.owners[tag];
    assert(owner !== undefined, 'DMA data under a tag that is not in flight');
    this.owners[tag] = undefined;
    this.free.push(tag);
    owner.onData(this.places[tag], this.generations[tag], burst, now);
  }

  /** Reads in flight: none may be left at the end of a run. */
  get inFlight(): number {
    return this.owners.length - 1 - this.free.length;
  }
}
