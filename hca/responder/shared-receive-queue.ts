/**
 * A shared receive queue: receives for whichever of its queue pairs needs one next.
 *
 * A receive belongs to a queue pair from the first packet of its message on and never comes back, so
 * messages of several queue pairs may arrive packet by packet in between each other. The limit warns
 * once, when fewer receives are left (IBV_EVENT_SRQ_LIMIT_REACHED).
 */
import { EVENT_SRQ_LIMIT_REACHED, type TimePs } from '../../transport/index.ts';
import type { Parts } from '../qp/parts.ts';
import { type ReceiveBuffer, ReceiveQueue } from './receive-queue.ts';

export class SharedReceiveQueue extends ReceiveQueue {
  /** `pd` is the protection domain it was created in; `limit` as in `setLimit`. */
  constructor(
    readonly srqn: number,
    readonly pd: number,
    readonly entries: number,
    private limit: number,
    private readonly parts: Parts,
  ) {
    super(entries, parts.trailer);
  }

  override get isShared(): boolean {
    return true;
  }

  /** Warns when fewer receives than `limit` are left, once; 0 disarms. */
  setLimit(limit: number): void {
    this.limit = limit;
  }

  override take(into: ReceiveBuffer, now: TimePs): void {
    super.take(into, now);
    if (this.count >= this.limit) return;
    this.limit = 0;
    this.parts.bus.asyncEvent(now, EVENT_SRQ_LIMIT_REACHED, this.srqn);
  }
}
