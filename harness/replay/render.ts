/**
 * The result of a replay on a terminal: a column for each rank, and why pages are there, or not, that
 * the recording has otherwise.
 */
import Table from 'cli-table3';
import { formatBytes, formatCount, formatNs } from '../stats/format.ts';
import type { RankResult } from './rank-result.ts';
import type { ReplayResult } from './replay.ts';
import type { Cause, Residency } from './residency.ts';

type Row = readonly [title: string, value: (rank: RankResult) => string];

const rows: readonly Row[] = [
  ['messages', ({ messages }) => formatCount(messages)],
  ['payload', ({ bytes }) => formatBytes(bytes)],
  ['mappings as recorded', ({ maps_equal }) => (maps_equal ? 'yes' : 'NO')],
  ['anonymous pages, recorded', ({ residency }) => formatCount(residency.recorded)],
  ['  replayed', ({ residency }) => formatCount(residency.replayed)],
];

const fileRows: readonly Row[] = [
  ['file pages, recorded', ({ file_residency }) => formatCount(file_residency.recorded)],
  ['  replayed', ({ file_residency }) => formatCount(file_residency.replayed)],
];

const endRows: readonly Row[] = [
  ['buffers already registered', ({ hit_rate }) => formatShare(hit_rate)],
  ['stale uses', ({ stale_uses }) => formatCount(stale_uses)],
  ['page faults of the adapter', ({ page_faults }) => formatCount(page_faults)],
  ['pages invalidated', ({ page_invalidations }) => formatCount(page_invalidations)],
  ['pinned memory, peak', ({ pinned_bytes_peak }) => formatBytes(pinned_bytes_peak)],
  ['events lost', ({ events_lost }) => formatCount(events_lost)],
  ['cost', ({ cost_ns }) => formatSigned(cost_ns)],
  ['  registration', ({ cost }) => formatSigned(cost.registration_ns)],
  ['  memory calls and faults', ({ cost }) => formatSigned(cost.memory_ns)],
  ['  faults of the adapter', ({ cost }) => formatSigned(cost.fault_ns)],
];

const causeTitles: Readonly<Record<Cause, string>> = {
  helper_thread: 'of helper threads, whose faults are not recorded',
  recorder: 'of the recorder itself',
  registration: 'registration of a buffer',
  device_fault: 'page fault of the adapter',
  prefetch: 'prefetch',
  populate: 'MAP_POPULATE',
  lock: 'mlock',
  fault_around: 'fault-around',
  unrecorded_fault: 'near no recorded fault',
  recorded_fault: 'faulted in and taken back, as recorded',
};

/** The table as text, without a line end. */
export function renderReplay(result: ReplayResult): string {
  const { ranks } = result;
  const table = new Table({
    head: ['', ...ranks.map(({ rank }) => `rank ${rank}`)],
    colAligns: ['left', ...ranks.map(() => 'right' as const)],
    style: { head: [], border: [], compact: true },
  });
  const put = ([title, value]: Row): void => {
    table.push([title, ...ranks.map(value)]);
  };
  rows.forEach(put);
  causeRows(ranks, ({ residency }) => residency).forEach(put);
  fileRows.forEach(put);
  causeRows(ranks, ({ file_residency }) => file_residency).forEach(put);
  endRows.forEach(put);
  const { run, scheme, seed, corrupted_messages: corrupted, one_sided_left_out: left } = result;
  const notes = [
    ...(corrupted > 0 ? [`${formatCount(corrupted)} messages arrived with other bytes`] : []),
    ...(left > 0 ? [`${formatCount(left)} one-sided operations are left out`] : []),
  ];
  const title = `${run}, scheme ${scheme}, seed ${seed}, ${formatNs(result.simulated_ns)} simulated`;
  return [title, table.toString(), ...notes].join('\n');
}

/** Extra and missing pages, cause by cause. */
function causeRows(
  ranks: readonly RankResult[],
  residencyOf: (rank: RankResult) => Residency,
): Row[] {
  const of = (select: (residency: Residency) => number): Row[1] => {
    return (rank) => formatCount(select(residencyOf(rank)));
  };
  const causes = (Object.keys(causeTitles) as Cause[]).filter((cause) =>
    ranks.some((rank) => residencyOf(rank).by_cause[cause]),
  );
  return [
    ['  extra', of(({ extra }) => extra)],
    ['  missing', of(({ missing }) => missing)],
    ...causes.map(
      (cause): Row => [`    ${causeTitles[cause]}`, of(({ by_cause }) => by_cause[cause] ?? 0)],
    ),
    ['    without a cause', of(({ unattributed }) => unattributed)],
  ];
}

function formatShare(share: number | null): string {
  return share === null ? '-' : `${(100 * share).toFixed(2)} %`;
}

/** A scheme may save time, too. */
function formatSigned(ns: number): string {
  return ns < 0 ? `-${formatNs(-ns)}` : formatNs(ns);
}
