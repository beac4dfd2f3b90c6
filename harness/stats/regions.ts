/**
 * `mr.csv`: a row for each mode, host and memory region, those deregistered meanwhile included.
 *
 * Page counters are the driver's (`rdma statistic show mr`); rnr_naks, bytes_retransmitted and
 * stall_ns are the adapter's, joined by lkey. RNR NAKs count at the region whose page was missing at
 * the responder, retransmitted bytes and stall at the local region of the work request.
 */
import type { RegionReport } from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  NS,
} from '../../transport/index.ts';
import type { NodeReport } from '../report.ts';
import type { Mode } from '../scenario/schema.ts';
import { type Cell, csv } from './csv.ts';

const header = [
  'mode',
  'host',
  'mrn',
  'pd',
  'lkey',
  'rkey',
  'base',
  'length',
  'access',
  'page_faults',
  'page_faults_handled',
  'page_invalidations',
  'page_invalidations_handled',
  'page_prefetch',
  'pages_mapped',
  'fault_latency_p50_ns',
  'fault_latency_p99_ns',
  'fault_latency_max_ns',
  'rnr_naks',
  'bytes_retransmitted',
  'stall_ns',
  'registration',
  'registered',
] as const;

type Row = Readonly<Record<(typeof header)[number], Cell>>;

/** The text of `mr.csv`. */
export function regionsCsv(runs: readonly (readonly [Mode, readonly NodeReport[]])[]): string {
  return csv(
    header,
    runs.flatMap(([mode, reports]) =>
      reports.flatMap(({ node, host }) =>
        host ? rowsOf(mode, node.replace(/\.host$/, ''), host.regions, reports) : [],
      ),
    ),
  );
}

function rowsOf(
  mode: Mode,
  name: string,
  regions: readonly RegionReport[],
  reports: readonly NodeReport[],
): Row[] {
  const adapter = reports.find(({ node }) => node === `${name}.hca`)?.hca;
  // Keys are used again in the end, by both sides in the same order.
  const byKey = new Map<number, NonNullable<typeof adapter>['regions'][number][]>();
  for (const region of adapter?.regions ?? []) {
    const key = region.lkey >>> 0;
    const queue = byKey.get(key);
    if (queue) queue.push(region);
    else byKey.set(key, [region]);
  }
  return regions.map((region) => {
    const counted = byKey.get(region.lkey >>> 0)?.shift();
    const latency = percentiles(region.faultLatenciesPs);
    return {
      mode,
      host: name,
      mrn: region.mrn,
      pd: region.pd,
      lkey: hex(region.lkey),
      rkey: hex(region.rkey),
      base: hex(region.address),
      length: region.length,
      access: accessNames(region.access),
      ...region.counters,
      fault_latency_p50_ns: latency(50),
      fault_latency_p99_ns: latency(99),
      fault_latency_max_ns: latency(100),
      rnr_naks: counted?.rnr_naks ?? 0,
      bytes_retransmitted: counted?.bytes_retransmitted ?? 0,
      stall_ns: Math.round((counted?.stall_ps ?? 0) / NS),
      registration: region.registration,
      registered: region.registered ? 1 : 0,
    };
  });
}

/** Exact percentiles in ns; a region has few faults. Empty cells when there are none. */
function percentiles(latenciesPs: readonly number[]): (percentile: number) => Cell {
  const sorted = [...latenciesPs].sort((x, y) => x - y);
  return (percentile) => {
    const rank = Math.max(1, Math.ceil((percentile / 100) * sorted.length));
    const value = sorted[rank - 1];
    return value === undefined ? '' : Math.round(value / NS);
  };
}

const accessBits = [
  [ACCESS_LOCAL_WRITE, 'local_write'],
  [ACCESS_REMOTE_WRITE, 'remote_write'],
  [ACCESS_REMOTE_READ, 'remote_read'],
  [ACCESS_REMOTE_ATOMIC, 'remote_atomic'],
  [ACCESS_ON_DEMAND, 'on_demand'],
] as const;

function accessNames(access: number): string {
  const names = accessBits.filter(([bit]) => (access & bit) !== 0).map(([, name]) => name);
  return names.join(' ');
}

function hex(value: number): string {
  return `0x${(value < 0 ? value >>> 0 : value).toString(16)}`;
}
