/**
 * A published figure and the model's answer to it.
 *
 * `role` keeps us honest: a *calibrated* figure has set the parameters that it names and so must come
 * out; a *predicted* one has set nothing. `within` is numbers only: 10 % of a figure from a table or a
 * text, 25 % of one that was read off a plot. What it means that one does not come out is `reason`.
 */

/** How the figure was read: docs/MODEL.md explains the marks. */
export type Grade = 'S' | 'F' | 'S2' | 'D' | 'R';

export interface Figure {
  /** What was measured. */
  readonly figure: string;
  readonly source: string;
  readonly grade: Grade;
  readonly unit: string;
  /** Read from a table or text, or off a plot. */
  readonly from: 'table' | 'plot';
  readonly role: 'calibrated' | 'predicted';
  /** Parameters that the figure has set (calibrated) or that decide it (predicted). */
  readonly parameters: readonly string[];
  readonly published: number;
  /** Runs the model. */
  model(): number;
  /** Why it does not come out, where it does not; what to bear in mind, where it does. */
  readonly reason?: string;
}

/** A row of `faultline validate`. */
export interface FigureRow {
  readonly figure: string;
  readonly source: string;
  readonly grade: Grade;
  readonly unit: string;
  readonly parameters: readonly string[];
  readonly role: 'calibrated' | 'predicted';
  readonly published: number;
  readonly modelled: number;
  /** modelled / published - 1. */
  readonly deviation: number;
  readonly within: boolean;
  readonly reason: string;
}

const TABLE_TOLERANCE = 0.1;
const PLOT_TOLERANCE = 0.25;

/** Runs the model for one figure. */
export function evaluate(figure: Figure): FigureRow {
  const { published, from, reason = '' } = figure;
  const modelled = figure.model();
  const deviation = modelled / published - 1;
  const tolerance = from === 'table' ? TABLE_TOLERANCE : PLOT_TOLERANCE;
  return {
    figure: figure.figure,
    source: figure.source,
    grade: figure.grade,
    unit: figure.unit,
    parameters: figure.parameters,
    role: figure.role,
    published,
    modelled,
    deviation,
    within: Math.abs(deviation) <= tolerance,
    reason,
  };
}
