/** Gateways inside a test, joined over sockets in a temporary folder, and control clients for them. */
import { createConnection, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import { type LiveOptions, type LiveOutcome, runLive } from '../../harness/gateway/live.ts';
import { type GatewaySetup, setupSchema } from '../../harness/gateway/setup.ts';
import type { Scenario, ScenarioInput } from '../../harness/scenario/schema.ts';
import { validateScenario } from '../../harness/scenario/validate.ts';
import { combineDigests } from '../../transport/index.ts';

/** A gateway that is not ended by its test ends by itself. */
const LONGEST_MS = 50_000;

export type Answer = Record<string, unknown> & {
  readonly error?: { readonly code: string; readonly message: string };
  readonly completions?: readonly Record<string, unknown>[];
};

/** The world of a gateway without work of its own; `change` adds what a test wants. */
export function gatewayScenario(change: Partial<ScenarioInput> = {}): Scenario {
  return validateScenario({
    name: 'wired',
    hosts: [
      { name: 'a', profile: 'spec', memory: '128MiB' },
      { name: 'b', external: { ip: '192.0.2.8' } },
    ],
    links: [{ between: ['a', 'b'], rate: '10Gbps', linkLayer: 'Ethernet' }],
    limits: { simulated: '9000s' },
    ...change,
  });
}

/** Two set-ups that do not collide: number 9 is the default of the command line. */
export function setupOf(number: 8 | 9, change: Partial<GatewaySetup> = {}): GatewaySetup {
  return setupSchema.parse({
    mac: `02:00:00:00:00:0${number}`,
    ipv4: `192.0.2.${number}`,
    mtu: 4200,
    ...change,
  });
}

export interface RunningGateway {
  readonly done: Promise<LiveOutcome>;
  readonly said: string[];
  stop(): void;
}

/** Starts a gateway; it is stopped with the test. */
export function startGateway(options: Partial<LiveOptions>): RunningGateway {
  const said: string[] = [];
  const stop = new AbortController();
  const done = runLive({
    scenario: gatewayScenario(),
    setup: setupOf(9),
    durationMs: LONGEST_MS,
    signal: stop.signal,
    say: (line) => said.push(line),
    ...options,
  });
  done.catch(() => {});
  onTestFinished(async () => {
    stop.abort(new Error('the test is over'));
    await done.catch(() => {});
  });
  return { done, said, stop: () => stop.abort(new Error('stopped')) };
}

export function digestOf({ reports }: Pick<LiveOutcome, 'reports'>): string {
  return combineDigests(new Map(reports.map(({ node, digest }) => [node, digest])));
}

/** Connects to a unix socket as soon as somebody listens there. */
export async function connectTo(path: string): Promise<Socket> {
  for (let i = 0; ; i++) {
    const socket = createConnection({ path, allowHalfOpen: true });
    const error = await new Promise<Error | undefined>((resolve) => {
      socket.once('connect', () => resolve(undefined));
      socket.once('error', resolve);
    });
    if (error === undefined) {
      socket.on('error', () => {});
      onTestFinished(() => {
        socket.destroy();
      });
      return socket;
    }
    if (i === 200) throw error;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A control client. */
export class Client {
  private text = '';
  private readonly waiting: ((answer: Answer) => void)[] = [];
  private readonly answers: Answer[] = [];
  readonly ended: Promise<void>;

  private constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.text += chunk.toString();
      const lines = this.text.split('\n');
      this.text = lines.pop() ?? '';
      for (const line of lines) {
        const answer = JSON.parse(line) as Answer;
        const next = this.waiting.shift();
        if (next) next(answer);
        else this.answers.push(answer);
      }
    });
    this.ended = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.once('end', () => socket.end());
  }

  static async connect(path: string): Promise<Client> {
    return new Client(await connectTo(path));
  }

  /** Sends a line as it is. */
  say(line: string): void {
    this.socket.write(`${line}\n`);
  }

  /** The next answer. */
  next(): Promise<Answer> {
    const answer = this.answers.shift();
    if (answer) return Promise.resolve(answer);
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  ask(verb: string, fields: Record<string, unknown> = {}): Promise<Answer> {
    this.say(JSON.stringify({ verb, ...fields }));
    return this.next();
  }

  /** Asks for something that has to go well. */
  async must(verb: string, fields: Record<string, unknown> = {}): Promise<Answer> {
    const answer = await this.ask(verb, fields);
    const failed = answer.completions?.find(({ status }) => status !== 0);
    if (answer.error || failed) {
      throw new Error(`${verb} ${JSON.stringify(fields)}: ${JSON.stringify(answer)}`);
    }
    return answer;
  }
}
