/**
 * A registration cache that listens to a perf ring (seed 003). The fast path is a load of the ring's
 * head. In three ways:
 *
 * - `records`: read the records. A full ring loses some, and so does one that was written over; the cache
 *   then drops everything it has. A LOST record comes only with the next event that fits, so a ring
 *   without room for one more record counts as one that has lost some.
 * - `trusting`: the same, but only a LOST record counts as a loss. Wrong: it is here to show what happens.
 * - `counters`: let the ring say only that something has changed, and read Gunthorpe's counters. Needs a
 *   ring in overwrite mode: in drop mode the head of a full ring stands still.
 */
import { assert } from '../../transport/index.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import type { Sim } from '../sched/completion.ts';
import {
  ALL_ENTRIES,
  type ChangedEntries,
  type InvalidationSource,
} from './invalidation-source.ts';
import { PerfEvents, type PerfOptions, tagOf } from './perf-events.ts';

export type PerfReading = 'records' | 'trusting' | 'counters';

/** Filters that one call reads: the example of seed 003. */
const COUNTERS_PER_CALL = 100;

export class PerfSource implements InvalidationSource {
  readonly name = 'perf';
  /** Head of the ring when it was last read. */
  private seen: number;

  /** `events` are of the process whose memory is registered. */
  constructor(
    private readonly mm: AddressSpace,
    readonly events: PerfEvents,
    private readonly reading: PerfReading = 'records',
  ) {
    const isLossless = reading !== 'counters' || events.ring.mode === 'overwrite';
    assert(isLossless, 'counters need a ring that is written over');
    this.seen = events.ring.head;
  }

  /** Opens an event and maps a ring of its own. */
  static *open(mm: AddressSpace, options: PerfOptions, reading?: PerfReading): Sim<PerfSource> {
    return new PerfSource(mm, yield* PerfEvents.open(mm, options), reading);
  }

  /** Records that nobody could read; with counters that is no loss. */
  get eventsLost(): number {
    return this.reading === 'counters' ? 0 : this.events.ring.recordsLost;
  }

  watch(cookie: number, start: number, end: number): Sim<void> {
    return this.events.addFilter(cookie, start, end);
  }

  unwatch(cookie: number): Sim<void> {
    return this.events.removeFilter(cookie);
  }

  *collect(): Sim<ChangedEntries> {
    const { ring, recordBytes } = this.events;
    yield this.mm.memory.costs.memoryLoadPs;
    if (ring.head === this.seen) return [];
    if (this.reading === 'counters') return yield* this.readCounters();
    const wasFull = ring.mode === 'drop' && !ring.hasRoom(recordBytes);
    const { records, lost, overrun } = ring.read();
    this.seen = ring.head;
    yield records.length * this.mm.memory.costs.eventReadPs;
    if (lost > 0 || overrun || (wasFull && this.reading === 'records')) return ALL_ENTRIES;
    return [...new Set(records.map(tagOf))];
  }

  close(): Sim<void> {
    return this.events.close();
  }

  private *readCounters(): Sim<ChangedEntries> {
    // What comes after this head moves it again, so it is looked at next time.
    this.seen = this.events.ring.head;
    const changed: number[] = [];
    for (;;) {
      const counts = yield* this.events.readAndClear(COUNTERS_PER_CALL);
      for (const { tag } of counts) changed.push(tag);
      if (counts.length < COUNTERS_PER_CALL) return changed;
    }
  }
}
