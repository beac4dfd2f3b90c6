/**
 * Reads the data of work requests ahead of their packets: from scatter/gather entries to bursts.
 *
 * Owns where reading stands in the send queue and the requester's page fault in flight. It reads in
 * the order of the queue and stops at a work request that waits for a fence, because what that one
 * sends may be what a READ before it has still to bring. Does not own when packets leave
 * (`requester.ts`).
 */
import {
  BURST_MAX_BYTES,
  MAX_SGE,
  type TimePs,
  WC_LOC_PROT_ERR,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { Gather } from '../dma/gather.ts';
import type { FaultWaiter } from '../fault-engine.ts';
import type { Region } from '../memory/region.ts';
import { LOCAL_READ } from '../memory/translator.ts';
import type { Parts } from '../qp/parts.ts';
import type { QueuePair } from '../qp/queue-pair.ts';

export class ReadAhead implements FaultWaiter {
  readonly gather: Gather;
  /** Where reading stands: a position of the send queue, and a byte of it. */
  private work = 0;
  private offset = 0;
  private isFaulted = false;
  /** The work request whose buffer met the fault in flight. */
  private faultedWork = 0;
  /** Whether reading stopped at a fence. */
  private isHeld = false;
  private readonly bursts = new Int32Array(MAX_SGE);

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {
    this.gather = new Gather(parts.profile.gatherBursts, parts.pool, parts.bus, parts.tags, (now) =>
      qp.activate(now),
    );
  }

  /** Goes on at byte `offset` of `position`; what was read is dropped. */
  restart(position: number, offset: number): void {
    this.gather.discard();
    this.goTo(position, offset);
  }

  /** Goes on reading as far as the gather has room and pages are there. */
  fetch(readyPs: TimePs): void {
    const { qp, gather } = this;
    const queue = qp.sendQueue;
    const { requester } = qp;
    if (this.work < queue.next) this.goTo(queue.next, requester.sentBytes);
    const end = Math.min(queue.tail, requester.drain.limit);
    this.isHeld = false;
    while (!gather.isFull && !this.isFaulted && this.work < end) {
      const row = queue.at(this.work);
      if (!qp.canRequest || queue.problem[row] !== WC_SUCCESS) return;
      const length = queue.bytesToRead(row);
      if (this.offset >= length) {
        this.goTo(this.work + 1, 0);
        continue;
      }
      if (queue.isFenced(row)) {
        this.isHeld = true;
        return;
      }
      const bytes = Math.min(BURST_MAX_BYTES, length - this.offset);
      const isAsked =
        queue.entries[row] === 0
          ? this.one(row, bytes, readyPs)
          : this.several(row, bytes, readyPs);
      if (!isAsked) return;
      this.offset += bytes;
    }
  }

  /** A READ or atomic has been answered, for which a fence may have waited. */
  release(now: TimePs): void {
    if (this.isHeld) this.fetch(now);
  }

  onResume(ok: boolean, now: TimePs): void {
    this.isFaulted = false;
    const queue = this.qp.sendQueue;
    // A queue pair that has been reset meanwhile has other machines.
    if (this.qp.requester.readAhead !== this) return;
    // It may have been acknowledged meanwhile, if it had been sent before.
    const isPending = this.faultedWork >= queue.head && this.faultedWork < queue.tail;
    if (!ok && isPending) queue.problem[queue.at(this.faultedWork)] = WC_LOC_PROT_ERR;
    this.fetch(now);
    this.qp.activate(now);
  }

  private goTo(position: number, offset: number): void {
    this.work = position;
    this.offset = offset;
  }

  /** Asks for the next `bytes` of a work request with one entry; false when they cannot be had. */
  private one(row: number, bytes: number, readyPs: TimePs): boolean {
    const { qp, parts } = this;
    const queue = qp.sendQueue;
    const address = queue.localAddress[row];
    const length = queue.length[row];
    const lkey = queue.lkey[row];
    const region = parts.translator.check(lkey, qp.pd.number, address, length, LOCAL_READ);
    if (region === undefined) {
      queue.problem[row] = WC_LOC_PROT_ERR;
      return false;
    }
    const burst = parts.translator.gather(parts.pool, region, address + this.offset, bytes);
    if (burst === 0) {
      this.fault(region, address + length, readyPs);
      return false;
    }
    const sendPs = readyPs + parts.translator.latencyPs;
    this.gather.request(sendPs, burst, this.work, this.offset, 0, 0, 0, 0, 0);
    return true;
  }

  /** The same for one with several: each entry that the bytes touch gives a piece. */
  private several(row: number, bytes: number, readyPs: TimePs): boolean {
    const { qp, parts, bursts } = this;
    const { scatterLists: list, entries, problem } = qp.sendQueue;
    let count = 0;
    let latencyPs = 0;
    let skip = this.offset;
    let left = bytes;
    for (let i = 0; i < entries[row] && left > 0; i++) {
      const length = list.length(row, i);
      const piece = Math.min(left, length - skip);
      if (piece <= 0) {
        skip -= length;
        continue;
      }
      const address = list.address(row, i);
      const pd = qp.pd.number;
      const region = parts.translator.check(list.lkey(row, i), pd, address, length, LOCAL_READ);
      const burst =
        region === undefined
          ? 0
          : parts.translator.gather(parts.pool, region, address + skip, piece);
      if (burst === 0) {
        while (count > 0) parts.pool.releaseBurst(bursts[--count]);
        if (region === undefined) problem[row] = WC_LOC_PROT_ERR;
        else this.fault(region, address + length, readyPs);
        return false;
      }
      bursts[count++] = burst;
      latencyPs = Math.max(latencyPs, parts.translator.latencyPs);
      left -= piece;
      skip = 0;
    }
    this.gather.requestPieces(readyPs + latencyPs, bursts, count, this.work, this.offset, bytes);
    return true;
  }

  /** A page of the buffer that ends at `end` is not there: sending stands still until it is. */
  private fault(region: Region, end: number, readyPs: TimePs): void {
    const { qp, parts } = this;
    const missed = parts.translator.missAddress;
    this.isFaulted = true;
    this.faultedWork = this.work;
    qp.requester.beginStall(readyPs);
    parts.faults.raise(region, missed, end - missed, false, false, qp.qpn, this, parts.node.now);
  }
}
