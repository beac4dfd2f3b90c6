/**
 * The verbs of a host: what its program calls (libibverbs), each a simulated computation that spends
 * CPU time and talks to the adapter.
 */
import {
  BUS_PD_RESUME,
  BUS_PD_SUSPEND,
  CMD_ALLOC_PD,
  CMD_CREATE_CQ,
  CMD_CREATE_QP,
  CMD_DEALLOC_PD,
  CMD_DESTROY_CQ,
  CMD_DESTROY_QP,
  CMD_MODIFY_QP,
  CMD_OK,
  CQE_RECEIVE,
  FRAME_WORDS,
  mtuCode,
  RECORD_COMPLETION,
  type TimePs,
  WC_SUCCESS,
} from '../../transport/index.ts';
import type { HostCosts } from '../costs.ts';
import { VerbsError } from '../errno.ts';
import { subscribeOrFail } from '../rx/subscribe.ts';
import type { Sim } from '../sched/completion.ts';
import type { AdapterBus } from './adapter-bus.ts';
import type { Commands } from './commands.ts';
import { CompletionQueue } from './completion-queue.ts';
import type { AsyncEvent, BusEvents, CompletionEntry } from './events.ts';
import type { MemoryRegion } from './memory-region.ts';
import type { MessageLog } from './message-log.ts';
import { QueuePair, type QueuePairAttributes } from './queue-pair.ts';
import type { Regions } from './regions.ts';
import type { ReceiveRequest, SendRequest } from './work.ts';

export class Verbs {
  /** Asynchronous events that have come, in order. */
  readonly asyncEvents: AsyncEvent[] = [];
  private readonly completionQueues = new Map<number, CompletionQueue>();
  private readonly queuePairs = new Map<number, QueuePair>();

  constructor(
    private readonly bus: AdapterBus,
    private readonly commands: Commands,
    events: BusEvents,
    private readonly regions: Regions,
    private readonly log: MessageLog,
    private readonly costs: HostCosts,
  ) {
    subscribeOrFail(bus.node, events.completions$, (entry) => this.complete(entry));
    subscribeOrFail(bus.node, events.asyncEvents$, (event) => this.asyncEvents.push(event));
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

  *deallocPd(pd: number): Sim<void> {
    yield* this.commands.run('dealloc_pd', CMD_DEALLOC_PD, [pd]);
  }

  *createCq(entries: number): Sim<CompletionQueue> {
    const cqn = yield* this.commands.run('create_cq', CMD_CREATE_CQ, [entries]);
    const queue = new CompletionQueue(this.bus.node, cqn, entries, this.costs.pollPs);
    this.completionQueues.set(cqn, queue);
    return queue;
  }

  *destroyCq(queue: CompletionQueue): Sim<void> {
    yield* this.commands.run('destroy_cq', CMD_DESTROY_CQ, [queue.cqn]);
    this.completionQueues.delete(queue.cqn);
  }

  /**
   * Registers memory: pinned, or on demand with ACCESS_ON_DEMAND.
   * @throws VerbsError ENOMEM (memlock limit), EFAULT (not accessible), EINVAL
   */
  regMr(pd: number, address: number, length: number, access: number): Sim<MemoryRegion> {
    return this.regions.register(pd, address, length, access);
  }

  deregMr(region: MemoryRegion): Sim<void> {
    return this.regions.deregister(region);
  }

  /** Prefetches pages of an on-demand region and sleeps until they are in. */
  adviseMr(region: MemoryRegion, address: number, length: number, write: boolean): Sim<void> {
    return this.regions.advise(region, address, length, write);
  }

  *createQp(
    pd: number,
    sendCq: CompletionQueue,
    recvCq: CompletionQueue,
    sendEntries: number,
    recvEntries: number,
  ): Sim<QueuePair> {
    const parameters = [pd, sendEntries, recvEntries, sendCq.cqn, recvCq.cqn];
    const qpn = yield* this.commands.run('create_qp', CMD_CREATE_QP, parameters);
    const qp = new QueuePair(this.bus, qpn, pd, sendCq, recvCq, sendEntries, recvEntries);
    this.queuePairs.set(qpn, qp);
    return qp;
  }

  /** Changes attributes; what is left out keeps its value (see QueuePair for the first ones). */
  *modifyQp(qp: QueuePair, changes: Partial<QueuePairAttributes>): Sim<void> {
    const all = { ...qp.attributes, ...changes };
    yield* this.commands.run('modify_qp', CMD_MODIFY_QP, [
      qp.qpn,
      all.state,
      (all.destQpn << 8) | mtuCode(all.mtuBytes),
      all.sendPsn,
      all.receivePsn,
      (all.timeout << 24) | (all.retryCnt << 16) | (all.rnrRetry << 8) | all.minRnrTimer,
      all.destLid,
      (all.maxRdAtomic << 8) | all.access,
    ]);
    qp.attributes = all;
  }

  *destroyQp(qp: QueuePair): Sim<void> {
    yield* this.commands.run('destroy_qp', CMD_DESTROY_QP, [qp.qpn]);
    this.queuePairs.delete(qp.qpn);
  }

  /**
   * Posts to the send queue. Returns the number of the message on this queue pair, from 1 (24 bits):
   * the responder's MSN when it completes.
   * @throws VerbsError ENOMEM when the send queue is full
   */
  *postSend(qp: QueuePair, request: SendRequest): Sim<number> {
    yield this.costs.postPs;
    return qp.ringSend(request);
  }

  /** Posts to the receive queue. @throws VerbsError ENOMEM when it is full */
  *postRecv(qp: QueuePair, request: ReceiveRequest): Sim<void> {
    yield this.costs.postPs;
    qp.ringReceive(request);
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
      if (work.flags & CQE_RECEIVE) qp.retireReceive();
      else this.retire(qp, work);
    }
    queue.push(work);
  }

  private retire(qp: QueuePair, work: CompletionEntry['work']): void {
    const { destQpn, destLid } = qp.attributes;
    for (const { request, message } of qp.retireSends(work)) {
      if (work.status !== WC_SUCCESS) continue;
      this.log.addInitiator(destQpn, destLid, message, request.localAddress, request.length);
    }
  }
}
