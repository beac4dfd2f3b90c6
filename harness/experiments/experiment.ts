/**
 * What an experiment is: one question of the seed threads, asked of the model.
 *
 * `faultline experiment NAME` runs one and prints its table; `faultline systems` runs one for each
 * system of docs/HOST.md and prints the result lines. Numbers come out of the simulated world, never
 * out of the experiment's text.
 */

/** A cell of a table; numbers are shown as they are, so give them in a unit that reads well. */
export type Cell = string | number;

/** Lines over a common x axis. */
export interface Plot {
  /** Column of the x axis. */
  readonly x: string;
  /** Columns of the lines. */
  readonly lines: readonly string[];
  /** Column whose values make a line of their own each, of the only one of `lines`. */
  readonly by?: string;
  /** Rows that are drawn: those with these values. */
  readonly only?: Readonly<Record<string, Cell>>;
  /** Unit and meaning of the y axis. */
  readonly yTitle: string;
  readonly logX?: boolean;
  readonly logY?: boolean;
}

export interface ExperimentResult {
  /** Column names as in the CSV file, unit last: `flush_ns`. */
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
  /** The answer in one line, with the numbers that were just computed. */
  readonly result: string;
  /** Whether the system did what it has to do. */
  readonly ok: boolean;
  /** How to draw the rows; no picture without it. */
  readonly plot?: Plot;
}

export interface Experiment {
  /** The name on the command line. */
  readonly name: string;
  /** The systems (S1 to S21) that it shows, the first of them mainly. */
  readonly systems: readonly string[];
  /** The claims (C1 to C14) that it puts to the test. */
  readonly claims?: readonly string[];
  /** One line: what is asked. */
  readonly title: string;
  run(seed: number): ExperimentResult;
}
