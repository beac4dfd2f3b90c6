/**
 * Runs the local part of a world round by round, in step with everybody else.
 *
 * In each round the local nodes run as far as the promises allow, one window goes out, the peer's
 * window of the same round comes in. The peer may be another process or a switchboard; this code
 * does not know. After a round every process knows the next event of every node, so all find in the
 * same round that the world has come to its end, and exchange bye with their reports.
 *
 * The peer made its promises without knowing the window that was on its way to it, so they are
 * lowered by the arrivals in that window. How the run is cut into rounds cannot be observed in it.
 *
 * Here wall clock exists, for one purpose: to stay responsive. Nothing simulated depends on it.
 */
import type { Failure } from '../sim/failure.ts';
import type { Node } from '../sim/node.ts';
import type { Partition } from '../sim/partition.ts';
import type { FramePool } from '../wire/frame-pool.ts';
import type { SessionMessage } from '../wire/session.ts';
import type { FramedChannel, WindowWriter } from '../wire/window.ts';
import { WindowReader } from '../wire/window-reader.ts';
import type { Channel } from './channel.ts';
import { PEER_TIMEOUT_MS, Peer, unexpected } from './peer.ts';

/** Events between two looks at the clock, and at the size of the window. */
const SLICE_EVENTS = 512;
/** After this much computing at a stretch the event loop has its turn, in milliseconds. */
const YIELD_MS = 250;
/** A round that takes longer than this says busy about as often, in milliseconds. */
const BUSY_MS = 750;

export interface LockstepOptions {
  readonly partition: Partition;
  /** The partition's nodes: undefined where one runs elsewhere. */
  readonly nodes: readonly (Node | undefined)[];
  readonly channels: readonly FramedChannel[];
  readonly pool: FramePool;
  /** The partition's sink. */
  readonly writer: WindowWriter;
  /** To the peer, hands already shaken. */
  readonly channel: Channel;
  readonly peerTimeoutMs?: number;
  /** What the peers get when the world has come to its end; MessagePack must be able to carry it. */
  readonly report: () => unknown;
  /** Called after each round. */
  readonly onRound?: (round: number) => void;
  readonly signal?: AbortSignal;
}

export interface LockstepResult {
  /** The reports of everybody else, in order of their lowest node. */
  readonly reports: unknown[];
  readonly rounds: number;
}

/**
 * Runs to the end of the world and closes the channel.
 * @throws Failure E_PEER_*, whatever the local world threw, or the signal's reason; the peer is told.
 */
export function runLockstep(options: LockstepOptions): Promise<LockstepResult> {
  return new Promise((resolve, reject) => {
    new Lockstep(options, resolve, reject).start();
  });
}

/** computing: our turn. waiting: for the window of this round. leaving: for bye. */
type State = 'computing' | 'waiting' | 'leaving' | 'over';

class Lockstep {
  private readonly peer: Peer;
  private readonly reader: WindowReader;
  private state: State = 'computing';
  private round = 0;
  /** The peer's window of this round, where it has come before ours was ready. */
  private early: Uint8Array | undefined;
  /** When this round last gave a sign of life, or 0 while it has taken no time to speak of. */
  private signOfLifeMs = 0;
  private readonly onAbort = (): void => this.fail(this.options.signal?.reason);
  private readonly resume = (): void => {
    if (this.state === 'computing') this.work();
  };

  constructor(
    private readonly options: LockstepOptions,
    private readonly resolve: (result: LockstepResult) => void,
    private readonly reject: (error: unknown) => void,
  ) {
    const { pool, partition, nodes, channels, channel } = options;
    this.reader = new WindowReader(pool, partition, nodes, channels);
    this.peer = new Peer(channel, options.peerTimeoutMs ?? PEER_TIMEOUT_MS, {
      onWindow: (bytes) => this.onWindow(bytes),
      onSession: (message) => this.onSession(message),
      onFailure: (failure) => this.end(() => this.reject(failure)),
    });
  }

  start(): void {
    const { signal } = this.options;
    this.peer.expectMessage(false);
    signal?.addEventListener('abort', this.onAbort);
    if (signal?.aborted) this.onAbort();
    else this.work();
  }

  /** Computes, sends and takes in windows until there is something to wait for. */
  private work(): void {
    try {
      do {
        if (!this.compute()) {
          setImmediate(this.resume);
          return;
        }
        this.flush();
      } while (this.takeEarly());
    } catch (error) {
      this.fail(error);
    }
  }

  /** Runs the local nodes; false when the event loop should have its turn before they go on. */
  private compute(): boolean {
    const { partition, writer } = this.options;
    let startMs = 0;
    while (partition.advance(SLICE_EVENTS) && !writer.isLarge) {
      const nowMs = performance.now();
      if (startMs === 0) startMs = nowMs;
      if (this.signOfLifeMs === 0) this.signOfLifeMs = nowMs;
      if (nowMs - this.signOfLifeMs >= BUSY_MS) {
        this.peer.sayBusy();
        this.signOfLifeMs = nowMs;
      }
      if (nowMs - startMs >= YIELD_MS) return false;
    }
    return true;
  }

  private flush(): void {
    this.signOfLifeMs = 0;
    this.peer.send(this.options.writer.flush(this.round, this.options.partition));
    this.state = 'waiting';
    this.peer.expectMessage(true);
  }

  /** Goes on with a window that has come early; true when it is our turn again. */
  private takeEarly(): boolean {
    const bytes = this.early;
    if (!bytes) return false;
    this.early = undefined;
    this.accept(bytes);
    return this.state === 'computing';
  }

  private onWindow(bytes: Uint8Array): void {
    if (this.state === 'waiting') {
      try {
        this.accept(bytes);
      } catch (error) {
        this.fail(error);
        return;
      }
      this.resume();
    } else if (this.state === 'computing' && !this.early) this.early = bytes;
    else this.fail(unexpected('window', this.peer.name, 'bye'));
  }

  /** Takes in the peer's window of this round, which ends the round. */
  private accept(bytes: Uint8Array): void {
    const { partition, writer, onRound } = this.options;
    this.reader.read(bytes, this.round);
    this.reader.apply(writer);
    this.round++;
    onRound?.(this.round);
    if (partition.finished()) {
      this.state = 'leaving';
      this.peer.say({ type: 'bye', reports: [this.options.report()] });
    } else {
      this.state = 'computing';
      this.peer.expectMessage(false);
    }
  }

  private onSession(message: SessionMessage): void {
    if (message.type === 'bye' && this.state === 'leaving') {
      this.peer.close();
      this.end(() => this.resolve({ reports: message.reports, rounds: this.round }));
    } else {
      const expected = this.state === 'leaving' ? 'bye' : 'a window';
      this.fail(unexpected(message.type, this.peer.name, expected));
    }
  }

  /** Ends the run for a reason of our own, and says so. */
  private fail(error: unknown | Failure): void {
    if (this.state === 'over') return;
    this.peer.refuse(error);
    this.end(() => this.reject(error));
  }

  private end(settle: () => void): void {
    if (this.state === 'over') return;
    this.state = 'over';
    this.options.signal?.removeEventListener('abort', this.onAbort);
    settle();
  }
}
