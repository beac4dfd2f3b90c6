/**
 * XPMEM (S4): processes that map ranges of each other's address spaces, as clients of the notifiers.
 *
 * The owner makes a segment, which gets a number (segid). Others get access to it (apid), attach a part of
 * it and use it; each first use of a page is a fault that pulls a reference to the owner's page. When the
 * owner's pages go away, attachers lose theirs first, and fault again later. Attachers on another host are
 * remote sharers of the same segments (`revocation.ts`).
 *
 * One `Xpmem` is the module of one host. It is on the host's list of rmap notifiers too: sites that find a
 * page by the reverse map ask it for pages that are flagged as exported, and for no others. Calls and
 * errno names after xpmem_make.c, xpmem_get.c and xpmem_attach.c (hjelmn/xpmem).
 *
 * Simplified: an attachment has a page table of its own and is no mapping of the attacher's address space;
 * the attacher reads and writes it by offset. Permits are by right only, not by user.
 */
import { NS, type TimePs, US } from '../../transport/index.ts';
import { type Errno, SystemCallError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import type { Memory } from '../mm/memory.ts';
import type { RmapNotifier } from '../mm/notify/rmap-notifier.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Completion, Sim } from '../sched/completion.ts';
import { readFrame, writeFrame } from './frame-bytes.ts';
import type { Grants } from './grants.ts';
import { SharedSegment } from './shared-segment.ts';
import type { Sharer } from './sharer.ts';
import { STATUS_EACCES, STATUS_ENOENT } from './sharing-protocol.ts';

/** What XPMEM costs an attacher, in picoseconds of CPU time. */
export interface XpmemCosts {
  /** Fault of an attacher up to the owner's page table, and back. */
  readonly faultPs: TimePs;
  /** Clearing one page table entry of an attacher. */
  readonly clearPs: TimePs;
  /** Flushing the attacher's translations after it. */
  readonly flushPs: TimePs;
  /** Access to a page that the attacher has. */
  readonly accessPs: TimePs;
}

export const defaultXpmemCosts: XpmemCosts = {
  faultPs: 1 * US, // assumed: a minor fault and a look-up in another address space
  clearPs: 50 * NS, // assumed: as unmapPagePs
  flushPs: 2 * US, // assumed: an interprocessor interrupt and its answer
  accessPs: 20 * NS, // assumed: as pageAccessPs
};

interface Made {
  readonly segment: SharedSegment;
  readonly writable: boolean;
}

interface Access {
  readonly segid: number;
  readonly segment: SharedSegment;
  readonly write: boolean;
  readonly attachments: Set<Attachment>;
}

export class Xpmem implements RmapNotifier {
  readonly name = 'xpmem';
  private readonly segments = new Map<number, Made>();
  private readonly accesses = new Map<number, Access>();
  private lastId = 0;

  private constructor(
    private readonly memory: Memory,
    private readonly costs: XpmemCosts,
  ) {}

  /** Loads the module on the host with that memory. */
  static *load(memory: Memory, costs: XpmemCosts = defaultXpmemCosts): Sim<Xpmem> {
    const xpmem = new Xpmem(memory, costs);
    yield* memory.rmapNotifiers.register(xpmem);
    return xpmem;
  }

  /**
   * Makes [address, address + length) of `mm` a segment that others may read, and write if `writable`;
   * returns its segid. The range need not be mapped yet.
   * @throws SystemCallError EINVAL: no range of pages
   */
  *make(mm: AddressSpace, address: number, length: number, writable = true): Sim<number> {
    if (address % PAGE_BYTES !== 0 || length % PAGE_BYTES !== 0 || !(length > 0)) {
      throw this.refuse('EINVAL', 'make', `0x${address.toString(16)} + ${length}`, 'a page range');
    }
    const segid = ++this.lastId;
    const segment = yield* SharedSegment.create(mm, `xpmem segment ${segid}`, address, length);
    this.segments.set(segid, { segment, writable });
    return segid;
  }

  /** The segment with that number for a sharer on another host, or the STATUS_* of a refusal. */
  lookUp(segid: number, write: boolean): SharedSegment | number {
    const made = this.segments.get(segid);
    if (made === undefined) return STATUS_ENOENT;
    return write && !made.writable ? STATUS_EACCES : made.segment;
  }

  /**
   * Takes a segment away: attachers lose their pages and get no others.
   * @throws SystemCallError ENOENT
   */
  *remove(segid: number): Sim<void> {
    const { segment } = this.find(segid, 'remove');
    this.segments.delete(segid);
    yield* segment.destroy();
  }

  /**
   * Access to a segment; returns its apid.
   * @throws SystemCallError ENOENT (no such segment), EACCES (write access to one that is read-only)
   */
  get(segid: number, write: boolean): number {
    const { segment, writable } = this.find(segid, 'get');
    if (write && !writable) {
      throw this.refuse('EACCES', 'get', `segment ${segid} is read-only`, 'access to read');
    }
    const apid = ++this.lastId;
    this.accesses.set(apid, { segid, segment, write, attachments: new Set() });
    return apid;
  }

  /** Gives access back, and detaches what was attached through it. @throws SystemCallError ENOENT */
  *release(apid: number): Sim<void> {
    const { attachments } = this.findAccess(apid, 'release');
    for (const attachment of attachments) yield* this.detach(attachment);
    this.accesses.delete(apid);
  }

  /**
   * Attaches [offset, offset + length) of a segment.
   * @throws SystemCallError ENOENT (no such access), EINVAL (not whole pages of the segment)
   */
  attach(apid: number, offset: number, length: number): Attachment {
    const access = this.findAccess(apid, 'attach');
    const bytes = access.segment.pageCount * PAGE_BYTES;
    if (offset % PAGE_BYTES !== 0 || !(length > 0) || offset < 0 || offset + length > bytes) {
      throw this.refuse('EINVAL', 'attach', `${offset} + ${length} of ${bytes} bytes`, 'its pages');
    }
    const name = `attachment ${++this.lastId}`;
    const { segment, write } = access;
    const attachment = new Attachment(name, apid, segment, offset, length, write, this.costs);
    access.attachments.add(attachment);
    segment.addSharer(attachment);
    return attachment;
  }

  /** Ends an attachment. @throws SystemCallError EINVAL: it has ended */
  *detach(attachment: Attachment): Sim<void> {
    const attached = this.accesses.get(attachment.apid)?.attachments.delete(attachment) ?? false;
    if (!attached) throw this.refuse('EINVAL', 'detach', `${attachment.name}`, 'an attachment');
    yield attachment.clear(attachment.grants.count);
    yield* attachment.segment.removeSharer(attachment);
  }

  /** Called with the page lock held for an exported page whose entries were changed (seed 000, patch 5). */
  *invalidatePage(frame: number): Sim<void> {
    for (const { segment } of this.segments.values()) yield* segment.recallFrame(frame);
  }

  /** The module is unloaded, its segments with it. */
  *unload(): Sim<void> {
    for (const segid of [...this.segments.keys()]) yield* this.remove(segid);
    yield* this.memory.rmapNotifiers.unregister(this);
  }

  private find(segid: number, call: string): Made {
    const made = this.segments.get(segid);
    if (made !== undefined) return made;
    throw this.refuse('ENOENT', call, `there is no segment ${segid}`, 'a segid that make returned');
  }

  private findAccess(apid: number, call: string): Access {
    const access = this.accesses.get(apid);
    if (access !== undefined) return access;
    throw this.refuse('ENOENT', call, `there is no access ${apid}`, 'an apid that get returned');
  }

  private refuse(errno: Errno, call: string, what: string, expected: string): SystemCallError {
    return new SystemCallError(errno, `xpmem_${call}`, what, this.memory.node.name, expected);
  }
}

/** A part of a segment that a process on the owner's host has attached. */
export class Attachment implements Sharer {
  readonly grants: Grants;

  constructor(
    readonly name: string,
    readonly apid: number,
    readonly segment: SharedSegment,
    private readonly offset: number,
    private readonly length: number,
    private readonly writable: boolean,
    private readonly costs: XpmemCosts,
  ) {
    this.grants = segment.newGrants();
  }

  /**
   * The bytes that the attacher reads at `offset` of the attachment.
   * @throws SystemCallError EFAULT (SIGBUS): outside, or the owner has nothing there; ESRCH: it has ended
   */
  *read(offset: number, length: number): Sim<Uint8Array> {
    const bytes = new Uint8Array(length);
    const { frames } = this.segment.mm.memory;
    yield* this.walk(offset, length, false, (frame, within, done, piece) =>
      readFrame(frames, frame, within, bytes, done, piece),
    );
    return bytes;
  }

  /** The attacher writes bytes. @throws SystemCallError as read, and EACCES without the right to write */
  write(offset: number, bytes: Uint8Array): Sim<void> {
    const { frames } = this.segment.mm.memory;
    return this.walk(offset, bytes.length, true, (frame, within, done, piece) =>
      writeFrame(frames, frame, within, bytes, done, piece),
    );
  }

  *revoke(first: number, count: number): Sim<Completion<void> | undefined> {
    let pages = 0;
    for (let index = first; index < first + count; index++) if (this.grants.has(index)) pages++;
    yield this.clear(pages);
    return undefined;
  }

  /** What clearing so many entries costs. */
  clear(pages: number): TimePs {
    return pages === 0 ? 0 : pages * this.costs.clearPs + this.costs.flushPs;
  }

  private *walk(
    offset: number,
    length: number,
    write: boolean,
    use: (frame: number, within: number, done: number, piece: number) => void,
  ): Sim<void> {
    const { segment, grants, costs } = this;
    if (offset < 0 || offset + length > this.length) {
      throw this.refuse('EFAULT', `${offset} + ${length} is outside of the attachment`);
    }
    if (write && !this.writable) throw this.refuse('EACCES', 'the attachment is read-only');
    for (let done = 0; done < length; ) {
      const at = this.offset + offset + done;
      const index = Math.floor(at / PAGE_BYTES);
      const within = at - index * PAGE_BYTES;
      const piece = Math.min(length - done, PAGE_BYTES - within);
      let frame = grants.frameOf(index, write);
      if (frame < 0) {
        yield costs.faultPs;
        frame = yield* segment.grant(this, index, write);
        if (frame < 0) throw this.fault(frame, index);
        segment.granted();
        // The owner may have taken it back already, if the grant took time.
        frame = grants.frameOf(index, write);
        if (frame < 0) continue;
      }
      use(frame, within, done, piece);
      done += piece;
      yield costs.accessPs;
    }
  }

  private fault(result: number, index: number): SystemCallError {
    const hasEnded = !this.segment.alive || result !== -1;
    const what = hasEnded ? 'the segment is gone' : `the owner has no memory at page ${index}`;
    return this.refuse(hasEnded ? 'ESRCH' : 'EFAULT', what);
  }

  private refuse(errno: Errno, what: string): SystemCallError {
    return new SystemCallError(errno, 'xpmem', what, this.name, 'memory of the segment');
  }
}
