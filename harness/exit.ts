/**
 * How a command ends: one line on standard error for what went wrong, and the exit status.
 *
 * 0 every mode finished and every byte verified, 1 failed or unverified, 2 bad input, 3 peer lost,
 * 130 stopped by a person. FAULTLINE_DEBUG=1 adds the stack.
 */
import { Failure, SimulationBug } from '../transport/index.ts';
import { Interrupted } from './coordination.ts';

/** Prints `error` as one line and returns the exit status that goes with it. */
export function reportError(error: unknown): number {
  process.stderr.write(`faultline: ${describe(error)}\n`);
  if (process.env.FAULTLINE_DEBUG && error instanceof Error) {
    process.stderr.write(`${error.stack}\n`);
  }
  return exitStatus(error);
}

export function exitStatus(error: unknown): number {
  if (error instanceof Interrupted) return 130;
  return error instanceof Failure ? error.exitStatus : 1;
}

function describe(error: unknown): string {
  if (error instanceof Interrupted) return 'interrupted';
  if (error instanceof Failure) return error.describe().replaceAll('\n', ' ');
  const message = error instanceof Error ? error.message : String(error);
  const what = error instanceof SimulationBug ? message : `unexpected error: ${message}`;
  return `E_BUG ${what.replaceAll('\n', ' ')}`;
}
