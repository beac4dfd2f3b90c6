/**
 * The reverse map: which pages of which processes map a frame (mm/rmap.c).
 *
 * Nearly every frame has one mapping, so the first stands in arrays beside the frame and only further
 * ones (after fork, or of shared memory) in a chain. Linux finds the same through anon_vma and
 * address_space; what it costs to walk is charged by who walks. Owns no count: `frames.mapCounts` is
 * changed together with it, by `map` and `unmap` here and nowhere else.
 */
import { assert } from '../../../transport/index.ts';
import { FRAME_HUGE, type Frames } from '../physical/frames.ts';

const NONE = -1;

export class ReverseMap {
  /** First mapping of each frame: number of the process, 0 for none, and its virtual page. */
  private readonly firstMm: Int32Array;
  private readonly firstPage: Float64Array;
  /** Further mappings: index into the chain, NONE at its end. */
  private readonly more: Int32Array;
  private chainMm = new Int32Array(64);
  private chainPage = new Float64Array(64);
  private chainNext = new Int32Array(64);
  private freeLink = NONE;
  private links = 0;

  constructor(private readonly frames: Frames) {
    this.firstMm = new Int32Array(frames.count);
    this.firstPage = new Float64Array(frames.count);
    this.more = new Int32Array(frames.count).fill(NONE);
  }

  /** Turns the caller's reference into that of a mapping of process `mm` at virtual page `page`. */
  map(frame: number, mm: number, page: number): void {
    assert(
      (this.frames.flags[frame] & FRAME_HUGE) === 0 || this.frames.headOf(frame) === frame,
      'a huge page is mapped by its head',
    );
    this.frames.mapCounts[frame]++;
    if (this.firstMm[frame] === 0) {
      this.firstMm[frame] = mm;
      this.firstPage[frame] = page;
      return;
    }
    const link = this.takeLink();
    this.chainMm[link] = mm;
    this.chainPage[link] = page;
    this.chainNext[link] = this.more[frame];
    this.more[frame] = link;
  }

  /** Drops a mapping and its reference; the last reference frees the frame. */
  unmap(frame: number, mm: number, page: number): void {
    this.forget(frame, mm, page);
    this.frames.mapCounts[frame]--;
    this.frames.put(frame);
  }

  /** A mapping goes to another page of the same process (mremap). */
  move(frame: number, mm: number, from: number, to: number): void {
    if (this.firstMm[frame] === mm && this.firstPage[frame] === from) {
      this.firstPage[frame] = to;
      return;
    }
    for (let link = this.more[frame]; link !== NONE; link = this.chainNext[link]) {
      if (this.chainMm[link] !== mm || this.chainPage[link] !== from) continue;
      this.chainPage[link] = to;
      return;
    }
    assert(false, 'a mapping moves that the reverse map does not know');
  }

  /** Calls `visit` for each mapping of the frame; it must not change them. */
  forEach(frame: number, visit: (mm: number, page: number) => void): void {
    if (this.firstMm[frame] === 0) return;
    visit(this.firstMm[frame], this.firstPage[frame]);
    for (let link = this.more[frame]; link !== NONE; link = this.chainNext[link]) {
      visit(this.chainMm[link], this.chainPage[link]);
    }
  }

  /** The mappings of the frame as they are now, for a walk that sleeps in between. */
  list(frame: number): { readonly mm: number; readonly page: number }[] {
    const mappings: { mm: number; page: number }[] = [];
    this.forEach(frame, (mm, page) => mappings.push({ mm, page }));
    return mappings;
  }

  /** Process of the first mapping, 0 for none. */
  mmOf(frame: number): number {
    return this.firstMm[frame];
  }

  /** Virtual page of the first mapping. */
  pageOf(frame: number): number {
    return this.firstPage[frame];
  }

  private forget(frame: number, mm: number, page: number): void {
    const second = this.more[frame];
    if (this.firstMm[frame] === mm && this.firstPage[frame] === page) {
      if (second === NONE) this.firstMm[frame] = 0;
      else {
        this.firstMm[frame] = this.chainMm[second];
        this.firstPage[frame] = this.chainPage[second];
        this.more[frame] = this.chainNext[second];
        this.giveLink(second);
      }
      return;
    }
    let before = NONE;
    for (let link = second; link !== NONE; before = link, link = this.chainNext[link]) {
      if (this.chainMm[link] !== mm || this.chainPage[link] !== page) continue;
      if (before === NONE) this.more[frame] = this.chainNext[link];
      else this.chainNext[before] = this.chainNext[link];
      this.giveLink(link);
      return;
    }
    assert(false, 'a mapping ends that the reverse map does not know');
  }

  private takeLink(): number {
    if (this.freeLink !== NONE) {
      const link = this.freeLink;
      this.freeLink = this.chainNext[link];
      return link;
    }
    if (this.links === this.chainMm.length) this.grow();
    return this.links++;
  }

  private giveLink(link: number): void {
    this.chainNext[link] = this.freeLink;
    this.freeLink = link;
  }

  private grow(): void {
    const length = this.links * 2;
    const [mms, pages, next] = [
      new Int32Array(length),
      new Float64Array(length),
      new Int32Array(length),
    ];
    mms.set(this.chainMm);
    pages.set(this.chainPage);
    next.set(this.chainNext);
    this.chainMm = mms;
    this.chainPage = pages;
    this.chainNext = next;
  }
}
