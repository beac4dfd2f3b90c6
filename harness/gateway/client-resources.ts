/**
 * What one control client has opened: a protection domain, queue pairs, regions, windows and shared
 * receive queues of its own, numbered as it likes, so that clients do not disturb each other.
 */
import {
  type CompletionChannel,
  type CompletionQueue,
  type Host,
  type MemoryRegion,
  type MemoryWindow,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type QueuePair,
  type SharedReceiveQueue,
  type Sim,
  VerbsError,
} from '../../kernel/index.ts';
import {
  ACCESS_ON_DEMAND,
  EVENT_CQ_ERR,
  EVENT_SRQ_ERR,
  EVENT_SRQ_LIMIT_REACHED,
  QPT_RC,
  QPT_UC,
  QPT_UD,
} from '../../transport/index.ts';
import { ControlError } from './control-error.ts';
import type { CommandOf } from './control-protocol.ts';

const typeOf = { rc: QPT_RC, uc: QPT_UC, ud: QPT_UD } as const;

/** A queue pair of a client. */
export interface ClientPair {
  readonly number: number;
  readonly qp: QueuePair;
  readonly cq: CompletionQueue;
  readonly psn: number;
  /** Where datagrams go: LID, queue pair and Q_Key. */
  lid: number;
  remoteQpn: number;
  qkey: number;
}

/** A registered region of a client. */
export interface ClientRegion {
  readonly number: number;
  readonly region: MemoryRegion;
  readonly mappedBytes: number;
}

/** What a client is answered with. */
export type Reply = Readonly<Record<string, unknown>>;

/** Memory that regions of all clients may still take: a host whose memory is full stands still. */
export interface MemoryBudget {
  leftBytes: number;
}

export class ClientResources {
  pd = 0;
  private nextWrId = 1;
  private readonly pairs = new Map<number, ClientPair>();
  private readonly regions = new Map<number, ClientRegion>();
  private readonly windows = new Map<number, MemoryWindow>();
  private readonly srqs = new Map<number, SharedReceiveQueue>();

  /** Regions are mapped from `nextAddress` on, and take what they need of `memory`. */
  constructor(
    private readonly host: Host,
    private nextAddress: number,
    private readonly memory: MemoryBudget,
  ) {}

  /** The id of work request `i` of a command: from `first` on, or one that was not used before. */
  nameWork(first: number | undefined, i: number): number {
    return first === undefined ? this.nextWrId++ : (first + i) >>> 0;
  }

  /** The queue pair that a command names. @throws ControlError ENOENT */
  pair(number: number): ClientPair {
    const pair = this.pairs.get(number);
    if (pair === undefined) throw new ControlError('ENOENT', `there is no queue pair ${number}`);
    return pair;
  }

  /** The region that a command names. @throws ControlError ENOENT */
  region(number: number): ClientRegion {
    const region = this.regions.get(number);
    if (region === undefined) throw new ControlError('ENOENT', `there is no region ${number}`);
    return region;
  }

  /** The window that a command names. @throws ControlError ENOENT */
  window(number: number): MemoryWindow {
    const window = this.windows.get(number);
    if (window === undefined) throw new ControlError('ENOENT', `there is no window ${number}`);
    return window;
  }

  /** The shared receive queue that a command names. @throws ControlError ENOENT */
  srq(number: number): SharedReceiveQueue {
    const srq = this.srqs.get(number);
    if (srq === undefined) {
      throw new ControlError('ENOENT', `there is no shared receive queue ${number}`);
    }
    return srq;
  }

  /** Where `len` bytes at `off` of a region are. @throws ControlError ENOENT, ERANGE */
  place(number: number, off: number, len: number): number {
    const { region } = this.region(number);
    if (off + len > region.length) {
      const message = `${len} bytes at ${off} are not in region ${number} of ${region.length}`;
      throw new ControlError('ERANGE', message);
    }
    return region.address + off;
  }

  /** Opens a queue pair with a completion queue of its own; completion events go to `channel`. */
  *open(command: CommandOf<'open'>, channel: CompletionChannel): Sim<ClientPair> {
    const { verbs } = this.host;
    const { qp: number, psn, type, len } = command;
    if (this.pairs.has(number)) throw new ControlError('EEXIST', `queue pair ${number} is open`);
    if (len > 0 && this.regions.has(number)) {
      throw new ControlError('EEXIST', `region ${number} is registered; len 0 asks for none`);
    }
    yield* this.needPd();
    const srq = command.srq === undefined ? undefined : this.srq(command.srq);
    const cq = yield* verbs.createCq(command.cq, channel);
    let qp: QueuePair;
    try {
      qp = yield* verbs.createQp(this.pd, {
        sendCq: cq,
        recvCq: cq,
        maxSendWr: command.sq,
        maxRecvWr: srq === undefined ? command.rq : 0,
        type: typeOf[type],
        sqSigAll: command.sigall === 1,
        maxSendSge: command.sge,
        maxRecvSge: command.sge,
        ...(srq === undefined ? {} : { srq }),
      });
    } catch (error) {
      yield* verbs.destroyCq(cq);
      throw error;
    }
    const pair = { number, qp, cq, psn, lid: 0, remoteQpn: 0, qkey: 0 };
    this.pairs.set(number, pair);
    if (len > 0) yield* this.register(number, command);
    return pair;
  }

  *close({ number, qp, cq }: ClientPair): Sim<void> {
    this.pairs.delete(number);
    yield* this.host.verbs.destroyQp(qp);
    yield* this.host.verbs.destroyCq(cq);
  }

  /** Maps and registers a region. */
  *register(
    number: number,
    { len, access, odp }: { len: number; access: number; odp: number },
  ): Sim<ClientRegion> {
    const { mm, verbs } = this.host;
    if (this.regions.has(number))
      throw new ControlError('EEXIST', `region ${number} is registered`);
    yield* this.needPd();
    const mappedBytes = Math.ceil(len / PAGE_BYTES) * PAGE_BYTES;
    if (mappedBytes > this.memory.leftBytes) {
      const message = `${len} bytes, where the host has ${this.memory.leftBytes} left for regions`;
      throw new ControlError('ENOMEM', message);
    }
    const address = this.nextAddress;
    yield* mm.mmap(address, mappedBytes, PROT_READ | PROT_WRITE);
    try {
      // A program that has written its buffer once: pinning finds every page there.
      if (odp === 0) yield* mm.touch(address, mappedBytes / PAGE_BYTES, true);
      const bits = access | (odp === 1 ? ACCESS_ON_DEMAND : 0);
      const region = yield* verbs.regMr(this.pd, address, len, bits);
      // A gap behind each region, so that what runs over its end meets nothing.
      this.nextAddress += mappedBytes + PAGE_BYTES;
      const entry = { number, region, mappedBytes };
      this.memory.leftBytes -= mappedBytes;
      this.regions.set(number, entry);
      return entry;
    } catch (error) {
      yield* mm.munmap(address, mappedBytes);
      throw error;
    }
  }

  *deregister({ number, region, mappedBytes }: ClientRegion): Sim<void> {
    yield* this.host.verbs.deregMr(region);
    this.regions.delete(number);
    yield* this.host.mm.munmap(region.address, mappedBytes);
    this.memory.leftBytes += mappedBytes;
  }

  *allocateWindow(number: number): Sim<Reply> {
    if (this.windows.has(number)) throw new ControlError('EEXIST', `window ${number} is allocated`);
    yield* this.needPd();
    const window = yield* this.host.verbs.allocMw(this.pd);
    this.windows.set(number, window);
    return { mw: number, rkey: window.rkey >>> 0 };
  }

  /** Creates a shared receive queue, or sets the limit of one that there is. */
  *sharedQueue({ srq: number, entries, limit }: CommandOf<'srq'>): Sim<Reply> {
    const known = this.srqs.get(number);
    if (known !== undefined) yield* this.host.verbs.modifySrq(known, limit);
    else {
      yield* this.needPd();
      this.srqs.set(number, yield* this.host.verbs.createSrq(this.pd, entries, limit));
    }
    return { srq: number, srqn: this.srqs.get(number)?.srqn };
  }

  /** All queue pairs in the order in which they were opened. */
  describePairs(): Reply[] {
    return [...this.pairs.values()].map(({ number, qp, psn }) => ({
      qp: number,
      qpn: qp.qpn,
      psn,
    }));
  }

  describe({ number, region }: ClientRegion): Reply {
    const { address, length, lkey, rkey } = region;
    const odp = region.registration === 'odp' ? 1 : 0;
    return { mr: number, addr: address, len: length, lkey: lkey >>> 0, rkey: rkey >>> 0, odp };
  }

  describeAll(): Reply[] {
    return [...this.regions.values()].map((region) => this.describe(region));
  }

  /** Page counters of each region. */
  regionCounters(): Reply[] {
    return [...this.regions.values()].map(({ number, region }) => ({
      mr: number,
      ...region.counters,
      pages_mapped: region.pagesMapped,
    }));
  }

  /** What of this client an asynchronous event is about, if anything. */
  ownerOf(event: number, number: number): Reply | undefined {
    if (event === EVENT_SRQ_ERR || event === EVENT_SRQ_LIMIT_REACHED) {
      const found = [...this.srqs].find(([, { srqn }]) => srqn === number);
      return found && { srq: found[0] };
    }
    const isOfCq = event === EVENT_CQ_ERR;
    const pairs = [...this.pairs.values()];
    const found = pairs.find(({ qp, cq }) => (isOfCq ? cq.cqn : qp.qpn) === number);
    return found && { qp: found.number };
  }

  /** Takes everything apart, in the order in which things depend on each other. */
  *takeApart(): Sim<void> {
    const { verbs } = this.host;
    const steps: Sim<void>[] = [
      ...[...this.pairs.values()].map((pair) => this.close(pair)),
      ...[...this.srqs.values()].map((srq) => verbs.destroySrq(srq)),
      ...[...this.windows.values()].map((window) => verbs.deallocMw(window)),
      ...[...this.regions.values()].map((region) => this.deregister(region)),
    ];
    if (this.pd !== 0) steps.push(verbs.deallocPd(this.pd));
    for (const step of steps) {
      try {
        yield* step;
      } catch (error) {
        // What is still in use stays, as after the end of a process whose peer has its memory.
        if (!(error instanceof VerbsError)) throw error;
      }
    }
  }
  private *needPd(): Sim<void> {
    if (this.pd === 0) this.pd = yield* this.host.verbs.allocPd();
  }
}
