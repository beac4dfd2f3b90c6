/**
 * A segment of another host, as a sharer has it: which of the owner's frames it may do RDMA on now.
 *
 * Every use looks its pages up here first; those that are missing are asked for by message and awaited. A
 * RECALL takes pages out at once, and is acknowledged when the RDMA that was under way on them is over.
 * With the form 'region' there is one look-up for the whole segment: the handle says whether it has been
 * torn down, and if so all of it is asked for again before the next operation (Lameter, seed 000).
 *
 * Owns the sharer's page table; the connection is `fabric-channel.ts`, the owner's end `revocation.ts`.
 */
import { NS, type TimePs, US, WR_RDMA_READ, WR_RDMA_WRITE } from '../../transport/index.ts';
import { type Errno, SystemCallError } from '../errno.ts';
import { NO_FRAME, PAGE_BYTES } from '../mm/physical/frames.ts';
import { Completion, type Sim, wait } from '../sched/completion.ts';
import { Mutex } from '../sched/mutex.ts';
import type { FabricChannel } from './fabric-channel.ts';
import {
  MSG_ACK,
  MSG_ATTACH,
  MSG_ATTACHED,
  MSG_FAULT,
  MSG_GRANT,
  MSG_RECALL,
  type RecallForm,
  STATUS_ERRNO,
} from './sharing-protocol.ts';

/** CPU time of a sharer. */
export interface RemoteCosts {
  /** A page fault of the sharer, up to the message. */
  readonly faultPs: TimePs;
  /** Looking one page, or the handle of the segment, up before it is used. */
  readonly lookupPs: TimePs;
  /** Dropping one page that is recalled. */
  readonly dropPs: TimePs;
}

export const defaultRemoteCosts: RemoteCosts = {
  faultPs: 1 * US, // assumed: as a fault of a local attacher
  lookupPs: 10 * NS, // assumed: a load and a branch
  dropPs: 50 * NS, // assumed: as unmapPagePs
};

export interface RemoteCounters {
  /** Pages asked for, and those that came. */
  faults: number;
  granted: number;
  recalls: number;
  /** Recalls that had to wait for RDMA under way. */
  recallsDelayed: number;
  /** Time that operations have spent in waiting for pages. */
  faultPs: TimePs;
}

export class RemoteSegment {
  readonly counters: RemoteCounters = {
    faults: 0,
    granted: 0,
    recalls: 0,
    recallsDelayed: 0,
    faultPs: 0,
  };
  /** Fault injection: a kernel that has stopped. It acknowledges no recall, its adapter goes on. */
  isHung = false;
  private readonly frames: Int32Array;
  private readonly writable: Uint8Array;
  /** RDMA under way on each page. */
  private readonly users: Uint16Array;
  private unused = new Completion<void>('RDMA under way');
  /** Resolves with the status of the next answer to a fault, and begins anew. */
  private answered = new Completion<void>('an answer to a fault');
  private readonly statuses = new Map<number, number>();
  private readonly asked = new Set<number>();
  /** Form 'region': the handle is good. */
  private isEstablished = false;
  private readonly buffer: Mutex;
  private lastToken = 0;

  private constructor(
    readonly channel: FabricChannel,
    readonly pageCount: number,
    private readonly rkey: number,
    private readonly form: RecallForm,
    private readonly costs: RemoteCosts,
  ) {
    this.frames = new Int32Array(pageCount).fill(NO_FRAME);
    this.writable = new Uint8Array(pageCount);
    this.users = new Uint16Array(pageCount);
    this.buffer = new Mutex(`data buffer ${channel.name}`);
    channel.onMessage = (words) => this.onMessage(words);
    channel.broken.subscribe({ wake: () => this.wake() });
  }

  /**
   * Attaches segment `segid` of the host at the other end of `channel`, which needs a data buffer of
   * whole pages. `form` must be the owner's.
   * @throws SystemCallError ENOENT (no such segment), EACCES (write to a read-only one), EIO (no answer)
   */
  static *attach(
    channel: FabricChannel,
    segid: number,
    write: boolean,
    form: RecallForm = 'batch',
    costs: RemoteCosts = defaultRemoteCosts,
  ): Sim<RemoteSegment> {
    const answer = new Completion<Int32Array | undefined>('an answer to an attach');
    channel.onMessage = (words) => {
      if (words[0] === MSG_ATTACHED) answer.resolve(words);
    };
    channel.broken.subscribe({ wake: () => answer.resolve(undefined) });
    yield* channel.send([MSG_ATTACH, 0, segid, write ? 1 : 0]);
    const words = yield* wait(answer);
    if (words === undefined) throw refuse(channel, 'EIO', 'the owner does not answer');
    const [, , status, pageCount, rkey] = words;
    if (status !== 0) throw refuse(channel, errnoOf(status), `segment ${segid}`);
    return new RemoteSegment(channel, pageCount, rkey, form, costs);
  }

  /** True while the sharer may use page `index`. */
  has(index: number): boolean {
    return this.frames[index] !== NO_FRAME;
  }

  /** Pages that the sharer has now. */
  get pagesHeld(): number {
    return this.frames.reduce((sum, frame) => sum + (frame === NO_FRAME ? 0 : 1), 0);
  }

  /**
   * Reads bytes of the segment by RDMA READ.
   * @throws SystemCallError EFAULT: the owner has no memory there; ESRCH: the segment is gone; EIO: the
   * connection is broken, or the owner has cut it
   */
  *read(offset: number, length: number): Sim<Uint8Array> {
    const bytes = new Uint8Array(length);
    const { channel } = this;
    const { mm } = channel.verbs;
    yield* this.buffer.lock();
    try {
      for (let done = 0; done < length; ) {
        const piece = Math.min(length - done, this.bufferBytes);
        yield* this.transfer(WR_RDMA_READ, offset + done, piece);
        bytes.set(mm.read(channel.dataAddress, piece), done);
        done += piece;
      }
    } finally {
      this.buffer.unlock();
    }
    return bytes;
  }

  /** Writes bytes into the segment by RDMA WRITE. @throws SystemCallError as read */
  *write(offset: number, bytes: Uint8Array): Sim<void> {
    const { channel } = this;
    const { mm } = channel.verbs;
    yield* this.buffer.lock();
    try {
      for (let done = 0; done < bytes.length; ) {
        const piece = Math.min(bytes.length - done, this.bufferBytes);
        yield* mm.write(channel.dataAddress, bytes.subarray(done, done + piece));
        yield* this.transfer(WR_RDMA_WRITE, offset + done, piece);
        done += piece;
      }
    } finally {
      this.buffer.unlock();
    }
  }

  private get bufferBytes(): number {
    return Math.min(this.channel.dataBytes, (this.channel.transferDepth - 1) * PAGE_BYTES);
  }

  /** One operation, a work request for each page: all pages are there before the first is posted. */
  private *transfer(opcode: number, offset: number, length: number): Sim<void> {
    const { channel, users, frames, rkey } = this;
    const first = Math.floor(offset / PAGE_BYTES);
    const count = Math.floor((offset + length - 1) / PAGE_BYTES) - first + 1;
    if (offset < 0 || first + count > this.pageCount) {
      throw refuse(channel, 'EFAULT', `${offset} + ${length} is outside of the segment`);
    }
    yield* this.obtain(first, count, opcode === WR_RDMA_WRITE);
    // From here to the end of the RDMA a recall of these pages is not acknowledged.
    const targets = frames.slice(first, first + count);
    for (let index = first; index < first + count; index++) users[index]++;
    const pieces: Completion<boolean>[] = [];
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const index = Math.floor(at / PAGE_BYTES);
      const within = at - index * PAGE_BYTES;
      const piece = Math.min(length - done, PAGE_BYTES - within);
      const remoteAddress = targets[index - first] * PAGE_BYTES + within;
      const request = { opcode, dataOffset: done, length: piece, remoteAddress, rkey };
      pieces.push(yield* channel.transfer(request));
      done += piece;
    }
    let isDone = true;
    for (const piece of pieces) if (!(yield* wait(piece))) isDone = false;
    for (let index = first; index < first + count; index++) users[index]--;
    const { unused } = this;
    this.unused = new Completion<void>(unused.purpose);
    unused.resolve();
    if (!isDone) throw refuse(channel, 'EIO', 'the connection is broken');
  }

  /** Returns when the sharer has all these pages, at one moment. */
  private *obtain(first: number, count: number, write: boolean): Sim<void> {
    const { node } = this.channel.verbs.mm.memory;
    const { form, costs } = this;
    yield form === 'region' ? costs.lookupPs : count * costs.lookupPs;
    for (;;) {
      if (this.channel.broken.done) throw refuse(this.channel, 'EIO', 'the connection is broken');
      const isWhole = form === 'region' && !this.isEstablished;
      const missing = isWhole
        ? this.missing(0, this.pageCount, write)
        : this.missing(first, count, write);
      if (missing.length === 0) {
        this.isEstablished = true;
        return;
      }
      const start = node.now;
      yield costs.faultPs;
      yield* this.fault(missing, write);
      this.counters.faultPs += node.now - start;
      for (let index = first; index < first + count; index++) {
        const status = this.statuses.get(index);
        if (status !== undefined) throw refuse(this.channel, errnoOf(status), `page ${index}`);
      }
      // Pages of the rest of the segment that the owner does not have are no obstacle.
      if (isWhole) this.isEstablished = true;
    }
  }

  /** Asks for pages, runs of them at a time, and sleeps until each has been answered. */
  private *fault(pages: readonly number[], write: boolean): Sim<void> {
    const { asked, counters, channel } = this;
    const fresh = pages.filter((index) => !asked.has(index));
    for (const index of fresh) {
      asked.add(index);
      this.statuses.delete(index);
    }
    counters.faults += fresh.length;
    for (let i = 0; i < fresh.length; ) {
      let run = 1;
      while (fresh[i + run] === fresh[i] + run) run++;
      yield* channel.send([MSG_FAULT, ++this.lastToken, fresh[i], run, write ? 1 : 0]);
      i += run;
    }
    while (!channel.broken.done && pages.some((index) => asked.has(index))) yield this.answered;
  }

  private missing(first: number, count: number, write: boolean): number[] {
    const pages: number[] = [];
    for (let index = first; index < first + count; index++) {
      if (this.frames[index] === NO_FRAME || (write && !this.writable[index])) pages.push(index);
    }
    return pages;
  }

  /** Runs in the polling thread, in the order of messages; must not sleep. */
  private onMessage(words: Int32Array): void {
    const [kind, token, a, b, c, d] = words;
    if (kind === MSG_GRANT) {
      this.asked.delete(a);
      if (b !== 0) this.statuses.set(a, b);
      else {
        this.statuses.delete(a);
        this.frames[a] = c;
        this.writable[a] = d;
        this.counters.granted++;
      }
      this.wake();
    } else if (kind === MSG_RECALL && !this.isHung) {
      this.counters.recalls++;
      const { scheduler } = this.channel.verbs.mm.memory;
      const dropped = this.missing(a, b, false).length;
      this.frames.fill(NO_FRAME, a, a + b);
      this.isEstablished = false;
      const body = this.acknowledge(token, a, b, b - dropped);
      scheduler.spawn(`${this.channel.name} recall`, body);
    }
  }

  private *acknowledge(token: number, first: number, count: number, dropped: number): Sim<void> {
    yield dropped * this.costs.dropPs;
    if (this.isUsed(first, count)) this.counters.recallsDelayed++;
    while (this.isUsed(first, count)) yield this.unused;
    yield* this.channel.send([MSG_ACK, token]);
  }

  private isUsed(first: number, count: number): boolean {
    for (let index = first; index < first + count; index++) if (this.users[index] > 0) return true;
    return false;
  }

  private wake(): void {
    const { answered } = this;
    this.answered = new Completion<void>(answered.purpose);
    answered.resolve();
  }
}

function errnoOf(status: number): Errno {
  return (STATUS_ERRNO[status] || 'EIO') as Errno;
}

function refuse({ name }: FabricChannel, errno: Errno, what: string): SystemCallError {
  return new SystemCallError(errno, 'remote segment', what, name, 'a page that the owner shares');
}
