/**
 * Out-of-band revocation (S14), the owner's end: sharers on other hosts that do RDMA on pages of a
 * segment, and have to give them back when the owner's memory manager wants them.
 *
 * Before a page goes away, every sharer that has it is sent a RECALL, by page, in batches, or for the
 * whole segment; it drops the page and acknowledges; the next use of it faults it in again by message
 * (Lameter, seed 000, 13 February 2008). The adapter has no part in it: sharers use a key over physical
 * memory (dma-region.ts), so nothing but the protocol keeps them from a page that is no longer theirs.
 *
 * A sharer that does not answer is cut off. It is dead when its adapter is silent for as long as the
 * connection insists (time-out * retries), or when its kernel has not acknowledged within
 * `recallTimeoutPs`: its queue pair goes to the error state, which is what keeps it from the memory from
 * then on; its references are dropped; what it tries later is refused. The owner's reclaim waits for that
 * long, once.
 *
 * The connection must belong to another process than the segment: a recall runs with the mmap lock of the
 * segment's process held.
 */
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  assert,
  MS,
  type TimePs,
} from '../../transport/index.ts';
import type { DmaRegion } from '../driver/dma-region.ts';
import type { Verbs } from '../driver/verbs.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import { FabricChannel } from './fabric-channel.ts';
import type { Grants } from './grants.ts';
import { GRANT_FAULT, type SharedSegment } from './shared-segment.ts';
import type { Sharer } from './sharer.ts';
import {
  MSG_ACK,
  MSG_ATTACH,
  MSG_ATTACHED,
  MSG_FAULT,
  MSG_GRANT,
  MSG_RECALL,
  RECALL_BATCH,
  type RecallForm,
  STATUS_EFAULT,
  STATUS_ENOENT,
  STATUS_ESRCH,
} from './sharing-protocol.ts';

export interface RevocationPlan {
  /** 'batch' when not given. */
  readonly form?: RecallForm;
  /** How long a sharer may take to acknowledge before it is cut off; 100 ms (assumed) when not given. */
  readonly recallTimeoutPs?: TimePs;
  /** Bytes of each message; 64 when not given. */
  readonly messageBytes?: number;
}

/** Which segment a sharer asks for: it, or a STATUS_* that says why not. */
export type SegmentLookup = (segid: number, write: boolean) => SharedSegment | number;

/** What an owner's end has counted. */
export interface RevocationCounters {
  recallsSent: number;
  acknowledged: number;
  /** Times a sharer was cut off. */
  cutOff: number;
}

/** The owner's end of all connections of one host. */
export class RevocationServer {
  readonly sharers: RemoteSharer[] = [];
  private constructor(
    readonly verbs: Verbs,
    readonly region: DmaRegion,
    readonly lookup: SegmentLookup,
    readonly plan: RevocationPlan,
  ) {}

  /** In the process of `verbs`, which shares no memory of its own. */
  static *start(
    verbs: Verbs,
    lookup: SegmentLookup,
    plan: RevocationPlan = {},
  ): Sim<RevocationServer> {
    const pd = yield* verbs.allocPd();
    const access = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_READ | ACCESS_REMOTE_WRITE;
    const region = yield* verbs.getDmaMr(pd, access);
    return new RevocationServer(verbs, region, lookup, plan);
  }

  /** An end for one more sharer; `channel.connect` lets it in. */
  *accept(name: string): Sim<RemoteSharer> {
    const { verbs, region, plan } = this;
    const { messageBytes = 64 } = plan;
    const channel = yield* FabricChannel.open(verbs, { name, pd: region.pd, messageBytes });
    const sharer = new RemoteSharer(this, channel);
    this.sharers.push(sharer);
    return sharer;
  }
}

/** A sharer on another host, as the owner knows it. */
export class RemoteSharer implements Sharer {
  readonly counters: RevocationCounters = { recallsSent: 0, acknowledged: 0, cutOff: 0 };
  private segment: SharedSegment | undefined;
  private attached: Grants | undefined;
  /** Recalls that it has not acknowledged, by token, and what resolves with the last of them. */
  private readonly pending = new Set<number>();
  private released: Completion<void> | undefined;
  /** Pages [first, end) that the caller of that recall takes back by itself. */
  private asked: readonly [first: number, end: number] = [0, 0];
  private lastToken = 0;

  constructor(
    private readonly server: RevocationServer,
    readonly channel: FabricChannel,
  ) {
    channel.onMessage = (words) => this.onMessage(words);
    this.spawn('watch', this.watch());
  }

  get name(): string {
    return this.channel.name;
  }

  get grants(): Grants {
    return this.attached as Grants;
  }

  *revoke(first: number, count: number): Sim<Completion<void> | undefined> {
    const { channel, server, counters } = this;
    if (channel.broken.done) return undefined;
    const released = new Completion<void>(`${this.name} to acknowledge a recall`);
    this.released = released;
    this.asked = [first, first + count];
    const { timers } = server.verbs.mm.memory;
    const { recallTimeoutPs = 100 * MS, form = 'batch' } = server.plan;
    timers.after(recallTimeoutPs, () => {
      if (!released.done) this.spawn('cut off', this.cutOff());
    });
    const runs = this.runs(form, first, count);
    // All are pending before the first is sent: an early answer must not end the wait.
    const tokens = runs.map(() => ++this.lastToken);
    for (const token of tokens) this.pending.add(token);
    for (let i = 0; i < runs.length; i++) {
      counters.recallsSent++;
      if (!(yield* channel.send([MSG_RECALL, tokens[i], ...runs[i]]))) break;
    }
    return released;
  }

  /** Ends the connection: the sharer's adapter gets no answer from here any more. */
  *cutOff(): Sim<void> {
    if (this.channel.broken.done) return;
    yield* this.channel.cut();
  }

  /** What one RECALL each is sent for. */
  private runs(form: RecallForm, first: number, count: number): [first: number, count: number][] {
    const { grants } = this;
    if (form === 'region') return [[0, grants.pageCount]];
    const limit = form === 'page' ? 1 : RECALL_BATCH;
    const runs: [number, number][] = [];
    for (let index = first; index < first + count; index++) {
      if (!grants.has(index)) continue;
      const last = runs.at(-1);
      if (last !== undefined && index - last[0] < limit) last[1] = index - last[0] + 1;
      else runs.push([index, 1]);
    }
    return runs;
  }

  /** Runs in the polling thread, in the order of messages; must not sleep. */
  private onMessage(words: Int32Array): void {
    const [kind, token, a, b, c] = words;
    if (kind === MSG_ATTACH) this.spawn('attach', this.attach(token, a, b !== 0));
    else if (kind === MSG_FAULT) {
      for (let i = 0; i < b; i++) this.spawn('fault', this.serve(token, a + i, c !== 0));
    } else if (kind === MSG_ACK && this.pending.delete(token)) {
      this.counters.acknowledged++;
      if (this.pending.size === 0) this.let();
    }
  }

  private *attach(token: number, segid: number, write: boolean): Sim<void> {
    const { server, channel } = this;
    const found = this.segment === undefined ? server.lookup(segid, write) : STATUS_ENOENT;
    if (typeof found === 'number') {
      yield* channel.send([MSG_ATTACHED, token, found, 0, 0]);
      return;
    }
    checkProcess(found.mm, channel.verbs.mm);
    this.segment = found;
    this.attached = found.newGrants();
    found.addSharer(this);
    yield* channel.send([MSG_ATTACHED, token, 0, found.pageCount, server.region.key]);
  }

  private *serve(token: number, index: number, write: boolean): Sim<void> {
    const { segment, channel } = this;
    const inside = segment !== undefined && index >= 0 && index < segment.pageCount;
    const frame = inside ? yield* segment.grant(this, index, write) : GRANT_FAULT;
    if (frame >= 0) {
      // Sent before the segment is unlocked, so before any recall of the page.
      yield* channel.send([MSG_GRANT, token, index, 0, frame, write ? 1 : 0]);
      segment?.granted();
      return;
    }
    const status = frame === GRANT_FAULT ? STATUS_EFAULT : STATUS_ESRCH;
    yield* channel.send([MSG_GRANT, token, index, status, 0, 0]);
  }

  /** Waits for the connection to end, and takes everything back then. */
  private *watch(): Sim<void> {
    yield this.channel.broken;
    this.counters.cutOff++;
    this.pending.clear();
    this.let();
    if (this.segment !== undefined) yield* this.segment.removeSharer(this);
  }

  /** The sharer has let go of what it was asked for. */
  private let(): void {
    const { released, server } = this;
    this.released = undefined;
    if (released === undefined) return;
    if (server.plan.form === 'region') {
      // The whole segment was torn down; the caller takes back only what it asked for.
      const [first, end] = this.asked;
      this.grants.removeRange(0, first);
      this.grants.removeRange(end, this.grants.pageCount - end);
    }
    released.resolve();
  }

  private spawn(what: string, body: Sim<unknown>): void {
    this.server.verbs.mm.memory.scheduler.spawn(`${this.name} ${what}`, body);
  }
}

function checkProcess(segment: AddressSpace, connection: AddressSpace): void {
  assert(segment !== connection, 'a segment is shared by a connection of its own process');
}
