/**
 * The messages of one rank as RDMA on one host: connections to the other ranks through the adapter's
 * loopback, and each message an RDMA WRITE with immediate data from its true buffer to its true buffer.
 *
 * The receiver registers its buffer by the scheme, posts a receive, and tells the sender address and
 * key; the sender, once it has met its own line too, registers its buffer and writes. Ranks of one host
 * tell each other through shared memory, so only the data are on the adapter. Every message goes this
 * way, whatever its size; a real library copies small ones.
 *
 * Before each send the program writes new bytes where its buffer is present, unless a send from there
 * is still under way. `message-check.ts` judges where bytes went.
 */
import type { Completion, Sim } from '../../kernel/index.ts';
import {
  Failure,
  hashText,
  NS,
  SEND_SIGNALED,
  type TimePs,
  WC_SUCCESS,
  WR_RDMA_WRITE_WITH_IMM,
  wcStatusName,
} from '../../transport/index.ts';
import type { QueuePairSpec } from '../scenario/schema.ts';
import { isSend, type MessageLine } from '../trace/format.ts';
import { create, QUEUE_ENTRIES, toRts } from '../workload/connection.ts';
import { initialPsn } from '../workload/layout.ts';
import type { Outstanding } from '../workload/outstanding.ts';
import { Posting } from '../workload/posting.ts';
import { dataPair } from '../workload/replay.ts';
import type { MessageCheck } from './message-check.ts';
import { messageKey } from './recording.ts';
import type { BufferLease, BufferRegistration } from './registration.ts';
import type { SharedMemory, Target } from './shared-memory.ts';
import { LID, type RankProcess, type ReplayWorld } from './world.ts';

/** Telling another process of the host something in shared memory. Assumed: a few cache misses. */
const TELL_PS: TimePs = 200 * NS;
const MTU_BYTES = 4096;
/** The largest completion queue of an adapter. */
const MAX_COMPLETIONS = 32_768;

/** What a rank's messages need besides the rank. */
export interface MessageContext {
  readonly world: ReplayWorld;
  readonly shared: SharedMemory;
  readonly check: MessageCheck;
  /** Keys of messages with both ends here, and of those that the recorded sender did not wait for. */
  readonly messages: ReadonlySet<number>;
  readonly buffered: ReadonlySet<number>;
  readonly seed: number;
}

export class RankMessages {
  /** Messages sent or received by this rank that are complete, and their payload in bytes. */
  count = 0;
  bytes = 0;
  private posting: Posting | undefined;
  /** Messages that are over, until their buffers are given back. */
  private readonly ended: { readonly lease: BufferLease | undefined; done: Completion<void> }[] =
    [];
  private readonly receives = new Map<number, () => void>();

  constructor(
    private readonly context: MessageContext,
    private readonly rank: number,
    private readonly process: RankProcess,
    private readonly outstanding: Outstanding,
    readonly registration: BufferRegistration,
  ) {}

  /** Connects to every other rank; returns when all have. */
  *open(): Sim<void> {
    const { process, rank, context } = this;
    const { world, shared, seed } = context;
    const { verbs } = process;
    const pd = yield* verbs.allocPd();
    const peers = shared.ranks.filter((peer) => peer !== rank);
    const entries = Math.min(MAX_COMPLETIONS, Math.max(1, peers.length) * 2 * QUEUE_ENTRIES);
    const cq = yield* verbs.createCq(entries);
    this.posting = new Posting({ verbs, node: world.host.node }, cq);
    for (const peer of peers) {
      shared.publish(rank, peer, yield* create(process, pd, cq, undefined, dataPair));
    }
    yield* shared.meetOthers();
    for (const peer of peers) {
      yield* toRts(process, shared.queuePair(rank, peer), dataPair as QueuePairSpec, {
        destLid: LID,
        destQpn: shared.queuePair(peer, rank).qpn,
        mtuBytes: MTU_BYTES,
        sendPsn: initialPsn(seed, `rank ${rank}`, `rank ${peer}`),
        receivePsn: initialPsn(seed, `rank ${peer}`, `rank ${rank}`),
      });
    }
    yield* this.registration.open(pd);
    yield* shared.meetOthers();
    const forEver = (): boolean => true;
    const service = this.posting.dispatch(forEver, () => this.finishAll());
    world.host.spawn(`completions of rank ${rank}`, service);
  }

  /** Lets go of what the scheme still holds. */
  *close(): Sim<void> {
    yield* this.registration.close();
  }

  /** Meets a line that sends or receives. */
  *meet(event: MessageLine): Sim<void> {
    const isOurs = isSend(event);
    const key = messageKey(isOurs ? this.rank : event.peer, event.message);
    if (!this.context.messages.has(key)) return;
    if (isOurs) yield* this.send(event, key);
    else yield* this.receive(event, key);
  }

  private *send(event: MessageLine, key: number): Sim<void> {
    const { context, process } = this;
    const { address, length, bytes, message } = event;
    const { outstanding } = this;
    yield* outstanding.waitForReceives(address, length);
    if (!outstanding.isBeingSent(address, length)) {
      const pattern = hashText(`${this.rank} ${message}`, context.seed);
      yield* process.mm.fillResident(address, length, pattern);
    }
    context.check.onSend(key, process.mm, address, bytes);
    const isDetached = context.buffered.has(key);
    const purpose = `send of message ${message}`;
    const done = outstanding.begin(event, purpose, { isSend: true, isDetached });
    const target = context.shared.take(key, (later) => {
      const post = this.post(event, key, later, done);
      context.world.host.spawn(`rank ${this.rank} sends ${message}`, post);
    });
    if (target) yield* this.post(event, key, target, done);
  }

  private *post(
    event: MessageLine,
    key: number,
    target: Target,
    done: Completion<void>,
  ): Sim<void> {
    const { context, rank, process } = this;
    const { address, length, bytes, message, peer } = event;
    const lease = bytes > 0 ? yield* this.registration.acquire(address, length, false) : undefined;
    const request = {
      opcode: WR_RDMA_WRITE_WITH_IMM,
      flags: SEND_SIGNALED,
      sges: lease ? [{ address, length: bytes, lkey: lease.region.lkey }] : [],
      rkey: target.rkey,
      remoteAddress: target.address,
      immediate: message,
    };
    const qp = context.shared.queuePair(rank, peer);
    yield* (this.posting as Posting).send(qp, request, ({ status }) => {
      this.requireSuccess(status, event);
      if (lease) context.check.onSent(key, process.mm, lease.region.lkey, address, bytes);
      this.finish(bytes, lease, done);
    });
  }

  private *receive(event: MessageLine, key: number): Sim<void> {
    const { context, rank, process } = this;
    const { address, length, message, peer } = event;
    const { outstanding } = this;
    yield* outstanding.waitForRange(address, length);
    const done = outstanding.begin(event, `receive of message ${message} of rank ${peer}`);
    const lease = length > 0 ? yield* this.registration.acquire(address, length, true) : undefined;
    this.receives.set(key, () => {
      const bytes = context.check.onReceive(key, process.mm, lease?.region.rkey ?? 0, address);
      this.finish(bytes, lease, done);
    });
    const qp = context.shared.queuePair(rank, peer);
    yield* (this.posting as Posting).receive(qp, [], false, ({ status, immediate }) => {
      this.requireSuccess(status, event);
      const arrivedKey = messageKey(peer, immediate);
      const arrived = this.receives.get(arrivedKey);
      this.receives.delete(arrivedKey);
      arrived?.();
    });
    yield TELL_PS;
    context.shared.announce(key, { address, rkey: lease?.region.rkey ?? 0 });
  }

  /** Gives leases back and tells the program, in the thread that takes completions. */
  private *finishAll(): Sim<void> {
    for (let ended = this.ended.shift(); ended !== undefined; ended = this.ended.shift()) {
      if (ended.lease) yield* this.registration.release(ended.lease);
      ended.done.resolve();
    }
  }

  private finish(bytes: number, lease: BufferLease | undefined, done: Completion<void>): void {
    this.count++;
    this.bytes += bytes;
    this.ended.push({ lease, done });
  }

  private requireSuccess(status: number, { line, kind }: MessageLine): void {
    if (status === WC_SUCCESS) return;
    const { name, now } = this.context.world.host.node;
    const message = `${kind} of line ${line} of rank ${this.rank} ends with ${wcStatusName[status] ?? status}`;
    throw new Failure('E_OPERATION', message, `${name} at ${now} ps`, 'success');
  }
}
