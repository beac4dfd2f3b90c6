/**
 * One program's end of its connections: protection domain, completion queue, queue pairs, and the
 * control queue pair over which the two programs talk.
 *
 * Owns control buffers and receive credits. Does not know what is transferred; `scripted.ts` and
 * `replay.ts` do. The control region is pinned in every mode, so that the talking itself never faults.
 */
import {
  Completion,
  type CompletionChannel,
  type CompletionQueue,
  type Host,
  type MemoryRegion,
  type QueuePair,
  type ScatterEntry,
  type SharedReceiveQueue,
  type Sim,
  type WorkCompletion,
  wait,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  assert,
  Failure,
  SEND_SIGNALED,
  US,
  WC_SUCCESS,
  WR_SEND,
  wcStatusName,
} from '../../transport/index.ts';
import type { HostSpec, QueuePairSpec, SharedReceiveQueueSpec } from '../scenario/schema.ts';
import { type ConnectionPlan, connect, QUEUE_ENTRIES } from './connection.ts';
import {
  CONTROL_BYE,
  CONTROL_BYTES,
  CONTROL_CREDIT,
  controlBytes,
  controlWords,
} from './control-message.ts';
import { CONTROL_ADDRESS, connectedAtPs, PAGE_BYTES } from './layout.ts';
import { type CompletionHandler, Posting, type Work } from './posting.ts';

/** Control receives posted at each side, and control sends that may be outstanding. */
const CONTROL_SLOTS = 64;
/** The last credits are kept for CREDIT messages, so that two full sides cannot wait for each other. */
const RESERVED_CREDITS = 2;
/** The largest completion queue of an adapter. */
const MAX_COMPLETIONS = 32_768;

/** How the control queue pair is set up; the scenario does not mention it. */
const controlPair: QueuePairSpec = {
  name: 'control',
  between: ['', ''],
  type: 'RC',
  timeout: 14,
  retryCnt: 7,
  rnrRetry: 7,
  minRnrTimer: 12,
  maxRdAtomic: 1,
  maxDestRdAtomic: 1,
  srqs: [],
};

export interface EndpointPlan extends ConnectionPlan {
  /** The data queue pairs in order; the same on both sides. */
  readonly queuePairs: readonly QueuePairSpec[];
  /** Shared receive queues of this host. */
  readonly srqs: readonly SharedReceiveQueueSpec[];
  /** Work requests of the data queue pairs that may be outstanding at once. */
  readonly outstanding: number;
  /** How the program waits for completions. */
  readonly waiting: Pick<HostSpec, 'completions' | 'moderation'>;
}

export type ControlHandler = (words: readonly number[]) => void;

export class Endpoint {
  pd = 0;
  private queuePairs: QueuePair[] = [];
  private readonly numbers: ReadonlyMap<string, number>;
  private readonly srqs = new Map<string, SharedReceiveQueue>();
  private control: QueuePair | undefined;
  private posting: Posting | undefined;
  private controlRegion: MemoryRegion | undefined;
  /** The slot whose control message has just been taken in; it is posted again at once. */
  private emptySlot = -1;
  private sentControls = 0;
  private consumedControls = 0;
  private reportedControls = 0;
  private peerConsumed = 0;
  private credit = new Completion<void>('control credits');
  /** Whether the last send from each slot is complete, so that its buffer may be written again. */
  private readonly slotFree: Completion<void>[] = [];
  private readonly byeReceived = new Completion<void>("the peer's bye");
  private byeSent = false;

  constructor(
    private readonly host: Host,
    private readonly plan: EndpointPlan,
    private readonly onControl: ControlHandler,
  ) {
    this.numbers = new Map(plan.queuePairs.map(({ name }, k) => [name, k]));
  }

  /** Creates everything and connects; returns when the peer has done so too. */
  *open(): Sim<void> {
    const { mm, verbs } = this.host;
    const { plan } = this;
    const bytes = Math.ceil((2 * CONTROL_SLOTS * CONTROL_BYTES) / PAGE_BYTES) * PAGE_BYTES;
    yield* mm.mmap(CONTROL_ADDRESS, bytes, 3);
    this.pd = yield* verbs.allocPd();
    const cq = yield* this.createCq();
    const posting = new Posting(this.host, cq);
    this.posting = posting;
    this.controlRegion = yield* verbs.regMr(this.pd, CONTROL_ADDRESS, bytes, ACCESS_LOCAL_WRITE);
    for (const { name, entries } of plan.srqs) {
      this.srqs.set(name, yield* verbs.createSrq(this.pd, entries));
    }
    const created: QueuePair[] = [];
    for (const pair of [controlPair, ...plan.queuePairs]) {
      const shared = pair.srqs.find((name) => this.srqs.has(name));
      const srq = shared === undefined ? undefined : this.srqs.get(shared);
      created.push(yield* connect(this.host, this.pd, cq, srq, plan, pair, created.length));
    }
    [this.control, ...this.queuePairs] = created;
    for (let slot = 0; slot < CONTROL_SLOTS; slot++) yield* this.postControlReceive(slot);
    const dispatch = posting.dispatch(
      () => !this.resting(),
      () => this.refillControl(),
    );
    this.host.spawn('completions', dispatch);
    const span = connectedAtPs(created.length) - this.host.node.now;
    assert(span >= 0, 'connecting took longer than the exchange it is part of', this.host.node);
    yield* this.host.sleep(span);
  }

  /** The data queue pair called `name`. */
  pair(name: string): QueuePair {
    return this.queuePairs[this.numbers.get(name) as number] as QueuePair;
  }

  /** This host's shared receive queue called `name`. */
  srq(name: string): SharedReceiveQueue {
    return this.srqs.get(name) as SharedReceiveQueue;
  }

  /** Posts to the data queue pair called `name`; `onDone` hears of the completion. */
  post(name: string, request: Work, onDone: CompletionHandler): Sim<void> {
    return this.queues.send(this.pair(name), request, onDone);
  }

  /** Posts a signalled work request and sleeps until it has completed with success. */
  *perform(name: string, what: string, request: Work): Sim<void> {
    const done = new Completion<void>(what);
    yield* this.post(name, request, (completion) => {
      this.requireSuccess(completion, what);
      done.resolve();
    });
    yield* wait(done);
  }

  /** Posts a receive to a queue pair or a shared receive queue; see Posting for standing ones. */
  postReceive(
    queue: QueuePair | SharedReceiveQueue,
    sges: readonly ScatterEntry[],
    isStanding: boolean,
    onDone: CompletionHandler,
  ): Sim<void> {
    return this.queues.receive(queue, sges, isStanding, onDone);
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
    this.reportedControls = this.consumedControls;
    const bytes = controlBytes([kind, this.consumedControls, ...parameters]);
    yield* this.host.mm.write(address, bytes);
    if (kind === CONTROL_BYE) this.byeSent = true;
    const sges = [{ address, length: CONTROL_BYTES, lkey: this.controlLkey }];
    const request = { opcode: WR_SEND, flags: SEND_SIGNALED, sges };
    yield* this.queues.send(this.control as QueuePair, request, (completion) => {
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

  private get queues(): Posting {
    return this.posting as Posting;
  }

  /** A completion queue that cannot overflow, and the channel to sleep on where that is asked for. */
  private *createCq(): Sim<CompletionQueue> {
    const { verbs } = this.host;
    const { outstanding, waiting } = this.plan;
    const wanted = outstanding + 3 * CONTROL_SLOTS;
    if (wanted > MAX_COMPLETIONS) {
      throw new Failure(
        'E_OPERATION',
        `${wanted} work requests may complete before one completion is polled`,
        this.host.node.name,
        `at most ${MAX_COMPLETIONS}, the largest completion queue`,
      );
    }
    const entries = Math.max(2 * QUEUE_ENTRIES, wanted);
    let channel: CompletionChannel | undefined;
    if (waiting.completions === 'event') channel = verbs.createCompletionChannel();
    const cq = yield* verbs.createCq(entries, channel);
    const { count, periodPs } = waiting.moderation;
    if (channel && count > 0) yield* verbs.modifyCq(cq, count, periodPs / US);
    return cq;
  }

  private *postControlReceive(slot: number): Sim<void> {
    const address = CONTROL_ADDRESS + slot * CONTROL_BYTES;
    const sges = [{ address, length: CONTROL_BYTES, lkey: this.controlLkey }];
    yield* this.queues.receive(this.control as QueuePair, sges, false, (completion) => {
      this.requireSuccess(completion, 'a control receive');
      this.consume(controlWords(this.host.mm.read(address, CONTROL_BYTES)));
      this.emptySlot = slot;
    });
  }

  private *refillControl(): Sim<void> {
    if (this.emptySlot < 0) return;
    yield* this.postControlReceive(this.emptySlot);
    this.emptySlot = -1;
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

  /** True when byes have gone both ways and nothing but control receives is posted. */
  private resting(): boolean {
    return this.byeSent && this.byeReceived.done && this.queues.outstanding === CONTROL_SLOTS;
  }
}
