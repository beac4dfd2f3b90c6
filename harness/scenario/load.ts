/**
 * Finds a scenario by name or path and evaluates it.
 *
 * A name is that of a file in harness/scenarios; a path is any TypeScript or JavaScript file that
 * exports exactly one scenario (or a JSON file with one). Scripts run in a worker thread with a time
 * limit; see `evaluate.mjs`.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { Failure } from '../../transport/index.ts';
import { nearest } from '../nearest.ts';
import type { Scenario } from './schema.ts';
import { validateScenario } from './validate.ts';

const builtInFolder = fileURLToPath(new URL('../scenarios/', import.meta.url));
const worker = new URL('./evaluate.mjs', import.meta.url);

/** What became of one script. */
type Evaluation =
  | { readonly file: string; readonly scenarios: string[] }
  | { readonly file: string; readonly problem: string; readonly line: number };

/** How long a script may take, in wall-clock milliseconds. */
export const SCRIPT_LIMIT_MS = 10_000;

/** What `npm start` runs. */
export const DEFAULT_SCENARIO = 'qe-alltoall';

/** The names of the scenarios that ship. */
export function builtInNames(): string[] {
  return readdirSync(builtInFolder)
    .filter((file) => file.endsWith('.ts'))
    .map((file) => basename(file, '.ts'))
    .sort();
}

/** Every scenario that ships, evaluated. */
export async function loadBuiltIns(): Promise<Scenario[]> {
  const files = builtInNames().map((name) => `${builtInFolder}${name}.ts`);
  const evaluations = await evaluate(files, SCRIPT_LIMIT_MS);
  return evaluations.map((evaluation) => validateScenario(onlyScenario(evaluation)));
}

/**
 * The scenario called `nameOrPath`. Throws Failure E_SCENARIO_NOT_FOUND, _SCRIPT, _TIMEOUT or
 * _INVALID.
 */
export async function loadScenario(
  nameOrPath: string,
  limitMs = SCRIPT_LIMIT_MS,
): Promise<Scenario> {
  const file = locate(nameOrPath);
  if (file.endsWith('.json')) return validateScenario(readJson(file));
  const [evaluation] = await evaluate([file], limitMs);
  return validateScenario(onlyScenario(evaluation as Evaluation));
}

function locate(nameOrPath: string): string {
  const names = builtInNames();
  if (names.includes(nameOrPath)) return `${builtInFolder}${nameOrPath}.ts`;
  const isPath = /[/\\]|\.(ts|mts|js|mjs|json)$/.test(nameOrPath);
  const file = resolve(nameOrPath);
  if (isPath && existsSync(file)) return file;
  if (isPath) {
    throw new Failure(
      'E_SCENARIO_NOT_FOUND',
      'there is no such file',
      nameOrPath,
      'a scenario script',
    );
  }
  const near = nearest(nameOrPath, names);
  const hint = near === undefined ? '' : `; did you mean '${near}'?`;
  throw new Failure(
    'E_SCENARIO_NOT_FOUND',
    `there is no scenario of that name${hint}`,
    nameOrPath,
    `${names.join(', ')}, or a path to a .ts file`,
  );
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new Failure('E_SCENARIO_INVALID', (error as Error).message, file, 'JSON');
  }
}

function onlyScenario(evaluation: Evaluation): unknown {
  const { file } = evaluation;
  if ('problem' in evaluation) {
    const place = evaluation.line > 0 ? `${file}:${evaluation.line}` : file;
    throw new Failure('E_SCENARIO_SCRIPT', evaluation.problem, place);
  }
  const [text, ...others] = evaluation.scenarios;
  if (text === undefined || others.length > 0) {
    throw new Failure(
      'E_SCENARIO_INVALID',
      `the script exports ${evaluation.scenarios.length} scenarios`,
      file,
      'exactly one',
    );
  }
  return JSON.parse(text);
}

/** Runs the scripts `files` in one worker thread. */
function evaluate(files: readonly string[], limitMs: number): Promise<Evaluation[]> {
  const place = files.length === 1 ? (files[0] as string) : builtInFolder;
  return new Promise((done, fail) => {
    const thread = new Worker(worker, {
      workerData: files,
      execArgv: [],
      stdout: true,
    });
    // What a script prints may not end up in front of the results.
    thread.stdout.pipe(process.stderr, { end: false });
    const timer = setTimeout(() => {
      fail(
        new Failure(
          'E_SCENARIO_TIMEOUT',
          `the script did not end within ${limitMs / 1000} s`,
          place,
          'a script that only describes a scenario',
        ),
      );
      void thread.terminate();
    }, limitMs);
    thread.once('message', (evaluations: Evaluation[]) => {
      done(evaluations);
      void thread.terminate();
    });
    thread.once('error', (error) => {
      fail(new Failure('E_SCENARIO_SCRIPT', error.message, place));
    });
    thread.once('exit', () => {
      clearTimeout(timer);
      fail(new Failure('E_SCENARIO_SCRIPT', 'the script ended its thread', place));
    });
  });
}
