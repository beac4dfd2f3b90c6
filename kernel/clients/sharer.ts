/**
 * Somebody who maps pages of a shared segment, as its owner knows it: an attachment on the same host, or
 * another host. The owner's table of what each sharer has (`grants`) is what keeps the page references.
 */
import type { Completion, Sim } from '../sched/completion.ts';
import type { Grants } from './grants.ts';

export interface Sharer {
  readonly name: string;
  readonly grants: Grants;
  /**
   * Has the sharer drop its pages [first, first + count) of the segment. Spends the caller's CPU time on
   * asking; the result resolves when the sharer uses them no more, because it said so or because it has
   * been cut off. Undefined: it has dropped them already. The caller then takes the grants back.
   */
  revoke(first: number, count: number): Sim<Completion<void> | undefined>;
}
