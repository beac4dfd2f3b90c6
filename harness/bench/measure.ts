/**
 * How benchmarks measure: CPU time of the whole process, several runs, and a calibration loop beside
 * them, because machines differ and shared ones drift.
 */

/** One row of the benchmark's output. */
export interface BenchRow {
  readonly name: string;
  /** Median of the runs. */
  readonly value: number;
  readonly unit: string;
  readonly min: number;
  readonly max: number;
  readonly runs: number;
  /** What was on and off, and what the value is compared with. */
  readonly note: string;
}

/** User and system CPU seconds of this process, all threads. */
export function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Median, spread and number of `values`. */
export function rowOf(
  name: string,
  unit: string,
  values: readonly number[],
  note: string,
): BenchRow {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const value = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return {
    name,
    value: rounded(value),
    unit,
    min: rounded(sorted[0]),
    max: rounded(sorted[sorted.length - 1]),
    runs: values.length,
    note,
  };
}

/**
 * Million steps per CPU second of a fixed integer loop. It says how fast the machine was at the time:
 * divide by it to compare two runs of the benchmark.
 */
export function calibrate(): number {
  const steps = 200_000_000;
  const start = cpuSeconds();
  let state = 1;
  for (let i = 0; i < steps; i++) state = (Math.imul(state, 1664525) + 1013904223) | 0;
  const spent = cpuSeconds() - start;
  // The state is used, so that the loop cannot be left out.
  return steps / 1e6 / (spent + (state === 0 ? 1e-9 : 0));
}

/** Four significant digits: more would pretend. */
function rounded(value: number): number {
  return Number(value.toPrecision(4));
}
