/**
 * A file of one process of the memory storm that it truncates, extends and punches holes into, mapped shared
 * and mapped privately, and what both mappings should show.
 */
import { type AddressSpace, PROT_READ, type Sim, SystemCallError } from '../../kernel/index.ts';
import { MAP_SHARED } from '../../kernel/mm/address-space.ts';
import { MADV_REMOVE } from '../../kernel/mm/calls/advice.ts';
import type { MappedFile } from '../../kernel/mm/files/mapped-file.ts';
import { SignalError } from '../../kernel/signal.ts';
import type { RandomStream } from '../../transport/index.ts';
import { MemoryModel, PAGE, RW } from './memory-model.ts';

const FILE_PAGES = 12;
/** From the shared mapping to the private one. */
const PRIVATE = 2 ** 24;

export class CutFile {
  /** What the file holds; zeros beyond its end. */
  readonly model = new MemoryModel(FILE_PAGES);
  /** Pages of the private mapping that were written there. */
  private readonly own = new Map<number, MemoryModel>();
  private bytes = FILE_PAGES * PAGE;

  constructor(
    private readonly file: MappedFile,
    readonly base: number,
  ) {}

  /** Maps the file twice, after making it what the model says. */
  *setUp(mm: AddressSpace): Sim<void> {
    const { base, file } = this;
    yield* mm.memory.files.truncate(file, 0);
    yield* mm.memory.files.truncate(file, this.bytes);
    yield* mm.mmap(base, FILE_PAGES * PAGE, RW, MAP_SHARED, file);
    yield* mm.mmap(base + PRIVATE, FILE_PAGES * PAGE, RW, 0, file);
    this.model.map(0, FILE_PAGES, RW);
  }

  /** Whole pages that lie within the file: those that a device may be given. */
  get wholePages(): number {
    return Math.floor(this.bytes / PAGE);
  }

  /** Does something with it. */
  *step(mm: AddressSpace, random: RandomStream, bytes: Uint8Array): Sim<void> {
    const { file, base, model } = this;
    const { files } = mm.memory;
    const first = random.below(FILE_PAGES);
    const count = 1 + random.below(FILE_PAGES - first);
    switch (random.below(8)) {
      case 0:
        return yield* this.truncate(mm, random.below(FILE_PAGES * PAGE + 1));
      case 1:
        return yield* this.truncate(mm, first * PAGE);
      case 2:
        yield* mm.madvise(base + first * PAGE, count * PAGE, MADV_REMOVE);
        model.zero(first, count);
        for (let page = first; page < first + count; page++) this.own.delete(page);
        return;
      case 3:
        return yield* files.sync(file);
      case 4:
        return yield* this.writePrivate(mm, first, bytes.subarray(0, PAGE));
      case 5:
        return yield* this.touch(mm, first);
      default: {
        const length = Math.min(bytes.length, this.bytes - first * PAGE);
        if (length <= 0) return;
        const part = bytes.subarray(0, length);
        yield* mm.write(base + first * PAGE, part);
        model.write(first * PAGE, part);
      }
    }
  }

  /** Everything has been locked: pages of a private mapping that can be written are copied then (mlock(2)). */
  copyPrivate(): void {
    for (let page = 0; page * PAGE < this.bytes; page++) {
      if (!this.own.has(page)) this.own.set(page, this.model.pick(page));
    }
  }

  /** The private mapping anew, when it is not known which of its pages were copied. */
  *remapPrivate(mm: AddressSpace): Sim<void> {
    yield* mm.mmap(this.base + PRIVATE, FILE_PAGES * PAGE, RW, 0, this.file);
    this.own.clear();
  }

  check(mm: AddressSpace): void {
    const { base, own } = this;
    const what = `of the file of ${mm.name}, ${this.bytes} bytes long`;
    this.model.expect(0, mm.read(base, FILE_PAGES * PAGE), `shared mapping ${what}`);
    for (let page = 0; page < FILE_PAGES; page++) {
      const seen = mm.read(base + PRIVATE + page * PAGE, PAGE);
      const copy = own.get(page);
      if (copy) copy.expect(0, seen, `own page ${page} ${what}`);
      else this.model.expect(page * PAGE, seen, `private mapping ${what}`);
    }
  }

  private *truncate(mm: AddressSpace, bytes: number): Sim<void> {
    const { model } = this;
    const old = this.bytes;
    yield* mm.memory.files.truncate(this.file, bytes);
    this.bytes = bytes;
    if (bytes >= old) return;
    const first = Math.ceil(bytes / PAGE);
    model.zero(first, FILE_PAGES - first);
    model.write(bytes, new Uint8Array(first * PAGE - bytes));
    // Private copies go with their pages, but for that of the page which the file now ends in.
    for (const page of [...this.own.keys()]) if (page >= first) this.own.delete(page);
  }

  private *writePrivate(mm: AddressSpace, page: number, bytes: Uint8Array): Sim<void> {
    if (page * PAGE >= this.bytes) return;
    // As a whole page, so that it does not matter what the file has in it.
    const whole = new Uint8Array(PAGE);
    whole.set(bytes);
    yield* mm.write(this.base + PRIVATE + page * PAGE, whole);
    const copy = new MemoryModel(1);
    copy.map(0, 1, PROT_READ);
    copy.write(0, whole);
    this.own.set(page, copy);
  }

  /** A page beyond the end is a bus error, one within it is there. */
  private *touch(mm: AddressSpace, page: number): Sim<void> {
    let signal: string | undefined;
    try {
      yield* mm.touch(this.base + page * PAGE, 1, page % 2 === 0);
    } catch (error) {
      if (error instanceof SystemCallError || !(error instanceof SignalError)) throw error;
      signal = error.signal;
    }
    const expected = page * PAGE >= this.bytes ? 'SIGBUS' : undefined;
    if (signal !== expected) throw new Error(`page ${page} of ${this.bytes} bytes: ${signal}`);
  }
}
