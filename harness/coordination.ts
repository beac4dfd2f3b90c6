/**
 * What a coordinator and the host processes it starts say to each other, over the IPC channel that
 * Node gives a child process (structured clone, so Infinity survives).
 *
 * The world itself travels over WebSockets between the host processes; this is only for the people
 * in front of the coordinator: progress on the way, the outcome at the end.
 */
import { Failure, type FailureCode, failureCodes } from '../transport/index.ts';
import type { NodeReport, Outcome } from './report.ts';
import type { RunProgress } from './run.ts';

/** Set in the environment of a host process that a coordinator started. */
export const COORDINATED = 'FAULTLINE_COORDINATED';
/** The token that processes of one run share. The command line can give it too. */
export const TOKEN = 'FAULTLINE_TOKEN';

export type ChildMessage =
  | { readonly type: 'progress'; readonly progress: RunProgress }
  | { readonly type: 'outcome'; readonly outcome: PlainOutcome };

/** An outcome whose error is plain data. */
interface PlainOutcome extends Omit<Outcome, 'error'> {
  readonly reports: readonly NodeReport[];
  readonly error: PlainError | undefined;
}

interface PlainError {
  readonly name: string;
  readonly code: string;
  readonly message: string;
  readonly place: string;
  readonly expected: string;
}

/** Thrown, or used as the reason of an abort, when a person stops the run. */
export class Interrupted extends Error {
  constructor() {
    super('interrupted');
    this.name = 'Interrupted';
  }
}

export function toPlain(outcome: Outcome): PlainOutcome {
  return { ...outcome, error: plainError(outcome.error) };
}

export function fromPlain(outcome: PlainOutcome): Outcome {
  const { error } = outcome;
  if (!error) return { ...outcome, error: undefined };
  if (error.name === 'Interrupted') return { ...outcome, error: new Interrupted() };
  const code = Object.hasOwn(failureCodes, error.code) ? (error.code as FailureCode) : 'E_BUG';
  return { ...outcome, error: new Failure(code, error.message, error.place, error.expected) };
}

function plainError(error: unknown): PlainError | undefined {
  if (error === undefined) return undefined;
  if (error instanceof Failure) {
    const { name, code, message, place, expected } = error;
    return { name, code, message, place, expected };
  }
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  return { name, code: 'E_BUG', message, place: '', expected: '' };
}
