/**
 * A gateway at work: sockets outside, a world inside, and the wall clock that both go by.
 *
 * The world runs up to the present and not beyond, since something may come in at any moment; it
 * sleeps until its next event is due or something comes. What comes in gets its time here through
 * `Arrivals.stamp`, and what the adapter sends goes out when its simulated time has come. Does not
 * own what happens inside the world.
 */
import {
  connectToWire,
  type EthernetSocket,
  Failure,
  listenOnWire,
  MS,
  NEVER,
  type TimePs,
  type WireCounters,
  type WireListener,
} from '../../transport/index.ts';
import type { Outcome } from '../report.ts';
import type { Scenario } from '../scenario/schema.ts';
import { scenarioHash } from '../scenario/validate.ts';
import { World } from '../world.ts';
import type { Arrival } from './arrivals.ts';
import { type ControlCounters, ControlServer } from './control-server.ts';
import type { EthernetPort } from './ethernet-port.ts';
import type { EdgeObserver } from './external-peer.ts';
import { type LagReport, Pace } from './pace.ts';
import { Recorder } from './recording.ts';
import type { GatewaySetup } from './setup.ts';

/** Events between two looks at the sockets: a millisecond or so. */
const SLICE_EVENTS = 2_000;
/** Node's timers are no finer; what is due earlier is waited for turn by turn. */
const TIMER_MS = 2;
/** The longest that a timer may be set for. */
const LONGEST_TIMER_MS = 60_000;

export interface LiveOptions {
  readonly scenario: Scenario;
  readonly setup: GatewaySetup;
  /** Exactly one of the two. */
  readonly listen?: string;
  readonly connect?: string;
  readonly connectTimeoutMs?: number;
  readonly control?: string;
  /** Where the inputs are recorded. */
  readonly record?: string;
  /** Ends the gateway after so long. */
  readonly durationMs?: number;
  /** Bytes that wait for a peer that does not read. */
  readonly queueBytes?: number;
  /** Sees every frame. */
  readonly observer?: EdgeObserver;
  readonly signal?: AbortSignal;
  /** Takes lines for people. */
  readonly say?: (line: string) => void;
}

/** Why a gateway ended. */
export type Ending = 'quit' | 'duration' | 'done' | 'failed';

export interface LiveOutcome extends Outcome {
  readonly ending: Ending;
  readonly simulatedPs: TimePs;
  readonly lag: LagReport;
  readonly wire: WireCounters;
  readonly control: ControlCounters | undefined;
}

/** Runs a gateway to its end. Throws only for what is wrong before it begins. */
export async function runLive(options: LiveOptions): Promise<LiveOutcome> {
  const gateway = new LiveGateway(options);
  return await gateway.run();
}

class LiveGateway {
  private readonly world: World;
  private readonly ethernet: EthernetPort;
  private pace = new Pace();
  private wire: EthernetSocket | undefined;
  private control: ControlServer | undefined;
  private recorder: Recorder | undefined;
  /** Everything before this has happened, or is about to without looking outside. */
  private reachedPs: TimePs = 0;
  private readonly endPs: TimePs;
  private timer: NodeJS.Timeout | undefined;
  private immediate: NodeJS.Immediate | undefined;
  private isRunning = false;
  private finish: (ending: Ending, error?: unknown) => void = () => {};

  constructor(private readonly options: LiveOptions) {
    const { scenario, setup, observer } = options;
    const { mode, seed } = setup;
    const durationPs = options.durationMs === undefined ? NEVER : options.durationMs * MS;
    this.endPs = Math.min(durationPs, scenario.limits.simulatedPs);
    this.world = new World({ scenario, mode, seed, setup });
    this.ethernet = this.world.ethernet as EthernetPort;
    this.ethernet.edge.observer = {
      sent: (bytes, now) => {
        this.wire?.send(bytes);
        observer?.sent(bytes, now);
      },
      received: (bytes, now) => observer?.received?.(bytes, now),
    };
  }

  async run(): Promise<LiveOutcome> {
    const { options } = this;
    const startMs = performance.now();
    const over = new Promise<{ ending: Ending; error: unknown }>((resolve) => {
      this.finish = (ending, error) => {
        this.isRunning = false;
        resolve({ ending, error });
      };
    });
    const onAbort = (): void => this.finish('failed', options.signal?.reason);
    try {
      if (options.record !== undefined) await this.startRecording(options.record);
      const met = this.meet();
      // A program that sends before anybody is there has lost its packets.
      this.wire = await this.openWire(met.listener);
      options.signal?.throwIfAborted();
      options.signal?.addEventListener('abort', onAbort, { once: true });
      if (this.hasWork) await Promise.race([met.done, over]);
      this.pace = new Pace();
      if (options.control !== undefined) await this.openControl(options.control);
      this.isRunning = true;
      if (options.signal?.aborted) onAbort();
      this.soon();
      const { ending, error } = await over;
      return await this.conclude(ending, error, startMs);
    } finally {
      options.signal?.removeEventListener('abort', onAbort);
      clearTimeout(this.timer);
      clearImmediate(this.immediate);
      this.wire?.close();
      await this.control?.close();
    }
  }

  /** One look at the clock: everything that is due happens. */
  private turn(): void {
    if (!this.isRunning) return;
    const { world, pace, endPs } = this;
    const { wallPs } = pace;
    if (pace.note(world.nextPs, wallPs)) {
      const behindMs = (wallPs - world.nextPs) / MS;
      this.say(`the simulated world is ${behindMs.toFixed(0)} ms behind`);
    }
    this.reachedPs = Math.max(this.reachedPs, Math.min(wallPs, endPs));
    let ranOut: boolean;
    try {
      ranOut = world.partition.advance(SLICE_EVENTS, this.reachedPs);
    } catch (error) {
      this.finish('failed', error);
      return;
    }
    if (!this.isRunning) return;
    if (this.hasWork && world.isDone) this.finish('done');
    else if (wallPs < endPs) this.sleep(ranOut);
    else {
      const isInTime = world.isDone && this.options.durationMs !== undefined;
      this.finish('duration', isInTime ? undefined : this.timeLimit());
    }
  }

  /** Takes the next turn when something is due. */
  private sleep(ranOut: boolean): void {
    const nextPs = Math.min(this.world.nextPs, this.endPs);
    const waitMs = Math.min((nextPs - this.pace.wallPs) / MS, LONGEST_TIMER_MS);
    if (ranOut || waitMs < TIMER_MS) this.soon();
    else this.timer = setTimeout(() => this.turn(), waitMs);
  }

  /** Takes the next turn as soon as the sockets have been looked at. */
  private soon(): void {
    clearTimeout(this.timer);
    clearImmediate(this.immediate);
    this.immediate = setImmediate(() => this.turn());
  }

  /** Gives something that has come a time, once, and lets it in. */
  private letIn(make: (timePs: TimePs) => Arrival): void {
    if (!this.isRunning) return;
    const { arrivals } = this.ethernet;
    const arrival = make(arrivals.stamp(this.pace.wallPs, this.reachedPs));
    try {
      this.recorder?.keep(arrival);
    } catch (error) {
      this.finish('failed', error);
      return;
    }
    arrivals.feed(arrival);
    this.soon();
  }

  private meet(): { listener: WireListener; done: Promise<void> } {
    const { say, options } = this;
    let meet = (): void => {};
    const done = new Promise<void>((resolve) => {
      meet = resolve;
    });
    const listener: WireListener = {
      onFrame: (frame) => this.letIn((timePs) => ({ timePs, frame })),
      onPeer: (name) => {
        say(`${name} is connected`);
        meet();
      },
      onGone: (reason) => {
        if (options.connect === undefined) say(reason.describe());
        else this.finish('failed', reason);
      },
      onRefused: (name) => say(`${name} is refused: somebody else is connected`),
    };
    return { listener, done };
  }

  private async openWire(listener: WireListener): Promise<EthernetSocket> {
    const { listen, connect, queueBytes, connectTimeoutMs, signal } = this.options;
    const queue = queueBytes === undefined ? {} : { queueBytes };
    if (connect === undefined) {
      const wire = await listenOnWire(listen as string, listener, queue);
      this.say(`listening on ${listen}`);
      return wire;
    }
    return await connectToWire(connect, listener, {
      ...queue,
      ...(connectTimeoutMs === undefined ? {} : { timeoutMs: connectTimeoutMs }),
      ...(signal === undefined ? {} : { signal }),
    });
  }

  private async openControl(address: string): Promise<void> {
    const server = await ControlServer.listen(address, {
      onCommand: (client, line) => this.letIn((timePs) => ({ timePs, client, line })),
      onGone: (client) => this.letIn((timePs) => ({ timePs, client, gone: true })),
    });
    this.control = server;
    this.ethernet.control.output = {
      reply: (client, reply) => server.reply(client, reply),
      quit: () => this.finish('quit'),
    };
    this.say(`control on ${address}`);
  }

  private async startRecording(file: string): Promise<void> {
    const { scenario, setup } = this.options;
    const head = { scenario: scenario.name, scenarioHash: scenarioHash(scenario), setup };
    this.recorder = await Recorder.create(file, head);
  }

  /** Brings the world to the end that its recording will have, and says what became of it. */
  private async conclude(ending: Ending, problem: unknown, startMs: number): Promise<LiveOutcome> {
    const { world, recorder, reachedPs } = this;
    let error = problem;
    try {
      if (problem === undefined) while (world.partition.advance(SLICE_EVENTS, reachedPs));
      await recorder?.end(Math.max(1, reachedPs));
    } catch (late) {
      error ??= late;
    }
    return {
      reports: world.report(),
      windows: 0,
      wallSeconds: (performance.now() - startMs) / 1000,
      error,
      ending: error === undefined ? ending : 'failed',
      simulatedPs: reachedPs,
      lag: this.pace.report(),
      wire: { ...(this.wire as EthernetSocket).counters },
      control: this.control && { ...this.control.counters },
    };
  }

  private get hasWork(): boolean {
    return this.options.scenario.operations.length > 0;
  }

  private timeLimit(): Failure {
    const { done, planned } = this.world.progress;
    return new Failure(
      'E_TIME_LIMIT',
      `${done} of ${planned} operations are done`,
      'gateway',
      'to finish within --duration and limits.simulated',
    );
  }

  private readonly say = (line: string): void => this.options.say?.(line);
}
