/**
 * The CPU's accesses to the memory of its process: touching pages, writing patterns, reading bytes.
 *
 * Faults are taken in runs of up to FAULTS_PER_SLICE under one hold of the mmap lock, which is what a
 * program that walks through fresh memory does as far as anybody else can tell.
 */
import { Failure, MessageHash, type TimePs } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import { PAGE_BYTES } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import {
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_SWAP,
  PTE_WRITE,
  pteNumber,
} from '../virtual/page-table.ts';
import type { Vma } from '../virtual/vma.ts';
import { FaultHandler } from './fault-handler.ts';

/** Bytes of the address space. */
export interface Range {
  readonly address: number;
  readonly length: number;
}

/** Page faults that one thread takes before somebody else may have the CPU or the mmap lock. */
const FAULTS_PER_SLICE = 64;

export class UserAccess {
  private readonly hasher = new MessageHash();
  private readonly zeros = new Uint8Array(PAGE_BYTES);
  private readonly zeroWords = new Int32Array(this.zeros.buffer);

  constructor(
    private readonly mm: MmStruct,
    private readonly faults: FaultHandler,
  ) {}

  /** Accesses `pageCount` pages from the page of `address` on. */
  *touch(address: number, pageCount: number, write: boolean): Sim<void> {
    const end = Math.floor(address / PAGE_BYTES) + pageCount;
    const reached = yield* this.populate(address, pageCount, write);
    if (reached < end) throw this.segmentationFault(reached * PAGE_BYTES, write);
  }

  /**
   * The same, ending without a word at the first page that may not be accessed: other threads may
   * unmap meanwhile (mm_populate). Returns the number of the page after the last one accessed.
   */
  *populate(address: number, pageCount: number, write: boolean): Sim<number> {
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
        if (this.faults.tryHandle(page, vma, write) < 0)
          yield* this.faults.handle(page, vma, write);
      }
      this.faults.pendingPs += (page - first) * pageAccessPs;
      yield* this.faults.spend();
      this.mm.lock.unlockRead();
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
        if (vma === undefined) {
          this.mm.lock.unlockRead();
          throw this.segmentationFault(at, true);
        }
        let frame = this.faults.tryHandle(page, vma, true);
        if (frame < 0) frame = yield* this.faults.handle(page, vma, true);
        put(frame, at % PAGE_BYTES, piece, done);
        done += piece;
      }
      this.faults.pendingPs += pages * pagePs;
      yield* this.faults.spend();
      this.mm.lock.unlockRead();
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
        table.set(page, pte | PTE_DIRTY | PTE_ACCESSED);
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
    const { table, memory } = this.mm;
    const { frames, swap } = memory;
    this.hasher.start();
    for (const { address, length } of ranges) {
      for (let done = 0; done < length; ) {
        const at = address + done;
        const page = Math.floor(at / PAGE_BYTES);
        const within = at - page * PAGE_BYTES;
        const piece = Math.min(length - done, PAGE_BYTES - within);
        const pte = table.get(page);
        if (pte & PTE_PRESENT) {
          frames.content.hashInto(this.hasher, pteNumber(pte), within, piece);
        } else if (pte & PTE_SWAP) {
          swap.content.hashInto(this.hasher, pteNumber(pte), within, piece);
        } else this.hasher.update(this.zeros, this.zeroWords, 0, piece);
        done += piece;
      }
    }
    return this.hasher.finish();
  }

  /** The bytes that the process would read there now; takes no time and faults nothing in. */
  read(address: number, length: number): Uint8Array {
    const { table, memory } = this.mm;
    const { frames, swap } = memory;
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const at = address + done;
      const page = Math.floor(at / PAGE_BYTES);
      const within = at - page * PAGE_BYTES;
      const piece = Math.min(length - done, PAGE_BYTES - within);
      const pte = table.get(page);
      if (pte !== 0) {
        const { content } = (pte & PTE_PRESENT) !== 0 ? frames : swap;
        const block = content.sample(pteNumber(pte));
        const from = block * PAGE_BYTES + within;
        bytes.set(content.blocks.bytes.subarray(from, from + piece), done);
        content.blocks.release(block);
      }
      done += piece;
    }
    return bytes;
  }

  /** The mapping of page `page`, if it allows the access. */
  private accessible(page: number, write: boolean): Vma | undefined {
    const vma = this.mm.vmas.find(page * PAGE_BYTES);
    return vma !== undefined && FaultHandler.allows(vma, write) ? vma : undefined;
  }

  /** The simulated program has crashed at `address`. */
  private segmentationFault(address: number, write: boolean): Failure {
    const vma = this.mm.vmas.find(address);
    return new Failure(
      'E_OPERATION',
      `segmentation fault: ${write ? 'write to' : 'read of'} 0x${address.toString(16)}, which is ` +
        (vma === undefined ? 'not mapped' : `mapped with protection ${vma.prot}`),
      this.mm.name,
      'an address that the process has mapped',
    );
  }
}
