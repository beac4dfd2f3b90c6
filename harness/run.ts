/**
 * Runs one mode of a scenario: all of it in this process, or this process's part over a channel.
 *
 * Neither throws for what happens during the run: the outcome carries the error, and what is known
 * about the run up to there.
 */
import {
  assert,
  type Channel,
  handshake,
  makeHello,
  runLockstep,
  SimulationBug,
} from '../transport/index.ts';
import { type NodeReport, type Outcome, readReports, unfinishedWork } from './report.ts';
import { identityOf, type RunOptions, World } from './world.ts';

/** Events between two turns of the event loop, so that progress shows and Ctrl-C works. */
const SLICE_EVENTS = 20_000;

/** How far a run, or the local part of it, is. */
export interface RunProgress {
  readonly simulatedPs: number;
  readonly done: number;
  readonly planned: number;
}

export interface RunHooks {
  /** Called a few times a second, and more often. */
  readonly onProgress?: (progress: RunProgress) => void;
  /** Ends the run early with its reason. */
  readonly signal?: AbortSignal;
}

/** Runs the whole world here. Throws only for a world that cannot be built (bad input). */
export async function runInProcess(options: RunOptions, hooks: RunHooks = {}): Promise<Outcome> {
  const startMs = performance.now();
  const world = new World(options);
  const { partition } = world;
  let error: unknown;
  try {
    while (!partition.finished()) {
      hooks.signal?.throwIfAborted();
      const ranOut = partition.advance(SLICE_EVENTS);
      assert(
        ranOut || partition.finished(),
        'no node may go on, and yet the world is not finished',
      );
      hooks.onProgress?.(progressOf(world));
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    checkEnd(world, world.report());
  } catch (problem) {
    error = withSeed(problem, options);
  }
  return { reports: world.report(), windows: 0, wallSeconds: since(startMs), error };
}

export interface PartOptions extends RunOptions {
  /** Names of the nodes that run here. */
  readonly local: readonly string[];
  readonly peerTimeoutMs: number;
}

/**
 * Runs this process's part over the channel that `connect` gives, which leads to a process or a
 * switchboard with the rest. The world is built first, so bad input is found before anyone connects.
 */
export async function runPart(
  options: PartOptions,
  connect: () => Promise<Channel>,
  hooks: RunHooks = {},
): Promise<Outcome> {
  const startMs = performance.now();
  const { local, peerTimeoutMs } = options;
  const world = new World(options, local);
  const { partition, nodes, channels, pool, writer } = world;
  let windows = 0;
  let reports: NodeReport[] | undefined;
  let error: unknown;
  try {
    const channel = await connect();
    const abort = hooks.signal ? { signal: hooks.signal } : {};
    await handshake(channel, makeHello(identityOf(options), local), { peerTimeoutMs, ...abort });
    const result = await runLockstep({
      partition,
      nodes,
      channels,
      pool,
      writer,
      channel,
      peerTimeoutMs,
      report: () => world.report(),
      onRound: (round) => {
        windows = round;
        hooks.onProgress?.(progressOf(world));
      },
      ...abort,
    });
    const others = result.reports.flatMap((report) => readReports(report, channel.name));
    reports = [...world.report(), ...others];
    checkEnd(world, reports);
  } catch (problem) {
    error = withSeed(problem, options);
  }
  return { reports: reports ?? world.report(), windows, wallSeconds: since(startMs), error };
}

function checkEnd(world: World, reports: readonly NodeReport[]): void {
  const problem = unfinishedWork(reports);
  if (problem) throw problem;
  world.checkLeaks();
}

function progressOf(world: World): RunProgress {
  return { simulatedPs: world.nowPs, ...world.progress };
}

/** A bug report has to say how to see the bug again. */
function withSeed(problem: unknown, { scenario, mode, seed }: RunOptions): unknown {
  if (!(problem instanceof SimulationBug)) return problem;
  problem.message += `; to reproduce: faultline run ${scenario.name} --mode ${mode} --seed ${seed}`;
  return problem;
}

function since(startMs: number): number {
  return (performance.now() - startMs) / 1000;
}
