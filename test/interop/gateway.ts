/**
 * Owns our side as a process: `faultline gateway` as a child, joined to the guest's link, and one
 * conversation on its control socket (docs/GATEWAY.md). Does not own what is asked there (our-end.ts).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Harm } from './bench.ts';
import { NETDEV_MTU } from './guest.ts';
import type { Wire } from './run-cells.ts';

const launcher = fileURLToPath(new URL('../../harness/launch.mjs', import.meta.url));
const START_TIMEOUT_MS = 60_000;
/** Beyond what a command itself may wait. */
const ANSWER_MARGIN_MS = 30_000;
/** It has a recording to finish, if it keeps one. */
const QUIT_TIMEOUT_MS = 20_000;
/** Of the frames of each direction: what is lost, and what arrives twice. */
const LOSS_PPM = 50_000;
const DUPLICATE_PPM = 50_000;

/** Our side does not answer any more, or not in time. */
export class GatewayLost extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'GatewayLost';
  }
}

/** How far the gateway fell behind real time. */
export interface Lag {
  readonly maxMs: number;
  readonly times: number;
}

/** An answer of the control socket. */
export interface Reply {
  readonly error?: {
    readonly code: string;
    readonly message: string;
    readonly completions?: unknown;
  };
  readonly [field: string]: unknown;
}

interface Waiting {
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

export class Gateway implements Wire {
  private readonly waiting = new Map<number, Waiting>();
  private received = '';
  private report = '';
  private nextId = 1;
  private lost: GatewayLost | undefined;
  private seed = 1;

  private constructor(
    private readonly child: ChildProcess,
    private readonly said: () => string,
  ) {}

  /** Starts a gateway on the link at `linkPath`, with further `options`; its sockets go to `folder`. */
  static async start(
    linkPath: string,
    folder: string,
    options: readonly string[],
  ): Promise<Gateway> {
    const controlPath = join(folder, 'control');
    const sockets = ['--connect', `unix:${linkPath}`, '--control', `unix:${controlPath}`];
    const kind = ['--mtu', String(NETDEV_MTU), '--peer', 'rxe', '--json'];
    const child = spawn(process.execPath, [launcher, 'gateway', ...sockets, ...kind, ...options], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    child.stderr?.on('data', (text) => {
      said = (said + String(text)).slice(-4000);
    });
    const gateway = new Gateway(child, () => said.trim());
    child.stdout?.on('data', (text) => {
      gateway.report += String(text);
    });
    child.once('error', (error) => gateway.lose(`it cannot be started: ${error.message}`));
    child.once('exit', (code) => gateway.lose(`it ended (${code})`));
    const deadline = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      if (gateway.lost !== undefined) throw gateway.lost;
      const socket = await open(controlPath);
      if (socket !== undefined) {
        gateway.attach(socket);
        return gateway;
      }
      if (performance.now() > deadline) gateway.lose('it does not open its control socket');
      await sleep(50);
    }
  }

  /** Carries out commands one after the other, however many fail. */
  ask(commands: readonly Readonly<Record<string, unknown>>[]): Promise<Reply[]> {
    const waits = commands.reduce((sum, { ms }) => sum + (typeof ms === 'number' ? ms : 0), 0);
    const replies = commands.map((command) => {
      const id = this.nextId++;
      const reply = new Promise<Reply>((resolve, reject) => {
        if (this.lost !== undefined) reject(this.lost);
        else this.waiting.set(id, { resolve, reject });
      });
      const asText = (_: string, value: unknown) =>
        typeof value === 'bigint' ? String(value) : value;
      this.socket?.write(`${JSON.stringify({ id, ...command }, asText)}\n`);
      return reply;
    });
    const timer = setTimeout(
      () =>
        this.lose(
          `no answer within ${waits + ANSWER_MARGIN_MS} ms to ${JSON.stringify(commands[0]?.verb)}`,
        ),
      waits + ANSWER_MARGIN_MS,
    );
    return Promise.all(replies).finally(() => clearTimeout(timer));
  }

  async impair(isImpaired: boolean): Promise<void> {
    const shares = isImpaired ? { dropPpm: LOSS_PPM, duplicatePpm: DUPLICATE_PPM } : {};
    await this.must({ verb: 'impair', direction: 'both', seed: this.seed++, ...shares });
  }

  async harm(): Promise<Harm> {
    const { impaired_drops: dropped = 0, impaired_duplicates: doubled = 0 } = await this.counters();
    return { dropped, doubled };
  }

  /** Counters of the adapter and of its edge to the wire, as far as they have moved. */
  async counters(): Promise<Readonly<Record<string, number>>> {
    const { adapter, edge } = await this.must({ verb: 'counters' });
    return { ...(adapter as Record<string, number>), ...(edge as Record<string, number>) };
  }

  /** Ends it; returns how late it was with anything at the most, and how often more than 10 ms. */
  async quit(): Promise<Lag> {
    const closed = new Promise<void>((resolve) => this.child.once('close', () => resolve()));
    await this.must({ verb: 'quit' });
    const timer = setTimeout(() => this.child.kill('SIGKILL'), QUIT_TIMEOUT_MS);
    await closed;
    clearTimeout(timer);
    const { lag } = JSON.parse(this.report) as { lag: { max_ms: number; times: number } };
    return { maxMs: lag.max_ms, times: lag.times };
  }

  /** The end of what it printed. */
  consoleTail(): string {
    return this.said();
  }

  stop(): void {
    this.lose('stopped');
    this.socket?.destroy();
    this.child.kill('SIGKILL');
  }

  private socket: Socket | undefined;

  private attach(socket: Socket): void {
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.take(text));
    socket.on('error', (error) => this.lose(`its control socket failed: ${error.message}`));
    socket.on('close', () => this.lose('it closed its control socket'));
  }

  private take(text: string): void {
    const lines = (this.received + text).split('\n');
    this.received = lines.pop() ?? '';
    for (const line of lines) {
      const reply = JSON.parse(line) as Reply & { id?: number };
      this.waiting.get(reply.id ?? 0)?.resolve(reply);
      this.waiting.delete(reply.id ?? 0);
    }
  }

  private async must(command: Readonly<Record<string, unknown>>): Promise<Reply> {
    const [reply] = await this.ask([command]);
    if (reply?.error !== undefined)
      throw new GatewayLost(`${command.verb}: ${reply.error.message}`);
    return reply as Reply;
  }

  private lose(why: string): void {
    this.lost ??= new GatewayLost(`the gateway is lost: ${why}`);
    for (const { reject } of this.waiting.values()) reject(this.lost);
    this.waiting.clear();
  }
}

function open(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(undefined));
  });
}
