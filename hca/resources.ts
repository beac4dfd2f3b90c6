/**
 * What the driver has created in the adapter: protection domains, keys, completion queues, queue
 * pairs. Numbers are given in order of creation, so both ends of a connection can foretell them.
 */
import {
  ANNOUNCE_PD_RESUME,
  ANNOUNCE_PD_SUSPEND,
  CMD_BAD_RESOURCE,
  CMD_BUSY,
  CMD_OK,
  QPS_ERR,
  QPS_RESET,
  type TimePs,
  WC_SUCCESS,
} from '../transport/index.ts';
import { CompletionEvents, type CompletionUsers } from './cq/completion-events.ts';
import { CompletionQueue } from './cq/completion-queue.ts';
import type { MkeyTable } from './memory/region.ts';
import type { Parts, ProtectionDomain } from './qp/parts.ts';
import { type QpInit, QueuePair } from './qp/queue-pair.ts';
import { SharedReceiveQueue } from './responder/shared-receive-queue.ts';

/** QPN of the first queue pair; 0 and 1 are the management queue pairs, rxe starts at 0x11 too. */
export const FIRST_QPN = 0x11;

export class Resources implements CompletionUsers {
  readonly queuePairs: QueuePair[] = [];
  private readonly pds: (ProtectionDomain | undefined)[] = [undefined];
  private readonly cqs: (CompletionQueue | undefined)[] = [undefined];
  private readonly srqs: (SharedReceiveQueue | undefined)[] = [undefined];
  private parts!: Parts;
  private completionEvents!: CompletionEvents;

  constructor(readonly mkeys: MkeyTable) {}

  /** Completes construction: queue pairs need the parts, and one of the parts needs this. */
  connect(parts: Parts): void {
    this.parts = parts;
    this.completionEvents = new CompletionEvents(parts.node, parts.bus, this);
  }

  allocatePd(): number {
    this.pds.push({ number: this.pds.length, suspended: false });
    return this.pds.length - 1;
  }

  hasPd(pd: number): boolean {
    return this.pds[pd] !== undefined;
  }

  /** Refused (CMD_BUSY) while a region or queue pair belongs to it. */
  deallocatePd(pd: number): number {
    if (!this.hasPd(pd)) return CMD_BAD_RESOURCE;
    const isUsed =
      this.mkeys.isUsed(pd) ||
      this.srqs.some((srq) => srq?.pd === pd) ||
      this.queuePairs.some((qp) => qp.pd.number === pd && !qp.isDestroyed);
    if (isUsed) return CMD_BUSY;
    this.pds[pd] = undefined;
    return CMD_OK;
  }

  createCq(entries: number): number {
    const cqn = this.cqs.length;
    this.cqs.push(new CompletionQueue(cqn, entries, this.parts.bus, this.completionEvents));
    return cqn;
  }

  findCq(cqn: number): CompletionQueue | undefined {
    return this.cqs[cqn];
  }

  failUsers(cq: CompletionQueue, now: TimePs): void {
    for (const qp of this.usersOf(cq)) qp.overrun(now);
  }

  /** Refused (CMD_BUSY) while a queue pair completes into it. */
  destroyCq(cqn: number): number {
    const cq = this.cqs[cqn];
    if (cq === undefined) return CMD_BAD_RESOURCE;
    if (this.usersOf(cq).length > 0) return CMD_BUSY;
    this.cqs[cqn] = undefined;
    return CMD_OK;
  }

  createSrq(pd: number, entries: number, limit: number): number {
    const srqn = this.srqs.length;
    this.srqs.push(new SharedReceiveQueue(srqn, pd, entries, limit, this.parts));
    return srqn;
  }

  findSrq(srqn: number): SharedReceiveQueue | undefined {
    return this.srqs[srqn];
  }

  /** Refused (CMD_BUSY) while a queue pair takes its receives from it. */
  destroySrq(srqn: number): number {
    const srq = this.srqs[srqn];
    if (srq === undefined) return CMD_BAD_RESOURCE;
    if (this.queuePairs.some((qp) => !qp.isDestroyed && qp.srq === srq)) return CMD_BUSY;
    this.srqs[srqn] = undefined;
    return CMD_OK;
  }

  createQueuePair(pd: number, init: QpInit): QueuePair | undefined {
    const domain = this.pds[pd];
    if (domain === undefined) return undefined;
    const index = this.queuePairs.length;
    const qp = new QueuePair(index, FIRST_QPN + index, domain, init, this.parts);
    this.queuePairs.push(qp);
    this.parts.timers.addQueuePair();
    return qp;
  }

  /** The queue pair with this number, or undefined. */
  findQueuePair(qpn: number): QueuePair | undefined {
    const qp = this.queuePairs[qpn - FIRST_QPN];
    return qp === undefined || qp.isDestroyed ? undefined : qp;
  }

  destroyQueuePair(qpn: number, now: TimePs): number {
    const qp = this.findQueuePair(qpn);
    if (qp === undefined) return CMD_BAD_RESOURCE;
    qp.isDestroyed = true;
    if (qp.state !== QPS_ERR) qp.fail(WC_SUCCESS, now);
    qp.state = QPS_RESET;
    return CMD_OK;
  }

  /**
   * Stops every queue pair of `pd`. Memory requests already sent are ahead of the answer on the bus,
   * so they have reached memory when the driver sees it; cached translations are dropped here.
   */
  suspend(pd: number, now: TimePs): number {
    const domain = this.pds[pd];
    if (domain === undefined) return CMD_BAD_RESOURCE;
    domain.suspended = true;
    this.mkeys.forEachOf(pd, (region) => this.parts.translator.forget(region));
    for (const qp of this.queuePairsOf(pd)) {
      qp.requester.beginStall(now);
      if (this.parts.port.announcesSuspend) qp.announce(ANNOUNCE_PD_SUSPEND, now);
    }
    return CMD_OK;
  }

  /** Lets the queue pairs of `pd` run again, from where they stand. */
  resume(pd: number, now: TimePs): number {
    const domain = this.pds[pd];
    if (domain === undefined) return CMD_BAD_RESOURCE;
    domain.suspended = false;
    for (const qp of this.queuePairsOf(pd)) {
      if (this.parts.port.announcesSuspend) qp.announce(ANNOUNCE_PD_RESUME, now);
      qp.completer.onPdResume(now);
      qp.requester.readAhead.fetch(now);
      qp.responder.answers?.fetch(now);
      qp.activate(now);
    }
    return CMD_OK;
  }

  private usersOf(cq: CompletionQueue): QueuePair[] {
    return this.queuePairs.filter(
      ({ isDestroyed, init }) => !isDestroyed && (init.sendCq === cq || init.receiveCq === cq),
    );
  }

  private queuePairsOf(pd: number): QueuePair[] {
    return this.queuePairs.filter((qp) => qp.pd.number === pd && !qp.isDestroyed);
  }
}
