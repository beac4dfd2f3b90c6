/**
 * A context of the GRU: one thread's TLB in the device, and the device's accesses through it.
 *
 * Entries are good as long as the context keeps its address space identifier. Owns the TLB; who is
 * flushed when, and how a miss is served, is `gru.ts`'s.
 */
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import { readFrame, writeFrame } from './frame-bytes.ts';
import type { Gru } from './gru.ts';

const EMPTY = -1;

export class GruContext {
  /** Loaded into the device. */
  isLoaded = false;
  /** Whether the TLB may hold entries of it: an identifier that is not zero. */
  hasAsid = false;
  /** Flushes that the device has carried out on this context. */
  flushCount = 0;
  private readonly pages: Float64Array;
  private readonly frames: Int32Array;
  private readonly writable: Uint8Array;
  /** Place of each page's entry. */
  private readonly places = new Map<number, number>();
  private nextPlace = 0;

  constructor(
    private readonly gru: Gru,
    entries: number,
  ) {
    this.pages = new Float64Array(entries).fill(EMPTY);
    this.frames = new Int32Array(entries);
    this.writable = new Uint8Array(entries);
  }

  /** Entries in the TLB. */
  get entryCount(): number {
    return this.places.size;
  }

  /**
   * The bytes that the device loads from `address`.
   * @throws SystemCallError EFAULT where the process may not read
   */
  *read(address: number, length: number): Sim<Uint8Array> {
    const bytes = new Uint8Array(length);
    const { frames } = this.gru.mm.memory;
    yield* this.walk(address, length, false, (frame, within, done, piece) =>
      readFrame(frames, frame, within, bytes, done, piece),
    );
    return bytes;
  }

  /** The device stores bytes to `address`. @throws SystemCallError EFAULT where it may not write */
  write(address: number, bytes: Uint8Array): Sim<void> {
    const { frames } = this.gru.mm.memory;
    return this.walk(address, bytes.length, true, (frame, within, done, piece) =>
      writeFrame(frames, frame, within, bytes, done, piece),
    );
  }

  /** The thread does something else: the context leaves the device, its entries stay behind. */
  unload(): void {
    this.isLoaded = false;
  }

  /** The device drops the entries of pages [first, last). */
  flush(first: number, last: number): void {
    this.flushCount++;
    if (last - first <= this.places.size) {
      for (let page = first; page < last; page++) this.dropPage(page);
      return;
    }
    for (const page of this.pages) if (first <= page && page < last) this.dropPage(page);
  }

  /** Nothing in the TLB is the context's any more. */
  zeroAsid(): void {
    this.hasAsid = false;
    this.flush(0, Number.POSITIVE_INFINITY);
  }

  /** The device takes a translation, in place of the one that has been there longest. */
  insert(page: number, frame: number, write: boolean): void {
    const place = this.places.get(page) ?? this.nextPlace;
    if (place === this.nextPlace) this.nextPlace = (place + 1) % this.pages.length;
    if (this.pages[place] !== EMPTY) this.dropPage(this.pages[place]);
    this.pages[place] = page;
    this.frames[place] = frame;
    this.writable[place] = write ? 1 : 0;
    this.places.set(page, place);
    this.gru.notifiers.references.insert(this.gru, page, frame);
  }

  private dropPage(page: number): void {
    const place = this.places.get(page);
    if (place === undefined) return;
    this.places.delete(page);
    this.pages[place] = EMPTY;
    this.gru.notifiers.references.drop(this.gru, page, this.frames[place]);
  }

  private *walk(
    address: number,
    length: number,
    write: boolean,
    use: (frame: number, within: number, done: number, piece: number) => void,
  ): Sim<void> {
    const { gru } = this;
    for (let done = 0; done < length; ) {
      if (!this.isLoaded) yield* this.load();
      const page = Math.floor((address + done) / PAGE_BYTES);
      const within = address + done - page * PAGE_BYTES;
      const piece = Math.min(length - done, PAGE_BYTES - within);
      const place = this.places.get(page);
      if (place === undefined || (write && this.writable[place] === 0)) {
        yield* gru.miss(this, page, write);
        continue;
      }
      use(this.frames[place], within, done, piece);
      done += piece;
      yield gru.costs.accessPs;
    }
  }

  private *load(): Sim<void> {
    yield this.gru.costs.loadPs;
    this.isLoaded = true;
    this.hasAsid = true;
  }
}
