/**
 * The address space of a recorded rank: as it was when recording began, and how each line about
 * memory changes it. Knows nothing of messages; whoever uses it lets go of a range first.
 *
 * Which calls a program makes through libc, where malloc hooks see them, and which it does not, a
 * recording of system calls does not say. The rule here: what the main thread does to anonymous memory
 * is malloc's work, and goes through libc; the loader (all mappings of files) and helper threads make
 * raw system calls.
 */
import type { AddressSpace, Sim } from '../../kernel/index.ts';
import { PROT_WRITE, type Trace, type TraceEvent } from '../trace/format.ts';
import { PAGE_BYTES, pageRange } from './layout.ts';
import { RecordedFiles } from './recorded-files.ts';
import { mappingAt } from './registrations.ts';

/** MAP_* of Linux. */
const MAP_SHARED = 0x1;
const MAP_GROWSDOWN = 0x100;

/** Called before [address, address + length) is unmapped, moved or emptied; returns when it may be. */
export type BeforeUnmap = (address: number, length: number) => Sim<void>;

/** The calls that take memory away, as libc offers them: AddressSpace itself, or hooks around it. */
export type LibcCalls = Pick<AddressSpace, 'mmap' | 'munmap' | 'mremap' | 'brk' | 'madvise'>;

export class RecordedMemory {
  private heapEnd: number;

  constructor(
    private readonly mm: AddressSpace,
    private readonly trace: Trace,
    private readonly beforeUnmap: BeforeUnmap,
    private readonly files = new RecordedFiles(mm.memory),
    private readonly libc: LibcCalls = mm,
  ) {
    this.heapEnd = trace.brk;
  }

  /**
   * Makes the address space what it was when recording began; only pages of files take time to be found.
   * Throws Failure E_OPERATION.
   */
  *restore(): Sim<void> {
    const { mm, trace } = this;
    mm.setBrk(trace.brk);
    for (const { start, end, prot, isShared, file, fileOffset, area } of trace.mappings) {
      const flags = (isShared ? MAP_SHARED : 0) | (area === 'stack' ? MAP_GROWSDOWN : 0);
      mm.mapAtStart(start, end - start, prot, flags, this.files.open(file), fileOffset);
    }
    for (const { address, pageCount, anonymous } of trace.resident) {
      if (anonymous) mm.adopt(address, pageCount);
    }
    for (const { address, pageCount, anonymous } of trace.resident) {
      if (!anonymous) yield* mm.touch(address, pageCount, false);
    }
  }

  /** Carries out a line about memory; lines about anything else do nothing. */
  *step(event: TraceEvent): Sim<void> {
    const { mm } = this;
    switch (event.kind) {
      case 'mmap': {
        const { address, length, prot, flags, file, fileOffset } = event;
        yield* this.beforeUnmap(address, length);
        const backing = this.files.open(file);
        const calls = event.isHelper || backing ? mm : this.libc;
        yield* calls.mmap(address, length, prot, flags, backing, fileOffset);
        return;
      }
      case 'munmap': {
        const { address, length } = event;
        yield* this.beforeUnmap(address, length);
        const isRaw = event.isHelper || mappingAt(mm, address)?.file !== undefined;
        return yield* (isRaw ? mm : this.libc).munmap(address, length);
      }
      case 'mremap':
        return yield* this.remap(event);
      case 'brk':
        return yield* this.moveBreak(event.end);
      case 'madvise':
        yield* this.beforeUnmap(event.address, event.length);
        return yield* this.libc.madvise(event.address, event.length, event.advice);
      case 'mprotect':
        return yield* mm.mprotect(event.address, event.length, event.prot);
      case 'pf':
        return yield* this.touch(event.address, event.pageCount);
    }
  }

  private *remap(event: TraceEvent & { kind: 'mremap' }): Sim<void> {
    const { address, length, newAddress, newLength } = event;
    if (newAddress !== address) {
      yield* this.beforeUnmap(address, length);
      yield* this.beforeUnmap(newAddress, newLength);
    } else if (newLength < length) {
      yield* this.beforeUnmap(address + newLength, length - newLength);
    }
    yield* this.libc.mremap(address, length, newAddress, newLength);
  }

  private *moveBreak(newEnd: number): Sim<void> {
    // The page that the break is in stays.
    const start = pageUp(newEnd);
    const end = pageUp(this.heapEnd);
    if (start < end) yield* this.beforeUnmap(start, end - start);
    this.heapEnd = newEnd;
    yield* this.libc.brk(newEnd);
  }

  /**
   * Touches pages that the program faulted on. The recording does not say whether it wrote: it did
   * where it may. Neighbouring pages can belong to mappings with different rights.
   */
  private *touch(address: number, pageCount: number): Sim<void> {
    const { end } = pageRange(address, pageCount * PAGE_BYTES);
    for (let at = address; at < end; ) {
      const mapping = mappingAt(this.mm, at);
      const stop = Math.min(end, mapping?.end ?? end);
      const write = ((mapping?.prot ?? PROT_WRITE) & PROT_WRITE) !== 0;
      yield* this.mm.touch(at, Math.ceil((stop - at) / PAGE_BYTES), write);
      at = stop;
    }
  }
}

function pageUp(address: number): number {
  return pageRange(address, 0).end;
}
