/**
 * The hub for a world in more than two processes: each of them talks to it as to a single peer.
 *
 * Owns: who takes part, collecting one window of each participant per round, and giving each one
 * window back. That window promises for every node the participant does not run, each promise
 * lowered by the frames on their way to that node, and holds the frames for the participant, copied
 * as bytes. Frames are not decoded here; whoever receives them checks what they say.
 */
import { Failure } from '../sim/failure.ts';
import type { Hello, SessionMessage } from '../wire/session.ts';
import type { FramedChannel } from '../wire/window.ts';
import { WindowRouter } from '../wire/window-router.ts';
import type { Channel } from './channel.ts';
import { compareRun, makeHello, mismatch, type RunIdentity } from './handshake.ts';
import { PEER_TIMEOUT_MS, Peer, type PeerListener, unexpected } from './peer.ts';

/** How often those who wait for others hear that we are alive, in milliseconds, at most. */
const BUSY_MS = 1_000;

export interface SwitchboardOptions {
  readonly run: RunIdentity;
  readonly channels: readonly FramedChannel[];
  /** How many processes take part. Together they run every node. */
  readonly participantCount: number;
  /** The channel to whoever comes next. */
  readonly accept: () => Promise<Channel>;
  readonly peerTimeoutMs?: number;
  readonly onRound?: (round: number) => void;
  readonly signal?: AbortSignal;
}

export interface SwitchboardResult {
  /** What each participant reported, under the names of its nodes joined by '+'. */
  readonly reports: ReadonlyMap<string, unknown>;
  readonly rounds: number;
}

/**
 * Serves one run from the first hello to the last bye.
 * @throws Failure E_HANDSHAKE or E_PEER_*, whose place is the participant; all others are told.
 */
export function runSwitchboard(options: SwitchboardOptions): Promise<SwitchboardResult> {
  return new Promise((resolve, reject) => {
    new Switchboard(options, resolve, reject).start();
  });
}

/** One participant: who it is, and what it has said in this round. */
class Participant {
  readonly peer: Peer;
  /** Numbers of its nodes, in rising order; empty before its hello. */
  nodes: number[] = [];
  isReady = false;
  window: Uint8Array | undefined;
  bye: readonly unknown[] | undefined;

  constructor(
    readonly channel: Channel,
    timeoutMs: number,
    listenerFor: (participant: Participant) => PeerListener,
  ) {
    this.peer = new Peer(channel, timeoutMs, listenerFor(this));
  }
}

class Switchboard {
  private participants: Participant[] = [];
  private router: WindowRouter | undefined;
  private round = 0;
  private isOver = false;
  private readonly heartbeat: NodeJS.Timeout;
  private readonly timeoutMs: number;
  private readonly onAbort = (): void => this.fail(this.options.signal?.reason);

  constructor(
    private readonly options: SwitchboardOptions,
    private readonly resolve: (result: SwitchboardResult) => void,
    private readonly reject: (error: unknown) => void,
  ) {
    this.timeoutMs = options.peerTimeoutMs ?? PEER_TIMEOUT_MS;
    const beatMs = Math.min(BUSY_MS, this.timeoutMs / 8);
    this.heartbeat = setInterval(() => this.beat(), beatMs);
  }

  start(): void {
    const { signal } = this.options;
    signal?.addEventListener('abort', this.onAbort);
    if (signal?.aborted) this.onAbort();
    else this.gather().catch((error: unknown) => this.fail(error));
  }

  private async gather(): Promise<void> {
    for (let i = 0; i < this.options.participantCount; i++) {
      const channel = await this.options.accept();
      if (this.isOver) {
        channel.close();
        return;
      }
      this.join(channel);
    }
  }

  private join(channel: Channel): void {
    const listenerFor = (participant: Participant): PeerListener => ({
      onWindow: (bytes) => this.guard(participant, () => this.onWindow(participant, bytes)),
      onSession: (message) => this.guard(participant, () => this.onSession(participant, message)),
      onFailure: (failure) => this.fail(failure, participant),
    });
    this.participants.push(new Participant(channel, this.timeoutMs, listenerFor));
  }

  /** What goes wrong in handling a message is the fault of whoever sent it. */
  private guard(participant: Participant, handle: () => void): void {
    try {
      handle();
    } catch (error) {
      participant.peer.refuse(error);
      this.fail(error, participant);
    }
  }

  private onSession(participant: Participant, message: SessionMessage): void {
    const { name } = participant.channel;
    if (message.type === 'hello' && participant.nodes.length === 0) {
      this.welcome(participant, message);
    } else if (message.type === 'ready' && participant.nodes.length > 0 && !participant.isReady) {
      participant.isReady = true;
      participant.peer.expectMessage(false);
      this.startWhenReady();
    } else if (message.type === 'bye' && this.router && participant.window === undefined) {
      participant.bye = message.reports;
      participant.peer.expectMessage(false);
      this.endRoundWhenFull();
    } else throw unexpected(message.type, name, this.router ? 'a window' : 'hello, then ready');
  }

  /** Answers a hello with our own, in which we speak for everybody else. */
  private welcome(participant: Participant, hello: Hello): void {
    const { run } = this.options;
    const taken = this.participants.flatMap((other) => other.nodes.map((i) => run.nodes[i]));
    const others = run.nodes.filter((name) => !hello.role.includes(name) || taken.includes(name));
    participant.peer.say(makeHello(run, others));
    const difference = compareRun(run, hello);
    if (difference) throw difference;
    const free = run.nodes.filter((name) => !taken.includes(name));
    const nodes = hello.role.map((name) => run.nodes.indexOf(name));
    const isValid =
      nodes.length > 0 &&
      new Set(nodes).size === nodes.length &&
      hello.role.every((name) => free.includes(name));
    if (!isValid) throw mismatch('role', hello.role, free);
    participant.nodes = nodes.sort((a, b) => a - b);
    participant.channel.name = participant.nodes.map((i) => run.nodes[i]).join('+');
  }

  /** Sends ready once all are there and agree. */
  private startWhenReady(): void {
    const { participantCount, run, channels } = this.options;
    if (this.participants.filter(({ isReady }) => isReady).length < participantCount) return;
    const covered = this.participants.reduce((sum, { nodes }) => sum + nodes.length, 0);
    if (covered < run.nodes.length) {
      const missing = run.nodes.filter(
        (_, i) => !this.participants.some(({ nodes }) => nodes.includes(i)),
      );
      this.fail(new Failure('E_HANDSHAKE', 'nobody runs some nodes', 'role', missing.join(' ')));
      return;
    }
    this.participants.sort((a, b) => a.nodes[0] - b.nodes[0]);
    const roles = this.participants.map(({ nodes }) => nodes);
    this.router = new WindowRouter(run.nodes.length, channels, roles);
    for (const { peer } of this.participants) {
      peer.say({ type: 'ready' });
      peer.expectMessage(true);
    }
  }

  private onWindow(participant: Participant, bytes: Uint8Array): void {
    if (!this.router || participant.window || participant.bye) {
      throw unexpected('window', participant.channel.name, this.router ? 'nothing' : 'ready');
    }
    participant.window = bytes;
    participant.peer.expectMessage(false);
    this.endRoundWhenFull();
  }

  private endRoundWhenFull(): void {
    let windows = 0;
    let byes = 0;
    for (const { window, bye } of this.participants) {
      if (window) windows++;
      if (bye) byes++;
    }
    if (windows + byes < this.participants.length) return;
    if (windows === 0) this.finish();
    else if (byes === 0) this.exchange(this.router as WindowRouter);
    else {
      const early = this.participants.find(({ bye }) => bye) as Participant;
      this.fail(unexpected('bye', early.channel.name, 'a window'), early);
    }
  }

  /** Every window of the round is here: sends each participant its own. */
  private exchange(router: WindowRouter): void {
    router.begin(this.round);
    for (let p = 0; p < this.participants.length; p++) {
      const participant = this.participants[p];
      const window = participant.window as Uint8Array;
      participant.window = undefined;
      try {
        router.take(p, window);
      } catch (error) {
        participant.peer.refuse(error);
        this.fail(error, participant);
        return;
      }
    }
    this.round++;
    for (let p = 0; p < this.participants.length; p++) {
      this.participants[p].peer.send(router.windowFor(p));
      this.participants[p].peer.expectMessage(true);
    }
    this.options.onRound?.(this.round);
  }

  private finish(): void {
    const { participants } = this;
    for (const participant of participants) {
      const others = participants.filter((other) => other !== participant);
      participant.peer.say({ type: 'bye', reports: others.flatMap(({ bye }) => bye ?? []) });
      participant.peer.close();
    }
    const reports = new Map(participants.map(({ channel, bye }) => [channel.name, bye?.[0]]));
    this.end(() => this.resolve({ reports, rounds: this.round }));
  }

  /** Whoever waits for somebody else hears from us, so that only we judge who is silent. */
  private beat(): void {
    for (const { peer, window, bye, isReady } of this.participants) {
      const isWaiting = this.router ? window !== undefined || bye !== undefined : isReady;
      if (isWaiting) peer.sayBusy();
    }
  }

  /** Ends the run because of `culprit`, or of ourselves, and tells everyone else. */
  private fail(error: unknown, culprit?: Participant): void {
    if (this.isOver) return;
    let reason = error;
    if (culprit && error instanceof Failure && error.place !== culprit.channel.name) {
      const place = error.place === '' ? '' : ` (${error.place})`;
      const who = culprit.channel.name;
      reason = new Failure(error.code, `${error.message}${place}`, who, error.expected);
    }
    this.end(() => this.reject(reason));
    for (const participant of this.participants) {
      if (participant !== culprit) participant.peer.refuse(reason);
    }
  }

  private end(settle: () => void): void {
    this.isOver = true;
    clearInterval(this.heartbeat);
    this.options.signal?.removeEventListener('abort', this.onAbort);
    settle();
  }
}
