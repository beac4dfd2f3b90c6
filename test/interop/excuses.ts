/**
 * Owns which cells may be other than green, and by which rule of the rxe profile. Does not own the
 * rules (harness/conform).
 */
import { type Rule, rxeProfile } from '../../harness/conform/rxe-profile.ts';
import type { Outcome } from './bench.ts';
import type { Cell } from './cells.ts';

/** Retries were exceeded, and the requests behind flushed. */
const UNANSWERED = /^us: completion \d+ \S* (12|5) /;
const ucStaysLost = ruleOf('rxe-uc-stays-lost');
const flushAgain = ruleOf('rxe-flush-again');

/** The rule that excuses a cell that is not green. */
export function excuseFor(
  { operation, direction, group }: Cell,
  outcome: Outcome,
): Rule | undefined {
  const { service, loss } = group;
  const { problems, total, good } = outcome;
  if (loss === 'none' || direction !== 'us to guest') return undefined;
  // What did arrive has to be right all the same.
  if (service === 'uc' && problems.length === 0) return ucStaysLost;
  const isUnanswered = problems.length > 0 && problems.every((text) => UNANSWERED.test(text));
  return operation.name === 'FLUSH' && good < total && isUnanswered ? flushAgain : undefined;
}

function ruleOf(name: string): Rule {
  const rule = rxeProfile.find((candidate) => candidate.name === name);
  if (rule === undefined) throw new Error(`the rxe profile has no rule ${name}`);
  return rule;
}
