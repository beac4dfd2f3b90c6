/**
 * Posting work requests and handing completions to whoever posted: the part of a program that every
 * RDMA library has.
 *
 * Owns work request ids. A work request that is not signalled is done when a later one of its queue
 * pair completes. A *standing* receive may never complete: those of shared receive queues and of
 * services that lose messages.
 */
import {
  Completion,
  type CompletionQueue,
  type Host,
  type QueuePair,
  type ScatterEntry,
  type SendRequest,
  type SharedReceiveQueue,
  type Sim,
  VerbsError,
  type WorkCompletion,
  wait,
} from '../../kernel/index.ts';
import { assert, CQE_RECEIVE } from '../../transport/index.ts';

export type Work = Omit<SendRequest, 'wrId'>;
export type CompletionHandler = (completion: WorkCompletion) => void;

export class Posting {
  private readonly handlers = new Map<number, CompletionHandler>();
  private readonly standing = new Set<number>();
  /** Ids of each queue pair's send-queue work requests that are not done, as posted. */
  private readonly order = new Map<number, number[]>();
  private nextWorkRequest = 1;
  /** Resolved by the next completion, where somebody waits for room in a work queue. */
  private room: Completion<void> | undefined;

  constructor(
    private readonly host: Pick<Host, 'verbs' | 'node'>,
    private readonly queue: CompletionQueue,
  ) {}

  /** Work requests that are posted and must complete. */
  get outstanding(): number {
    return this.handlers.size - this.standing.size;
  }

  /** Posts to a send queue; `onDone` hears of the completion that says it is done. */
  *send(qp: QueuePair, request: Work, onDone: CompletionHandler): Sim<void> {
    const wrId = this.allocateId(onDone);
    yield* this.whenRoom(() => this.host.verbs.postSend(qp, { ...request, wrId }));
    const order = this.order.get(qp.qpn);
    if (order) order.push(wrId);
    else this.order.set(qp.qpn, [wrId]);
  }

  /** Posts to a receive queue, own or shared. */
  *receive(
    queue: QueuePair | SharedReceiveQueue,
    sges: readonly ScatterEntry[],
    isStanding: boolean,
    onDone: CompletionHandler,
  ): Sim<void> {
    const { verbs } = this.host;
    const wrId = this.allocateId(onDone);
    if (isStanding) this.standing.add(wrId);
    const request = { wrId, sges };
    yield* this.whenRoom(() =>
      'srqn' in queue ? verbs.postSrqRecv(queue, request) : verbs.postRecv(queue, request),
    );
  }

  /** Hands completions to their handlers while `goesOn`, and does `afterwards` after each. */
  *dispatch(goesOn: () => boolean, afterwards: () => Sim<void>): Sim<void> {
    const { queue } = this;
    while (goesOn()) {
      const completion = yield* queue.channel ? queue.nextByEvent() : queue.next();
      if ((completion.flags & CQE_RECEIVE) === 0) this.finishEarlier(completion);
      this.finish(completion.wrId, completion);
      this.room?.resolve();
      this.room = undefined;
      yield* afterwards();
    }
  }

  /** Ends the requests that were posted before the one that has completed. */
  private finishEarlier(completion: WorkCompletion): void {
    const order = this.order.get(completion.qpn);
    for (;;) {
      const wrId = order?.shift();
      if (wrId === undefined || wrId === completion.wrId) return;
      this.finish(wrId, completion);
    }
  }

  private finish(wrId: number, completion: WorkCompletion): void {
    const handler = this.handlers.get(wrId);
    assert(
      handler !== undefined,
      `work request ${wrId} completes twice or was never posted`,
      this.host.node,
    );
    this.handlers.delete(wrId);
    this.standing.delete(wrId);
    handler(completion);
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

  private allocateId(handler: CompletionHandler): number {
    const id = this.nextWorkRequest++;
    this.handlers.set(id, handler);
    return id;
  }
}
