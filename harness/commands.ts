/**
 * What the commands do. `command-line.ts` reads the command line and calls these; each returns the exit
 * status, or throws what `exit.ts` reports.
 */
import { join } from 'node:path';
import { type Channel, connect, Failure, listen } from '../transport/index.ts';
import { type Transport, usage } from './arguments.ts';
import { CaptureExport } from './capture/export.ts';
import { type ChildMessage, COORDINATED, Interrupted, toPlain } from './coordination.ts';
import { runCoordinated } from './coordinator.ts';
import { exitStatus, reportError } from './exit.ts';
import { GatewayCapture } from './gateway/capture.ts';
import { endsOf, type GatewayOptions, gateway } from './gateway/command.ts';
import { Recording } from './gateway/recording.ts';
import { recordedScenario, replay as replayArrivals } from './gateway/replay.ts';
import { showProgress } from './progress-display.ts';
import { type ReplayCommandOptions, replayCommand } from './replay/command.ts';
import type { Outcome } from './report.ts';
import { type RunHooks, type RunProgress, runInProcess, runPart } from './run.ts';
import { loadBuiltIns, loadScenario } from './scenario/load.ts';
import type { Mode, Scenario } from './scenario/schema.ts';
import { writeOut } from './standard-output.ts';
import { prepareOutput } from './stats/output.ts';
import { type CommandFacts, type ModeOutcomes, summaryOf, writeResults } from './stats/results.ts';
import { renderTable } from './stats/table.ts';
import { hasExternalHost, nodesOfRole, type RunOptions } from './world.ts';

/** How often a host process tells its coordinator how far it is, in milliseconds. */
const TELL_EVERY_MS = 100;

/** Options that every command which runs something has. */
export interface CommonOptions {
  readonly seed: number;
  readonly out?: string;
  readonly json?: boolean;
  readonly gapScale?: number;
  /** Whether to leave a capture of the simulated wire. */
  readonly pcap?: boolean;
  /** Milliseconds. */
  readonly peerTimeout: number;
}

export interface CompareOptions extends CommonOptions {
  readonly modes: readonly Mode[];
  readonly transport: Transport;
  readonly split?: boolean;
}

export interface HostOptions extends CommonOptions {
  readonly role: string;
  readonly listen?: string;
  readonly connect?: string;
  readonly mode: Mode;
  readonly token?: string;
}

/** Options of `run`. */
export type RunCommandOptions = Omit<CompareOptions, 'modes'> & {
  readonly mode: Mode;
  /** A recording of a gateway's inputs. */
  readonly arrivals?: string;
};

/** `compare` and `run`: the modes one after the other, then the table and the files. */
export async function compare(name: string, options: CompareOptions): Promise<number> {
  const { modes, transport, split = false, seed, peerTimeout: peerTimeoutMs } = options;
  if (split && transport === 'inproc') {
    throw usage('--split', 'there is nothing to split within one process', '--transport ws');
  }
  const scenario = simulated(await load(name, options));
  const folder = options.out ?? join('out', scenario.name);
  await prepareOutput(folder);
  const scenarioFlags = [...gapScaleFlags(options), ...captureFlags(options, folder)];
  const runs: [Mode, Outcome][] = [];
  for (const mode of modes) {
    const capture = options.pcap ? new CaptureExport(folder, mode, scenario) : undefined;
    const run = { scenario, mode, seed, ...tapsOf(capture) };
    const outcome = await captured(capture, () =>
      watched(`${scenario.name} ${mode}`, (hooks) =>
        transport === 'inproc'
          ? runInProcess(run, hooks)
          : runCoordinated(
              { ...run, scenarioName: name, scenarioFlags, split, peerTimeoutMs },
              hooks,
            ),
      ),
    );
    runs.push([mode, outcome]);
    if (outcome.error !== undefined && !isResult(outcome.error)) break;
  }
  const facts = { scenario, seed, transport: split ? 'ws split' : transport };
  return conclude(facts, runs, folder, options.json ?? false);
}

/** `host`: one side of a run whose other side is another process. */
export async function host(name: string, options: HostOptions): Promise<number> {
  const coordinated = process.env[COORDINATED] === '1';
  if (coordinated) return coordinatedHost(name, options);
  const scenario = simulated(await load(name, options));
  const folder = options.out ?? join('out', `${scenario.name}-${options.role}`);
  const { local, meet } = await meetingOf(scenario, options);
  await prepareOutput(folder);
  const capture = options.pcap ? new CaptureExport(folder, options.mode, scenario) : undefined;
  const part = { ...partOf(scenario, options, local), ...tapsOf(capture) };
  const outcome = await captured(capture, () =>
    watched(`${scenario.name} ${options.mode} ${options.role}`, (hooks) =>
      runPart(part, () => meet(hooks.signal), hooks),
    ),
  );
  const facts = { scenario, seed: options.seed, transport: 'ws' };
  return conclude(facts, [[options.mode, outcome]], folder, options.json ?? false);
}

/** `run --arrivals`: a recorded gateway session once more, without its sockets. */
export async function rerun(
  name: string,
  options: RunCommandOptions,
  file: string,
): Promise<number> {
  const recording = await Recording.open(file);
  const scenario = recordedScenario(await load(name, options), recording, file);
  const folder = options.out ?? join('out', scenario.name);
  await prepareOutput(folder);
  const { mode, seed } = recording.head.setup;
  const path = join(folder, `${mode}.pcapng`);
  const capture = options.pcap ? await GatewayCapture.create(path, endsOf(scenario)) : undefined;
  const observed = capture === undefined ? {} : { observer: capture };
  const outcome = await watched(`${scenario.name} ${mode}`, (hooks) =>
    replayArrivals(scenario, recording, { ...hooks, ...observed }),
  );
  await capture?.close();
  const facts = { scenario, seed, transport: 'arrivals' };
  return conclude(facts, [[mode, outcome]], folder, options.json ?? false);
}

/** `gateway`: an adapter on a real Ethernet, until it is told to stop. */
export function serve(options: GatewayOptions): Promise<number> {
  return stoppable((signal) => gateway(options, signal));
}

/** `replay`: a recorded MPI run under a registration scheme. */
export function replay(run: string, options: ReplayCommandOptions): Promise<number> {
  return watched(`${run} ${options.scheme}`, (hooks) => replayCommand(run, options, hooks));
}

/** `list`: the scenarios that ship. */
export async function list(options: { readonly json?: boolean }): Promise<number> {
  const scenarios = await loadBuiltIns();
  const entries = scenarios.map(({ name, summary }) => ({ name, summary }));
  if (options.json) await writeOut(`${JSON.stringify(entries, null, 2)}\n`);
  else {
    const width = Math.max(...entries.map(({ name }) => name.length));
    for (const entry of entries) {
      await writeOut(`${entry.name.padEnd(width)}  ${entry.summary}\n`);
    }
  }
  return 0;
}

/** A host process of a coordinator: says nothing itself, the coordinator speaks for it. */
async function coordinatedHost(name: string, options: HostOptions): Promise<number> {
  let lastMs = 0;
  const onProgress = (progress: RunProgress): void => {
    const nowMs = performance.now();
    if (nowMs - lastMs < TELL_EVERY_MS) return;
    lastMs = nowMs;
    tell({ type: 'progress', progress });
  };
  const outcome = await stoppable(async (signal): Promise<Outcome> => {
    try {
      const scenario = await load(name, options);
      const { local, meet } = await meetingOf(scenario, options);
      const { out, mode, pcap } = options;
      // The coordinator makes one capture of what its processes leave in its folder.
      const capture = pcap && out ? new CaptureExport(out, mode, scenario) : undefined;
      const part = { ...partOf(scenario, options, local), ...tapsOf(capture) };
      const outcome = await runPart(part, () => meet(signal), { signal, onProgress });
      capture?.close();
      return outcome;
    } catch (error) {
      return { reports: [], windows: 0, wallSeconds: 0, error };
    }
  });
  await tell({ type: 'outcome', outcome: toPlain(outcome) });
  return outcome.error === undefined ? 0 : exitStatus(outcome.error);
}

async function load(name: string, options: CommonOptions): Promise<Scenario> {
  const scenario = await loadScenario(name);
  const { gapScale } = options;
  if (gapScale === undefined) return scenario;
  if (!scenario.replay) {
    throw usage('--gap-scale', `scenario '${scenario.name}' replays nothing`, 'a replay scenario');
  }
  return { ...scenario, replay: { ...scenario.replay, gapScale } };
}

/** A scenario that needs no real wire. @throws Failure E_USAGE */
function simulated(scenario: Scenario): Scenario {
  if (!hasExternalHost(scenario)) return scenario;
  const problem = `a host of '${scenario.name}' is external`;
  throw usage('scenario', problem, "'faultline gateway', or 'run' with --arrivals");
}

function captureFlags({ pcap }: CommonOptions, folder: string): string[] {
  return pcap ? ['--pcap', '--out', folder] : [];
}

function tapsOf(capture: CaptureExport | undefined): Pick<RunOptions, 'tapOf'> {
  return capture ? { tapOf: (host, pool) => capture.tapOf(host, pool) } : {};
}

/** Runs `work`, and makes the capture of what it sent, however it ended. */
async function captured(
  capture: CaptureExport | undefined,
  work: () => Promise<Outcome>,
): Promise<Outcome> {
  try {
    const outcome = await work();
    capture?.merge();
    return outcome;
  } catch (error) {
    capture?.discard();
    throw error;
  }
}

function gapScaleFlags({ gapScale }: CommonOptions): string[] {
  return gapScale === undefined ? [] : ['--gap-scale', `${gapScale}`];
}

function partOf(scenario: Scenario, options: HostOptions, local: readonly string[]) {
  const { mode, seed, peerTimeout } = options;
  return { scenario, mode, seed, local, peerTimeoutMs: peerTimeout };
}

/** Which nodes run here, and how to get to the others. Already listens where it should. */
async function meetingOf(
  scenario: Scenario,
  { role, listen: listenUrl, connect: connectUrl, token }: HostOptions,
): Promise<{ local: string[]; meet: (signal: AbortSignal) => Promise<Channel> }> {
  if ((listenUrl === undefined) === (connectUrl === undefined)) {
    throw usage('--listen', 'one side listens and the other connects', '--listen or --connect');
  }
  const local = nodesOfRole(scenario, role);
  const secret = token === undefined ? {} : { token };
  if (connectUrl !== undefined) {
    return { local, meet: (signal) => connect(connectUrl, { ...secret, signal }) };
  }
  const listener = await listen(listenUrl as string, secret);
  if (process.env[COORDINATED] !== '1') {
    process.stderr.write(`faultline: ${role} listens on ${listener.url}\n`);
  }
  return {
    local,
    meet: async (signal) => {
      try {
        return await listener.accept(signal);
      } finally {
        listener.close();
      }
    },
  };
}

/** Shows and writes what is known, and says how it ended. */
async function conclude(
  facts: CommandFacts,
  runs: ModeOutcomes,
  folder: string,
  json: boolean,
): Promise<number> {
  const failures = runs.flatMap(([, { error }]) => (error === undefined ? [] : [error]));
  // Nothing is known of a run that never began; results of an earlier one are better kept.
  const began = runs.some(([, { reports }]) => reports.some(({ nowPs }) => nowPs > 0));
  if (failures.length > 0 && !began) return reportError(failures[0]);
  const summary = summaryOf(facts, runs);
  await writeResults(folder, summary, runs);
  if (json) await writeOut(`${JSON.stringify(summary, null, 2)}\n`);
  else await writeOut(`${renderTable(summary)}\nresults in ${folder}\n`);
  if (failures.length > 0) return failures.map((error) => reportError(error))[0] as number;
  // What is at the other end of a real wire is not for us to see.
  if (hasExternalHost(facts.scenario)) return 0;
  const unverified = Object.entries(summary.modes).filter(([, mode]) => !mode.data_verified);
  for (const [mode, { messages_unverified: count, messages_checked: of }] of unverified) {
    const message = of === 0 ? 'no message was checked' : `${count} of ${of} messages differ`;
    reportError(new Failure('E_UNVERIFIED', message, mode));
  }
  return unverified.length > 0 ? 1 : 0;
}

/** Whether an error is what the world came to, so that another mode may well fare better. */
function isResult(error: unknown): boolean {
  const results = ['E_OPERATION', 'E_STALLED', 'E_TIME_LIMIT'];
  return error instanceof Failure && results.includes(error.code);
}

/** Runs something long with its progress on show, and stoppable. */
function watched<T>(
  label: string,
  run: (hooks: RunHooks & { readonly signal: AbortSignal }) => Promise<T>,
): Promise<T> {
  const display = showProgress(label);
  return stoppable(async (signal) => {
    try {
      return await run({ signal, onProgress: (progress) => display.update(progress) });
    } finally {
      display.stop();
    }
  });
}

/**
 * Runs `work` so that Ctrl-C (or a coordinator that is gone) ends it and keeps what is known; a
 * second Ctrl-C ends the program at once.
 */
async function stoppable<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  let interrupts = 0;
  const onSignal = (signal?: unknown): void => {
    if (signal === 'SIGINT' && ++interrupts > 1) process.exit(130);
    stop.abort(new Interrupted());
  };
  const events = ['SIGINT', 'SIGTERM', 'disconnect'] as const;
  for (const event of events) process.on(event, onSignal);
  try {
    return await work(stop.signal);
  } finally {
    for (const event of events) process.off(event, onSignal);
  }
}

function tell(message: ChildMessage): Promise<void> {
  return new Promise((resolve) => {
    if (process.send && process.connected) process.send(message, () => resolve());
    else resolve();
  });
}
