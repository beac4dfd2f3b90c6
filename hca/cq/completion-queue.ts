/**
 * A completion queue: entries that queue pairs post and the host takes out, and when the host is
 * woken (IBTA 11.4.2, and 11.2.8 for the event).
 *
 * Entries are counted from creation; CQ_DOORBELL says how many the host has taken. Does not own
 * what happens to the queue pairs of a queue that has overflowed (`completion-events.ts`).
 */
import {
  CQ_ARM_NEXT,
  CQE_SOLICITED,
  NEVER,
  type TimePs,
  US,
  WC_SUCCESS,
} from '../../transport/index.ts';
import type { BusPort } from '../dma/bus-port.ts';
import type { CompletionEvents } from './completion-events.ts';

export class CompletionQueue {
  /** True once it has overflowed: nothing is posted any more. */
  isInError = false;
  /** When an event is due because entries have waited long enough, or NEVER. */
  eventDuePs: TimePs = NEVER;
  /** Entries posted, and of those the ones that the host has taken; modulo 2^32. */
  private posted = 0;
  private taken = 0;
  /** Entries up to the last that was solicited or failed. */
  private solicitedEnd = 0;
  /** CQ_ARM_* of the event that the host waits for, or 0. */
  private arm = 0;
  /** Entries since it was armed that the event is for. */
  private news = 0;
  private count = 0;
  private periodPs: TimePs = 0;

  constructor(
    readonly cqn: number,
    readonly entries: number,
    private readonly bus: BusPort,
    private readonly events: CompletionEvents,
  ) {}

  /**
   * MODIFY_CQ: the event comes with the `count`th entry after arming, or `periodUs` after the first
   * one, whichever is sooner; 0 leaves that condition out. Without either, each entry is enough.
   */
  moderate(count: number, periodUs: number): void {
    this.count = count;
    this.periodPs = periodUs * US;
  }

  /**
   * CQ_DOORBELL: the host has taken `taken` entries in all; `arm` (CQ_ARM_*) asks for an event.
   *
   * Entries that were on their way to the host when it asked are news to it, or it would sleep on
   * what it has: that is why real adapters, too, get the consumer index together with the request.
   */
  doorbell(taken: number, arm: number, now: TimePs): void {
    // A host cannot take what has not been posted, nor put anything back.
    if ((taken - this.taken) >>> 0 <= (this.posted - this.taken) >>> 0) this.taken = taken | 0;
    if (arm === 0) return;
    // Asking for solicited entries alone does not take back what was asked before.
    if (this.arm !== CQ_ARM_NEXT) this.arm = arm;
    const from = this.arm === CQ_ARM_NEXT ? this.posted : this.solicitedEnd;
    this.news = Math.max(0, (from - this.taken) | 0);
    if (this.news > 0) this.raiseWhenDue(now);
  }

  /** Posts an entry, which overflows a full queue. */
  post(
    readyPs: TimePs,
    qpn: number,
    wrId: number,
    status: number,
    opcode: number,
    byteLen: number,
    immediate: number,
    flags: number,
    sourceQpn: number,
    slid: number,
  ): void {
    if (this.isInError) return;
    if ((this.posted - this.taken) >>> 0 >= this.entries) {
      this.isInError = true;
      this.events.overflowed(this);
      return;
    }
    this.posted = (this.posted + 1) | 0;
    this.bus.completion(
      readyPs,
      this.cqn,
      qpn,
      wrId,
      status,
      opcode,
      byteLen,
      immediate,
      flags,
      sourceQpn,
      slid,
    );
    const isFailure = status !== WC_SUCCESS;
    if (isFailure || (flags & CQE_SOLICITED) !== 0) this.solicitedEnd = this.posted;
    if (this.arm !== 0) this.notice(readyPs, isFailure, flags);
  }

  /** Tells the host that there are entries; it must arm the queue again to be told once more. */
  raise(readyPs: TimePs): void {
    this.arm = 0;
    this.news = 0;
    this.eventDuePs = NEVER;
    this.bus.completionEvent(readyPs, this.cqn);
  }

  /** An entry came while the queue is armed. */
  private notice(readyPs: TimePs, isFailure: boolean, flags: number): void {
    const isWanted = this.arm === CQ_ARM_NEXT || isFailure || (flags & CQE_SOLICITED) !== 0;
    if (!isWanted) return;
    this.news++;
    this.raiseWhenDue(readyPs);
  }

  /** There is news: now, after more of it, or after a while the host is told. */
  private raiseWhenDue(readyPs: TimePs): void {
    const isEnough = this.count === 0 ? this.periodPs === 0 : this.news >= this.count;
    if (isEnough) this.raise(readyPs);
    else if (this.periodPs > 0 && this.eventDuePs === NEVER) {
      this.eventDuePs = readyPs + this.periodPs;
      this.events.wakeAt(this.eventDuePs, this);
    }
  }
}
