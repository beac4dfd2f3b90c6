/**
 * Owns the running of cells: connections made and made anew, the roles of the two ends, and the
 * verdict on each. Does not own what either end is made of (guest-end.ts, our-end.ts).
 */
import type { Rule } from '../../harness/conform/rxe-profile.ts';
import { Bench, type Harm, type Outcome, Ranges, type Station } from './bench.ts';
import type { Cell, Group } from './cells.ts';
import type { Side } from './end.ts';
import { excuseFor } from './excuses.ts';

const MEMORY_BYTES = 8 * 1024 * 1024;
/** So that every connection goes over the wrap of PSNs. */
const FIRST_PSN = 0xfffff0;

/** How frames are lost and doubled between the two ends, if at all. */
export interface Wire {
  /** Drops and doubles frames from now on, or leaves them alone. */
  impair(isImpaired: boolean): Promise<void>;
  /** What it has done to frames altogether. */
  harm(): Promise<Harm>;
}

export interface CellResult extends Outcome {
  readonly cell: Cell;
  readonly verdict: 'green' | 'excused' | 'red';
  /** By which a cell is excused that is not green. */
  readonly rule: Rule | undefined;
  readonly ms: number;
}

/** The two sides and what is between them. */
export interface Sides {
  readonly guest: Side;
  readonly us: Side;
  readonly wire: Wire | undefined;
}

/** Tries `cells`, those of a group one after the other; `onResult` hears of each. */
export async function runCells(
  sides: Sides,
  cells: readonly Cell[],
  onResult: (result: CellResult) => void,
): Promise<void> {
  let group: Group | undefined;
  let pair: Pair | undefined;
  for (const cell of cells) {
    if (cell.group !== group) {
      await pair?.close();
      pair = undefined;
      group = cell.group;
      await sides.wire?.impair(group.loss !== 'none');
    }
    pair ??= await Pair.open(sides, group);
    const started = performance.now();
    const outcome = await pair.play(cell, sides.wire);
    const isGreen = outcome.problems.length === 0 && outcome.missing === 0;
    const rule = isGreen ? undefined : excuseFor(cell, outcome);
    const verdict = isGreen ? 'green' : rule === undefined ? 'red' : 'excused';
    onResult({ ...outcome, cell, verdict, rule, ms: performance.now() - started });
    // After what went wrong, and after what may have been lost, nothing is where it should be.
    if (verdict !== 'green' || (group.loss !== 'none' && group.service !== 'rc')) {
      await pair.close();
      pair = undefined;
    }
  }
  await pair?.close();
  await sides.wire?.impair(false);
}

/** A connected queue pair at each side. */
class Pair {
  private constructor(
    private readonly group: Group,
    private readonly guest: Station,
    private readonly us: Station,
  ) {}

  static async open(sides: Sides, group: Group): Promise<Pair> {
    const { service, path, memory } = group;
    const common = { service, path, memoryBytes: MEMORY_BYTES };
    const isOnDemand = memory === 'on demand';
    const guest = await sides.guest.open({ ...common, psn: FIRST_PSN, isOnDemand: false });
    const us = await sides.us.open({ ...common, psn: FIRST_PSN + 3, isOnDemand });
    await us.connect(guest.address, path);
    await guest.connect(us.address, path);
    return new Pair(
      group,
      { end: guest, ranges: new Ranges(MEMORY_BYTES), isOnDemand: false, isRxe: true },
      { end: us, ranges: new Ranges(MEMORY_BYTES), isOnDemand, isRxe: false },
    );
  }

  async play({ operation, direction }: Cell, wire: Wire | undefined): Promise<Outcome> {
    const { service, path, loss } = this.group;
    const [requester, responder] =
      direction === 'guest to us' ? [this.guest, this.us] : [this.us, this.guest];
    const harm = loss === 'none' || wire === undefined ? undefined : await harmFromNow(wire);
    const bench = new Bench(service, path, requester, responder, harm);
    const outcome = await operation.play(bench);
    // Exactly once: nothing else completes at either end.
    for (const end of [requester, responder]) {
      const { completions } = await end.end.run([{ verb: 'expect', ms: 0 }]);
      for (const { id, op } of completions) {
        bench.problems.push(`${end.end.name}: one completion too many: ${id} ${op}`);
      }
    }
    return outcome;
  }

  async close(): Promise<void> {
    await this.guest.end.close();
    await this.us.end.close();
  }
}

/** What `wire` does to frames from now on. */
async function harmFromNow(wire: Wire): Promise<() => Promise<Harm>> {
  const before = await wire.harm();
  return async () => {
    const { dropped, doubled } = await wire.harm();
    return { dropped: dropped - before.dropped, doubled: doubled - before.doubled };
  };
}
