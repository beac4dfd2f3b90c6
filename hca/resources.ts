/**
 * What the driver has created in the adapter: protection domains, keys, completion queues, queue
 * pairs. Numbers are given in order of creation, so both ends of a connection can foretell them.
 */
import {
  CMD_BAD_RESOURCE,
  CMD_BUSY,
  CMD_OK,
  QPS_ERR,
  QPS_RESET,
  type TimePs,
  WC_SUCCESS,
} from '../transport/index.ts';
import type { MkeyTable } from './memory/region.ts';
import type { Parts, ProtectionDomain } from './qp/parts.ts';
import { QueuePair } from './qp/queue-pair.ts';

/** QPN of the first queue pair; 0 and 1 are the management queue pairs, rxe starts at 0x11 too. */
export const FIRST_QPN = 0x11;

export class Resources {
  readonly queuePairs: QueuePair[] = [];
  private readonly pds: (ProtectionDomain | undefined)[] = [undefined];
  private readonly cqs: boolean[] = [false];
  private parts: Parts | undefined;

  constructor(
    readonly mkeys: MkeyTable,
    private readonly lid: number,
  ) {}

  /** Completes construction: queue pairs need the parts, and one of the parts needs this. */
  connect(parts: Parts): void {
    this.parts = parts;
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
      this.mkeys.all.some((region) => region.alive && region.pd === pd) ||
      this.queuePairs.some((qp) => qp.pd.number === pd && !qp.isDestroyed);
    if (isUsed) return CMD_BUSY;
    this.pds[pd] = undefined;
    return CMD_OK;
  }

  createCq(): number {
    this.cqs.push(true);
    return this.cqs.length - 1;
  }

  hasCq(cqn: number): boolean {
    return this.cqs[cqn] === true;
  }

  destroyCq(cqn: number): number {
    if (!this.hasCq(cqn)) return CMD_BAD_RESOURCE;
    this.cqs[cqn] = false;
    return CMD_OK;
  }

  createQueuePair(
    pd: number,
    sendEntries: number,
    receiveEntries: number,
    sendCqn: number,
    receiveCqn: number,
  ): QueuePair | undefined {
    const domain = this.pds[pd];
    const parts = this.parts;
    if (domain === undefined || parts === undefined) return undefined;
    const index = this.queuePairs.length;
    const qp = new QueuePair(
      index,
      FIRST_QPN + index,
      domain,
      sendEntries,
      receiveEntries,
      sendCqn,
      receiveCqn,
      this.lid,
      parts,
    );
    this.queuePairs.push(qp);
    parts.timers.addQueuePair();
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
    if (qp.state !== QPS_ERR) qp.fail(WC_SUCCESS, now);
    qp.state = QPS_RESET;
    qp.isDestroyed = true;
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
    for (const region of this.mkeys.all) {
      if (region.alive && region.pd === pd) this.parts?.translator.forget(region);
    }
    for (const qp of this.queuePairsOf(pd)) qp.requester.beginStall(now);
    return CMD_OK;
  }

  /** Lets the queue pairs of `pd` run again, from where they stand. */
  resume(pd: number, now: TimePs): number {
    const domain = this.pds[pd];
    if (domain === undefined) return CMD_BAD_RESOURCE;
    domain.suspended = false;
    for (const qp of this.queuePairsOf(pd)) {
      qp.completer.onPdResume(now);
      qp.requester.fetch(now);
      qp.readResponder.fetch(now);
      qp.activate(now);
    }
    return CMD_OK;
  }

  private queuePairsOf(pd: number): QueuePair[] {
    return this.queuePairs.filter((qp) => qp.pd.number === pd && !qp.isDestroyed);
  }
}
