/** `experiment`, `systems` and `validate`: what they print, what they leave behind, what they refuse. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Experiment, ExperimentResult } from '../../harness/experiments/experiment.ts';
import { experiments } from '../../harness/experiments/registry.ts';
import { toCsv } from '../../harness/experiments/report.ts';
import { ummunotify } from '../../harness/experiments/ummunotify.ts';
import { filesIn, runHere, temporaryFolder } from './fixtures.ts';

/** What each experiment says with seed 1: they take their time, so each is run here once. */
const results = new Map<string, ExperimentResult>();

function resultOf(experiment: Experiment): ExperimentResult {
  const known = results.get(experiment.name);
  if (known !== undefined) return known;
  const result = experiment.run(1);
  results.set(experiment.name, result);
  return result;
}

describe('every experiment', () => {
  it.each(experiments.map((experiment) => [experiment.name, experiment] as const))(
    '%s answers its question',
    { timeout: 120_000 },
    (_name, experiment) => {
      const result = resultOf(experiment);
      expect(result.ok, result.result).toBe(true);
      for (const row of result.rows) expect(row).toHaveLength(result.columns.length);
      const { x, lines } = result.plot ?? { x: result.columns[0], lines: [] };
      for (const column of [x, ...lines]) expect(result.columns).toContain(column);
    },
  );

  it('has a name of its own and shows a system', () => {
    const names = experiments.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const { systems } of experiments) {
      expect(systems.length).toBeGreaterThan(0);
      for (const id of systems) expect(id).toMatch(/^S([1-9]|1\d|2[01])$/);
    }
  });
});

describe('faultline experiment', () => {
  it('lists what there is', async () => {
    const { status, stdout } = await runHere('experiment', '--json');
    expect(status).toBe(0);
    expect(JSON.parse(stdout).map(({ name }: { name: string }) => name)).toEqual(
      experiments.map(({ name }) => name),
    );
  });

  it('leaves a CSV, a JSON and a picture', async () => {
    const plotted = ummunotify;
    const folder = temporaryFolder();
    const { status, stdout } = await runHere('experiment', plotted.name, '--out', folder);
    expect(status).toBe(0);
    const result = resultOf(plotted);
    expect(stdout).toContain(result.result);
    expect(filesIn(folder).sort()).toEqual(
      ['csv', 'json', 'svg'].map((kind) => `${plotted.name}.${kind}`),
    );
    expect(readFileSync(join(folder, `${plotted.name}.csv`), 'utf8')).toBe(toCsv(result));
    expect(readFileSync(join(folder, `${plotted.name}.svg`), 'utf8')).toMatch(/^<svg/);
  });

  it.each([
    [['experiment', 'kvm-invalidat'], "'kvm-invalidate'?"],
    [['experiment', 'nothing-like-it'], 'that `faultline experiment` lists'],
    [['experiment', '--seed', 'x'], '--seed'],
    [['experiment', '--out', 'nowhere'], '--out'],
    [['systems', '--seed', '-1'], '--seed'],
    [['systems', 'S1'], 'command line'],
    [['validate', '--seed', '1'], '--seed'],
  ])('refuses %j', async (argv, expected) => {
    const { status, stdout, stderr } = await runHere(...argv);
    expect(status).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toContain('E_USAGE');
    expect(stderr).toContain(expected);
  });

  it('quotes cells as RFC 4180 says', () => {
    const columns = ['a', 'b'];
    const rows = [['x, "y"', 1.5]];
    expect(toCsv({ columns, rows, result: '', ok: true })).toBe('a,b\n"x, ""y""",1.5\n');
  });
});

describe('faultline systems', () => {
  it('prints each system with its command, its result and whether it is as it should be', {
    timeout: 300_000,
  }, async () => {
    const { status, stdout } = await runHere('systems', '--json');
    const rows = JSON.parse(stdout) as Record<string, unknown>[];
    expect(status).toBe(0);
    const ids = rows.map(({ id }) => id);
    const here = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 16, 17, 18, 19, 21].map((n) => `S${n}`);
    expect(ids).toEqual(here);
    for (const row of rows) {
      expect(Object.keys(row)).toEqual(['id', 'command', 'result', 'ok']);
      expect(row.ok).toBe(true);
      const [, name] = /^faultline experiment ([a-z0-9-]+)$/.exec(String(row.command)) ?? [];
      const shown = experiments.find((experiment) => experiment.name === name) as Experiment;
      // The second run of each, so the same seed has to give the same answer.
      expect(row.result).toBe(resultOf(shown).result);
    }
  });
});

describe('faultline validate', () => {
  it('holds the model against published figures', { timeout: 120_000 }, async () => {
    const { status, stdout } = await runHere('validate', '--json');
    expect(status).toBe(0);
    const rows = JSON.parse(stdout) as Record<string, unknown>[];
    for (const row of rows) {
      expect(Object.keys(row)).toEqual([
        'figure',
        'source',
        'grade',
        'unit',
        'parameters',
        'role',
        'published',
        'modelled',
        'deviation',
        'within',
        'reason',
      ]);
      const { published, modelled, deviation, within, reason } = row;
      expect(deviation).toBeCloseTo(Number(modelled) / Number(published) - 1, 12);
      // What does not come out has to say why.
      if (!within) expect(reason).not.toBe('');
    }
    expect(rows.length).toBeGreaterThan(10);
  });
});
