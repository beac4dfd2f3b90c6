/**
 * Loss sweeps: every operation over every kind of bad wire, at every MTU, with memory pinned and on
 * demand. Each cell is judged by `sweep-oracle.ts`.
 *
 * Without settings each pair of operation and wire runs once in each memory mode, at one MTU. SEEDS
 * runs so many rounds over all MTUs; SEED is the first. TABLE=1, or SEEDS, prints a table.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { type Cell, faultKinds, type Operation, operations, type Plan } from './sweep-cells.ts';
import { judge, type Verdict } from './sweep-oracle.ts';
import { drawPlan } from './sweep-plan.ts';
import { type Outcome, runPlan } from './sweep-run.ts';
import { nameOf, SweepTable } from './sweep-table.ts';
import { WindowProgram } from './window-program.ts';

const MTUS = [256, 512, 1024, 2048, 4096] as const;
const FIRST = Number(process.env.SEED ?? 1);
const ROUNDS = process.env.SEEDS === undefined ? 0 : Number(process.env.SEEDS);
const IS_TOLD = ROUNDS > 0 || process.env.TABLE !== undefined;
const ONLY = process.env.CELL;

const table = new SweepTable();

/** The cells of an operation on one kind of wire. */
function cellsOf(operation: Operation, faultName: string): Cell[] {
  const faults = faultKinds[faultName] ?? { lossPpm: 0 };
  const cells: Cell[] = [];
  const add = (seed: number, mtu: number, isOnDemand: boolean): void => {
    cells.push({ seed, operation, faultName, faults, mtu, isOnDemand });
  };
  const number = operations.indexOf(operation) + Object.keys(faultKinds).indexOf(faultName);
  if (ROUNDS === 0) {
    for (const isOnDemand of [false, true]) {
      add(FIRST, MTUS[(number + (isOnDemand ? 2 : 0)) % MTUS.length] as number, isOnDemand);
    }
  }
  for (let seed = FIRST; seed < FIRST + ROUNDS; seed++) {
    for (const mtu of MTUS) for (const isOnDemand of [false, true]) add(seed, mtu, isOnDemand);
  }
  return cells;
}

function runCell(cell: Cell): { plan: Plan; outcome: Outcome; verdict: Verdict } {
  const plan = drawPlan(cell);
  if (cell.operation === 'memory windows') {
    const program = new WindowProgram(plan);
    const outcome = runPlan(plan, program.start);
    return { plan, outcome, verdict: program.verdict(outcome) };
  }
  const outcome = runPlan(plan);
  return { plan, outcome, verdict: judge(plan, outcome) };
}

describe.each(operations)('%s', (operation) => {
  it.each(Object.keys(faultKinds))(
    '%s',
    (faultName) => {
      for (const cell of cellsOf(operation, faultName)) {
        if (ONLY !== undefined && nameOf(cell) !== ONLY) continue;
        const { plan, outcome, verdict } = runCell(cell);
        expect(verdict.complaints, nameOf(cell)).toEqual([]);
        table.add(plan, outcome, verdict);
      }
    },
    60_000 + ROUNDS * 10_000,
  );
});

it('the same cell twice is the same', () => {
  for (const operation of operations) {
    const [cell] = cellsOf(operation, 'all of it');
    expect(runCell(cell as Cell).outcome.digests).toEqual(runCell(cell as Cell).outcome.digests);
  }
});

it('hardly any queue pair gave up', () => {
  if (ONLY === undefined) expect(table.gaveUp).toBeLessThanOrEqual(1 + table.cells / 100);
});

afterAll(() => {
  if (IS_TOLD) process.stdout.write(table.text(FIRST));
});
