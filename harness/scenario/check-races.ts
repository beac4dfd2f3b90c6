/**
 * Operations run side by side, so no bytes may be written by one and used by another: what arrives
 * would depend on timing, and could not be verified. Atomic operations may share their word, and the
 * receives of a shared receive queue are its own business.
 */
import { invalid } from './problem.ts';
import { rangesOf } from './ranges.ts';
import type { ScenarioIndex } from './scenario-index.ts';
import type { OperationSpec, Scenario } from './schema.ts';

type Side = 'source' | 'target';

/** The bytes of a region that all work requests of an operation use together. */
interface Use {
  readonly i: number;
  readonly side: Side;
  readonly start: number;
  readonly end: number;
  /** Uses of one kind do not race with each other, unless they are writes. */
  readonly kind: 'read' | 'write' | 'atomic' | 'receive';
}

/** Throws for the first pair of operations that race. */
export function checkRaces(scenario: Scenario, index: ScenarioIndex): void {
  const usesOf = new Map<string, Use[]>();
  scenario.operations.forEach((operation, i) => {
    for (const side of ['source', 'target'] as const) {
      const { start, end } = rangesOf(operation, index)[side];
      const { region } = operation[side];
      const use = { i, side, start, end, kind: kindOf(operation, side, index) };
      const uses = usesOf.get(region);
      if (uses) uses.push(use);
      else usesOf.set(region, [use]);
    }
  });
  for (const [region, uses] of usesOf) checkRegion(region, uses);
}

/** One sweep over a region's uses in order of address. */
function checkRegion(region: string, uses: Use[]): void {
  uses.sort((x, y) => x.start - y.start || x.i - y.i);
  // The use of each kind that reaches furthest so far: whoever overlaps any of the kind overlaps it.
  const furthest = new Map<Use['kind'], Use>();
  for (const use of uses) {
    for (const [kind, other] of furthest) {
      if (other.end <= use.start || (kind === use.kind && kind !== 'write')) continue;
      const [first, second] = other.i <= use.i ? [other, use] : [use, other];
      throw invalid(
        `operations[${second.i}].${second.side}`,
        `these bytes of region '${region}' are also the ${first.side} of operations[${first.i}]`,
        'a range of its own wherever one of two operations writes',
      );
    }
    const reached = furthest.get(use.kind);
    if (reached === undefined || reached.end < use.end) furthest.set(use.kind, use);
  }
}

function kindOf(operation: OperationSpec, side: Side, index: ScenarioIndex): Use['kind'] {
  const { kind } = operation;
  if (kind === 'fetchAdd' || kind === 'compareSwap') return side === 'target' ? 'atomic' : 'write';
  if (side === 'source') return 'read';
  return index.srqOfRegion.has(operation.target.region) ? 'receive' : 'write';
}
