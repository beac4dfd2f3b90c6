/**
 * Page faults of the adapter: from a missing translation to the event, and from the resume to the
 * queue pair running again.
 *
 * Owns the faults in flight and their tokens. A queue pair has at most one fault of each kind in
 * flight (requester or responder; NPF allows four with reads and writes apart), and a fault that
 * another queue pair already raised for the same page joins it instead of being reported twice. What
 * the peer sees meanwhile is the queue pair's business, not this file's.
 */
import {
  ACCESS_READ,
  ACCESS_WRITE,
  assert,
  type Engine,
  FAULT_AT_RESPONDER,
  type Node,
  RECORD_FAULT,
  type TimePs,
  TimerQueue,
} from '../transport/index.ts';
import { C } from './counters.ts';
import type { BusPort } from './dma/bus-port.ts';
import type { Region } from './memory/region.ts';
import type { HcaProfile } from './profile.ts';

/** What met the fault: a machine of a queue pair that waits for the page. */
export interface FaultWaiter {
  /** The pages are there (`ok`), or cannot be had. */
  onResume(ok: boolean, now: TimePs): void;
}

/** One fault in flight. */
interface Fault {
  readonly region: Region;
  /** As the host knows it. */
  readonly address: number;
  readonly bytes: number;
  readonly qpn: number;
  readonly firstPage: number;
  readonly lastPage: number;
  readonly access: number;
  readonly waiters: FaultWaiter[];
  /** Whether the driver has answered, and what it said. */
  isResumed: boolean;
  ok: boolean;
}

export class FaultEngine implements Engine {
  private readonly faults: (Fault | undefined)[] = [undefined];
  private readonly freeTokens: number[] = [];
  /** Firmware at work: token * 2 for an event to be raised, token * 2 + 1 for a queue pair to wake. */
  private readonly firmware = new TimerQueue();
  private readonly slot: number;

  constructor(
    private readonly node: Node,
    private readonly bus: BusPort,
    private readonly profile: HcaProfile,
    private readonly counters: Float64Array,
  ) {
    this.slot = node.addEngine(this);
  }

  /**
   * `waiter` of queue pair `qpn` needs `bytes` at `address` of `region`, to be written or read. The
   * caller has no other fault in flight.
   */
  raise(
    region: Region,
    address: number,
    bytes: number,
    write: boolean,
    atResponder: boolean,
    qpn: number,
    waiter: FaultWaiter,
    now: TimePs,
  ): void {
    const at = address + region.bias;
    const firstPage = Math.floor(at / 4096);
    const lastPage = Math.floor((at + Math.max(bytes, 1) - 1) / 4096);
    const need = write ? ACCESS_WRITE : ACCESS_READ;
    for (let token = 1; token < this.faults.length; token++) {
      const fault = this.faults[token];
      if (fault === undefined || fault.region !== region || (fault.access & need) === 0) continue;
      if (firstPage >= fault.firstPage && firstPage <= fault.lastPage) {
        fault.waiters.push(waiter);
        return;
      }
    }
    const token = this.freeTokens.pop() ?? this.faults.length;
    const access = need | (atResponder ? FAULT_AT_RESPONDER : 0);
    this.faults[token] = {
      region,
      address: at,
      bytes,
      firstPage,
      lastPage,
      access,
      qpn,
      waiters: [waiter],
      isResumed: false,
      ok: true,
    };
    this.counters[
      atResponder ? C.odp_remote_triggered_page_fault : C.odp_local_triggered_page_fault
    ]++;
    const digest = this.node.digest;
    digest.record(RECORD_FAULT, now, region.key, access, firstPage | 0, lastPage - firstPage);
    const raisePs =
      this.profile.faultRaisePs + (lastPage - firstPage) * this.profile.faultRaisePerPagePs;
    this.wake(now + raisePs, token * 2);
  }

  /** The driver says that the fault with `token` is served, or (not `ok`) that it cannot be. */
  resume(token: number, ok: boolean, now: TimePs): void {
    const fault = this.faults[token];
    const isInFlight = fault !== undefined && !fault.isResumed;
    assert(isInFlight, 'resume of a token that is not in flight', this.node);
    fault.isResumed = true;
    fault.ok = ok;
    this.wake(now + this.profile.faultResumePs, token * 2 + 1);
  }

  fire(now: TimePs): void {
    const due = this.firmware.take();
    this.node.queue.arm(this.slot, this.firmware.nextTime());
    const token = due >> 1;
    const fault = this.faults[token] as Fault;
    if ((due & 1) === 0) {
      const { region, qpn, access, address, bytes } = fault;
      this.bus.pageFault(now, token, region.key, qpn, access, address, bytes);
      return;
    }
    this.faults[token] = undefined;
    this.freeTokens.push(token);
    for (const waiter of fault.waiters) waiter.onResume(fault.ok, now);
  }

  /** Faults in flight: none may be left at the end of a run. */
  get inFlight(): number {
    return this.faults.length - 1 - this.freeTokens.length;
  }

  private wake(at: TimePs, due: number): void {
    this.firmware.add(at, due);
    this.node.queue.arm(this.slot, this.firmware.nextTime());
  }
}
