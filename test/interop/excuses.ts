/**
 * Owns which cells may be other than green, and by which rule of the rxe profile. Does not own the
 * rules (harness/conform).
 */
import { type Rule, rxeProfile } from '../../harness/conform/rxe-profile.ts';
import type { Outcome } from './bench.ts';
import type { Cell } from './cells.ts';

/** Our retries were exceeded, and the requests behind flushed. */
const UNANSWERED = [/^us: completion \d+ \S* 12 /, /^us: completion \d+ \S* (12|5) /] as const;
/**
 * The guest's request was refused, or never answered where the refusal was lost; those behind it were
 * flushed, and nothing of them is in our memory.
 */
const REFUSED = [
  /^guest: completion \d+ \S* (10|12) /,
  /^(guest: completion \d+ \S* (10|12|5)|us:) /,
] as const;

const ucStaysLost = ruleOf('rxe-uc-stays-lost');
const flushAgain = ruleOf('rxe-flush-again');
const addressLost = ruleOf('rxe-address-lost');

/** The rule that excuses a cell that is not green. */
export function excuseFor(
  { operation, direction, group }: Cell,
  { problems }: Outcome,
): Rule | undefined {
  const { service, loss } = group;
  if (loss === 'none') return undefined;
  const looksLike = ([one, all]: readonly [RegExp, RegExp]): boolean =>
    problems.some((text) => one.test(text)) && problems.every((text) => all.test(text));
  if (direction === 'guest to us') {
    const isOneShot = operation.name === 'ATOMIC_WRITE' || operation.name === 'FLUSH';
    return isOneShot && looksLike(REFUSED) ? addressLost : undefined;
  }
  // What did arrive has to be right all the same.
  if (service === 'uc') return problems.length === 0 ? ucStaysLost : undefined;
  return operation.name === 'FLUSH' && looksLike(UNANSWERED) ? flushAgain : undefined;
}

function ruleOf(name: string): Rule {
  const rule = rxeProfile.find((candidate) => candidate.name === name);
  if (rule === undefined) throw new Error(`the rxe profile has no rule ${name}`);
  return rule;
}
