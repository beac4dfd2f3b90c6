/**
 * `faultline validate`: published figures against the model.
 */
import { renderRows } from '../experiments/report.ts';
import { writeOut } from '../standard-output.ts';
import { evaluate, type FigureRow } from './figure.ts';
import { figures } from './registry.ts';

/** Runs every figure; exit status 1 when one that was calibrated does not come out. */
export async function validate(options: { readonly json?: boolean }): Promise<number> {
  const rows: FigureRow[] = [];
  for (const figure of figures) {
    process.stderr.write(`${rows.length + 1} of ${figures.length}: ${figure.figure}\n`);
    rows.push(evaluate(figure));
  }
  if (options.json) await writeOut(`${JSON.stringify(rows, null, 2)}\n`);
  else await writeOut(`${render(rows)}\n`);
  return rows.every(({ role, within }) => role === 'predicted' || within) ? 0 : 1;
}

function render(rows: readonly FigureRow[]): string {
  const head = [
    'figure',
    'unit',
    'published',
    'model',
    'deviation',
    'within',
    'role',
    'grade',
    'source',
  ];
  const sources = [...new Set(rows.map(({ source }) => source))];
  const cells = rows.map((row) => [
    row.figure,
    row.unit,
    row.published,
    row.modelled,
    `${(row.deviation * 100).toFixed(1)} %`,
    row.within ? 'yes' : 'NO',
    row.role,
    row.grade,
    `[${sources.indexOf(row.source) + 1}]`,
  ]);
  const within = rows.filter((row) => row.within).length;
  const notes = rows
    .filter(({ reason }) => reason !== '')
    .map(({ figure, reason }) => `${figure}: ${reason}`);
  const listed = sources.map((source, i) => `[${i + 1}] ${source}`);
  const lines = [renderRows(head, cells), `${within} of ${rows.length} within tolerance`];
  const grades =
    'grades: S read from the source, F off its plot, S2 from a secondary document, D derived, R recalled';
  return [...lines, ...notes, ...listed, grades].join('\n');
}
