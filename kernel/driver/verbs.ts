/**
 * The verbs of a host: what its program calls (libibverbs), each a simulated computation that spends
 * CPU time and talks to the adapter. Where libibverbs returns an errno, they throw a VerbsError.
 *
 * Owns the tables of what exists. Registering memory is `regions.ts`; what is posted and not complete
 * is kept by each queue.
 */
import type { Observable } from 'rxjs';
import {
  BUS_PD_RESUME,
  BUS_PD_SUSPEND,
  CMD_ALLOC_MW,
  CMD_ALLOC_PD,
  CMD_CREATE_CQ,
  CMD_CREATE_QP,
  CMD_CREATE_SRQ,
  CMD_DEALLOC_MW,
  CMD_DEALLOC_PD,
  CMD_DESTROY_CQ,
  CMD_DESTROY_QP,
  CMD_DESTROY_SRQ,
  CMD_MODIFY_CQ,
  CMD_MODIFY_QP,
  CMD_MODIFY_SRQ,
  CMD_OK,
  CMD_QUERY_QP,
  FRAME_WORDS,
  MAX_INLINE_BYTES,
  MAX_SGE,
  QPT_RC,
  RECORD_COMPLETION,
  type TimePs,
} from '../../transport/index.ts';
import type { HostCosts } from '../costs.ts';
import { VerbsError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { subscribeOrFail } from '../rx/subscribe.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import type { AdapterBus } from './adapter-bus.ts';
import { decodeAttributes, encodeAttributes, type QueuePairAttributes } from './attributes.ts';
import type { Commands } from './commands.ts';
import { CompletionChannel } from './completion-channel.ts';
import { CompletionQueue } from './completion-queue.ts';
import { Doorbells } from './doorbells.ts';
import type { AsyncEvent, BusEvents, CompletionEntry } from './events.ts';
import type { MemoryRegion } from './memory-region.ts';
import type { MemoryWindow } from './memory-window.ts';
import type { MessageLog } from './message-log.ts';
import { PostedReceives } from './posted-receives.ts';
import { Posting } from './posting.ts';
import { QueuePair, type QueuePairPlan } from './queue-pair.ts';
import type { Regions } from './regions.ts';
import type { SharedReceiveQueue } from './shared-receive-queue.ts';
import type { AddressHandle, ReceiveRequest, SendRequest } from './work.ts';

export class Verbs {
  /** Every queue pair there ever was, in order of creation. */
  readonly allQueuePairs: QueuePair[] = [];
  /** Asynchronous events that have come, in order. */
  readonly asyncEvents: AsyncEvent[] = [];
  /** The same as they come. */
  readonly asyncEvents$: Observable<AsyncEvent>;
  private readonly completionQueues = new Map<number, CompletionQueue>();
  private readonly posting: Posting;
  /** Asynchronous events that the program has taken. */
  private asyncEventsTaken = 0;
  private asyncArrival = new Completion<void>('an asynchronous event');

  constructor(
    private readonly bus: AdapterBus,
    private readonly commands: Commands,
    events: BusEvents,
    private readonly regions: Regions,
    mm: AddressSpace,
    private readonly queuePairs: Map<number, QueuePair>,
    private readonly log: MessageLog,
    private readonly costs: HostCosts,
  ) {
    this.posting = new Posting(new Doorbells(bus), mm, log, costs.postPs);
    this.asyncEvents$ = events.asyncEvents$;
    subscribeOrFail(bus.node, events.completions$, (entry) => this.complete(entry));
    subscribeOrFail(bus.node, events.asyncEvents$, (event) => this.noteAsyncEvent(event));
    subscribeOrFail(bus.node, events.completionEvents$, (cqn) => this.notify(cqn));
  }

  /** Every region there ever was, in order of registration. */
  get memoryRegions(): readonly MemoryRegion[] {
    return this.regions.all;
  }

  /** Time that threads have spent in registering and deregistering regions. */
  get registrationPs(): TimePs {
    return this.regions.registrationPs;
  }

  allocPd(): Sim<number> {
    return this.commands.run('alloc_pd', CMD_ALLOC_PD, []);
  }

  /** @throws VerbsError EBUSY while something belongs to it */
  *deallocPd(pd: number): Sim<void> {
    yield* this.commands.run('dealloc_pd', CMD_DEALLOC_PD, [pd]);
  }

  /**
   * Registers memory: pinned, or on demand with ACCESS_ON_DEMAND.
   * @throws VerbsError ENOMEM (memlock limit), EFAULT (not accessible), EINVAL
   */
  regMr(pd: number, address: number, length: number, access: number): Sim<MemoryRegion> {
    return this.regions.register(pd, address, length, access);
  }

  /** @throws VerbsError EBUSY while a window is bound to it */
  deregMr(region: MemoryRegion): Sim<void> {
    return this.regions.deregister(region);
  }

  /** Prefetches pages of an on-demand region and sleeps until they are in. */
  adviseMr(region: MemoryRegion, address: number, length: number, write: boolean): Sim<void> {
    return this.regions.advise(region, address, length, write);
  }

  /** A window of type 2: bind it with WR_BIND_MW and the key that nextRkey gives. */
  *allocMw(pd: number): Sim<MemoryWindow> {
    return { pd, rkey: yield* this.commands.run('alloc_mw', CMD_ALLOC_MW, [pd]) };
  }

  *deallocMw(window: MemoryWindow): Sim<void> {
    yield* this.commands.run('dealloc_mw', CMD_DEALLOC_MW, [window.rkey]);
  }

  /** The way to the port with LID `dlid`, for datagrams of `pd`. */
  createAh(pd: number, dlid: number): AddressHandle {
    return { pd, dlid };
  }

  /** A channel for completion events; pass it to createCq. */
  createCompletionChannel(): CompletionChannel {
    return new CompletionChannel();
  }

  *createCq(entries: number, channel?: CompletionChannel): Sim<CompletionQueue> {
    const cqn = yield* this.commands.run('create_cq', CMD_CREATE_CQ, [entries]);
    const queue = new CompletionQueue(this.bus, cqn, entries, this.costs.pollPs, channel);
    this.completionQueues.set(cqn, queue);
    return queue;
  }

  /** Events come only with `count` completions, or `periodUs` after the first of fewer. */
  *modifyCq(queue: CompletionQueue, count: number, periodUs: number): Sim<void> {
    yield* this.commands.run('modify_cq', CMD_MODIFY_CQ, [queue.cqn, count, periodUs]);
  }

  /** Asks for one event on the queue's channel (ibv_req_notify_cq). Poll once more after it. */
  *reqNotifyCq(queue: CompletionQueue, solicitedOnly = false): Sim<void> {
    yield this.costs.postPs;
    queue.arm(solicitedOnly);
  }

  /** @throws VerbsError EBUSY while a queue pair uses it */
  *destroyCq(queue: CompletionQueue): Sim<void> {
    yield* this.commands.run('destroy_cq', CMD_DESTROY_CQ, [queue.cqn]);
    this.completionQueues.delete(queue.cqn);
  }

  /** `limit`: an event when fewer receives are left; 0 for none. */
  *createSrq(pd: number, entries: number, limit = 0, maxSge = MAX_SGE): Sim<SharedReceiveQueue> {
    checkLimit('create_srq', 'max_sge', maxSge, MAX_SGE);
    const srqn = yield* this.commands.run('create_srq', CMD_CREATE_SRQ, [pd, entries, limit]);
    return { srqn, pd, receives: new PostedReceives(entries, maxSge) };
  }

  /** Arms the limit event, once. */
  *modifySrq(srq: SharedReceiveQueue, limit: number): Sim<void> {
    yield* this.commands.run('modify_srq', CMD_MODIFY_SRQ, [srq.srqn, limit]);
  }

  /** @throws VerbsError EBUSY while a queue pair uses it */
  *destroySrq(srq: SharedReceiveQueue): Sim<void> {
    yield* this.commands.run('destroy_srq', CMD_DESTROY_SRQ, [srq.srqn]);
  }

  /** @throws VerbsError EINVAL for limits beyond the adapter's, or a resource it does not have */
  *createQp(pd: number, plan: QueuePairPlan): Sim<QueuePair> {
    checkLimit('create_qp', 'max_send_sge', plan.maxSendSge ?? MAX_SGE, MAX_SGE);
    checkLimit('create_qp', 'max_recv_sge', plan.maxRecvSge ?? MAX_SGE, MAX_SGE);
    checkLimit('create_qp', 'max_inline_data', plan.maxInline ?? 0, MAX_INLINE_BYTES);
    const qpn = yield* this.commands.run('create_qp', CMD_CREATE_QP, [
      pd,
      plan.maxSendWr,
      plan.maxRecvWr,
      plan.sendCq.cqn,
      plan.recvCq.cqn,
      plan.type ?? QPT_RC,
      plan.srq?.srqn ?? 0,
      plan.sqSigAll ? 1 : 0,
    ]);
    const qp = new QueuePair(qpn, pd, plan);
    this.queuePairs.set(qpn, qp);
    this.allQueuePairs.push(qp);
    return qp;
  }

  /** Sets the attributes that `changes` has, and no others: its keys are the attribute mask. */
  *modifyQp(qp: QueuePair, changes: Partial<QueuePairAttributes>): Sim<void> {
    const { mask, mailbox } = encodeAttributes(changes);
    const parameters = [qp.qpn, mask];
    yield* this.commands.exchange('modify_qp', { opcode: CMD_MODIFY_QP, parameters, mailbox });
    qp.change(changes);
  }

  /** All attributes as the adapter has them now, the current PSNs among them. */
  *queryQp(qp: QueuePair): Sim<QueuePairAttributes> {
    const command = { opcode: CMD_QUERY_QP, parameters: [qp.qpn] };
    const { mailbox } = yield* this.commands.exchange('query_qp', command);
    return decodeAttributes(mailbox);
  }

  *destroyQp(qp: QueuePair): Sim<void> {
    yield* this.commands.run('destroy_qp', CMD_DESTROY_QP, [qp.qpn]);
    this.queuePairs.delete(qp.qpn);
  }

  /**
   * Posts to the send queue. Returns the number of the message on this queue pair, from 1 (24 bits):
   * the responder's MSN when it completes; 0 for a request that sends none.
   * @throws VerbsError ENOMEM (the send queue is full), EINVAL (state, opcode, limits)
   */
  postSend(qp: QueuePair, request: SendRequest): Sim<number> {
    return this.posting.send(qp, request);
  }

  /** Posts to the receive queue. @throws VerbsError ENOMEM (it is full), EINVAL */
  postRecv(qp: QueuePair, request: ReceiveRequest): Sim<void> {
    return this.posting.receive(qp, request);
  }

  /** Posts to a shared receive queue. @throws VerbsError ENOMEM (it is full), EINVAL */
  postSrqRecv(srq: SharedReceiveQueue, request: ReceiveRequest): Sim<void> {
    return this.posting.receiveShared(srq, request);
  }

  /** Sleeps until there is an asynchronous event the program has not taken, and takes it. */
  *nextAsyncEvent(): Sim<AsyncEvent> {
    while (this.asyncEventsTaken === this.asyncEvents.length) yield this.asyncArrival;
    return this.asyncEvents[this.asyncEventsTaken++];
  }

  /** Stops every queue pair of a protection domain; returns once the adapter is quiet. */
  suspendPd(pd: number): Sim<void> {
    return this.switchPd(BUS_PD_SUSPEND, 'suspend_pd', pd);
  }

  resumePd(pd: number): Sim<void> {
    return this.switchPd(BUS_PD_RESUME, 'resume_pd', pd);
  }

  private *switchPd(type: number, verb: string, pd: number): Sim<void> {
    yield this.costs.commandPs;
    const { tag, done } = this.commands.expectDone(`the adapter to answer ${verb}`);
    const frame = this.bus.message(type);
    this.bus.pool.words[frame * FRAME_WORDS + 1] = tag;
    this.bus.pool.words[frame * FRAME_WORDS + 2] = pd;
    this.bus.send(frame);
    yield done;
    const { status } = done.value;
    if (status !== CMD_OK) throw new VerbsError('EINVAL', verb, `the adapter answered ${status}`);
  }

  private complete({ cqn, work }: CompletionEntry): void {
    const { node } = this.bus;
    const queue = this.completionQueues.get(cqn);
    const qp = this.queuePairs.get(work.qpn);
    // A queue pair or queue may be destroyed with completions on their way.
    if (queue === undefined) return;
    node.digest.record(RECORD_COMPLETION, node.now, work.qpn, work.wrId, work.status, work.byteLen);
    if (qp !== undefined) {
      for (const posted of qp.retire(work)) this.log.addInitiator(qp, posted);
    }
    queue.push(work);
  }

  private noteAsyncEvent(event: AsyncEvent): void {
    this.asyncEvents.push(event);
    const arrival = this.asyncArrival;
    this.asyncArrival = new Completion<void>(arrival.purpose);
    arrival.resolve();
  }

  private notify(cqn: number): void {
    this.completionQueues.get(cqn)?.notify();
  }
}

function checkLimit(verb: string, name: string, value: number, limit: number): void {
  if (Number.isInteger(value) && value >= 0 && value <= limit) return;
  throw new VerbsError('EINVAL', verb, `${name} is ${value}, of at most ${limit}`);
}
