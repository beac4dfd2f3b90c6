/**
 * The adapter as the driver of a host sees it, whichever process uses it: the way to it, and which
 * process each of its objects belongs to (ib_device and its uverbs device).
 *
 * Each process opens the device and gets a context (`verbs.ts`) with objects of its own. Numbers of
 * queue pairs, completion queues and shared receive queues are never given twice, so the owner of one
 * stays known when it is destroyed. Does not own regions (`region-book.ts`) nor what a verb does.
 */
import {
  EVENT_CQ_ERR,
  EVENT_SRQ_ERR,
  EVENT_SRQ_LIMIT_REACHED,
  RECORD_COMPLETION,
} from '../../transport/index.ts';
import type { HostCosts } from '../costs.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { subscribeOrFail } from '../rx/subscribe.ts';
import type { PostponedPolicy } from '../umem/postponed-policy.ts';
import type { AdapterBus } from './adapter-bus.ts';
import type { Commands } from './commands.ts';
import type { CompletionQueue } from './completion-queue.ts';
import type { AsyncEvent, BusEvents, CompletionEntry } from './events.ts';
import { MessageLog } from './message-log.ts';
import type { QueuePair } from './queue-pair.ts';
import { RegionBook } from './region-book.ts';

/** A process that has the device open, as the device knows it. */
export interface DeviceUser {
  readonly mm: AddressSpace;
}

/** What the driver knows of the adapter's class. */
export interface DeviceTraits {
  /** Regions may have no holes and never change once registered (see HcaProfile.fixedRegions). */
  readonly fixedRegions: boolean;
  /** What on-demand regions of the prototype of 2011 do (umem/postponed.ts); today's regions without. */
  readonly postponed?: PostponedPolicy | undefined;
}

export class Device {
  /** Asynchronous events that have come, in order. */
  readonly asyncEvents: AsyncEvent[] = [];
  /** Every queue pair there ever was, in order of creation. */
  readonly allQueuePairs: QueuePair[] = [];
  readonly regions = new RegionBook();
  readonly log: MessageLog;
  private readonly queuePairs = new Map<number, QueuePair>();
  private readonly completionQueues = new Map<number, CompletionQueue>();
  // Owners; a domain has one while it exists, the others for ever.
  private readonly domains = new Map<number, DeviceUser>();
  private readonly queuePairOwners = new Map<number, DeviceUser>();
  private readonly queueOwners = new Map<number, DeviceUser>();
  private readonly srqOwners = new Map<number, DeviceUser>();

  /** `firstMm` sees what belongs to nobody who is known. `verify`: messages are hashed. */
  constructor(
    readonly bus: AdapterBus,
    readonly commands: Commands,
    readonly events: BusEvents,
    readonly costs: HostCosts,
    readonly traits: DeviceTraits,
    private readonly firstMm: AddressSpace,
    verify: boolean,
  ) {
    this.log = new MessageLog(bus.node, this.queuePairs, (qpn) => this.mmOf(qpn), verify);
    subscribeOrFail(bus.node, events.completions$, (entry) => this.complete(entry));
    subscribeOrFail(bus.node, events.asyncEvents$, (event) => {
      this.asyncEvents.push(event);
    });
    subscribeOrFail(bus.node, events.completionEvents$, (cqn) =>
      this.completionQueues.get(cqn)?.notify(),
    );
  }

  addDomain(pd: number, owner: DeviceUser): void {
    this.domains.set(pd, owner);
  }

  removeDomain(pd: number): void {
    this.domains.delete(pd);
  }

  /** Whether protection domain `pd` is somebody else's than `user`'s. */
  isForeignDomain(pd: number, user: DeviceUser): boolean {
    return (this.domains.get(pd) ?? user) !== user;
  }

  addQueuePair(qp: QueuePair, owner: DeviceUser): void {
    this.queuePairs.set(qp.qpn, qp);
    this.queuePairOwners.set(qp.qpn, owner);
    this.allQueuePairs.push(qp);
  }

  removeQueuePair(qp: QueuePair): void {
    this.queuePairs.delete(qp.qpn);
  }

  addCompletionQueue(queue: CompletionQueue, owner: DeviceUser): void {
    this.completionQueues.set(queue.cqn, queue);
    this.queueOwners.set(queue.cqn, owner);
  }

  removeCompletionQueue(queue: CompletionQueue): void {
    this.completionQueues.delete(queue.cqn);
  }

  /** Whether completion queue `cqn` is somebody else's than `user`'s. */
  isForeignQueue(cqn: number, user: DeviceUser): boolean {
    return (this.queueOwners.get(cqn) ?? user) !== user;
  }

  addSharedReceiveQueue(srqn: number, owner: DeviceUser): void {
    this.srqOwners.set(srqn, owner);
  }

  /** Whose object an asynchronous event is about; undefined where nobody ever had it. */
  ownerOf({ event, number }: AsyncEvent): DeviceUser | undefined {
    switch (event) {
      case EVENT_CQ_ERR:
        return this.queueOwners.get(number);
      case EVENT_SRQ_ERR:
      case EVENT_SRQ_LIMIT_REACHED:
        return this.srqOwners.get(number);
      default:
        return this.queuePairOwners.get(number);
    }
  }

  /** The memory of the process that queue pair `qpn` belongs to. */
  private mmOf(qpn: number): AddressSpace {
    return this.queuePairOwners.get(qpn)?.mm ?? this.firstMm;
  }

  private complete({ cqn, work }: CompletionEntry): void {
    const { node } = this.bus;
    const queue = this.completionQueues.get(cqn);
    const qp = this.queuePairs.get(work.qpn);
    // A queue pair or queue may be destroyed with completions on their way.
    if (queue === undefined) return;
    node.digest.record(RECORD_COMPLETION, node.now, work.qpn, work.wrId, work.status, work.byteLen);
    if (qp !== undefined) {
      for (const posted of qp.retire(work)) this.log.addInitiator(qp, posted);
    }
    queue.push(work);
  }
}
