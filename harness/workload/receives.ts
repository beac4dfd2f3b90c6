/**
 * The receives that a host's program owes its peer: on the queue pairs of operations that consume
 * them, and on shared receive queues.
 */
import type { Host, ScatterEntry, Sim, WorkCompletion } from '../../kernel/index.ts';
import { CQE_WITH_INVALIDATE, EVENT_SRQ_LIMIT_REACHED } from '../../transport/index.ts';
import { consumesReceive, isSend } from '../scenario/operation-schema.ts';
import { offsetOf, placesOf } from '../scenario/ranges.ts';
import type { OperationSpec, QueuePairSpec, SharedReceiveQueueSpec } from '../scenario/schema.ts';
import type { Buffers } from './buffers.ts';
import type { Endpoint } from './endpoint.ts';
import { piecesOf } from './work-request.ts';

/** Receives posted ahead of the sends that consume them. */
const POSTED_RECEIVES = 512;

/** Receives of an operation that may be posted at once. */
export function receivesAhead({ kind, count }: OperationSpec): number {
  return consumesReceive(kind) ? Math.min(count, POSTED_RECEIVES) : 0;
}

export class Receives {
  /** `onInvalidated` hears of each key that a message has invalidated. */
  constructor(
    private readonly host: Host,
    private readonly endpoint: Endpoint,
    private readonly buffers: Buffers,
    private readonly onInvalidated: (rkey: number) => void,
  ) {}

  /** Posts those of an operation of the peer; ends when enough are posted to begin. */
  *postFor(operation: OperationSpec, pair: QueuePairSpec): Sim<void> {
    const { endpoint, host } = this;
    const { count, kind, queuePair, receiveSges } = operation;
    const target = this.buffers.named(operation.target.region);
    const places = placesOf(operation, 'target', pair, target.spec.sizeBytes);
    const mayLose = pair.type !== 'RC';
    const qp = endpoint.pair(queuePair);
    let posted = 0;
    const postNext = function* (this: Receives): Sim<void> {
      const k = posted++;
      const address = target.address + offsetOf(places, k);
      const buffer = { address, length: places.bytes, lkey: target.lkey };
      const sges = isSend(kind) ? piecesOf(buffer, receiveSges) : [];
      yield* endpoint.postReceive(qp, sges, mayLose, (done) => {
        this.take(done, `receive ${k} on '${queuePair}'`);
        if (posted < count || mayLose) host.spawn('receive', postNext.call(this));
      });
    };
    while (posted < receivesAhead(operation)) yield* postNext.call(this);
  }

  /**
   * Fills a shared receive queue of this host. A receive that was consumed is posted again at once,
   * or, where the scenario has a limit, with all others when the event says that few are left.
   */
  *fill(spec: SharedReceiveQueueSpec): Sim<void> {
    const free = Array.from({ length: spec.entries }, (_, slot) => slot);
    yield* this.refill(spec, free);
    if (spec.limit === 0) return;
    const { verbs } = this.host;
    const srq = this.endpoint.srq(spec.name);
    yield* verbs.modifySrq(srq, spec.limit);
    const refillAtLimit = function* (this: Receives): Sim<void> {
      for (;;) {
        const { event, number } = yield* verbs.nextAsyncEvent();
        if (event !== EVENT_SRQ_LIMIT_REACHED || number !== srq.srqn) continue;
        yield* this.refill(spec, free);
        yield* verbs.modifySrq(srq, spec.limit);
      }
    };
    this.host.spawn('shared receive queue', refillAtLimit.call(this));
  }

  private *refill(spec: SharedReceiveQueueSpec, free: number[]): Sim<void> {
    const srq = this.endpoint.srq(spec.name);
    const { address, lkey } = this.buffers.named(spec.region);
    for (let slot = free.shift(); slot !== undefined; slot = free.shift()) {
      const place = slot;
      const { slotBytes: length } = spec;
      const sges: ScatterEntry[] = [{ address: address + place * length, length, lkey }];
      yield* this.endpoint.postReceive(srq, sges, true, (done) => {
        this.take(done, `a receive of '${spec.name}'`);
        free.push(place);
        if (spec.limit === 0) this.host.spawn('receive', this.refill(spec, free));
      });
    }
  }

  private take(completion: WorkCompletion, what: string): void {
    this.endpoint.requireSuccess(completion, what);
    if (completion.flags & CQE_WITH_INVALIDATE) this.onInvalidated(completion.immediate);
  }
}
