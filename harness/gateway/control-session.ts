/**
 * One control client as a program of the simulated host: what it has opened, and how its commands are
 * carried out, one after the other.
 *
 * Each client has a protection domain, queue pairs, regions and windows of its own and numbers them
 * as it likes, so clients do not disturb each other. When a client goes, so does all of that. Does
 * not own the commands' form (`control-protocol.ts`) or the posting of work (`control-work.ts`).
 */
import {
  Completion,
  type CompletionChannel,
  type CompletionQueue,
  type Host,
  type MemoryRegion,
  type MemoryWindow,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type QueuePair,
  type QueuePairAttributes,
  type SharedReceiveQueue,
  type Sim,
  VerbsError,
  type WorkCompletion,
  wait,
} from '../../kernel/index.ts';
import {
  ACCESS_ON_DEMAND,
  EVENT_CQ_ERR,
  EVENT_SRQ_ERR,
  EVENT_SRQ_LIMIT_REACHED,
  Failure,
  QPS_ERR,
  QPS_INIT,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  QPS_SQE,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  type TimePs,
} from '../../transport/index.ts';
import type { Alarms } from './alarms.ts';
import { ControlError } from './control-error.ts';
import type { Command, CommandOf } from './control-protocol.ts';
import { completionReply, eventName, receivesOf, sendsOf } from './control-work.ts';
import { patternBytes } from './pattern.ts';

const MS: TimePs = 1_000_000_000;
/** Bytes that are written or compared at once, so that a large region does not stop the world. */
const PIECE_BYTES = 65_536;

const typeOf = { rc: QPT_RC, uc: QPT_UC, ud: QPT_UD } as const;
const stateOf = {
  reset: QPS_RESET,
  init: QPS_INIT,
  rtr: QPS_RTR,
  rts: QPS_RTS,
  sqd: QPS_SQD,
  sqe: QPS_SQE,
  err: QPS_ERR,
} as const;

/** What a session needs to know of the port it works with. */
export interface ControlPort {
  /** Our GIDs and the MAC, as text. */
  readonly gids: { readonly ipv4: string; readonly ipv6: string };
  readonly mac: string;
  /** The largest path MTU that fits the Ethernet. */
  readonly activeMtu: number;
  /** Counters of adapter and edge that have moved. */
  counters(): Readonly<Record<string, unknown>>;
}

/** A command with what the outside has added to it. */
export interface Submission {
  readonly command: Command;
  /** LID of the address in the command, where it has one. */
  readonly lid: number;
}

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

export type Reply = Readonly<Record<string, unknown>>;

export class ControlSession {
  readonly pairs = new Map<number, ClientPair>();
  readonly regions = new Map<number, ClientRegion>();
  readonly windows = new Map<number, MemoryWindow>();
  readonly srqs = new Map<number, SharedReceiveQueue>();
  pd = 0;
  /** Work request ids for those who give none. */
  nextWrId = 1;
  private readonly waiting: Submission[] = [];
  private arrival = new Completion<void>('a command');
  /** Resolved when a thread that waits should look again. */
  private ring = new Completion<void>();
  private isGone = false;
  private eventsSeen: number;

  /** `base` is where the client's regions may be mapped from; `answer` takes replies. */
  constructor(
    readonly host: Host,
    private readonly port: ControlPort,
    private readonly alarms: Alarms,
    private nextAddress: number,
    private readonly answer: (reply: Reply) => void,
    private readonly quit: () => void,
  ) {
    this.eventsSeen = host.verbs.asyncEvents.length;
  }

  /** Takes a command; it is carried out when those before it are. */
  submit(submission: Submission): void {
    this.waiting.push(submission);
    this.arrival.resolve();
  }

  /** The client is gone: nothing more is answered, and everything of it is taken apart. */
  leave(): void {
    this.isGone = true;
    this.arrival.resolve();
    this.ring.resolve();
  }

  /** The session's thread. */
  *run(): Sim<void> {
    while (!this.isGone) {
      const next = this.waiting.shift();
      if (next === undefined) {
        this.arrival = new Completion<void>('a command');
        yield* wait(this.arrival);
        continue;
      }
      const { id, verb } = next.command;
      const reply = yield* this.attempt(next);
      if (!this.isGone) this.answer({ id, ...reply });
      if (verb === 'quit') this.quit();
    }
    yield* this.takeApart();
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

  private *attempt({ command, lid }: Submission): Sim<Reply> {
    try {
      return yield* this.execute(command, lid);
    } catch (error) {
      if (error instanceof ControlError) {
        return { error: { code: error.code, message: error.message, ...error.details } };
      }
      if (error instanceof VerbsError) {
        return { error: { code: error.errno, message: error.message } };
      }
      if (error instanceof Failure) {
        return { error: { code: error.code, message: error.explain() } };
      }
      throw error;
    }
  }

  private *execute(command: Command, lid: number): Sim<Reply> {
    const { host } = this;
    switch (command.verb) {
      case 'info':
        return this.info();
      case 'open':
        return yield* this.open(command);
      case 'close':
        yield* this.close(this.pair(command.qp));
        return {};
      case 'mr':
        return this.describe(yield* this.register(command.mr, command));
      case 'dereg':
        yield* this.deregister(this.region(command.mr));
        return {};
      case 'mw':
        return yield* this.allocateWindow(command.mw);
      case 'srq':
        return yield* this.sharedQueue(command);
      case 'connect':
        yield* this.toInit(this.pair(command.qp), command);
        yield* this.toRtr(this.pair(command.qp), command, lid);
        yield* this.toRts(this.pair(command.qp), command);
        return { state: 'rts' };
      case 'init':
        yield* this.toInit(this.pair(command.qp), command);
        return { state: 'init' };
      case 'rtr':
        yield* this.toRtr(this.pair(command.qp), command, lid);
        return { state: 'rtr' };
      case 'rts':
        yield* this.toRts(this.pair(command.qp), command);
        return { state: 'rts' };
      case 'modify':
        yield* host.verbs.modifyQp(this.pair(command.qp).qp, { state: stateOf[command.state] });
        return { state: command.state };
      case 'query':
        return { ...(yield* host.verbs.queryQp(this.pair(command.qp).qp)) };
      case 'post':
        return yield* sendsOf(this, command, lid);
      case 'recv':
        return yield* receivesOf(this, command);
      case 'wait':
        return yield* this.completions(command, command.n);
      case 'expect':
        return yield* this.completions(command, 0);
      case 'fill':
      case 'check':
        return yield* this.pattern(command);
      case 'poke': {
        const bytes = Buffer.from(command.hex, 'hex');
        yield* host.mm.write(this.place(command.mr, command.off, bytes.length), bytes);
        return { len: bytes.length };
      }
      case 'dump': {
        const at = this.place(command.mr, command.off, command.len);
        return { hex: Buffer.from(host.mm.read(at, command.len)).toString('hex') };
      }
      case 'advise': {
        const at = this.place(command.mr, command.off, command.len);
        const { region } = this.region(command.mr);
        yield* host.verbs.adviseMr(region, at, command.len, command.write === 1);
        return {};
      }
      case 'dontneed': {
        const at = this.place(command.mr, command.off, command.len);
        const start = Math.floor(at / PAGE_BYTES) * PAGE_BYTES;
        yield* host.mm.madviseDontneed(start, Math.max(1, command.len + at - start));
        return {};
      }
      case 'reclaim':
        yield* host.mm.reclaim.shrink(command.pages);
        return {};
      case 'suspend':
        yield* host.verbs.suspendPd(this.pd);
        yield* this.pause(command.ms);
        yield* host.verbs.resumePd(this.pd);
        return {};
      case 'async':
        yield* this.pause(command.ms);
        return { events: this.events() };
      case 'counters':
        return { ...this.port.counters(), mrs: this.regionCounters() };
      case 'sleep':
        yield* this.pause(command.ms);
        return {};
      case 'impair':
      case 'quit':
        return {};
    }
  }

  private info(): Reply {
    const { gids, mac, activeMtu } = this.port;
    const qps = [...this.pairs.values()].map(({ number, qp, psn }) => ({
      qp: number,
      qpn: qp.qpn,
      psn,
    }));
    return { gids, mac, mtu: activeMtu, qps, mrs: this.describeAll() };
  }

  private *open(command: CommandOf<'open'>): Sim<Reply> {
    const { verbs } = this.host;
    const { qp: number, psn, type, len } = command;
    if (this.pairs.has(number)) throw new ControlError('EEXIST', `queue pair ${number} is open`);
    if (len > 0 && this.regions.has(number)) {
      throw new ControlError('EEXIST', `region ${number} is registered; len 0 asks for none`);
    }
    yield* this.needPd();
    const srq = command.srq === undefined ? undefined : this.srqs.get(command.srq);
    if (command.srq !== undefined && srq === undefined) {
      throw new ControlError('ENOENT', `there is no shared receive queue ${command.srq}`);
    }
    const channel = verbs.createCompletionChannel();
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
    this.pairs.set(number, { number, qp, cq, psn, lid: 0, remoteQpn: 0, qkey: 0 });
    this.host.spawn('completion events', this.listen(channel));
    if (len > 0) yield* this.register(number, command);
    const { gids, activeMtu } = this.port;
    const mrs = this.describeAll();
    return { qp: number, qpn: qp.qpn, psn, type, gid: gids.ipv4, gids, mtu: activeMtu, mrs };
  }

  private *close({ number, qp, cq }: ClientPair): Sim<void> {
    this.pairs.delete(number);
    yield* this.host.verbs.destroyQp(qp);
    yield* this.host.verbs.destroyCq(cq);
  }

  private *register(
    number: number,
    { len, access, odp }: { len: number; access: number; odp: number },
  ): Sim<ClientRegion> {
    const { mm, verbs } = this.host;
    if (this.regions.has(number))
      throw new ControlError('EEXIST', `region ${number} is registered`);
    yield* this.needPd();
    const mappedBytes = Math.ceil(len / PAGE_BYTES) * PAGE_BYTES;
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
      this.regions.set(number, entry);
      return entry;
    } catch (error) {
      yield* mm.munmap(address, mappedBytes);
      throw error;
    }
  }

  private *deregister({ number, region, mappedBytes }: ClientRegion): Sim<void> {
    yield* this.host.verbs.deregMr(region);
    this.regions.delete(number);
    yield* this.host.mm.munmap(region.address, mappedBytes);
  }

  private *allocateWindow(number: number): Sim<Reply> {
    if (this.windows.has(number)) throw new ControlError('EEXIST', `window ${number} is allocated`);
    yield* this.needPd();
    const window = yield* this.host.verbs.allocMw(this.pd);
    this.windows.set(number, window);
    return { mw: number, rkey: window.rkey >>> 0 };
  }

  private *sharedQueue({ srq: number, entries, limit }: CommandOf<'srq'>): Sim<Reply> {
    const known = this.srqs.get(number);
    if (known !== undefined) yield* this.host.verbs.modifySrq(known, limit);
    else {
      yield* this.needPd();
      this.srqs.set(number, yield* this.host.verbs.createSrq(this.pd, entries, limit));
    }
    return { srq: number, srqn: this.srqs.get(number)?.srqn };
  }

  private *toInit(pair: ClientPair, { dacc, qkey }: { dacc: number; qkey: number }): Sim<void> {
    const common = { state: QPS_INIT, pkeyIndex: 0, port: 1 };
    pair.qkey = qkey;
    const own = pair.qp.type === QPT_UD ? { qkey } : { access: dacc };
    yield* this.host.verbs.modifyQp(pair.qp, { ...common, ...own });
  }

  private *toRtr(
    pair: ClientPair,
    command: CommandOf<'rtr'> | CommandOf<'connect'>,
    lid: number,
  ): Sim<void> {
    const { qpn, psn, mtu, drd, minrnr } = command;
    const { activeMtu } = this.port;
    if (lid === 0) throw new ControlError('EHOSTUNREACH', `${command.gid} is not on this link`);
    pair.lid = lid;
    pair.remoteQpn = qpn;
    let changes: Partial<QueuePairAttributes> = { state: QPS_RTR };
    if (pair.qp.type !== QPT_UD) {
      if (mtu > activeMtu) {
        throw new ControlError('EINVAL', `path MTU ${mtu}, of at most ${activeMtu} on this port`);
      }
      changes = { ...changes, destLid: lid, mtuBytes: mtu, destQpn: qpn, receivePsn: psn };
    }
    if (pair.qp.type === QPT_RC) {
      changes = { ...changes, maxDestRdAtomic: drd, minRnrTimer: minrnr };
    }
    yield* this.host.verbs.modifyQp(pair.qp, changes);
  }

  private *toRts(
    pair: ClientPair,
    { timeout, retry, rnr, rd }: { timeout: number; retry: number; rnr: number; rd: number },
  ): Sim<void> {
    const common = { state: QPS_RTS, sendPsn: pair.psn };
    const reliable = { timeout, retryCnt: retry, rnrRetry: rnr, maxRdAtomic: rd };
    const own = pair.qp.type === QPT_RC ? reliable : {};
    yield* this.host.verbs.modifyQp(pair.qp, { ...common, ...own });
  }

  /** Completions as they come: `wanted` of them, or, with 0, all that come within the time. */
  private *completions({ qp: number, ms }: { qp: number; ms: number }, wanted: number): Sim<Reply> {
    const { cq } = this.pair(number);
    const untilPs = this.host.node.now + ms * MS;
    const found: WorkCompletion[] = [];
    while (wanted === 0 || found.length < wanted) {
      const entry = cq.poll();
      if (entry !== undefined) {
        found.push(entry);
        continue;
      }
      this.ring = new Completion<void>('completions');
      yield* this.host.verbs.reqNotifyCq(cq);
      // One may have come between the last look and the arming.
      if (cq.length > 0) continue;
      if (this.host.node.now >= untilPs || this.isGone) break;
      this.alarms.set(untilPs, this.ring);
      yield* wait(this.ring);
    }
    const completions = found.map(completionReply);
    if (found.length >= wanted) return { completions };
    const message = `${found.length} of ${wanted} completions in ${ms} ms`;
    throw new ControlError('ETIMEDOUT', message, { completions });
  }

  /** Passes on the interrupts of a completion queue; sleeps for ever once that is destroyed. */
  private *listen(channel: CompletionChannel): Sim<void> {
    for (;;) {
      yield* channel.next();
      this.ring.resolve();
    }
  }

  /** Waits, unless the client goes first. */
  private *pause(ms: number): Sim<void> {
    if (ms === 0 || this.isGone) return;
    this.ring = new Completion<void>('a pause');
    const untilPs = this.host.node.now + ms * MS;
    while (this.host.node.now < untilPs && !this.isGone) {
      this.ring = new Completion<void>('a pause');
      this.alarms.set(untilPs, this.ring);
      yield* wait(this.ring);
    }
  }

  private *pattern({ verb, mr, off, len, seed }: CommandOf<'fill' | 'check'>): Sim<Reply> {
    const { mm } = this.host;
    const at = this.place(mr, off, len);
    for (let done = 0; done < len && !this.isGone; done += PIECE_BYTES) {
      const bytes = patternBytes(seed, done, Math.min(PIECE_BYTES, len - done));
      if (verb === 'fill') {
        yield* mm.write(at + done, bytes);
        continue;
      }
      const found = mm.read(at + done, bytes.length);
      const bad = found.findIndex((byte, i) => byte !== bytes[i]);
      if (bad >= 0) {
        const [got, want] = [found[bad], bytes[bad]];
        throw new ControlError('EIO', `byte ${done + bad} is ${got}, not ${want}`, {
          at: done + bad,
        });
      }
    }
    return { len };
  }

  private events(): Reply[] {
    const all = this.host.verbs.asyncEvents;
    const fresh = all.slice(this.eventsSeen);
    this.eventsSeen = all.length;
    return fresh.flatMap(({ event, number }) => {
      const owner = this.ownerOf(event, number);
      return owner === undefined ? [] : [{ event: eventName(event), ...owner }];
    });
  }

  private ownerOf(event: number, number: number): Reply | undefined {
    if (event === EVENT_SRQ_ERR || event === EVENT_SRQ_LIMIT_REACHED) {
      const found = [...this.srqs].find(([, { srqn }]) => srqn === number);
      return found && { srq: found[0] };
    }
    const isOfCq = event === EVENT_CQ_ERR;
    const pairs = [...this.pairs.values()];
    const found = pairs.find(({ qp, cq }) => (isOfCq ? cq.cqn : qp.qpn) === number);
    return found && { qp: found.number };
  }

  private describe({ number, region }: ClientRegion): Reply {
    const { address, length, lkey, rkey } = region;
    const odp = region.registration === 'odp' ? 1 : 0;
    return { mr: number, addr: address, len: length, lkey: lkey >>> 0, rkey: rkey >>> 0, odp };
  }

  private describeAll(): Reply[] {
    return [...this.regions.values()].map((region) => this.describe(region));
  }

  private regionCounters(): Reply[] {
    return [...this.regions.values()].map(({ number, region }) => ({
      mr: number,
      ...region.counters,
      pages_mapped: region.pagesMapped,
    }));
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

  private *needPd(): Sim<void> {
    if (this.pd === 0) this.pd = yield* this.host.verbs.allocPd();
  }

  /** Takes everything apart, in the order in which things depend on each other. */
  private *takeApart(): Sim<void> {
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
}
