/**
 * The ring buffer of perf events (kernel/events/ring_buffer.c; Zijlstra in seed 003): 2^n pages of
 * records that the kernel writes and the program reads through a mapping.
 *
 * Two modes. Mapped for writing (`drop`), the program moves the tail, and the kernel drops a record for
 * which there is no room; it says how many with a LOST record, before the next record that fits. Mapped
 * read-only (`overwrite`), the kernel writes on and on, and a program that comes too late finds its
 * place overwritten. Head and tail count bytes from the beginning of time.
 *
 * Pure data: no time passes here. Owns the bytes; what is written into them is `perf-events.ts`'s.
 */
import { Failure } from '../../transport/index.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';

export type RingMode = 'drop' | 'overwrite';

/** Types of record (include/uapi/linux/perf_event.h): records were lost; one event. */
export const PERF_RECORD_LOST = 2;
export const PERF_RECORD_SAMPLE = 9;
/** A record of nothing but the tag of a filter, as Gunthorpe proposes in seed 003. Ours. */
export const PERF_RECORD_TAG = 64;

/** struct perf_event_header: type, misc and length. */
export const HEADER_BYTES = 8;
/** A LOST record: header, number of the event, how many were lost. */
const LOST_BYTES = 24;

/** One record, without its header. */
export interface PerfRecord {
  readonly type: number;
  /** What follows the header, as long as the header says. */
  readonly body: DataView;
}

/** What a reader found. */
export interface RingRead {
  readonly records: readonly PerfRecord[];
  /** Records that are gone, as far as the reader can tell: from LOST records, or from the head. */
  readonly lost: number;
  /** The reader was overtaken: what it has is not all, and it cannot tell what is missing. */
  readonly overrun: boolean;
}

export class PerfRing {
  readonly dataBytes: number;
  /** Bytes written since the beginning (data_head). */
  head = 0;
  /** Bytes that the program has done with (data_tail); the kernel looks at it in drop mode only. */
  tail = 0;
  /** Records that were dropped or overwritten before anybody read them, for reports. */
  recordsLost = 0;
  recordsWritten = 0;
  private readonly view: DataView;
  /** Dropped since the last record that fitted. */
  private pendingLost = 0;
  /** Records between tail and head. */
  private unread = 0;

  /** @throws Failure E_OPERATION unless the number of data pages is a power of two */
  constructor(
    readonly pageCount: number,
    readonly mode: RingMode,
  ) {
    if (!Number.isInteger(pageCount) || pageCount < 1 || (pageCount & (pageCount - 1)) !== 0) {
      const what = `a ring of ${pageCount} pages (EINVAL)`;
      throw new Failure('E_OPERATION', what, 'perf_event_open', 'a power of two');
    }
    this.dataBytes = pageCount * PAGE_BYTES;
    this.view = new DataView(new ArrayBuffer(this.dataBytes));
  }

  /** Writes a record with a body of `bodyBytes`, a multiple of 8; false when it was dropped. */
  write(type: number, bodyBytes: number, fill: (body: DataView) => void): boolean {
    const bytes = HEADER_BYTES + bodyBytes;
    if (this.mode === 'drop') {
      const lostBytes = this.pendingLost > 0 ? LOST_BYTES : 0;
      if (!this.hasRoom(bytes + lostBytes)) {
        this.pendingLost++;
        this.recordsLost++;
        return false;
      }
      if (lostBytes > 0) this.writeLost();
    }
    const body = new DataView(new ArrayBuffer(bodyBytes));
    fill(body);
    this.put(type, body);
    return true;
  }

  /** Whether the kernel could write `bytes` more without dropping; the program can tell as well. */
  hasRoom(bytes: number): boolean {
    // CIRC_SPACE: one byte stays free, so that a full ring differs from an empty one.
    return this.dataBytes - 1 - (this.head - this.tail) >= bytes;
  }

  /** Everything since the last read; the tail moves to the head. */
  read(): RingRead {
    const overrun = this.head - this.tail > this.dataBytes;
    const records: PerfRecord[] = [];
    let lost = 0;
    if (overrun) {
      // Where the oldest record that is left begins, nobody can say.
      lost = this.unread;
      this.recordsLost += lost;
    } else {
      for (let at = this.tail; at < this.head; ) {
        const header = this.copy(at, HEADER_BYTES);
        const type = header.getUint32(0, true);
        const bytes = header.getUint16(6, true);
        const body = this.copy(at + HEADER_BYTES, bytes - HEADER_BYTES);
        if (type === PERF_RECORD_LOST) lost += body.getUint32(8, true);
        else records.push({ type, body });
        at += bytes;
      }
    }
    this.tail = this.head;
    this.unread = 0;
    return { records, lost, overrun };
  }

  private writeLost(): void {
    const body = new DataView(new ArrayBuffer(LOST_BYTES - HEADER_BYTES));
    body.setUint32(8, this.pendingLost, true);
    this.pendingLost = 0;
    this.put(PERF_RECORD_LOST, body);
  }

  private put(type: number, body: DataView): void {
    const header = new DataView(new ArrayBuffer(HEADER_BYTES));
    header.setUint32(0, type, true);
    header.setUint16(6, HEADER_BYTES + body.byteLength, true);
    this.paste(this.head, header);
    this.paste(this.head + HEADER_BYTES, body);
    this.head += HEADER_BYTES + body.byteLength;
    if (type === PERF_RECORD_LOST) return;
    this.recordsWritten++;
    this.unread++;
  }

  private paste(position: number, source: DataView): void {
    for (let i = 0; i < source.byteLength; i++) {
      this.view.setUint8((position + i) % this.dataBytes, source.getUint8(i));
    }
  }

  private copy(position: number, bytes: number): DataView {
    const copy = new DataView(new ArrayBuffer(bytes));
    for (let i = 0; i < bytes; i++) {
      copy.setUint8(i, this.view.getUint8((position + i) % this.dataBytes));
    }
    return copy;
  }
}
