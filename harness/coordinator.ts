/**
 * Runs one mode in several processes: starts them, shows their progress, takes in their outcomes,
 * and stops the others when one is lost.
 *
 * Two processes, one for each host, joined by one WebSocket; or, split, four, one for each node,
 * joined by a switchboard in this process. They meet at a Unix socket in a folder of their own and
 * know each other by a random token.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Failure, listen, runSwitchboard } from '../transport/index.ts';
import { type ChildMessage, COORDINATED, fromPlain, Interrupted, TOKEN } from './coordination.ts';
import type { NodeReport, Outcome } from './report.ts';
import type { RunHooks, RunProgress } from './run.ts';
import { channelsOf, identityOf, nodeNames, type RunOptions } from './world.ts';

const launcher = fileURLToPath(new URL('./launch.mjs', import.meta.url));
/** How long the others get to end by themselves once one has, before they are killed. */
const GRACE_MS = 3_000;

export interface CoordinatedOptions extends RunOptions {
  /** What the children load: the scenario as it was named here. */
  readonly scenarioName: string;
  /** Flags that change the scenario, passed on. */
  readonly scenarioFlags: readonly string[];
  /** Adapters and drivers in processes of their own. */
  readonly split: boolean;
  readonly peerTimeoutMs: number;
}

/** Runs to the end; what happens on the way is in the outcome. */
export async function runCoordinated(
  options: CoordinatedOptions,
  hooks: RunHooks = {},
): Promise<Outcome> {
  const startMs = performance.now();
  const folder = await mkdtemp(join(tmpdir(), 'faultline-'));
  const family = new Family(options, `ws+unix:${folder}/bus`, hooks);
  try {
    const outcome = await (options.split ? family.runSplit() : family.runPair());
    return { ...outcome, wallSeconds: (performance.now() - startMs) / 1000 };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The processes of one run. */
class Family {
  private readonly token = randomBytes(24).toString('base64url');
  private readonly children: Child[] = [];

  constructor(
    private readonly options: CoordinatedOptions,
    private readonly url: string,
    private readonly hooks: RunHooks,
  ) {}

  runPair(): Promise<Outcome> {
    const [a, b] = this.options.scenario.hosts.map(({ name }) => name) as [string, string];
    this.start(a, '--listen');
    this.start(b, '--connect');
    return this.gather();
  }

  async runSplit(): Promise<Outcome> {
    const { options, token, url } = this;
    const names = nodeNames(options.scenario);
    const listener = await listen(url, { token, peerCount: names.length });
    for (const name of names) this.start(name, '--connect');
    const stop = new AbortController();
    const hub = runSwitchboard({
      run: identityOf(options),
      channels: channelsOf(options.scenario),
      participantCount: names.length,
      accept: () => listener.accept(stop.signal),
      peerTimeoutMs: options.peerTimeoutMs,
      signal: stop.signal,
    });
    // The hub notices a lost child as its children do; what it says is worth more than their echo.
    const verdict = hub.then(
      () => undefined,
      (error: unknown) => error,
    );
    try {
      const outcome = await this.gather();
      if (outcome.error === undefined) return outcome;
      stop.abort(outcome.error);
      const hubError = await verdict;
      const isEcho = outcome.error instanceof Failure && outcome.error.code === 'E_PEER_FAILED';
      return isEcho && hubError instanceof Failure ? { ...outcome, error: hubError } : outcome;
    } finally {
      stop.abort(new Interrupted());
      await verdict;
      listener.close();
    }
  }

  private start(role: string, meet: '--listen' | '--connect'): void {
    const { mode, seed, scenarioName, scenarioFlags, peerTimeoutMs } = this.options;
    const args = ['host', '--role', role, meet, this.url, '--mode', mode, '--seed', `${seed}`];
    args.push('--peer-timeout', `${peerTimeoutMs / 1000}`, ...scenarioFlags, '--', scenarioName);
    const child = new Child(role, args, this.token, () => this.showProgress());
    this.children.push(child);
  }

  /** Waits for all children; once one has failed, the others have little time left. */
  private async gather(): Promise<Outcome> {
    const { signal } = this.hooks;
    const interrupt = (): void => {
      for (const child of this.children) child.stop('SIGTERM');
    };
    if (signal?.aborted) interrupt();
    signal?.addEventListener('abort', interrupt);
    let timer: NodeJS.Timeout | undefined;
    const outcomes = await Promise.all(
      this.children.map(async (child) => {
        const outcome = await child.done;
        if (outcome.error !== undefined) {
          timer ??= setTimeout(() => {
            for (const other of this.children) other.stop('SIGKILL');
          }, GRACE_MS);
        }
        return outcome;
      }),
    );
    clearTimeout(timer);
    signal?.removeEventListener('abort', interrupt);
    return merge(outcomes, signal?.aborted ? signal.reason : undefined);
  }

  private showProgress(): void {
    const all = this.children.flatMap(({ progress }) => (progress ? [progress] : []));
    this.hooks.onProgress?.({
      simulatedPs: Math.min(...all.map(({ simulatedPs }) => simulatedPs)),
      done: all.reduce((sum, { done }) => sum + done, 0),
      planned: all.reduce((sum, { planned }) => sum + planned, 0),
    });
  }
}

/** One host process. */
class Child {
  progress: RunProgress | undefined;
  /** Resolves when the process has ended. */
  readonly done: Promise<Outcome>;
  private readonly process: ChildProcess;

  constructor(
    readonly role: string,
    args: readonly string[],
    token: string,
    onProgress: () => void,
  ) {
    this.process = spawn(process.execPath, [launcher, 'cli', ...args], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      serialization: 'advanced',
      env: { ...process.env, [COORDINATED]: '1', [TOKEN]: token },
    });
    let outcome: Outcome | undefined;
    this.process.on('message', (message: ChildMessage) => {
      if (message.type === 'outcome') outcome = fromPlain(message.outcome);
      else {
        this.progress = message.progress;
        onProgress();
      }
    });
    this.done = new Promise((resolve) => {
      this.process.once('error', (error) =>
        resolve(this.lost(`cannot be started: ${error.message}`)),
      );
      // Not `exit`: messages may still be on their way then.
      this.process.once('close', (code, signal) => {
        const how = signal ? `was killed by ${signal}` : `ended with status ${code}`;
        resolve(outcome ?? this.lost(how));
      });
    });
  }

  stop(signal: NodeJS.Signals): void {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill(signal);
    }
  }

  private lost(how: string): Outcome {
    const error = new Failure('E_PEER_LOST', `the process ${how}`, this.role);
    return { reports: [], windows: 0, wallSeconds: 0, error };
  }
}

/** One outcome from those of all processes: each node's fullest report, and the error to blame. */
function merge(outcomes: readonly Outcome[], interrupted: unknown): Outcome {
  const reports = new Map<string, NodeReport>();
  for (const outcome of outcomes) {
    for (const report of outcome.reports) reports.set(report.node, report);
  }
  const errors = outcomes.flatMap(({ error }) => (error === undefined ? [] : [error]));
  return {
    reports: [...reports.values()],
    windows: Math.max(...outcomes.map(({ windows }) => windows)),
    wallSeconds: 0,
    error: interrupted ?? [...errors].sort((x, y) => echo(x) - echo(y))[0],
  };
}

/** How likely an error is only the echo of another process's: 0, not at all. */
function echo(error: unknown): number {
  if (!(error instanceof Failure)) return 0;
  if (error.code === 'E_PEER_FAILED') return 3;
  if (error.code === 'E_PEER_LOST') return error.message.startsWith('the process') ? 1 : 2;
  return error.code.startsWith('E_PEER') ? 1 : 0;
}
