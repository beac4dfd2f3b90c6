/** `counters.csv`: every counter of every adapter and host, one a line. */
import type { NodeReport } from '../report.ts';
import type { Mode } from '../scenario/schema.ts';
import { type Cell, csv } from './csv.ts';

/** The text of `counters.csv`: mode, node, counter, value. */
export function countersCsv(runs: readonly (readonly [Mode, readonly NodeReport[]])[]): string {
  const rows = runs.flatMap(([mode, reports]) =>
    reports.flatMap(({ node, hca, host }) => {
      const counters: Readonly<Record<string, Cell>> = {
        ...hca?.counters,
        ...host?.mm,
        ...host?.dma,
      };
      return Object.entries(counters).map(([counter, value]) => ({ mode, node, counter, value }));
    }),
  );
  return csv(['mode', 'node', 'counter', 'value'], rows);
}
