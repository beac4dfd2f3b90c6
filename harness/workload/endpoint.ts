/**
 * One program's end of its connections: protection domain, completion queue, queue pairs, and the
 * control queue pair over which the two programs talk.
 *
 * Owns work request ids, control buffers and receive credits. Does not know what is transferred;
 * `scripted.ts` and `replay.ts` do. The control region is pinned in every mode, so that the talking
 * itself never faults.
 */
import {
  Completion,
  type CompletionQueue,
  type Host,
  type MemoryRegion,
  type QueuePair,
  type Sim,
  VerbsError,
  type WorkCompletion,
  wait,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  assert,
  Failure,
  QPS_INIT,
  QPS_RTR,
  QPS_RTS,
  SEND_SIGNALED,
  WC_SUCCESS,
  WR_SEND,
  wcStatusName,
} from '../../transport/index.ts';
import type { QueuePairSpec } from '../scenario/schema.ts';
import { CONTROL_BYE, CONTROL_BYTES, CONTROL_CREDIT, CONTROL_WORDS } from './control-message.ts';
import { CONTROL_ADDRESS, connectedAtPs, initialPsn, PAGE_BYTES, qpnOf } from './layout.ts';

/** Control receives posted at each side, and control sends that may be outstanding. */
const CONTROL_SLOTS = 64;
/** The last credits are kept for CREDIT messages, so that two full sides cannot wait for each other. */
const RESERVED_CREDITS = 2;
const QUEUE_ENTRIES = 2048;

/** How the control queue pair is set up; the scenario does not mention it. */
const controlPair: Omit<QueuePairSpec, 'between'> = {
  name: 'control',
  timeout: 14,
  retryCnt: 7,
  rnrRetry: 7,
  minRnrTimer: 12,
  maxRdAtomic: 1,
};

export interface EndpointPlan {
  readonly seed: number;
  readonly localName: string;
  readonly remoteName: string;
  /** LID of the peer's adapter. */
  readonly remoteLid: number;
  readonly mtuBytes: number;
  /** The data queue pairs in order; the same on both sides. */
  readonly queuePairs: readonly Omit<QueuePairSpec, 'between'>[];
}

/** A work request for the send queue. */
export interface SendRequest {
  readonly opcode: number;
  readonly lkey: number;
  readonly localAddress: number;
  readonly length: number;
  readonly rkey?: number;
  readonly remoteAddress?: number;
  readonly immediate?: number;
}

export type ControlHandler = (words: readonly number[]) => void;
type CompletionHandler = (completion: WorkCompletion) => void;

export class Endpoint {
  pd = 0;
  private queuePairs: QueuePair[] = [];
  private control: QueuePair | undefined;
  private completions: CompletionQueue | undefined;
  private controlRegion: MemoryRegion | undefined;
  private readonly handlers = new Map<number, CompletionHandler>();
  private nextWorkRequest = 1;
  /** The slot whose control message has just been taken in; it is posted again at once. */
  private emptySlot = -1;
  private sentControls = 0;
  private consumedControls = 0;
  private reportedControls = 0;
  private peerConsumed = 0;
  private credit = new Completion<void>('control credits');
  /** Whether the last send from each slot is complete, so that its buffer may be written again. */
  private readonly slotFree: Completion<void>[] = [];
  /** Resolved by the next completion, where somebody waits for room in a work queue. */
  private room: Completion<void> | undefined;
  private readonly byeReceived = new Completion<void>("the peer's bye");
  private byeSent = false;

  constructor(
    private readonly host: Host,
    private readonly plan: EndpointPlan,
    private readonly onControl: ControlHandler,
  ) {}

  /** Creates everything and connects; returns when the peer has done so too. */
  *open(): Sim<void> {
    const { mm, verbs } = this.host;
    const bytes = Math.ceil((2 * CONTROL_SLOTS * CONTROL_BYTES) / PAGE_BYTES) * PAGE_BYTES;
    yield* mm.mmap(CONTROL_ADDRESS, bytes, 3);
    this.pd = yield* verbs.allocPd();
    this.completions = yield* verbs.createCq(QUEUE_ENTRIES * 2);
    this.controlRegion = yield* verbs.regMr(this.pd, CONTROL_ADDRESS, bytes, ACCESS_LOCAL_WRITE);
    const pairs = [controlPair, ...this.plan.queuePairs];
    const created: QueuePair[] = [];
    for (let k = 0; k < pairs.length; k++) {
      created.push(yield* this.connect(pairs[k] as QueuePairSpec, k));
    }
    [this.control, ...this.queuePairs] = created;
    for (let slot = 0; slot < CONTROL_SLOTS; slot++) yield* this.postControlReceive(slot);
    this.host.spawn('completions', this.dispatch());
    const span = connectedAtPs(pairs.length) - this.host.node.now;
    assert(span >= 0, 'connecting took longer than the exchange it is part of', this.host.node);
    yield* this.host.sleep(span);
  }

  /** Posts to data queue pair number `pair`; `onDone` hears of the completion. */
  *post(pair: number, request: SendRequest, onDone: CompletionHandler): Sim<void> {
    yield* this.postTo(this.queuePairs[pair] as QueuePair, request, onDone);
  }

  /** Posts a receive to data queue pair number `pair`; `length` 0 takes immediate data alone. */
  *postReceive(
    pair: number,
    buffer: { lkey: number; localAddress: number; length: number } | undefined,
    onDone: CompletionHandler,
  ): Sim<void> {
    const wrId = this.allocateId(onDone);
    const empty = { lkey: this.controlLkey, localAddress: CONTROL_ADDRESS, length: 0 };
    const request = { wrId, ...(buffer ?? empty) };
    const qp = this.queuePairs[pair] as QueuePair;
    yield* this.whenRoom(() => this.host.verbs.postRecv(qp, request));
  }

  /** Sends a control message; waits for credits when the peer is behind. */
  *sendControl(kind: number, parameters: readonly number[] = []): Sim<void> {
    const limit = CONTROL_SLOTS - (kind === CONTROL_CREDIT ? 0 : RESERVED_CREDITS);
    while (this.sentControls - this.peerConsumed >= limit) yield* wait(this.credit);
    const slot = this.sentControls++ % CONTROL_SLOTS;
    const previous = this.slotFree[slot];
    const free = new Completion<void>('a control buffer');
    this.slotFree[slot] = free;
    if (previous) yield* wait(previous);
    const address = CONTROL_ADDRESS + (CONTROL_SLOTS + slot) * CONTROL_BYTES;
    const words = new Array<number>(CONTROL_WORDS).fill(0);
    words[0] = kind;
    words[1] = this.consumedControls;
    this.reportedControls = this.consumedControls;
    parameters.forEach((word, i) => {
      words[i + 2] = word;
    });
    yield* this.host.mm.writeWords(address, words);
    if (kind === CONTROL_BYE) this.byeSent = true;
    const request = {
      opcode: WR_SEND,
      lkey: this.controlLkey,
      localAddress: address,
      length: CONTROL_BYTES,
    };
    yield* this.postTo(this.control as QueuePair, request, (completion) => {
      this.requireSuccess(completion, 'a control message');
      free.resolve();
    });
  }

  /** Says good-bye and waits for the peer's; after it nothing more is sent either way. */
  *close(): Sim<void> {
    yield* this.sendControl(CONTROL_BYE);
    yield* wait(this.byeReceived);
  }

  /** Throws Failure E_OPERATION unless `completion` is a success. */
  requireSuccess(completion: WorkCompletion, what: string): void {
    if (completion.status === WC_SUCCESS) return;
    throw new Failure(
      'E_OPERATION',
      `${what} completed with ${wcStatusName[completion.status] ?? completion.status}`,
      `${this.plan.localName} at ${completion.timePs} ps`,
      'IBV_WC_SUCCESS',
    );
  }

  private get controlLkey(): number {
    return (this.controlRegion as MemoryRegion).lkey;
  }

  private *connect(pair: Omit<QueuePairSpec, 'between'>, k: number): Sim<QueuePair> {
    const { verbs } = this.host;
    const cq = this.completions as CompletionQueue;
    const qp = yield* verbs.createQp(this.pd, cq, cq, QUEUE_ENTRIES, QUEUE_ENTRIES);
    assert(qp.qpn === qpnOf(k), `queue pair ${k} is number ${qp.qpn}`, this.host.node);
    const { seed, localName, remoteName, remoteLid, mtuBytes } = this.plan;
    const attributes = {
      destQpn: qpnOf(k),
      mtuBytes,
      sendPsn: initialPsn(seed, localName, pair.name),
      receivePsn: initialPsn(seed, remoteName, pair.name),
      timeout: pair.timeout,
      retryCnt: pair.retryCnt,
      rnrRetry: pair.rnrRetry,
      minRnrTimer: pair.minRnrTimer,
      destLid: remoteLid,
      maxRdAtomic: pair.maxRdAtomic,
      access: ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ,
    };
    for (const state of [QPS_INIT, QPS_RTR, QPS_RTS]) {
      yield* verbs.modifyQp(qp, { ...attributes, state });
    }
    return qp;
  }

  private *postTo(qp: QueuePair, request: SendRequest, onDone: CompletionHandler): Sim<void> {
    const wrId = this.allocateId(onDone);
    const flags = SEND_SIGNALED;
    const full = { rkey: 0, remoteAddress: 0, immediate: 0, ...request, wrId, flags };
    yield* this.whenRoom(() => this.host.verbs.postSend(qp, full));
  }

  /** Posts; when the work queue is full, again after a completion. */
  private *whenRoom(post: () => Sim<unknown>): Sim<void> {
    for (;;) {
      try {
        yield* post();
        return;
      } catch (error) {
        if (!(error instanceof VerbsError) || error.errno !== 'ENOMEM') throw error;
      }
      this.room ??= new Completion<void>('room in a work queue');
      yield* wait(this.room);
    }
  }

  private *postControlReceive(slot: number): Sim<void> {
    const address = CONTROL_ADDRESS + slot * CONTROL_BYTES;
    const wrId = this.allocateId((completion) => {
      this.requireSuccess(completion, 'a control receive');
      this.consume(this.host.mm.readWords(address, CONTROL_WORDS));
      this.emptySlot = slot;
    });
    yield* this.host.verbs.postRecv(this.control as QueuePair, {
      wrId,
      lkey: this.controlLkey,
      localAddress: address,
      length: CONTROL_BYTES,
    });
  }

  /** Takes in a control message: credits first, then what it says. */
  private consume(words: readonly number[]): void {
    this.consumedControls++;
    this.peerConsumed = Math.max(this.peerConsumed, words[1] as number);
    const waiters = this.credit;
    this.credit = new Completion<void>('control credits');
    waiters.resolve();
    if (words[0] === CONTROL_BYE) this.byeReceived.resolve();
    else if (words[0] !== CONTROL_CREDIT) this.onControl(words);
    const unreported = this.consumedControls - this.reportedControls;
    if (unreported < CONTROL_SLOTS / 2 || this.byeSent) return;
    this.reportedControls = this.consumedControls;
    this.host.spawn('control credits', this.sendControl(CONTROL_CREDIT));
  }

  /** Hands completions to whoever posted; ends with the last one this side will ever see. */
  private *dispatch(): Sim<void> {
    const queue = this.completions as CompletionQueue;
    while (!this.resting()) {
      const completion = yield* queue.next();
      const handler = this.handlers.get(completion.wrId);
      assert(
        handler !== undefined,
        `work request ${completion.wrId} completes twice or was never posted`,
        this.host.node,
      );
      this.handlers.delete(completion.wrId);
      handler(completion);
      this.room?.resolve();
      this.room = undefined;
      if (this.emptySlot >= 0) {
        yield* this.postControlReceive(this.emptySlot);
        this.emptySlot = -1;
      }
    }
  }

  /** True when byes have gone both ways and nothing but control receives is posted. */
  private resting(): boolean {
    return this.byeSent && this.byeReceived.done && this.handlers.size === CONTROL_SLOTS;
  }

  private allocateId(handler: CompletionHandler): number {
    const id = this.nextWorkRequest++;
    this.handlers.set(id, handler);
    return id;
  }
}
