/**
 * Malloc hooks: the library puts itself between the program and libc, and notes what munmap, mremap,
 * brk, madvise and a mapping over another are about to take away (Geoffray in seed 000: "HPC people
 * provide their own malloc to catch free(). They also try to catch sbrk() and munmap()"; later opal's
 * patcher and ucm of UCX).
 *
 * The methods here are libc's, as the program calls them. Whoever calls the system calls of `mm` itself
 * (another library's inlined syscall, the loader, a run-time of another language) goes past them, and so
 * does everything the kernel does on its own; that is how such a cache becomes stale.
 */
import type { AddressSpace } from '../mm/address-space.ts';
import type { MappedFile } from '../mm/files/mapped-file.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import type { ChangedEntries, InvalidationSource } from './invalidation-source.ts';
import { type WatchedRange, WatchedRanges } from './watched-ranges.ts';

/** Kinds of advice that take pages away: MADV_DONTNEED, MADV_FREE, MADV_REMOVE. */
const TAKES_PAGES: readonly number[] = [4, 8, 9];

export class HooksSource implements InvalidationSource {
  readonly name = 'hooks';
  /** The set of changed entries grows as needed, so nothing that a hook sees is lost. */
  readonly eventsLost = 0;
  private readonly watched = new WatchedRanges<WatchedRange>();
  private readonly changed = new Set<number>();

  constructor(private readonly mm: AddressSpace) {}

  *watch(cookie: number, start: number, end: number): Sim<void> {
    yield this.mm.memory.costs.cacheLookupPs;
    this.watched.add({ cookie, start, end });
  }

  *unwatch(cookie: number): Sim<void> {
    yield this.mm.memory.costs.cacheLookupPs;
    this.watched.remove(cookie);
    this.changed.delete(cookie);
  }

  *collect(): Sim<ChangedEntries> {
    yield this.mm.memory.costs.memoryLoadPs;
    const changed = [...this.changed];
    this.changed.clear();
    return changed;
  }

  *close(): Sim<void> {
    yield this.mm.memory.costs.mallocHookPs;
    this.changed.clear();
  }

  /** mmap: at a given address it replaces what is there. */
  *mmap(
    address: number,
    length: number,
    prot: number,
    flags = 0,
    file?: MappedFile,
    fileOffset = 0,
  ): Sim<number> {
    if (address !== 0) yield* this.note(address, address + length);
    return yield* this.mm.mmap(address, length, prot, flags, file, fileOffset);
  }

  *munmap(address: number, length: number): Sim<void> {
    yield* this.note(address, address + length);
    yield* this.mm.munmap(address, length);
  }

  *mremap(oldAddress: number, oldLength: number, newAddress: number, newLength: number): Sim<void> {
    yield* this.note(oldAddress, oldAddress + oldLength);
    if (newAddress !== oldAddress) yield* this.note(newAddress, newAddress + newLength);
    yield* this.mm.mremap(oldAddress, oldLength, newAddress, newLength);
  }

  /** brk and sbrk: what is above the new end goes away. */
  *brk(newEnd: number): Sim<void> {
    const { breakEnd } = this.mm.state;
    if (newEnd < breakEnd) yield* this.note(newEnd, breakEnd);
    yield* this.mm.brk(newEnd);
  }

  *madvise(address: number, length: number, advice: number): Sim<void> {
    if (TAKES_PAGES.includes(advice)) yield* this.note(address, address + length);
    yield* this.mm.madvise(address, length, advice);
  }

  /** Notes a range that is about to go, before it goes: whole pages, as the kernel takes them. */
  private *note(start: number, end: number): Sim<void> {
    yield this.mm.memory.costs.mallocHookPs;
    const pageEnd = Math.ceil(end / PAGE_BYTES) * PAGE_BYTES;
    this.watched.forEachOverlap(start, pageEnd, ({ cookie }) => this.changed.add(cookie));
  }
}
