/**
 * Everything a command leaves behind: `summary.json`, `mr.csv`, `qp.csv`, `counters.csv` and
 * `report.svg`, from the outcomes of its modes.
 */
import type { Outcome } from '../report.ts';
import type { Mode, Scenario } from '../scenario/schema.ts';
import { scenarioHash } from '../scenario/validate.ts';
import { nodeNames } from '../world.ts';
import { countersCsv } from './counters.ts';
import { writeOutput } from './output.ts';
import { queuePairsCsv } from './queue-pairs.ts';
import { regionsCsv } from './regions.ts';
import { latenciesOf, summarize } from './summarize.ts';
import type { ModeSummary, Summary } from './summary.ts';

export interface CommandFacts {
  readonly scenario: Scenario;
  readonly seed: number;
  /** How the processes were joined: `inproc`, `ws`, `ws split`. */
  readonly transport: string;
}

export type ModeOutcomes = readonly (readonly [Mode, Outcome])[];

/** The content of `summary.json`. */
export function summaryOf(
  { scenario, seed, transport }: CommandFacts,
  runs: ModeOutcomes,
): Summary {
  const modes: Partial<Record<Mode, ModeSummary>> = {};
  for (const [mode, outcome] of runs) modes[mode] = summarize(outcome, nodeNames(scenario).length);
  return {
    scenario: scenario.name,
    scenario_hash: scenarioHash(scenario),
    seed,
    transport,
    modes,
  };
}

/** Writes all files into `folder`, which exists. Throws Failure E_OUTPUT. */
export async function writeResults(
  folder: string,
  summary: Summary,
  runs: ModeOutcomes,
): Promise<void> {
  const reports = runs.map(([mode, outcome]) => [mode, outcome.reports] as const);
  const latencies = Object.fromEntries(reports.map(([mode, list]) => [mode, latenciesOf(list)]));
  // Loaded here because echarts takes longer to load than all the rest, and host processes draw nothing.
  const { renderChart } = await import('./chart.ts');
  await writeOutput(folder, {
    'mr.csv': regionsCsv(reports),
    'qp.csv': queuePairsCsv(reports),
    'counters.csv': countersCsv(reports),
    'report.svg': renderChart(summary, latencies),
    'summary.json': `${JSON.stringify(summary, null, 2)}\n`,
  });
}
