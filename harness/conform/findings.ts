/** What a replay found: what was compared, what was excused, and the first difference. */

import type { Rule } from './rxe-profile.ts';

/** A rule of the rxe profile that excused a difference, and the frame at which it did. */
export interface Departure {
  readonly rule: string;
  readonly frame: number;
}

/** Ours and the captured host differ, and no rule excuses it. */
export class Difference extends Error {
  constructor(
    message: string,
    /** Frame at which it shows; 0 where it shows at none. */
    readonly frame: number,
    /** Where a request differs: its place among the requests. */
    readonly request: number | undefined = undefined,
  ) {
    super(frame === 0 ? message : `frame ${frame}: ${message}`);
    this.name = 'Difference';
  }
}

export class Findings {
  /** Numbers of the frames that were sent, answered or taken as captured. */
  readonly compared = new Set<number>();
  readonly departures: Departure[] = [];

  depart({ name: rule }: Pick<Rule, 'name'>, frame: number): void {
    const isKnown = this.departures.some((known) => known.rule === rule && known.frame === frame);
    if (!isKnown) this.departures.push({ rule, frame });
  }

  /** Takes over what another replay found. */
  add(other: Findings): void {
    for (const number of other.compared) this.compared.add(number);
    for (const { rule, frame } of other.departures) this.depart({ name: rule }, frame);
  }
}
