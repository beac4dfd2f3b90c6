/** Results of conform as a table. */
import Table from 'cli-table3';
import type { ConformResult } from './conform.ts';

/** One row for each capture, what does not conform below, and the count, without a line end. */
export function renderResults(results: readonly ConformResult[]): string {
  const table = new Table({
    head: ['capture', 'frames', 'compared', 'conforms', 'departures'],
    colAligns: ['left', 'right', 'right', 'left', 'left'],
    style: { head: [], border: [], compact: true },
  });
  for (const result of results) {
    const { file, frames, compared, conforms } = result;
    table.push([file, frames, compared, conforms ? 'yes' : 'NO', departuresOf(result)]);
  }
  const reasons = results
    .filter(({ conforms }) => !conforms)
    .map(({ file, reason }) => `${file}: ${reason}`);
  const good = results.filter(({ conforms }) => conforms).length;
  return [table.toString(), ...reasons, `${good} of ${results.length} captures conform`].join('\n');
}

/** Each rule with how often it was needed. */
function departuresOf({ departures }: ConformResult): string {
  const counts = new Map<string, number>();
  for (const { rule } of departures) counts.set(rule, (counts.get(rule) ?? 0) + 1);
  return [...counts].map(([rule, count]) => `${rule} ${count}`).join(', ');
}
