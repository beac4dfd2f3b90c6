/**
 * The page cache: files by path, and their pages in memory (mm/filemap.c, mm/shmem.c).
 *
 * A page that is missed is read from the device, with those around it, while its frame is locked; a page of
 * a file that was never written is a piece of the pattern that bears the file's number. The cache holds one
 * reference for each of its pages and marks the frame with file and index: `insert` and `remove` here do
 * that and nobody else.
 *
 * Owns the files and what is read into memory. What leaves it again is `writeback.ts` (dirty pages) and
 * `truncate.ts`; which page has to go is reclaim's choice.
 */
import { assert, Link } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';
import { SpinLock } from '../../sched/spin-lock.ts';
import type { Memory } from '../memory.ts';
import { FRAME_LRU, FRAME_SWAP_BACKED, NO_FRAME, PAGE_BYTES } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { type FileKind, MappedFile } from './mapped-file.ts';
import { punchHole, truncateFile } from './truncate.ts';
import { syncFile, writeBack } from './writeback.ts';

export class PageCache {
  /** Files by number; number 0 is none. */
  private readonly files: (MappedFile | undefined)[] = [undefined];
  private readonly byPath = new Map<string, MappedFile>();
  /** The device that all files lie on. */
  readonly device: Link;
  /** Stands for the file behind private huge pages of the pool (anon_hugepage): only its lock matters. */
  readonly anonHugePages: MappedFile;

  constructor(readonly memory: Memory) {
    const { fileLatencyPs, fileRateGbps } = memory.costs;
    this.device = new Link(fileRateGbps, fileLatencyPs);
    this.anonHugePages = this.create('/anon_hugepage', 'shared memory', 0, false, true);
  }

  /**
   * The file at `path`; there is one of any length wherever one is asked for. `warm` matters the first time:
   * programs and libraries that have run before are in memory already.
   */
  open(path: string, warm = false): MappedFile {
    const known = this.byPath.get(path);
    if (known) return known;
    const file = this.create(path, 'file', Number.POSITIVE_INFINITY, warm);
    this.byPath.set(path, file);
    return file;
  }

  /** A file of `length` bytes that is executed in place; it is all holes. */
  openXip(path: string, length: number): MappedFile {
    const known = this.byPath.get(path);
    if (known) return known;
    const file = this.create(path, 'xip', length);
    this.byPath.set(path, file);
    return file;
  }

  /** A fresh object for MAP_SHARED without a file; `huge` for MAP_HUGETLB. */
  createShared(name: string, huge = false): MappedFile {
    return this.create(name, 'shared memory', Number.POSITIVE_INFINITY, false, huge);
  }

  /** Every file there has been. */
  all(): MappedFile[] {
    return this.files.filter((file) => file !== undefined);
  }

  /** The file with that number. */
  file(id: number): MappedFile {
    return this.files[id] as MappedFile;
  }

  /**
   * Cuts the file to `bytes`, or lets it grow: pages beyond go from all processes and from memory, and an
   * access to them is a bus error (truncate(2)).
   */
  truncate(file: MappedFile, bytes: number): Sim<void> {
    return truncateFile(this.memory, file, bytes);
  }

  /** Pages [first, end) of the file become zeros, in all processes (MADV_REMOVE, FALLOC_FL_PUNCH_HOLE). */
  punch(file: MappedFile, first: number, end: number): Sim<void> {
    return punchHole(this.memory, file, first, end);
  }

  /** Ends shared memory without a name when no process maps it any more. */
  *endIfUnmapped(file: MappedFile): Sim<void> {
    for (const mm of this.memory.mms) {
      if (mm?.vmas.list().some((area) => area.file === file)) return;
    }
    if (file.pages.size + file.slots.size > 0) yield* truncateFile(this.memory, file, 0);
  }

  /** Writes a dirty page to its device; the caller holds a reference and the page lock. */
  writeBack(frame: number): Sim<void> {
    return writeBack(this.memory, frame);
  }

  /** Writes all dirty pages of the file (fsync, msync). */
  sync(file: MappedFile): Sim<void> {
    return syncFile(this.memory, file);
  }

  /** True for a page that can be mapped now: in the cache and nobody is at work on it. */
  isReady(frame: number): boolean {
    return frame >= 0 && !this.memory.pageLocks.isLocked(frame);
  }

  /**
   * Frame of page `index` if that needs no sleep: it is in the cache, or would be if anybody had asked, or is
   * a fresh page of shared memory. NO_FRAME otherwise.
   */
  tryFrame(file: MappedFile, index: number, mm: MmStruct): number {
    const cached = file.frameOf(index);
    if (cached >= 0) return this.isReady(cached) ? cached : NO_FRAME;
    if (file.kind === 'xip' || file.huge || !this.isImmediate(file, index)) return NO_FRAME;
    const frame = this.memory.reclaim.tryAllocate(mm);
    if (frame < 0) return NO_FRAME;
    this.insert(file, index, frame);
    this.makeContent(file, index, frame);
    this.memory.frames.put(frame);
    return frame;
  }

  /**
   * Frame of page `index`, up to date, with a reference for the caller; reads it and up to `ahead` pages
   * around it from device or swap. NO_FRAME where the file ends before it, also by now.
   */
  *read(file: MappedFile, index: number, mm: MmStruct, ahead: number): Sim<number> {
    const { frames, pageLocks, reclaim, lru } = this.memory;
    for (;;) {
      // Truncate takes out what is there; whoever reads must not put anything back.
      if (index * PAGE_BYTES >= file.length) return NO_FRAME;
      const cached = file.frameOf(index);
      if (cached >= 0) {
        if (!pageLocks.isLocked(cached)) {
          frames.get(cached);
          return cached;
        }
        yield* pageLocks.wait(cached);
        continue;
      }
      const slot = file.slots.get(index);
      if (slot !== undefined) {
        const frame = yield* this.swapIn(file, index, slot, mm);
        if (frame >= 0) return frame;
        continue;
      }
      const frame = yield* reclaim.allocate(mm);
      const isGone = index * PAGE_BYTES >= file.length;
      if (isGone || file.frameOf(index) >= 0 || file.slots.has(index)) {
        frames.put(frame);
        continue;
      }
      if (this.isImmediate(file, index)) {
        this.insert(file, index, frame);
        this.makeContent(file, index, frame);
        return frame;
      }
      pageLocks.tryLock(frame);
      this.insert(file, index, frame);
      yield* this.readDevice(file, index, frame, mm, ahead);
      pageLocks.unlock(frame);
      if (file.frameOf(index) === frame) return frame;
      // Truncated meanwhile.
      lru.remove(frame);
      frames.put(frame);
    }
  }

  /** Puts a frame into the cache, which takes a reference of its own. */
  insert(file: MappedFile, index: number, frame: number): void {
    const { frames, lru } = this.memory;
    assert(frames.files[frame] === 0, 'a frame is put into the page cache twice');
    frames.get(frame);
    frames.files[frame] = file.id;
    frames.fileIndexes[frame] = index;
    file.pages.set(index, frame);
    if (file.kind === 'shared memory') frames.flags[frame] |= FRAME_SWAP_BACKED;
    const isListed = (frames.flags[frame] & FRAME_LRU) !== 0;
    if (!file.huge && file.kind !== 'xip' && !isListed) lru.add(frame, false);
  }

  /** Takes a page, which nobody maps, out of the cache: the cache's reference goes. */
  remove(frame: number): void {
    const { frames, lru } = this.memory;
    const file = this.file(frames.files[frame]);
    file.pages.delete(frames.fileIndexes[frame]);
    if (file.warm) file.dropped.add(frames.fileIndexes[frame]);
    frames.files[frame] = 0;
    lru.remove(frame);
    frames.put(frame);
  }

  /** A page of shared memory, which nobody maps, goes to swap slot `slot`: its content and the cache's reference. */
  moveToSlot(frame: number, slot: number): void {
    const { frames, swap } = this.memory;
    const file = this.file(frames.files[frame]);
    file.slots.set(frames.fileIndexes[frame], slot);
    frames.content.copyTo(frame, swap.content, slot);
    this.remove(frame);
  }

  /** Makes page `frame` hold what the device has of page `index`: written, or the pattern of the file. */
  makeContent(file: MappedFile, index: number, frame: number): void {
    const { content } = this.memory.frames;
    if (file.kind !== 'file' || index * PAGE_BYTES >= file.length) return;
    const block = file.stored.get(index);
    if (block !== undefined) {
      content.setBlock(frame, block);
      return;
    }
    const made = Math.min(file.length, file.madeBytes) - index * PAGE_BYTES;
    if (made <= 0) return;
    content.setPattern(frame, file.id, index * PAGE_BYTES);
    if (made < PAGE_BYTES) this.zeroTail(frame, made);
  }

  /** Zeros the bytes of a page from `from` on: those beyond the end of its file. */
  zeroTail(frame: number, from: number): void {
    const { content } = this.memory.frames;
    const at = content.write(frame, false) * PAGE_BYTES;
    content.blocks.bytes.fill(0, at + from, at + PAGE_BYTES);
  }

  /** Lets go of what devices hold, so that the pool of blocks can be checked empty. */
  dispose(): void {
    const { blocks } = this.memory.frames.content;
    for (const file of this.all()) {
      for (const block of file.stored.values()) blocks.release(block);
      file.stored.clear();
    }
  }

  /** True when the page needs no reading: fresh shared memory, or a page that was in memory all along. */
  private isImmediate(file: MappedFile, index: number): boolean {
    if (file.kind === 'shared memory') return !file.slots.has(index);
    return file.warm && !file.dropped.has(index);
  }

  /** The page of shared memory that `slot` holds, back in the cache, with a reference; NO_FRAME if it changed. */
  private *swapIn(file: MappedFile, index: number, slot: number, mm: MmStruct): Sim<number> {
    const { swap, swapCache, frames } = this.memory;
    const frame = yield* swapCache.swapIn(mm, slot);
    if (frame < 0) return NO_FRAME;
    if (file.slots.get(index) !== slot || file.pages.has(index)) {
      frames.put(frame);
      return NO_FRAME;
    }
    // The slot loses its only user, and the page leaves the swap cache.
    file.slots.delete(index);
    swap.release(slot);
    this.insert(file, index, frame);
    frames.markDirty(frame);
    return frame;
  }

  /** Reads a locked page and, as far as they are missing and memory is free, those of its window. */
  private *readDevice(
    file: MappedFile,
    index: number,
    frame: number,
    mm: MmStruct,
    ahead: number,
  ): Sim<void> {
    const { node, timers, reclaim, frames, pageLocks } = this.memory;
    const around: number[] = [];
    const first = Math.floor(index / Math.max(1, ahead)) * Math.max(1, ahead);
    for (let other = first; other < first + ahead; other++) {
      if (other === index || file.pages.has(other) || other * PAGE_BYTES >= file.length) continue;
      const extra = reclaim.tryAllocate(mm);
      if (extra < 0) break;
      pageLocks.tryLock(extra);
      this.insert(file, other, extra);
      this.makeContent(file, other, extra);
      around.push(extra);
    }
    // Whoever looks from outside (PageBytes) sees it at once; processes wait for the lock.
    this.makeContent(file, index, frame);
    const ready = this.device.transmit(node.now, (around.length + 1) * PAGE_BYTES);
    yield* timers.sleep(ready - node.now);
    this.makeContent(file, index, frame);
    for (const extra of around) {
      if (frames.files[extra] === file.id) this.makeContent(file, frames.fileIndexes[extra], extra);
      pageLocks.unlock(extra);
      frames.put(extra);
    }
  }

  private create(
    path: string,
    kind: FileKind,
    length: number,
    warm = false,
    huge = false,
  ): MappedFile {
    const id = this.files.length;
    const lock = new SpinLock(this.memory.scheduler, `mappings of ${path}`);
    const file = new MappedFile(id, path, kind, length, warm, huge, lock);
    this.files.push(file);
    return file;
  }
}
