/**
 * The CPU's accesses to the memory of its process: touching pages, writing patterns, reading bytes.
 *
 * Faults are taken in runs of up to FAULTS_PER_SLICE under one hold of the mmap lock, which is what a
 * program that walks through fresh memory does as far as anybody else can tell.
 */
import { Failure, MessageHash } from '../../transport/index.ts';
import type { Sim } from '../sched/completion.ts';
import type { RwLock } from '../sched/rw-lock.ts';
import { FaultHandler } from './fault-handler.ts';
import { PAGE_BYTES } from './frames.ts';
import {
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_SWAP,
  PTE_WRITE,
  pteNumber,
} from './page-table.ts';
import type { MmParts } from './parts.ts';
import type { Vma, VmaList } from './vma.ts';

/** Page faults that one thread takes before somebody else may have the CPU or the mmap lock. */
const FAULTS_PER_SLICE = 64;

export class UserAccess {
  private readonly hasher = new MessageHash();
  private readonly zeros = new Uint8Array(PAGE_BYTES);
  private readonly zeroWords = new Int32Array(this.zeros.buffer);

  constructor(
    private readonly mm: MmParts,
    private readonly vmas: VmaList,
    private readonly lock: RwLock,
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
    const { pageAccessPs } = this.mm.costs;
    let page = Math.floor(address / PAGE_BYTES);
    const end = page + pageCount;
    let allowed = true;
    while (page < end && allowed) {
      if (!this.lock.tryLockRead()) yield* this.lock.lockRead();
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
      this.lock.unlockRead();
    }
    return page;
  }

  /** Writes bytes 0 to `length` - 1 of pattern `seed` to `address`. */
  *fill(address: number, length: number, seed: number): Sim<void> {
    const { frames, costs } = this.mm;
    let done = 0;
    while (done < length) {
      if (!this.lock.tryLockRead()) yield* this.lock.lockRead();
      let pages = 0;
      for (; done < length && pages < FAULTS_PER_SLICE; pages++) {
        const at = address + done;
        const page = Math.floor(at / PAGE_BYTES);
        const piece = Math.min(length - done, (page + 1) * PAGE_BYTES - at);
        const vma = this.accessible(page, true);
        if (vma === undefined) {
          this.lock.unlockRead();
          throw this.segmentationFault(at, true);
        }
        let frame = this.faults.tryHandle(page, vma, true);
        if (frame < 0) frame = yield* this.faults.handle(page, vma, true);
        if (piece === PAGE_BYTES) frames.content.setPattern(frame, seed, done);
        else frames.content.writePart(frame, at % PAGE_BYTES, piece, seed, done);
        done += piece;
      }
      this.faults.pendingPs += pages * costs.fillPagePs;
      yield* this.faults.spend();
      this.lock.unlockRead();
    }
  }

  /** The same for pages that are present and writable; skips the others and takes no fault. */
  *fillResident(address: number, length: number, seed: number): Sim<void> {
    const { frames, table, costs } = this.mm;
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

  /** Hash of the bytes that the process would read there; takes no time and faults nothing in. */
  hash(address: number, length: number): number {
    const { frames, swap, table } = this.mm;
    this.hasher.start();
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
    return this.hasher.finish();
  }

  /** Writes 32-bit words to a multiple of 4, within one page, faulting it in. */
  *writeWords(address: number, words: readonly number[]): Sim<void> {
    yield* this.touch(address, 1, true);
    const { content } = this.mm.frames;
    const pte = this.mm.table.get(Math.floor(address / PAGE_BYTES));
    const block = content.write(pteNumber(pte), false);
    content.blocks.words.set(words, (block * PAGE_BYTES + (address % PAGE_BYTES)) / 4);
  }

  /** The 32-bit words at a multiple of 4, within one page, as the process would read them now. */
  readWords(address: number, count: number): number[] {
    const pte = this.mm.table.get(Math.floor(address / PAGE_BYTES));
    if (pte === 0) return new Array<number>(count).fill(0);
    const { content } = (pte & PTE_PRESENT) !== 0 ? this.mm.frames : this.mm.swap;
    const block = content.sample(pteNumber(pte));
    const from = (block * PAGE_BYTES + (address % PAGE_BYTES)) / 4;
    const words = Array.from(
      content.blocks.words.subarray(from, from + count),
      (word) => word >>> 0,
    );
    content.blocks.release(block);
    return words;
  }

  /** The mapping of page `page`, if it allows the access. */
  private accessible(page: number, write: boolean): Vma | undefined {
    const vma = this.vmas.find(page * PAGE_BYTES);
    return vma !== undefined && FaultHandler.allows(vma, write) ? vma : undefined;
  }

  /** The simulated program has crashed at `address`. */
  private segmentationFault(address: number, write: boolean): Failure {
    const vma = this.vmas.find(address);
    return new Failure(
      'E_OPERATION',
      `segmentation fault: ${write ? 'write to' : 'read of'} 0x${address.toString(16)}, which is ` +
        (vma === undefined ? 'not mapped' : `mapped with protection ${vma.prot}`),
      this.mm.node.name,
      'an address that the process has mapped',
    );
  }
}
