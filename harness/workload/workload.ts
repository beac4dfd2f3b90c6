/**
 * What runs on a host: one program, started once, that can be asked how far it is.
 */
import type { Host } from '../../kernel/index.ts';
import type { Mode, Scenario } from '../scenario/schema.ts';
import { checkPair } from '../trace/check-pair.ts';
import { readTrace } from '../trace/reader.ts';
import type { Progress } from './progress.ts';
import { Replay } from './replay.ts';
import { Scripted } from './scripted.ts';

export interface Workload {
  readonly progress: Progress;
}

export interface ProgramOptions {
  readonly scenario: Scenario;
  readonly mode: Mode;
  readonly seed: number;
  /** Which host of the scenario, 0 or 1. */
  readonly index: number;
}

/** Starts the program of one host, at time 0. Throws Failure E_TRACE_INVALID. */
export function startProgram(host: Host, options: ProgramOptions): Workload {
  const { replay } = options.scenario;
  if (!replay) return new Scripted(host, options);
  const [a, b] = replay.ranks.map((rank) => readTrace(replay.run, rank));
  const [own, other] = options.index === 0 ? [a, b] : [b, a];
  if (!own || !other) throw new Error('a replay has two ranks');
  checkPair(own, other);
  checkPair(other, own);
  return new Replay(host, own, other.rank, options);
}
