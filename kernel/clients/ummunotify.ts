/**
 * ummunotify (seed 003; drivers/char/ummunotify.c of 2009): a character device through which a program
 * hears of changes of its own memory.
 *
 * A program registers ranges, each under a cookie of 64 bits. A range is its own event slot: it stands on
 * the list of invalidated ranges or it does not, so however long nobody reads, nothing is lost and
 * nothing is allocated. A generation counter, mapped by the program, says without a system call that
 * nothing has happened. What is limited is how many ranges a process may register, which fails when it
 * registers, never later.
 *
 * As the driver does: a change walks the ranges from the lowest start on; an event keeps the exact range
 * of the change (a hint) until a second change hits it; the counter grows once for each change that hits
 * any range. The mapped page is not part of the process' list of mappings here.
 */
import type { Errno } from '../errno.ts';
import { SystemCallError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { MmStruct } from '../mm/virtual/mm-struct.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import { SpinLock } from '../sched/spin-lock.ts';
import { InvalidationTap } from './invalidation-tap.ts';
import {
  eventOf,
  lastEvent,
  UMMUNOTIFY_RECORD_BYTES,
  type UmmunotifyEvent,
  type WatchedRegion,
} from './ummunotify-events.ts';
import { WatchedRanges } from './watched-ranges.ts';

/** Flags of open. */
export const O_RDWR = 2;
export const O_NONBLOCK = 0x800;

/** Ranges that a process may register when the module is loaded without a parameter; assumed. */
const DEFAULT_RANGES_PER_PROCESS = 65_536;
/** Most that one read copies: a page. */
const READ_BYTES_MAX = PAGE_BYTES;

/** The module: one for each host. */
export class Ummunotify {
  /** Ranges that each process has registered, through all files it opened. */
  private readonly used = new Map<MmStruct, number>();

  constructor(readonly rangesPerProcess = DEFAULT_RANGES_PER_PROCESS) {}

  /**
   * Opens /dev/ummunotify: what is registered there is about the memory of the process that opens.
   * @throws SystemCallError EINVAL when opened for writing
   */
  *open(mm: AddressSpace, flags = 0): Sim<UmmunotifyFile> {
    yield mm.memory.costs.systemCallPs;
    if ((flags & O_RDWR) !== 0) {
      const detail = '/dev/ummunotify is opened for writing';
      throw new SystemCallError('EINVAL', 'open', detail, mm.memory.node.name, 'O_RDONLY');
    }
    const file = new UmmunotifyFile(this, mm, (flags & O_NONBLOCK) !== 0);
    yield* file.listen();
    return file;
  }

  /** Takes one of the ranges that the process may have; false when it has them all. */
  charge(mm: MmStruct): boolean {
    const used = this.used.get(mm) ?? 0;
    if (used >= this.rangesPerProcess) return false;
    this.used.set(mm, used + 1);
    return true;
  }

  uncharge(mm: MmStruct, count: number): void {
    const left = (this.used.get(mm) ?? 0) - count;
    if (left > 0) this.used.set(mm, left);
    else this.used.delete(mm);
  }
}

/** An open file. A child of fork shares it (`share`), and hears of its parent's memory. */
export class UmmunotifyFile {
  private readonly regions = new WatchedRanges<WatchedRegion>();
  /** Invalidated regions in the order in which they became so. */
  private readonly invalid = new Set<WatchedRegion>();
  private readonly tap: InvalidationTap;
  private readonly lock: SpinLock;
  private readable = new Completion<void>('an event of ummunotify');
  private counter = 0;
  /** A read has returned events, and the next must say that there are no more. */
  private needsLast = false;
  /** Features cannot be exchanged any more. */
  private wasUsed = false;
  private descriptors = 1;
  /** The memory that it is about: that of the opener then, whatever program it runs later. */
  private readonly watched: MmStruct;

  constructor(
    private readonly module: Ummunotify,
    private readonly mm: AddressSpace,
    private readonly nonBlocking: boolean,
  ) {
    this.watched = mm.state;
    this.lock = new SpinLock(mm.memory.scheduler, 'ummunotify');
    this.tap = new InvalidationTap('ummunotify', mm, (start, end) => this.note(start, end));
  }

  /** The generation, as the mapped page shows it: changes that have hit a range so far. */
  get generation(): number {
    return this.counter;
  }

  /** Regions that are registered. */
  get regionCount(): number {
    return this.regions.size;
  }

  /** Registers the notifier; `Ummunotify.open` calls it. */
  listen(): Sim<void> {
    return this.tap.open();
  }

  /**
   * UMMUNOTIFY_EXCHANGE_FEATURES: says which extensions the program knows, and returns those that both
   * know: none exist.
   * @throws SystemCallError EINVAL when the file has been used already
   */
  *exchangeFeatures(_wanted: number): Sim<number> {
    yield* this.enter('ioctl');
    if (this.wasUsed) throw this.refuse('EINVAL', 'ioctl', 'features come before anything else');
    this.wasUsed = true;
    return 0;
  }

  /**
   * UMMUNOTIFY_REGISTER_REGION: watches [start, end) under `cookie`.
   * @throws SystemCallError EINVAL for a cookie that is taken or an empty range, ENOMEM at the limit
   */
  *registerRegion(start: number, end: number, cookie: number): Sim<void> {
    yield* this.enter('ioctl');
    this.wasUsed = true;
    if (!(end > start)) throw this.refuse('EINVAL', 'ioctl', `${start} to ${end} is no range`);
    if (!this.module.charge(this.watched)) {
      const detail = `${this.module.rangesPerProcess} ranges are registered`;
      throw this.refuse('ENOMEM', 'ioctl', detail, 'fewer ranges, or a higher limit of the module');
    }
    const { costs } = this.mm.memory;
    yield* this.lock.lock();
    // The driver looks for the cookie in all of its ranges.
    yield this.regions.size * costs.watchWalkPs;
    const region = {
      cookie,
      start,
      end,
      isInvalid: false,
      hasHint: false,
      hintStart: 0,
      hintEnd: 0,
    };
    const isNew = this.regions.add(region);
    this.lock.unlock();
    if (isNew) return;
    this.module.uncharge(this.watched, 1);
    throw this.refuse('EINVAL', 'ioctl', `cookie ${cookie} is taken`, 'a cookie for each range');
  }

  /**
   * UMMUNOTIFY_UNREGISTER_REGION: an event of it that nobody has read goes too.
   * @throws SystemCallError EINVAL for an unknown cookie
   */
  *unregisterRegion(cookie: number): Sim<void> {
    yield* this.enter('ioctl');
    yield* this.lock.lock();
    const region = this.regions.remove(cookie);
    if (region !== undefined) {
      yield this.regions.visited(region.end) * this.mm.memory.costs.watchWalkPs;
      this.invalid.delete(region);
      this.module.uncharge(this.watched, 1);
    }
    this.lock.unlock();
    if (region === undefined) throw this.refuse('EINVAL', 'ioctl', `no range has cookie ${cookie}`);
  }

  /**
   * read() into a buffer of `bytes`: as many records as fit, and a LAST record when the list of
   * invalidated ranges is empty then. Sleeps while there is nothing to say.
   * @throws SystemCallError EAGAIN instead, when opened with O_NONBLOCK
   */
  *read(bytes: number): Sim<UmmunotifyEvent[]> {
    yield* this.enter('read');
    this.wasUsed = true;
    yield* this.lock.lock();
    while (!this.isReadable()) {
      this.lock.unlock();
      if (this.nonBlocking) throw this.refuse('EAGAIN', 'read', 'nothing has changed');
      yield this.readable;
      yield* this.lock.lock();
    }
    const count = Math.floor(Math.min(bytes, READ_BYTES_MAX) / UMMUNOTIFY_RECORD_BYTES);
    const events: UmmunotifyEvent[] = [];
    while (events.length < count) {
      const [region] = this.invalid;
      if (region === undefined) {
        events.push(lastEvent(this.counter));
        this.needsLast = false;
        break;
      }
      events.push(eventOf(region));
      this.invalid.delete(region);
      region.isInvalid = false;
      region.hasHint = false;
      this.needsLast = true;
    }
    this.lock.unlock();
    yield events.length * this.mm.memory.costs.eventReadPs;
    return events;
  }

  /** poll(): whether a read would not sleep. */
  isReadable(): boolean {
    return this.needsLast || this.invalid.size > 0;
  }

  /**
   * mmap() of the page with the generation counter, read-only.
   * @throws SystemCallError EINVAL for anything but the first page
   */
  *mapCounter(length: number, offset = 0): Sim<void> {
    yield* this.enter('mmap');
    yield this.mm.memory.costs.vmaChangePs;
    if (length === PAGE_BYTES && offset === 0) return;
    throw this.refuse('EINVAL', 'mmap', `${length} bytes from ${offset}`, 'the first page');
  }

  /** A child of fork, or dup, has the file too. */
  share(): void {
    this.descriptors++;
  }

  /** close(): the last one forgets everything. */
  *close(): Sim<void> {
    yield* this.enter('close');
    if (--this.descriptors > 0) return;
    yield* this.tap.close();
    this.module.uncharge(this.watched, this.regions.size);
    this.invalid.clear();
  }

  /** Runs in the context of whoever changes memory, which may be atomic. */
  private *note(start: number, end: number): Sim<void> {
    const { costs } = this.mm.memory;
    yield* this.lock.lock();
    yield this.regions.visited(end) * costs.watchWalkPs;
    let hits = 0;
    this.regions.forEachOverlap(start, end, (region) => {
      hits++;
      this.invalid.add(region);
      region.hasHint = !region.isInvalid;
      region.isInvalid = true;
      region.hintStart = start;
      region.hintEnd = end;
    });
    if (hits > 0) {
      this.counter++;
      yield hits * costs.watchEventPs;
      const { readable } = this;
      this.readable = new Completion<void>(readable.purpose);
      readable.resolve();
    }
    this.lock.unlock();
  }

  private *enter(call: string): Sim<void> {
    if (this.descriptors === 0) throw this.refuse('EBADF', call, 'the file is closed');
    yield this.mm.memory.costs.systemCallPs;
  }

  private refuse(errno: Errno, call: string, detail: string, expected = ''): SystemCallError {
    const what = `/dev/ummunotify: ${detail}`;
    return new SystemCallError(errno, call, what, this.mm.memory.node.name, expected);
  }
}
