/**
 * The address space of a recorded rank: as it was when recording began, and how each line about
 * memory changes it. Knows nothing of messages; whoever uses it lets go of a range first.
 */
import type { AddressSpace, Sim } from '../../kernel/index.ts';
import { PROT_WRITE, type Trace, type TraceEvent } from '../trace/format.ts';
import { PAGE_BYTES, pageRange } from './layout.ts';
import { mappingAt } from './registrations.ts';

/** Called before [address, address + length) is unmapped, moved or emptied; returns when it may be. */
export type BeforeUnmap = (address: number, length: number) => Sim<void>;

export class RecordedMemory {
  private heapEnd: number;

  constructor(
    private readonly mm: AddressSpace,
    private readonly trace: Trace,
    private readonly beforeUnmap: BeforeUnmap,
  ) {
    this.heapEnd = trace.brk;
  }

  /** Makes the address space what it was when recording began. Throws Failure E_OPERATION. */
  restore(): void {
    const { mm, trace } = this;
    mm.setBrk(trace.brk);
    for (const event of trace.start) {
      if (event.kind === 'map') mm.mapAtStart(event.address, event.length, event.prot);
      else if (event.kind === 'res') mm.adopt(event.address, event.pageCount);
    }
  }

  /** Carries out a line about memory; lines about anything else do nothing. */
  *step(event: TraceEvent): Sim<void> {
    const { mm } = this;
    switch (event.kind) {
      case 'mmap':
        yield* this.beforeUnmap(event.address, event.length);
        return yield* mm.mmap(event.address, event.length, event.prot);
      case 'munmap':
        yield* this.beforeUnmap(event.address, event.length);
        return yield* mm.munmap(event.address, event.length);
      case 'mremap':
        return yield* this.remap(event);
      case 'brk':
        return yield* this.moveBreak(event.end);
      case 'madvise':
        if (event.advice !== 'MADV_DONTNEED') return;
        yield* this.beforeUnmap(event.address, event.length);
        return yield* mm.madviseDontneed(event.address, event.length);
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
    yield* this.mm.mremap(address, length, newAddress, newLength);
  }

  private *moveBreak(newEnd: number): Sim<void> {
    // The page that the break is in stays.
    const start = pageUp(newEnd);
    const end = pageUp(this.heapEnd);
    if (start < end) yield* this.beforeUnmap(start, end - start);
    this.heapEnd = newEnd;
    yield* this.mm.brk(newEnd);
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
      const write = ((mapping?.prot ?? 0) & PROT_WRITE) !== 0;
      yield* this.mm.touch(at, Math.ceil((stop - at) / PAGE_BYTES), write);
      at = stop;
    }
  }
}

function pageUp(address: number): number {
  return pageRange(address, 0).end;
}
