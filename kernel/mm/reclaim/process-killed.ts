/**
 * A process that the OOM killer has ended: thrown where its threads would return to user mode.
 *
 * An outcome and not a bug: a program that nobody looks after ends the run with it (E_OPERATION), one that
 * runs beside others is caught by whoever started it.
 */
import { Failure } from '../../../transport/index.ts';
import type { Sim } from '../../sched/completion.ts';

export class ProcessKilled extends Failure {
  readonly signal = 'SIGKILL';

  /** `reason` is what the kernel writes into its log. */
  constructor(
    readonly process: string,
    readonly reason: string,
  ) {
    super('E_OPERATION', reason, process, 'more memory or swap, fewer pinned pages, or less work');
    this.name = 'ProcessKilled';
  }
}

/** Runs a program that may be killed; returns what ended it, or undefined when it came to its own end. */
export function* untilKilled(program: Sim<unknown>): Sim<ProcessKilled | undefined> {
  try {
    yield* program;
  } catch (error) {
    if (error instanceof ProcessKilled) return error;
    throw error;
  }
  return undefined;
}
