/**
 * How experiments are shown: tables on a terminal, CSV for pandas.
 */
import Table from 'cli-table3';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';

/** Lines of a table with numbers on the right, without a line end. */
export function renderRows(
  head: readonly string[],
  rows: readonly (readonly Cell[])[],
  widths: readonly (number | null)[] = [],
): string {
  const table = new Table({
    head: [...head],
    style: { head: [], border: [], compact: true },
    colAligns: head.map((_, i) =>
      rows.every((row) => typeof row[i] === 'number') ? 'right' : 'left',
    ),
    ...(widths.length > 0 ? { colWidths: [...widths], wordWrap: true } : {}),
  });
  for (const row of rows) table.push(row.map(show));
  return table.toString();
}

/** An experiment's title, table and answer. */
export function renderExperiment({ title, systems }: Experiment, result: ExperimentResult): string {
  const verdict = result.ok ? '' : 'NOT AS IT SHOULD BE: ';
  const table = renderRows(result.columns, result.rows);
  return `${title} (${systems.join(', ')})\n${table}\n${verdict}${result.result}`;
}

/** The rows with their column names, RFC 4180. */
export function toCsv({ columns, rows }: ExperimentResult): string {
  const lines = [columns, ...rows].map((row) => row.map(quote).join(','));
  return `${lines.join('\n')}\n`;
}

function quote(cell: Cell): string {
  const text = String(cell);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function show(cell: Cell): string {
  if (typeof cell === 'string' || Number.isInteger(cell)) return String(cell);
  return Math.abs(cell) >= 100 ? cell.toFixed(1) : cell.toPrecision(4);
}
