/**
 * One control client as a program of the simulated host: its commands are carried out one after the
 * other, and answered.
 *
 * When a client goes, so does all that it has opened (`client-resources.ts`). Does not own the
 * commands' form (`control-protocol.ts`) or the posting of work (`control-work.ts`).
 */
import {
  Completion,
  type CompletionChannel,
  type Host,
  PAGE_BYTES,
  type Sim,
  VerbsError,
  type WorkCompletion,
  wait,
} from '../../kernel/index.ts';
import {
  ADVICE_PREFETCH,
  ADVICE_PREFETCH_WRITE,
  ADVISE_FLUSH,
  Failure,
  MS,
  QPS_ERR,
  QPS_INIT,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  QPS_SQE,
} from '../../transport/index.ts';
import type { Alarms } from './alarms.ts';
import { toInit, toRtr, toRts } from './client-connection.ts';
import { ClientResources, type MemoryBudget, type Reply } from './client-resources.ts';
import { ControlError } from './control-error.ts';
import type { Command, CommandOf } from './control-protocol.ts';
import { completionReply, eventName, receivesOf, sendsOf } from './control-work.ts';
import { patternBytes } from './pattern.ts';

/** Bytes that are written or compared at once, so that a large region does not stop the world. */
const PIECE_BYTES = 65_536;

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
  /** Memory of the host. */
  readonly memoryBytes: number;
  /** Counters of adapter and edge that have moved. */
  counters(): Readonly<Record<string, unknown>>;
}

/** A command with what the outside has added to it. */
export interface Submission {
  readonly command: Command;
  /** LID of the address in the command, where it has one. */
  readonly lid: number;
}

export class ControlSession {
  private readonly resources: ClientResources;
  private readonly waiting: Submission[] = [];
  private arrival = new Completion<void>('a command');
  /** Resolved when a thread that waits should look again. */
  private ring = new Completion<void>();
  private isGone = false;
  private eventsSeen: number;

  /** The client's regions are mapped from `base` on; `answer` takes replies. */
  constructor(
    private readonly host: Host,
    private readonly port: ControlPort,
    private readonly alarms: Alarms,
    base: number,
    memory: MemoryBudget,
    private readonly answer: (reply: Reply) => void,
    private readonly quit: () => void,
  ) {
    this.resources = new ClientResources(host, base, memory);
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
    yield* this.resources.takeApart();
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
    const { host, resources } = this;
    switch (command.verb) {
      case 'info':
        return this.info();
      case 'open':
        return yield* this.open(command);
      case 'close':
        yield* resources.close(resources.pair(command.qp));
        return {};
      case 'mr':
        return resources.describe(yield* resources.register(command.mr, command));
      case 'dereg':
        yield* resources.deregister(resources.region(command.mr));
        return {};
      case 'mw':
        return yield* resources.allocateWindow(command.mw);
      case 'srq':
        return yield* resources.sharedQueue(command);
      case 'connect': {
        const pair = resources.pair(command.qp);
        yield* toInit(host, pair, command);
        yield* toRtr(host, pair, command, lid, this.port.activeMtu);
        yield* toRts(host, pair, command);
        return { state: 'rts' };
      }
      case 'init':
        yield* toInit(host, resources.pair(command.qp), command);
        return { state: 'init' };
      case 'rtr':
        yield* toRtr(host, resources.pair(command.qp), command, lid, this.port.activeMtu);
        return { state: 'rtr' };
      case 'rts':
        yield* toRts(host, resources.pair(command.qp), command);
        return { state: 'rts' };
      case 'modify':
        yield* host.verbs.modifyQp(resources.pair(command.qp).qp, {
          state: stateOf[command.state],
        });
        return { state: command.state };
      case 'query':
        return { ...(yield* host.verbs.queryQp(resources.pair(command.qp).qp)) };
      case 'post':
        return yield* sendsOf(host, resources, command, lid);
      case 'recv':
        return yield* receivesOf(host, resources, command);
      case 'wait':
        return yield* this.completions(command, command.n);
      case 'expect':
        return yield* this.completions(command, 0);
      case 'fill':
      case 'check':
        return yield* this.pattern(command);
      case 'poke': {
        const bytes = Buffer.from(command.hex, 'hex');
        yield* host.mm.write(resources.place(command.mr, command.off, bytes.length), bytes);
        return { len: bytes.length };
      }
      case 'dump': {
        const at = resources.place(command.mr, command.off, command.len);
        return { hex: Buffer.from(host.mm.read(at, command.len)).toString('hex') };
      }
      case 'advise': {
        const at = resources.place(command.mr, command.off, command.len);
        const { region } = resources.region(command.mr);
        const advice = command.write === 1 ? ADVICE_PREFETCH_WRITE : ADVICE_PREFETCH;
        const range = { address: at, length: command.len, lkey: region.lkey };
        yield* host.verbs.adviseMr(region.pd, advice, ADVISE_FLUSH, [range]);
        return {};
      }
      case 'dontneed': {
        const at = resources.place(command.mr, command.off, command.len);
        const start = Math.floor(at / PAGE_BYTES) * PAGE_BYTES;
        yield* host.mm.madviseDontneed(start, Math.max(1, command.len + at - start));
        return {};
      }
      case 'reclaim':
        yield* host.ram.reclaim.shrink(command.pages);
        return {};
      case 'suspend':
        yield* host.verbs.suspendPd(resources.pd);
        yield* this.pause(command.ms);
        yield* host.verbs.resumePd(resources.pd);
        return {};
      case 'async':
        yield* this.pause(command.ms);
        return { events: this.events() };
      case 'counters':
        return { ...this.port.counters(), mrs: resources.regionCounters() };
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
    const { resources } = this;
    return {
      gids,
      mac,
      mtu: activeMtu,
      qps: resources.describePairs(),
      mrs: resources.describeAll(),
    };
  }

  private *open(command: CommandOf<'open'>): Sim<Reply> {
    const channel = this.host.verbs.createCompletionChannel();
    const { number, qp, psn } = yield* this.resources.open(command, channel);
    this.host.spawn('completion events', this.listen(channel));
    const { gids, activeMtu } = this.port;
    const mrs = this.resources.describeAll();
    const { type } = command;
    return { qp: number, qpn: qp.qpn, psn, type, gid: gids.ipv4, gids, mtu: activeMtu, mrs };
  }

  /** Completions as they come: `wanted` of them, or, with 0, all that come within the time. */
  private *completions({ qp: number, ms }: { qp: number; ms: number }, wanted: number): Sim<Reply> {
    const { cq } = this.resources.pair(number);
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
    const at = this.resources.place(mr, off, len);
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
      const owner = this.resources.ownerOf(event, number);
      return owner === undefined ? [] : [{ event: eventName(event), ...owner }];
    });
  }
}
