/**
 * Owns the proof that a run had the conditions it claims: counters that must have moved, or the cells
 * were green for nothing.
 */
import type { CellResult } from './run-cells.ts';

/** A counter, what it counts in words, and in which cells it has to move. */
interface Evidence {
  readonly counter: string;
  readonly meaning: string;
  isDue(cell: CellResult['cell']): boolean;
}

const isOnDemand = ({ group }: CellResult['cell']) =>
  group.memory === 'on demand' && group.service === 'rc';
const isLossy = ({ group }: CellResult['cell']) => group.loss !== 'none';

const all: readonly Evidence[] = [
  {
    counter: 'odp_remote_triggered_page_fault',
    meaning: "page faults for the guest's requests",
    isDue: (cell) => isOnDemand(cell) && cell.direction === 'guest to us',
  },
  {
    counter: 'odp_local_triggered_page_fault',
    meaning: 'page faults for our own requests',
    isDue: (cell) => isOnDemand(cell) && cell.direction === 'us to guest',
  },
  {
    counter: 'rnr_naks_sent',
    meaning: 'RNR NAKs sent',
    isDue: (cell) => isOnDemand(cell) && cell.direction === 'guest to us',
  },
  { counter: 'impaired_drops', meaning: 'frames dropped', isDue: isLossy },
  { counter: 'impaired_duplicates', meaning: 'frames doubled', isDue: isLossy },
  {
    counter: 'retransmitted_packets',
    meaning: 'packets we sent again',
    isDue: (cell) => isLossy(cell) && cell.group.service === 'rc',
  },
];

/** What moved in a run, and what should have but did not. */
export interface EvidenceReport {
  readonly found: readonly string[];
  readonly lacking: readonly string[];
}

/** Looks for the evidence that `cells` call for in the `counters` at the end of their run. */
export function evidenceOf(
  cells: readonly CellResult['cell'][],
  counters: Readonly<Record<string, number>>,
): EvidenceReport {
  // One cell alone may meet no loss.
  const due = all.filter(({ isDue }) => cells.filter(isDue).length > MANY);
  const moved = ({ counter }: Evidence): boolean => (counters[counter] ?? 0) > 0;
  return {
    found: due.filter(moved).map(({ counter, meaning }) => `${counters[counter]} ${meaning}`),
    lacking: due.filter((evidence) => !moved(evidence)).map(({ meaning }) => meaning),
  };
}

const MANY = 8;
