/**
 * The verbs of a process: what its program calls (libibverbs), each a simulated computation that spends
 * CPU time and talks to the adapter. Where libibverbs returns an errno, they throw a VerbsError.
 *
 * One instance is a device context (ibv_open_device): its objects belong to it and to its process'
 * memory, and go away when it is closed. Registering memory is `regions.ts`, advice about it
 * `prefetch.ts`; what is posted and not complete is kept by each queue, and who owns what by `device.ts`.
 */
import { filter, type Observable } from 'rxjs';
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
  CMD_DESTROY_MKEY,
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
  type TimePs,
} from '../../transport/index.ts';
import { VerbsError } from '../errno.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { subscribeOrFail } from '../rx/subscribe.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import { decodeAttributes, encodeAttributes, type QueuePairAttributes } from './attributes.ts';
import type { Commands } from './commands.ts';
import { CompletionChannel } from './completion-channel.ts';
import { CompletionQueue } from './completion-queue.ts';
import type { Device, DeviceUser } from './device.ts';
import { type DmaRegion, getDmaRegion } from './dma-region.ts';
import { Doorbells } from './doorbells.ts';
import type { AsyncEvent } from './events.ts';
import type { MemoryRegion } from './memory-region.ts';
import type { MemoryWindow } from './memory-window.ts';
import { OwnedObjects } from './owned-objects.ts';
import { PostedReceives } from './posted-receives.ts';
import { Posting } from './posting.ts';
import { adviseRegions } from './prefetch.ts';
import { QueuePair, type QueuePairPlan } from './queue-pair.ts';
import { type MoveMethod, type MoveReport, RegionMover } from './region-mover.ts';
import { Regions, type Reregistration } from './regions.ts';
import type { SharedReceiveQueue } from './shared-receive-queue.ts';
import type { AddressHandle, ReceiveRequest, ScatterEntry, SendRequest } from './work.ts';

export class Verbs implements DeviceUser {
  /** Asynchronous events about objects of this context, in order. */
  readonly asyncEvents: AsyncEvent[] = [];
  /** The same as they come. */
  readonly asyncEvents$: Observable<AsyncEvent>;
  private readonly regions: Regions;
  private readonly posting: Posting;
  private readonly objects = new OwnedObjects();
  /** Asynchronous events that the program has taken. */
  private asyncEventsTaken = 0;
  private asyncArrival = new Completion<void>('an asynchronous event');

  /** `isDefault`: events about what belongs to nobody who is known come here too. */
  constructor(
    private readonly device: Device,
    readonly mm: AddressSpace,
    memlockBytes: number,
    isDefault: boolean,
  ) {
    const { bus, costs, events, log } = device;
    this.regions = new Regions(device, mm, memlockBytes);
    this.posting = new Posting(new Doorbells(bus), mm, log, costs.postPs);
    this.asyncEvents$ = events.asyncEvents$.pipe(
      filter((event) => (device.ownerOf(event) ?? (isDefault ? this : undefined)) === this),
    );
    subscribeOrFail(bus.node, this.asyncEvents$, (event) => this.noteAsyncEvent(event));
  }

  /** Every region that this process ever had, in order of registration. */
  get memoryRegions(): readonly MemoryRegion[] {
    return this.device.regions.all.filter(({ mm }) => mm === this.mm);
  }

  /** Time that threads have spent in registering and deregistering regions of this process. */
  get registrationPs(): TimePs {
    return this.regions.registrationPs;
  }

  /** Closes the device: destroys what the process has left, as uverbs does when its file is closed. */
  close(): Sim<void> {
    return this.objects.destroyAll();
  }

  *allocPd(): Sim<number> {
    const body = this.commands.run('alloc_pd', CMD_ALLOC_PD, []);
    const pd = yield* this.own('alloc_pd', body, (object) => this.deallocPd(object));
    this.device.addDomain(pd, this);
    return pd;
  }

  /** @throws VerbsError EBUSY while something belongs to it */
  *deallocPd(pd: number): Sim<void> {
    this.checkDomain('dealloc_pd', pd);
    yield* this.objects.destroy(pd, this.commands.run('dealloc_pd', CMD_DEALLOC_PD, [pd]));
    this.device.removeDomain(pd);
  }

  /**
   * Registers memory: pinned; on demand with ACCESS_ON_DEMAND; or all of the process' memory, whatever
   * becomes of it, with address 0 and SIZE_MAX on top.
   * @throws VerbsError ENOMEM (memlock limit), EFAULT (not accessible), EINVAL, EOPNOTSUPP (on demand,
   * where the adapter's regions cannot change)
   */
  *regMr(pd: number, address: number, length: number, access: number): Sim<MemoryRegion> {
    this.checkDomain('reg_mr', pd);
    const body = this.regions.register(pd, address, length, access);
    return yield* this.own('reg_mr', body, (region) => this.deregMr(region));
  }

  /**
   * Changes domain, rights or range of a pinned region; its keys stay.
   * @throws VerbsError EINVAL, EBUSY while a window is bound to it, ENOMEM, EFAULT, EOPNOTSUPP
   */
  *reregMr(region: MemoryRegion, change: Reregistration): Sim<void> {
    this.checkDomain('rereg_mr', change.pd ?? region.pd);
    yield* this.regions.reregister(region, change);
  }

  /** @throws VerbsError EBUSY while a window is bound to it */
  *deregMr(region: MemoryRegion): Sim<void> {
    yield* this.objects.destroy(region, this.regions.deregister(region));
  }

  /** A key over all physical memory of the host, for kernel code; see dma-region.ts. */
  *getDmaMr(pd: number, access: number): Sim<DmaRegion> {
    this.checkDomain('get_dma_mr', pd);
    const frameCount = this.mm.memory.frames.count;
    const body = getDmaRegion(this.device, frameCount, pd, access);
    return yield* this.own('get_dma_mr', body, (region) => this.deregDmaMr(region));
  }

  *deregDmaMr(region: DmaRegion): Sim<void> {
    yield* this.objects.destroy(
      region,
      this.commands.run('dereg_mr', CMD_DESTROY_MKEY, [region.key]),
    );
  }

  /**
   * Brings pages of on-demand regions in ahead of use: ADVICE_PREFETCH, _WRITE or _NO_FAULT (only what
   * the process has present); `sges` name ranges by their lkeys. With ADVISE_FLUSH it sleeps until they
   * are in; without, errors beyond those of the keys are nobody's.
   * @throws VerbsError ENOENT, EINVAL, EPERM, EFAULT, EAGAIN, EOPNOTSUPP: see prefetch.ts
   */
  *adviseMr(pd: number, advice: number, flags: number, sges: readonly ScatterEntry[]): Sim<void> {
    this.checkDomain('advise_mr', pd);
    yield* adviseRegions(this.device, pd, advice, flags, sges);
  }

  /** A window of type 2: bind it with WR_BIND_MW and the key that nextRkey gives. */
  *allocMw(pd: number): Sim<MemoryWindow> {
    this.checkDomain('alloc_mw', pd);
    return yield* this.own('alloc_mw', this.createWindow(pd), (window) => this.deallocMw(window));
  }

  *deallocMw(window: MemoryWindow): Sim<void> {
    yield* this.objects.destroy(
      window,
      this.commands.run('dealloc_mw', CMD_DEALLOC_MW, [window.rkey]),
    );
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
    const body = this.createQueue(entries, channel);
    return yield* this.own('create_cq', body, (queue) => this.destroyCq(queue));
  }

  /** Events come only with `count` completions, or `periodUs` after the first of fewer. */
  *modifyCq(queue: CompletionQueue, count: number, periodUs: number): Sim<void> {
    yield* this.commands.run('modify_cq', CMD_MODIFY_CQ, [queue.cqn, count, periodUs]);
  }

  /** Asks for one event on the queue's channel (ibv_req_notify_cq). Poll once more after it. */
  *reqNotifyCq(queue: CompletionQueue, solicitedOnly = false): Sim<void> {
    yield this.device.costs.postPs;
    queue.arm(solicitedOnly);
  }

  /** @throws VerbsError EBUSY while a queue pair uses it */
  *destroyCq(queue: CompletionQueue): Sim<void> {
    yield* this.objects.destroy(
      queue,
      this.commands.run('destroy_cq', CMD_DESTROY_CQ, [queue.cqn]),
    );
    this.device.removeCompletionQueue(queue);
  }

  /** `limit`: an event when fewer receives are left; 0 for none. */
  *createSrq(pd: number, entries: number, limit = 0, maxSge = MAX_SGE): Sim<SharedReceiveQueue> {
    checkLimit('create_srq', 'max_sge', maxSge, MAX_SGE);
    this.checkDomain('create_srq', pd);
    const body = this.createReceiveQueue(pd, entries, limit, maxSge);
    return yield* this.own('create_srq', body, (srq) => this.destroySrq(srq));
  }

  /** Arms the limit event, once. */
  *modifySrq(srq: SharedReceiveQueue, limit: number): Sim<void> {
    yield* this.commands.run('modify_srq', CMD_MODIFY_SRQ, [srq.srqn, limit]);
  }

  /** @throws VerbsError EBUSY while a queue pair uses it */
  *destroySrq(srq: SharedReceiveQueue): Sim<void> {
    yield* this.objects.destroy(srq, this.commands.run('destroy_srq', CMD_DESTROY_SRQ, [srq.srqn]));
  }

  /** @throws VerbsError EINVAL for limits beyond the adapter's, or a resource it does not have */
  *createQp(pd: number, plan: QueuePairPlan): Sim<QueuePair> {
    checkLimit('create_qp', 'max_send_sge', plan.maxSendSge ?? MAX_SGE, MAX_SGE);
    checkLimit('create_qp', 'max_recv_sge', plan.maxRecvSge ?? MAX_SGE, MAX_SGE);
    checkLimit('create_qp', 'max_inline_data', plan.maxInline ?? 0, MAX_INLINE_BYTES);
    this.checkDomain('create_qp', pd);
    for (const { cqn } of [plan.sendCq, plan.recvCq]) {
      if (this.device.isForeignQueue(cqn, this)) {
        throw new VerbsError('EINVAL', 'create_qp', `completion queue ${cqn} is not this process'`);
      }
    }
    const body = this.createQueuePair(pd, plan);
    return yield* this.own('create_qp', body, (qp) => this.destroyQp(qp));
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
    yield* this.objects.destroy(qp, this.commands.run('destroy_qp', CMD_DESTROY_QP, [qp.qpn]));
    this.device.removeQueuePair(qp);
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

  /**
   * Moves the pages of a pinned region to a NUMA node while the adapter may be at work on them.
   * @throws VerbsError EINVAL (not pinned, no such node), EOPNOTSUPP (the adapter keeps no record of its
   * writes, and the method needs it)
   */
  moveMr(region: MemoryRegion, node: number, method: MoveMethod): Sim<MoveReport> {
    return new RegionMover(this.device, this, region, node, method).move();
  }

  /** Stops every queue pair of a protection domain; returns once the adapter is quiet. */
  suspendPd(pd: number): Sim<void> {
    return this.switchPd(BUS_PD_SUSPEND, 'suspend_pd', pd);
  }

  resumePd(pd: number): Sim<void> {
    return this.switchPd(BUS_PD_RESUME, 'resume_pd', pd);
  }

  private *switchPd(type: number, verb: string, pd: number): Sim<void> {
    this.checkDomain(verb, pd);
    const { bus, costs } = this.device;
    yield costs.commandPs;
    const { tag, done } = this.commands.expectDone(`the adapter to answer ${verb}`);
    const frame = bus.message(type);
    bus.pool.words[frame * FRAME_WORDS + 1] = tag;
    bus.pool.words[frame * FRAME_WORDS + 2] = pd;
    bus.send(frame);
    yield done;
    const { status } = done.value;
    if (status !== CMD_OK) throw new VerbsError('EINVAL', verb, `the adapter answered ${status}`);
  }

  private get commands(): Commands {
    return this.device.commands;
  }

  /** Creates what is the process' then, unless it has ended: its threads may outlive it by a moment. */
  private own<T>(verb: string, body: Sim<T>, destroy: (object: T) => Sim<void>): Sim<T> {
    const { alive, killed, name } = this.mm.state;
    if (alive) return this.objects.create(body, destroy);
    throw killed ?? new VerbsError('ESRCH', verb, `process ${name} has ended`);
  }

  private *createWindow(pd: number): Sim<MemoryWindow> {
    return { pd, rkey: yield* this.commands.run('alloc_mw', CMD_ALLOC_MW, [pd]) };
  }

  private *createQueue(entries: number, channel?: CompletionChannel): Sim<CompletionQueue> {
    const cqn = yield* this.commands.run('create_cq', CMD_CREATE_CQ, [entries]);
    const { bus, costs } = this.device;
    const queue = new CompletionQueue(bus, cqn, entries, costs.pollPs, channel);
    this.device.addCompletionQueue(queue, this);
    return queue;
  }

  private *createReceiveQueue(
    pd: number,
    entries: number,
    limit: number,
    maxSge: number,
  ): Sim<SharedReceiveQueue> {
    const srqn = yield* this.commands.run('create_srq', CMD_CREATE_SRQ, [pd, entries, limit]);
    this.device.addSharedReceiveQueue(srqn, this);
    return { srqn, pd, receives: new PostedReceives(entries, maxSge) };
  }

  private *createQueuePair(pd: number, plan: QueuePairPlan): Sim<QueuePair> {
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
    this.device.addQueuePair(qp, this);
    return qp;
  }

  /** A protection domain is named by its process alone: a handle of uverbs belongs to its file. */
  private checkDomain(verb: string, pd: number): void {
    if (!this.device.isForeignDomain(pd, this)) return;
    throw new VerbsError('EINVAL', verb, `protection domain ${pd} is not this process'`);
  }

  private noteAsyncEvent(event: AsyncEvent): void {
    this.asyncEvents.push(event);
    const arrival = this.asyncArrival;
    this.asyncArrival = new Completion<void>(arrival.purpose);
    arrival.resolve();
  }
}

function checkLimit(verb: string, name: string, value: number, limit: number): void {
  if (Number.isInteger(value) && value >= 0 && value <= limit) return;
  throw new VerbsError('EINVAL', verb, `${name} is ${value}, of at most ${limit}`);
}
