/**
 * Memory of one process that others use at the same time through XPMEM, and what it should hold.
 *
 * Every page has a lane for each process of the storm: a few bytes that only that process writes, always all
 * of them to one value. So a lane has one content whoever else is at work, but where its owner took the page
 * away during a write: then it may be the old one or the new one, and what is seen decides.
 */
import type { Attachment, Xpmem } from '../../kernel/clients/xpmem.ts';
import {
  type AddressSpace,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  SystemCallError,
} from '../../kernel/index.ts';
import type { RandomStream } from '../../transport/index.ts';
import { PAGE, RW } from './memory-model.ts';

export const WINDOW_PAGES = 16;
const LANE_BYTES = 64;

/** Somebody's access to a window. */
export interface Access {
  readonly window: Window;
  readonly segid: number;
  readonly apid: number;
  readonly attachment: Attachment;
}

/** What may be in a lane of a page; `changes` is odd while it is written. */
interface Lane {
  may: number[];
  changes: number;
}

export class Window {
  /** The segment that it is now; 0 while it is none. */
  segid = 0;
  /** Segments that have been taken away: nobody may use them any more. */
  private readonly gone = new Set<number>();
  private readonly rights = new Uint8Array(WINDOW_PAGES);
  /** Changes of content and of rights by the owner of each page; odd while one is under way. */
  private readonly discards = new Int32Array(WINDOW_PAGES);
  private readonly protects = new Int32Array(WINDOW_PAGES);
  private readonly lanes: Lane[];

  constructor(
    private readonly xpmem: Xpmem,
    readonly base: number,
    readonly laneCount: number,
  ) {
    this.lanes = Array.from({ length: WINDOW_PAGES * laneCount }, () => ({ may: [0], changes: 0 }));
  }

  /** The owner maps it, and shares it. */
  *setUp(mm: AddressSpace): Sim<void> {
    yield* mm.mmap(this.base, WINDOW_PAGES * PAGE, RW);
    this.rights.fill(RW);
    for (const lane of this.lanes) lane.may = [0];
    this.segid = yield* this.xpmem.make(mm, this.base, WINDOW_PAGES * PAGE);
  }

  /** The owner takes the segment away; attachers must find another one. */
  *remove(): Sim<void> {
    const { segid } = this;
    this.segid = 0;
    yield* this.xpmem.remove(segid);
    this.gone.add(segid);
  }

  /** The owner's memory goes, and the segment with it, without its being removed. */
  *lose(body: Sim<void>): Sim<void> {
    const { segid } = this;
    this.segid = 0;
    yield* this.change(this.discards, 0, WINDOW_PAGES, body);
    this.gone.add(segid);
  }

  /** The owner shares it again. */
  *share(mm: AddressSpace): Sim<void> {
    this.segid = yield* this.xpmem.make(mm, this.base, WINDOW_PAGES * PAGE);
  }

  /** Something that the owner does with its memory: discards it, takes rights away, gives them. */
  *disturb(mm: AddressSpace, random: RandomStream): Sim<void> {
    const first = random.below(WINDOW_PAGES);
    const count = 1 + random.below(Math.min(6, WINDOW_PAGES - first));
    const [address, length] = [this.base + first * PAGE, count * PAGE];
    const choice = random.below(5);
    if (choice === 0) {
      yield* this.discard(first, count, 0, mm.munmap(address, length));
    } else if (choice === 1) {
      yield* this.discard(first, count, RW, mm.mmap(address, length, RW));
    } else if (!this.allows(first, count, PROT_READ)) {
      yield* this.discard(first, count, RW, mm.mmap(address, length, RW));
    } else if (choice === 2) {
      yield* this.discard(first, count, undefined, mm.madviseDontneed(address, length));
    } else {
      const prot = choice === 3 ? PROT_READ : RW;
      yield* this.change(this.protects, first, count, mm.mprotect(address, length, prot));
      this.rights.fill(prot, first, first + count);
    }
  }

  /** The owner writes its lane of a page by `write`, if it may. */
  *writeOwn(
    lane: number,
    page: number,
    value: number,
    write: (address: number, bytes: Uint8Array) => Sim<void>,
  ): Sim<boolean> {
    if (!this.allows(page, 1, PROT_WRITE)) return false;
    const address = this.base + page * PAGE + lane * LANE_BYTES;
    yield* this.write(lane, page, value, write(address, new Uint8Array(LANE_BYTES).fill(value)));
    return true;
  }

  /** An attacher writes its lane of a page; true when that was possible. */
  *writeBy(access: Access, lane: number, page: number, value: number): Sim<boolean> {
    const offset = page * PAGE + lane * LANE_BYTES;
    const bytes = new Uint8Array(LANE_BYTES).fill(value);
    return yield* this.attempt(access, page, PROT_WRITE, () =>
      this.write(lane, page, value, access.attachment.write(offset, bytes)),
    );
  }

  /** An attacher reads somebody's lane of a page and compares; true when that was possible. */
  *readBy(access: Access, lane: number, page: number): Sim<boolean> {
    const at = this.lane(lane, page);
    const [discards, changes] = [this.discards[page], at.changes];
    let seen: Uint8Array = new Uint8Array();
    const { attachment } = access;
    const { attempt } = this;
    const happened = yield* attempt.call(this, access, page, PROT_READ, function* () {
      seen = yield* attachment.read(page * PAGE + lane * LANE_BYTES, LANE_BYTES);
    });
    const isAtRest = isSame(discards, this.discards[page]) && isSame(changes, at.changes);
    if (happened && isAtRest && access.segid === this.segid) {
      this.expect(lane, page, seen, `${attachment.name} to page ${page}, lane ${lane}`);
    }
    return happened;
  }

  /** Compares all lanes that nobody is writing with what the owner sees. */
  check(mm: AddressSpace): void {
    for (let page = 0; page < WINDOW_PAGES; page++) {
      const seen = mm.read(this.base + page * PAGE, this.laneCount * LANE_BYTES);
      for (let lane = 0; lane < this.laneCount; lane++) {
        if (this.rights[page] === 0 || this.lane(lane, page).changes % 2 !== 0) continue;
        const bytes = seen.subarray(lane * LANE_BYTES, (lane + 1) * LANE_BYTES);
        this.expect(lane, page, bytes, `window of ${mm.name}, page ${page}, lane ${lane}`);
      }
    }
  }

  private *write(lane: number, page: number, value: number, body: Sim<void>): Sim<void> {
    const at = this.lane(lane, page);
    const { segid } = this;
    const before = this.discards[page];
    at.changes++;
    let isWritten = false;
    try {
      yield* body;
      isWritten = true;
    } finally {
      at.changes++;
      const isCertain = isSame(before, this.discards[page]) && segid === this.segid;
      // A refused write has not happened, but the owner may have discarded the page meanwhile.
      if (isCertain && isWritten) at.may = [value];
      else if (!isCertain) at.may = [...new Set([...at.may, 0, ...(isWritten ? [value] : [])])];
    }
  }

  /** False where the owner's memory, or the end of the segment, explains why an access is refused. */
  private *attempt(
    { segid }: Access,
    page: number,
    right: number,
    body: () => Sim<void>,
  ): Sim<boolean> {
    const wasGone = this.gone.has(segid);
    const [discards, protects] = [this.discards[page], this.protects[page]];
    try {
      yield* body();
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      if (error.errno === 'ESRCH' && this.segid !== segid) return false;
      const isChanged = !(
        isSame(discards, this.discards[page]) && isSame(protects, this.protects[page])
      );
      const mayRefuse = isChanged || !this.allows(page, 1, right) || this.segid !== segid;
      if (error.errno === 'EFAULT' && mayRefuse) return false;
      throw error;
    }
    if (wasGone) throw new Error(`segment ${segid} is used after its end`);
    return true;
  }

  private *discard(
    first: number,
    count: number,
    prot: number | undefined,
    body: Sim<unknown>,
  ): Sim<void> {
    yield* this.change(this.discards, first, count, body);
    for (let page = first; page < first + count; page++) {
      if (prot !== undefined) this.rights[page] = prot;
      for (let lane = 0; lane < this.laneCount; lane++) {
        const at = this.lane(lane, page);
        // Whoever is writing says himself, at his end, what may be there.
        at.may = at.changes % 2 === 0 ? [0] : [...new Set([...at.may, 0])];
      }
    }
  }

  private *change(counts: Int32Array, first: number, count: number, body: Sim<unknown>): Sim<void> {
    for (let page = first; page < first + count; page++) counts[page]++;
    yield* body;
    for (let page = first; page < first + count; page++) counts[page]++;
  }

  private expect(lane: number, page: number, seen: Uint8Array, what: string): void {
    const at = this.lane(lane, page);
    const [value] = seen;
    if (!at.may.includes(value) || seen.some((byte) => byte !== value)) {
      throw new Error(`${what}: ${seen.join(' ')}, not ${at.may.join(' or ')}`);
    }
    at.may = [value];
  }

  private allows(first: number, count: number, right: number): boolean {
    for (let page = first; page < first + count; page++) {
      if ((this.rights[page] & right) !== right) return false;
    }
    return true;
  }

  private lane(lane: number, page: number): Lane {
    return this.lanes[page * this.laneCount + lane] as Lane;
  }
}

/** True when nothing was under way at the first look, and nothing has been since. */
function isSame(before: number, now: number): boolean {
  return before === now && before % 2 === 0;
}
