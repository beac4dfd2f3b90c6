/**
 * The CPU's accesses to the memory of its process: touching pages, writing patterns, reading bytes.
 *
 * Faults are taken in runs of up to FAULTS_PER_SLICE under one hold of the mmap lock, which is what a
 * program that walks through fresh memory does as far as anybody else can tell. An access that the memory
 * does not allow ends the program with a signal (`SignalError`).
 */
import { MessageHash, type TimePs } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import { SignalError } from '../../signal.ts';
import { ORIGIN_CPU, PAGE_BYTES } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import {
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_WRITE,
  pteNumber,
} from '../virtual/page-table.ts';
import { VM_GROWSDOWN, type Vma } from '../virtual/vma.ts';
import { FaultHandler } from './fault-handler.ts';
import { NO_PAGE } from './fault-result.ts';
import { PageBytes } from './page-bytes.ts';

/** Bytes of the address space. */
export interface Range {
  readonly address: number;
  readonly length: number;
}

/** Page faults that one thread takes before somebody else may have the CPU or the mmap lock. */
const FAULTS_PER_SLICE = 64;
/** Bytes below a stack that stay free (stack_guard_gap: 256 pages). */
const STACK_GUARD_BYTES = 256 * PAGE_BYTES;

export class UserAccess {
  private readonly hasher = new MessageHash();
  private readonly bytes: PageBytes;

  constructor(
    private readonly mm: MmStruct,
    private readonly faults: FaultHandler,
  ) {
    this.bytes = new PageBytes(mm);
  }

  /** Accesses `pageCount` pages from the page of `address` on. */
  *touch(address: number, pageCount: number, write: boolean): Sim<void> {
    const end = Math.floor(address / PAGE_BYTES) + pageCount;
    const reached = yield* this.populate(address, pageCount, write);
    if (this.mm.killed !== undefined) throw this.mm.killed;
    if (reached < end) throw this.signal(reached * PAGE_BYTES, write);
  }

  /**
   * The same without sleeping, for as many pages as that goes; returns how many. Their CPU time is spent by
   * the next access that does sleep, or by `spend`.
   */
  tryTouch(address: number, pageCount: number, write: boolean): number {
    if (!this.mm.lock.tryLockRead()) return 0;
    const first = Math.floor(address / PAGE_BYTES);
    let page = first;
    let vma: Vma | undefined;
    for (; page < first + pageCount; page++) {
      if (vma === undefined || page * PAGE_BYTES >= vma.end) vma = this.accessible(page, write);
      if (vma === undefined || this.faults.tryHandle(page, vma, write) < 0) break;
    }
    this.faults.pendingPs += (page - first) * this.mm.memory.costs.pageAccessPs;
    this.mm.lock.unlockRead();
    return page - first;
  }

  /** Spends the CPU time that tryTouch has left. */
  spend(): Sim<void> {
    return this.faults.spend();
  }

  /**
   * The same as touch, ending without a word at the first page that may not be accessed: other threads may
   * unmap meanwhile (mm_populate). Returns the number of the page after the last one accessed.
   */
  *populate(address: number, pageCount: number, write: boolean, origin = ORIGIN_CPU): Sim<number> {
    const { pageAccessPs } = this.mm.memory.costs;
    let page = Math.floor(address / PAGE_BYTES);
    const end = page + pageCount;
    let allowed = true;
    while (page < end && allowed) {
      if (!this.mm.lock.tryLockRead()) yield* this.mm.lock.lockRead();
      const first = page;
      const stop = Math.min(end, first + FAULTS_PER_SLICE);
      let vma: Vma | undefined;
      for (; page < stop; page++) {
        if (vma === undefined || page * PAGE_BYTES >= vma.end) vma = this.accessible(page, write);
        if (vma === undefined) {
          allowed = false;
          break;
        }
        if (this.faults.tryHandle(page, vma, write, origin) >= 0) continue;
        if ((yield* this.faults.handle(page, vma, write, origin)) === NO_PAGE) {
          allowed = false;
          break;
        }
      }
      this.faults.pendingPs += (page - first) * pageAccessPs;
      yield* this.faults.spend();
      this.mm.lock.unlockRead();
      if (this.mm.killed !== undefined) break;
    }
    return page;
  }

  /** Writes bytes 0 to `length` - 1 of pattern `seed` to `address`. */
  fill(address: number, length: number, seed: number): Sim<void> {
    const { frames, costs } = this.mm.memory;
    return this.writePieces(address, length, costs.fillPagePs, (frame, within, piece, done) => {
      if (piece === PAGE_BYTES) frames.content.setPattern(frame, seed, done);
      else frames.content.writePart(frame, within, piece, seed, done);
    });
  }

  /** Writes bytes to `address`. */
  write(address: number, bytes: Uint8Array): Sim<void> {
    const { content } = this.mm.memory.frames;
    const { pageAccessPs } = this.mm.memory.costs;
    return this.writePieces(address, bytes.length, pageAccessPs, (frame, within, piece, done) => {
      const at = content.write(frame, piece === PAGE_BYTES) * PAGE_BYTES + within;
      content.blocks.bytes.set(bytes.subarray(done, done + piece), at);
    });
  }

  /**
   * Walks through the pages of a range, faulting them in for writing, and calls `put` with the frame
   * of each, the place within it, the bytes there and the bytes done before.
   */
  private *writePieces(
    address: number,
    length: number,
    pagePs: TimePs,
    put: (frame: number, within: number, piece: number, done: number) => void,
  ): Sim<void> {
    let done = 0;
    while (done < length) {
      if (!this.mm.lock.tryLockRead()) yield* this.mm.lock.lockRead();
      let pages = 0;
      for (; done < length && pages < FAULTS_PER_SLICE; pages++) {
        const at = address + done;
        const page = Math.floor(at / PAGE_BYTES);
        const piece = Math.min(length - done, (page + 1) * PAGE_BYTES - at);
        const vma = this.accessible(page, true);
        let frame = vma === undefined ? NO_PAGE : this.faults.tryHandle(page, vma, true);
        if (vma !== undefined && frame < 0) frame = yield* this.faults.handle(page, vma, true);
        if (frame === NO_PAGE) {
          this.mm.lock.unlockRead();
          throw this.mm.killed ?? this.signal(at, true);
        }
        put(frame, at % PAGE_BYTES, piece, done);
        done += piece;
      }
      this.faults.pendingPs += pages * pagePs;
      yield* this.faults.spend();
      this.mm.lock.unlockRead();
      if (this.mm.killed !== undefined) throw this.mm.killed;
    }
  }

  /** The same for pages that are present and writable; skips the others and takes no fault. */
  *fillResident(address: number, length: number, seed: number): Sim<void> {
    const { table, memory } = this.mm;
    const { frames, costs } = memory;
    const wanted = PTE_PRESENT | PTE_WRITE;
    let filled = 0;
    for (let done = 0; done < length; ) {
      const at = address + done;
      const page = Math.floor(at / PAGE_BYTES);
      const piece = Math.min(length - done, (page + 1) * PAGE_BYTES - at);
      const pte = table.get(page);
      if ((pte & wanted) === wanted) {
        const frame = pteNumber(pte);
        table.mark(page, PTE_DIRTY | PTE_ACCESSED);
        if (piece === PAGE_BYTES) frames.content.setPattern(frame, seed, done);
        else frames.content.writePart(frame, at % PAGE_BYTES, piece, seed, done);
        filled++;
      }
      done += piece;
    }
    yield filled * costs.fillPagePs;
  }

  /**
   * Hash of the bytes that the process would read in these ranges, one after the other; takes no time
   * and faults nothing in.
   */
  hash(ranges: readonly Range[]): number {
    this.hasher.start();
    for (const { address, length } of ranges) {
      for (let done = 0; done < length; ) {
        const at = address + done;
        const page = Math.floor(at / PAGE_BYTES);
        const within = at - page * PAGE_BYTES;
        const piece = Math.min(length - done, PAGE_BYTES - within);
        this.bytes.hashInto(this.hasher, page, within, piece);
        done += piece;
      }
    }
    return this.hasher.finish();
  }

  /** The bytes that the process would read there now; takes no time and faults nothing in. */
  read(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const at = address + done;
      const page = Math.floor(at / PAGE_BYTES);
      const within = at - page * PAGE_BYTES;
      const piece = Math.min(length - done, PAGE_BYTES - within);
      this.bytes.copyTo(bytes, done, page, within, piece);
      done += piece;
    }
    return bytes;
  }

  /** The mapping of page `page`, if it allows the access; a stack grows down to it (expand_stack). */
  private accessible(page: number, write: boolean): Vma | undefined {
    const { vmas } = this.mm;
    const address = page * PAGE_BYTES;
    let vma = vmas.find(address);
    if (vma === undefined) {
      vma = vmas.findFrom(address);
      if (vma === undefined || (vma.flags & VM_GROWSDOWN) === 0) return undefined;
      if (!this.growStack(vma, address)) return undefined;
    }
    return FaultHandler.allows(vma, write) ? vma : undefined;
  }

  private growStack(stack: Vma, address: number): boolean {
    const { vmas, memory } = this.mm;
    if (stack.end - address > memory.settings.stackBytes) return false;
    if (vmas.overlapping(address - STACK_GUARD_BYTES, stack.start).length > 0) return false;
    vmas.growDown(stack, address);
    return true;
  }

  /** The signal that ends the simulated program at `address`. */
  private signal(address: number, write: boolean): SignalError {
    const { vmas, name } = this.mm;
    const vma = vmas.find(address);
    if (vma === undefined) return new SignalError('SIGSEGV', address, write, 'not mapped', name);
    if (!FaultHandler.allows(vma, write)) {
      const what = `mapped with protection ${vma.prot}`;
      return new SignalError('SIGSEGV', address, write, what, name);
    }
    const what = 'beyond the end of its file, or has no page left to show';
    return new SignalError('SIGBUS', address, write, what, name);
  }
}
