/**
 * Owns what a run says: the table, progress while it runs, and the same as data.
 */
import Table from 'cli-table3';
import { type Cell, directions, losses, memories } from './cells.ts';
import { type EvidenceReport, evidenceOf } from './evidence.ts';
import type { Lag } from './gateway.ts';
import { operations } from './operations.ts';
import type { CellResult } from './run-cells.ts';
import type { ToolResult } from './tools.ts';

const LINE_EVERY_MS = 3_000;
const lossTitle = { none: 'nothing lost', loss: '5 % of the frames lost, 5 % doubled' } as const;

/** Everything a run found out. */
export interface Findings {
  readonly guest: string;
  readonly cells: readonly CellResult[];
  readonly tools: readonly ToolResult[];
  /** Of our side; undefined where that is a second guest. */
  readonly counters: Readonly<Record<string, number>> | undefined;
  readonly lag: Lag | undefined;
  readonly seconds: number;
}

export interface Verdict {
  readonly green: number;
  readonly excused: number;
  readonly red: number;
}

/** A tool's run counts like a cell, and so does a condition that was not met. */
export function verdictOf({ cells, tools, counters }: Findings): Verdict {
  const count = (verdict: CellResult['verdict']) =>
    cells.filter((cell) => cell.verdict === verdict).length;
  const failedTools = tools.filter(({ problems }) => problems.length > 0).length;
  return {
    green: count('green') + tools.length - failedTools,
    excused: count('excused'),
    red: count('red') + failedTools + evidence(cells, counters).lacking.length,
  };
}

function evidence(cells: readonly CellResult[], counters: Findings['counters']): EvidenceReport {
  if (counters === undefined) return { found: [], lacking: [] };
  return evidenceOf(
    cells.map(({ cell }) => cell),
    counters,
  );
}

/** One line on standard error every few seconds, and one at once for each red cell. */
export class Progress {
  private lastMs = performance.now();
  private readonly startedMs = this.lastMs;
  private done = 0;

  constructor(private readonly total: number) {}

  cell(result: CellResult): void {
    this.done++;
    if (result.verdict === 'red') say(`red: ${nameOf(result.cell)}: ${explain(result)}`);
    this.line();
  }

  tool({ tool, guestRole, problems }: ToolResult): void {
    this.done++;
    if (problems.length > 0) say(`red: ${tool}, guest as ${guestRole}: ${problems.join('; ')}`);
    this.line();
  }

  private line(): void {
    const nowMs = performance.now();
    if (nowMs - this.lastMs < LINE_EVERY_MS) return;
    this.lastMs = nowMs;
    const seconds = ((nowMs - this.startedMs) / 1000).toFixed(0);
    say(`${this.done} of ${this.total} cells, ${seconds} s`);
  }
}

/** A line of progress. */
export function say(text: string): void {
  process.stderr.write(`interop: ${text}\n`);
}

/** The tables, as text for standard output. */
export function renderFindings(findings: Findings): string {
  const { cells, tools, seconds, guest, counters } = findings;
  const { found, lacking } = evidence(cells, counters);
  const { green, excused, red } = verdictOf(findings);
  const rules = [
    ...new Map(cells.flatMap(({ rule }) => (rule ? [[rule.name, rule.departure]] : []))),
  ];
  const letterOf = new Map(rules.map(([name], i) => [name, String.fromCharCode(97 + i)]));
  const blocks = losses.map((loss) => renderLoss(loss, cells, letterOf));
  return [
    ...blocks.filter((block) => block !== ''),
    tools.length > 0 ? renderTools(tools) : '',
    rules.map(([name, departure]) => `${letterOf.get(name)}  ${name}: ${departure}`).join('\n'),
    lacking.map((meaning) => `RED  not one of these: ${meaning}`).join('\n'),
    [`guest: ${guest}`, ...describeUs(found, findings.lag)].join('\n'),
    `${green + excused + red} cells: ${green} green, ${excused} excused, ${red} red; ${seconds.toFixed(0)} s`,
  ]
    .filter((block) => block !== '')
    .join('\n\n');
}

function describeUs(found: readonly string[], lag: Lag | undefined): string[] {
  if (lag === undefined) return [];
  const late = `behind real time ${lag.times} times, ${lag.maxMs.toFixed(0)} ms at the most`;
  return [`us: ${[...found, late].join(', ')}`];
}

/** Operations and directions down; memory and path MTU across. A cell is what arrived of what was sent. */
function renderLoss(
  loss: keyof typeof lossTitle,
  all: readonly CellResult[],
  letterOf: ReadonlyMap<string, string>,
): string {
  const cells = all.filter(({ cell }) => cell.group.loss === loss);
  if (cells.length === 0) return '';
  const columns = memories.flatMap((memory) => {
    const paths = cells
      .filter(({ cell }) => cell.group.memory === memory)
      .map(({ cell }) => pathName(cell));
    return [...new Set(paths)].map((path) => ({ memory, path }));
  });
  const table = new Table({
    head: ['', 'requests', ...columns.map(({ memory, path }) => `${memory}\n${path}`)],
    style: { head: [], border: [], compact: true },
  });
  for (const { name } of operations) {
    for (const direction of directions) {
      const row = cells.filter(
        ({ cell }) => cell.operation.name === name && cell.direction === direction,
      );
      const texts = columns.map(({ memory, path }) => {
        const result = row.find(
          ({ cell }) => cell.group.memory === memory && pathName(cell) === path,
        );
        return result === undefined ? '' : cellText(result, letterOf);
      });
      if (row.length > 0) table.push([name, direction, ...texts]);
    }
  }
  return `${lossTitle[loss]}\n${table.toString()}`;
}

function cellText(
  { good, total, verdict, rule }: CellResult,
  letterOf: ReadonlyMap<string, string>,
): string {
  const mark = verdict === 'red' ? 'RED' : letterOf.get(rule?.name ?? '');
  return mark === undefined ? `${good}/${total}` : `${good}/${total} ${mark}`;
}

function renderTools(tools: readonly ToolResult[]): string {
  const table = new Table({
    head: ['tool', 'guest is client', 'guest is server'],
    style: { head: [], border: [], compact: true },
  });
  for (const name of new Set(tools.map(({ tool }) => tool))) {
    const texts = (['client', 'server'] as const).map((role) => {
      const result = tools.find(({ tool, guestRole }) => tool === name && guestRole === role);
      if (result === undefined) return '';
      return result.problems.length === 0 ? 'ok' : 'RED';
    });
    table.push([name, ...texts]);
  }
  return table.toString();
}

/** The findings as data. */
export function jsonOf(findings: Findings): unknown {
  return {
    guest: findings.guest,
    seconds: findings.seconds,
    ...verdictOf(findings),
    cells: findings.cells.map(({ cell, good, total, missing, verdict, rule, problems, ms }) => ({
      operation: cell.operation.name,
      service: cell.group.service,
      direction: cell.direction,
      mtu: cell.group.path.mtuBytes,
      network: cell.group.path.network,
      loss: cell.group.loss,
      memory: cell.group.memory,
      good,
      total,
      missing,
      verdict,
      rule: rule?.name,
      problems,
      ms: Math.round(ms),
    })),
    tools: findings.tools,
    counters: findings.counters,
    lag: findings.lag,
  };
}

function pathName({ group: { path } }: Cell): string {
  return path.network === 'ipv4' ? String(path.mtuBytes) : `${path.mtuBytes} v6`;
}

function nameOf(cell: Cell): string {
  const { loss, memory } = cell.group;
  return `${cell.operation.name}, ${cell.direction}, ${pathName(cell)}, ${loss}, ${memory}`;
}

function explain({ good, total, missing, problems }: CellResult): string {
  const lost = missing > 0 ? [`${missing} missing though not dropped`] : [];
  return [`${good}/${total}`, ...lost, ...problems.slice(0, 3)].join('; ');
}
