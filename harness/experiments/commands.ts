/**
 * `faultline experiment` and `faultline systems`: questions of the seed threads, and every system that
 * they describe with what shows it.
 */
import { Failure } from '../../transport/index.ts';
import { nearest } from '../nearest.ts';
import { writeOut } from '../standard-output.ts';
import { prepareOutput, writeOutput } from '../stats/output.ts';
import type { Experiment } from './experiment.ts';
import { experiments } from './registry.ts';
import { renderExperiment, renderRows, toCsv } from './report.ts';
import { runSeeded } from './seeded.ts';
import { type SystemRow, systemRows } from './systems.ts';

export interface ExperimentOptions {
  readonly seed: number;
  readonly json?: boolean;
  /** Folder for NAME.csv, NAME.json and, where there is a plot, NAME.svg. */
  readonly out?: string;
}

/** `experiment`: runs one, or lists all; returns the exit status. */
export async function experiment(
  name: string | undefined,
  options: ExperimentOptions,
): Promise<number> {
  if (name === undefined) {
    if (options.out === undefined) return listExperiments(options.json ?? false);
    throw new Failure(
      'E_USAGE',
      'there is nothing to leave there',
      '--out',
      'the name of an experiment',
    );
  }
  const chosen = find(name);
  if (options.out !== undefined) await prepareOutput(options.out);
  const result = runSeeded(chosen, options.seed);
  if (options.out !== undefined) {
    const files: Record<string, string> = {
      [`${name}.csv`]: toCsv(result),
      [`${name}.json`]: `${JSON.stringify({ name, ...result }, null, 2)}\n`,
    };
    if (result.plot !== undefined) {
      const { renderPlot } = await import('./chart.ts');
      files[`${name}.svg`] = renderPlot(chosen.title, result, result.plot);
    }
    await writeOutput(options.out, files);
  }
  const { systems, title } = chosen;
  if (options.json)
    await writeOut(`${JSON.stringify({ name, systems, title, ...result }, null, 2)}\n`);
  else await writeOut(`${renderExperiment(chosen, result)}\n`);
  return result.ok ? 0 : 1;
}

/** `systems`: runs what shows each system; exit status 1 when one is not as it should be. */
export async function systems(options: {
  readonly seed: number;
  readonly json?: boolean;
}): Promise<number> {
  const rows: SystemRow[] = [];
  for (const row of systemRows(options.seed)) {
    rows.push(row);
    process.stderr.write(`${row.id} ${row.ok ? 'ok' : 'NOT OK'}\n`);
  }
  if (options.json) await writeOut(`${JSON.stringify(rows, null, 2)}\n`);
  else {
    const cells = rows.map(({ id, command, result, ok }) => [
      id,
      ok ? 'yes' : 'NO',
      result,
      command,
    ]);
    await writeOut(`${renderRows(['', 'ok', 'result', 'command'], cells, [5, 5, 78, 50])}\n`);
  }
  return rows.every(({ ok }) => ok) ? 0 : 1;
}

async function listExperiments(json: boolean): Promise<number> {
  const rows = experiments.map(({ name, systems: shown, title }) => ({
    name,
    systems: shown,
    title,
  }));
  if (json) await writeOut(`${JSON.stringify(rows, null, 2)}\n`);
  else {
    const cells = rows.map((row) => [row.name, row.systems.join(' '), row.title]);
    await writeOut(`${renderRows(['experiment', 'systems', 'question'], cells)}\n`);
  }
  return 0;
}

function find(name: string): Experiment {
  const found = experiments.find((candidate) => candidate.name === name);
  if (found) return found;
  const names = experiments.map((candidate) => candidate.name);
  const hint = nearest(name, names);
  throw new Failure(
    'E_USAGE',
    `there is no experiment '${name}'`,
    'experiment',
    hint === undefined ? 'a name that `faultline experiment` lists' : `'${hint}'?`,
  );
}
