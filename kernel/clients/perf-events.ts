/**
 * Watching memory through perf events (Molnar in seed 003): one event with a filter for each range, all
 * of them writing into one ring, from tracepoints at invalidate_page and invalidate_range_start.
 *
 * Every change evaluates every filter, as trace events do, so a change costs in proportion to the
 * number of ranges. Each filter that matches writes a record; a full ring loses it. Gunthorpe's answer
 * is here too: a counter for each filter, cleared when it is read, which stays at its maximum rather than
 * wrap: then a record may be lost and the range is still known to have changed.
 */
import type { Errno } from '../errno.ts';
import { SystemCallError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import { InvalidationTap } from './invalidation-tap.ts';
import {
  HEADER_BYTES,
  PERF_RECORD_SAMPLE,
  PERF_RECORD_TAG,
  PerfRing,
  type RingMode,
} from './perf-ring.ts';
import { type WatchedRange, WatchedRanges } from './watched-ranges.ts';

/** What a filter writes when it matches: the event, or its tag only (Gunthorpe's option). */
export type RecordKind = 'sample' | 'tag';

export interface PerfOptions {
  /** Data pages of the ring, a power of two. */
  readonly pageCount: number;
  readonly mode: RingMode;
  readonly records?: RecordKind;
  /** Events that the process may have open; RLIMIT_NOFILE when not given. */
  readonly eventLimit?: number;
}

/** A filter that has matched, and how often since it was last read. */
export interface FilterCount {
  readonly tag: number;
  readonly count: number;
}

/** Where a filter's counter stays: 8 bits; assumed, seed 003 gives no width. */
export const COUNTER_MAX = 255;
/** RLIMIT_NOFILE as most systems set it; each filter is an event, and each event a file. */
const DEFAULT_EVENT_LIMIT = 1024;
/** /proc/sys/kernel/perf_event_mlock_kb: ring memory that a user may have besides RLIMIT_MEMLOCK. */
const FREE_RING_BYTES = 516 * 1024;
/**
 * PERF_SAMPLE_TID, TIME, ID and RAW behind the header: pid and tid, time, which event, then the length of
 * the raw data, the common fields of a trace event, start and end.
 */
const SAMPLE_BODY_BYTES = 56;
const SAMPLE_ID_AT = 16;
const RAW_BYTES_AT = 24;
const RAW_START_AT = 36;
const RAW_END_AT = 44;
const TAG_BODY_BYTES = 8;

interface Filter extends WatchedRange {
  count: number;
}

export class PerfEvents {
  readonly ring: PerfRing;
  private readonly filters = new WatchedRanges<Filter>();
  /** Filters whose counter is not 0, in the order in which they matched first. */
  private readonly counted = new Set<Filter>();
  private readonly tap: InvalidationTap;
  private readonly records: RecordKind;
  private readonly eventLimit: number;

  private constructor(
    private readonly mm: AddressSpace,
    options: PerfOptions,
  ) {
    this.ring = new PerfRing(options.pageCount, options.mode);
    this.records = options.records ?? 'sample';
    this.eventLimit = options.eventLimit ?? DEFAULT_EVENT_LIMIT;
    this.tap = new InvalidationTap('perf', mm, (start, end) => this.note(start, end));
  }

  /**
   * Opens an event without a filter and maps its ring.
   * @throws SystemCallError EINVAL (no power of two), EPERM (a ring above what a user may lock)
   */
  static *open(mm: AddressSpace, options: PerfOptions): Sim<PerfEvents> {
    const { costs, node } = mm.memory;
    yield costs.perfOpenPs + costs.systemCallPs;
    const { pageCount } = options;
    const ringBytes = (pageCount + 1) * PAGE_BYTES;
    const isPowerOfTwo = pageCount >= 1 && (pageCount & (pageCount - 1)) === 0;
    if (!isPowerOfTwo || ringBytes > FREE_RING_BYTES + mm.state.limits.memlockBytes) {
      const errno: Errno = isPowerOfTwo ? 'EPERM' : 'EINVAL';
      const expected = isPowerOfTwo ? 'perf_event_mlock_kb and RLIMIT_MEMLOCK' : 'a power of two';
      throw new SystemCallError(errno, 'mmap', `a ring of ${pageCount} pages`, node.name, expected);
    }
    const events = new PerfEvents(mm, options);
    yield* events.tap.open();
    return events;
  }

  /** Bytes of the record that a match writes, its header included. */
  get recordBytes(): number {
    return HEADER_BYTES + (this.records === 'tag' ? TAG_BODY_BYTES : SAMPLE_BODY_BYTES);
  }

  /**
   * Opens an event whose filter matches changes of [start, end), with user space's tag.
   * @throws SystemCallError EMFILE at the limit of open files, EINVAL for an empty range or a tag in use
   */
  *addFilter(tag: number, start: number, end: number): Sim<void> {
    yield this.mm.memory.costs.perfOpenPs;
    if (this.filters.size + 1 >= this.eventLimit) {
      throw this.refuse('EMFILE', `${this.eventLimit} events are open`, 'fewer ranges');
    }
    const isNew = end > start && this.filters.add({ cookie: tag, start, end, count: 0 });
    if (!isNew) throw this.refuse('EINVAL', `filter ${tag} from ${start} to ${end}`, 'a new tag');
  }

  /** Closes the event of a tag. @throws SystemCallError EBADF for an unknown tag */
  *removeFilter(tag: number): Sim<void> {
    yield this.mm.memory.costs.systemCallPs;
    const filter = this.filters.remove(tag);
    if (filter === undefined) throw this.refuse('EBADF', `no filter has tag ${tag}`, 'its tag');
    this.counted.delete(filter);
  }

  /**
   * perf_filters_read_and_clear_non_zero_counters of seed 003: at most `limit` filters that have matched.
   * Each is returned once, and its counter starts again.
   */
  *readAndClear(limit: number): Sim<FilterCount[]> {
    yield this.mm.memory.costs.systemCallPs;
    const found: FilterCount[] = [];
    for (const filter of this.counted) {
      if (found.length === limit) break;
      found.push({ tag: filter.cookie, count: filter.count });
      filter.count = 0;
      this.counted.delete(filter);
    }
    yield found.length * this.mm.memory.costs.eventReadPs;
    return found;
  }

  /** Closes everything. */
  *close(): Sim<void> {
    yield (this.filters.size + 1) * this.mm.memory.costs.systemCallPs;
    yield* this.tap.close();
    this.counted.clear();
  }

  /** Runs in the context of whoever changes memory, which may be atomic. */
  private *note(start: number, end: number): Sim<void> {
    const { costs, node } = this.mm.memory;
    let hits = 0;
    this.filters.forEachOverlap(start, end, (filter) => {
      hits++;
      filter.count = Math.min(filter.count + 1, COUNTER_MAX);
      this.counted.add(filter);
      this.record(filter.cookie, start, end, node.now);
    });
    yield this.filters.size * costs.perfFilterPs + hits * costs.perfRecordPs;
  }

  private record(tag: number, start: number, end: number, nowPs: number): void {
    if (this.records === 'tag') {
      this.ring.write(PERF_RECORD_TAG, TAG_BODY_BYTES, (body) => setLong(body, 0, tag));
      return;
    }
    this.ring.write(PERF_RECORD_SAMPLE, SAMPLE_BODY_BYTES, (body) => {
      body.setUint32(0, this.mm.state.id, true);
      body.setUint32(4, this.mm.state.id, true);
      setLong(body, 8, Math.floor(nowPs / 1000));
      setLong(body, SAMPLE_ID_AT, tag);
      body.setUint32(RAW_BYTES_AT, SAMPLE_BODY_BYTES - RAW_BYTES_AT - 4, true);
      setLong(body, RAW_START_AT, start);
      setLong(body, RAW_END_AT, end);
    });
  }

  private refuse(errno: Errno, detail: string, expected: string): SystemCallError {
    const { name } = this.mm.memory.node;
    return new SystemCallError(errno, 'perf_event_open', detail, name, expected);
  }
}

/** The tag of the filter that wrote a record. */
export function tagOf({ type, body }: { readonly type: number; readonly body: DataView }): number {
  return getLong(body, type === PERF_RECORD_TAG ? 0 : SAMPLE_ID_AT);
}

/** Bytes [start, end) that changed, of a PERF_RECORD_SAMPLE. */
export function rangeOf({ body }: { readonly body: DataView }): readonly [number, number] {
  return [getLong(body, RAW_START_AT), getLong(body, RAW_END_AT)];
}

/** 64 bits, little endian, of a number below 2^53. */
function setLong(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

function getLong(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}
