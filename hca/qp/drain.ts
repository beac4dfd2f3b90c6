/**
 * SQD: work that has been begun is finished, and nothing else is begun (IBTA 10.3.1.5).
 *
 * Owns where in the send queue sending ends and when the queue is drained. The state itself is the
 * queue pair's.
 */
import { EVENT_SQ_DRAINED, type TimePs } from '../../transport/index.ts';
import type { Parts } from './parts.ts';
import { psnDistance } from './psn.ts';
import type { QueuePair } from './queue-pair.ts';

const NO_LIMIT = Number.MAX_SAFE_INTEGER;

export class Drain {
  /** Positions of the send queue from here on are not begun. */
  limit = NO_LIMIT;
  /** Something that was begun is still to be finished (sq_draining). */
  isActive = false;

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {}

  /** MODIFY_QP to SQD. `isBegun`: packets of the work request at `sendQueue.next` have been sent. */
  begin(isBegun: boolean, now: TimePs): void {
    const queue = this.qp.sendQueue;
    let end = queue.next + (isBegun ? 1 : 0);
    // Sending may have gone back behind work that had been begun.
    while (end < queue.tail && this.hasBegun(queue.at(end))) end++;
    this.limit = end;
    this.isActive = true;
    this.check(now);
  }

  /** The queue pair leaves SQD. */
  end(): void {
    this.limit = NO_LIMIT;
    this.isActive = false;
  }

  /** A work request has completed, or none needs to: tells the host when that was the last. */
  check(now: TimePs): void {
    const { qp } = this;
    if (!this.isActive || qp.sendQueue.head < this.limit) return;
    this.isActive = false;
    if (qp.attributes.enSqdAsyncNotify !== 0) {
      this.parts.bus.asyncEvent(now, EVENT_SQ_DRAINED, qp.qpn);
    }
  }

  private hasBegun(row: number): boolean {
    const { sendQueue: queue, requester } = this.qp;
    if (queue.isLocal(row)) return queue.isDone[row] !== 0;
    return psnDistance(queue.firstPsn[row], requester.newPsn) < 0;
  }
}
