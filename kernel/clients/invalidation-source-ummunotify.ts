/**
 * A registration cache that listens to ummunotify: it loads the mapped generation before every look-up,
 * and reads events only when that has moved (seed 003; Open MPI's memory_linux_ummunotify.c).
 */
import { SystemCallError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import type { ChangedEntries, InvalidationSource } from './invalidation-source.ts';
import { O_NONBLOCK, type Ummunotify, type UmmunotifyFile } from './ummunotify.ts';
import { UMMUNOTIFY_LAST, type UmmunotifyEvent } from './ummunotify-events.ts';

export class UmmunotifySource implements InvalidationSource {
  readonly name = 'ummunotify';
  /** A range is its own event slot: nothing can be lost. */
  readonly eventsLost = 0;
  /** The generation up to which all events have been read. */
  private seen: number;
  /** The last read found nothing. */
  private isDrained = false;

  /** `file` is of the process whose memory is registered, opened with O_NONBLOCK. */
  constructor(
    private readonly mm: AddressSpace,
    private readonly file: UmmunotifyFile,
  ) {
    this.seen = file.generation;
  }

  /** Opens the device and maps its counter. */
  static *open(module: Ummunotify, mm: AddressSpace): Sim<UmmunotifySource> {
    const file = yield* module.open(mm, O_NONBLOCK);
    yield* file.exchangeFeatures(0);
    yield* file.mapCounter(PAGE_BYTES);
    return new UmmunotifySource(mm, file);
  }

  watch(cookie: number, start: number, end: number): Sim<void> {
    return this.file.registerRegion(start, end, cookie);
  }

  unwatch(cookie: number): Sim<void> {
    return this.file.unregisterRegion(cookie);
  }

  *collect(): Sim<ChangedEntries> {
    yield this.mm.memory.costs.memoryLoadPs;
    const changed = new Set<number>();
    // Events that come while we read are read too: LAST says which generation the list was empty at.
    while (this.seen !== this.file.generation) {
      const generation = this.file.generation;
      for (const { type, userCookieCounter } of yield* this.read()) {
        if (type !== UMMUNOTIFY_LAST) changed.add(userCookieCounter);
        else this.seen = userCookieCounter;
      }
      // Nothing to read: the events of this generation went with the ranges that they were about.
      if (this.isDrained) this.seen = generation;
    }
    return [...changed];
  }

  close(): Sim<void> {
    return this.file.close();
  }

  private *read(): Sim<readonly UmmunotifyEvent[]> {
    this.isDrained = false;
    try {
      return yield* this.file.read(PAGE_BYTES);
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.errno !== 'EAGAIN') throw error;
      this.isDrained = true;
      return [];
    }
  }
}
