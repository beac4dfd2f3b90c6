/**
 * The side-by-side table of a comparison on a terminal: one row per figure, one column per mode,
 * and how many times the second is the first.
 */
import Table from 'cli-table3';
import type { Mode } from '../scenario/schema.ts';
import { formatBytes, formatCount, formatGbps, formatNs, formatRatio } from './format.ts';
import type { ModeSummary, Summary } from './summary.ts';

type Row = readonly [
  title: string,
  value: (mode: ModeSummary) => number,
  format: (n: number) => string,
];

const rows: readonly Row[] = [
  ['simulated time', (m) => m.simulated_ns, formatNs],
  ['operations', (m) => m.operations, formatCount],
  ['payload', (m) => m.bytes, formatBytes],
  ['goodput', (m) => m.goodput_gbps, formatGbps],
  ['latency p50', (m) => m.latency_ns.p50, formatNs],
  ['latency p95', (m) => m.latency_ns.p95, formatNs],
  ['latency p99', (m) => m.latency_ns.p99, formatNs],
  ['latency max', (m) => m.latency_ns.max, formatNs],
  ['registrations', (m) => m.registrations, formatCount],
  ['registration time', (m) => m.registration_ns, formatNs],
  ['pinned memory, peak', (m) => m.pinned_bytes_peak, formatBytes],
  ['resident memory, peak', (m) => m.resident_bytes_peak, formatBytes],
  ['pages faulted in', (m) => m.page_faults, formatCount],
  ['pages invalidated', (m) => m.page_invalidations, formatCount],
  ['RNR NAKs', (m) => m.rnr_naks, formatCount],
  ['retransmitted packets', (m) => m.retransmitted_packets, formatCount],
  ['time-outs', (m) => m.timeouts, formatCount],
];

/** The table as text, without a line end. */
export function renderTable(summary: Summary): string {
  const modes = Object.entries(summary.modes) as [Mode, ModeSummary][];
  const [first, second] = modes.map(([, mode]) => mode);
  const isPair = first !== undefined && second !== undefined;
  const head = ['', ...modes.map(([name]) => name), ...(isPair ? ['ratio'] : [])];
  const table = new Table({
    head,
    colAligns: ['left', ...head.slice(1).map(() => 'right' as const)],
    style: { head: [], border: [], compact: true },
  });
  for (const [title, value, format] of rows) {
    const cells = modes.map(([, mode]) => format(value(mode)));
    const ratio = isPair ? [formatRatio(value(second), value(first))] : [];
    table.push([title, ...cells, ...ratio]);
  }
  table.push([
    'every byte verified',
    ...modes.map(([, mode]) => verdict(mode)),
    ...(isPair ? [''] : []),
  ]);
  table.push(['digest', ...modes.map(([, mode]) => mode.digest), ...(isPair ? [''] : [])]);
  table.push([
    'wall clock',
    ...modes.map(([, mode]) => `${mode.wall.seconds.toFixed(1)} s`),
    ...(isPair ? [''] : []),
  ]);
  const unfinished = modes.filter(([, { complete }]) => !complete).map(([name]) => name);
  const warning = unfinished.length > 0 ? `; INCOMPLETE: ${unfinished.join(', ')}` : '';
  const title = `${summary.scenario}, seed ${summary.seed}, over ${summary.transport}${warning}`;
  return `${title}\n${table.toString()}`;
}

function verdict(mode: ModeSummary): string {
  if (!mode.complete) return 'incomplete';
  return mode.data_verified ? 'yes' : `NO, ${formatCount(mode.messages_unverified)} messages`;
}
