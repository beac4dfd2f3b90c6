/** From the reports of the four nodes to the summary of one mode. */
import { combineDigests, NS } from '../../transport/index.ts';
import type { NodeReport, Outcome } from '../report.ts';
import { summarizeLatencies } from './latency.ts';
import type { ModeSummary } from './summary.ts';
import { verifyMessages } from './verify.ts';

/** The summary of a run; of an incomplete one, what is known. */
export function summarize(outcome: Outcome, nodeCount: number): ModeSummary {
  const { reports } = outcome;
  const hosts = reports.flatMap(({ host }) => (host ? [host] : []));
  const workloads = reports.flatMap(({ workload }) => (workload ? [workload] : []));
  const adapters = reports.flatMap(({ hca }) => (hca ? [hca] : []));
  const regions = hosts.flatMap((host) => host.regions);
  const bytes = sum(workloads, (workload) => workload.bytes);
  const complete = outcome.error === undefined && reports.length === nodeCount;
  const [a, b] = hosts;
  // Adapters go on until their last idle time-out; the program's time is that of the hosts.
  const atRest = reports.filter(({ host }) => host);
  const nothing = { messages: [], atomics: [] };
  const { checked, dataBytes, lost, ...verified } = verifyMessages(a ?? nothing, b ?? nothing);
  const unverified = verified.unverified + sum(workloads, ({ words }) => words.wrong);
  return {
    digest: combineDigests(new Map(reports.map(({ node, digest }) => [node, digest]))),
    complete,
    simulated_ns: Math.max(0, ...atRest.map(({ nowPs }) => nowPs)) / NS,
    operations: sum(workloads, (workload) => workload.operations),
    bytes,
    goodput_gbps: goodput(bytes, reports),
    latency_ns: summarizeLatencies(latenciesOf(reports)),
    registration_ns: sum(hosts, (host) => host.registrationPs) / NS,
    registrations: regions.length,
    pinned_bytes_peak: sum(hosts, (host) => host.pinnedBytesPeak),
    resident_bytes_peak: sum(hosts, (host) => host.residentBytesPeak),
    page_faults: sum(regions, ({ counters }) => counters.page_faults),
    page_invalidations: sum(regions, ({ counters }) => counters.page_invalidations),
    rnr_naks: sum(adapters, ({ counters }) => counters.rnr_naks_sent ?? 0),
    retransmitted_packets: sum(adapters, ({ counters }) => counters.retransmitted_packets ?? 0),
    timeouts: sum(adapters, ({ counters }) => counters.local_ack_timeout_err ?? 0),
    // Nothing transferred is nothing verified, and so is an operation that left no hash.
    data_verified: complete && unverified === 0 && bytes > 0 && dataBytes === bytes,
    messages_checked: checked,
    messages_unverified: unverified,
    messages_lost: lost,
    wall: { seconds: outcome.wallSeconds, windows: outcome.windows },
  };
}

/** Latencies of all operations of a run, ps. */
export function latenciesOf(reports: readonly NodeReport[]): number[] {
  return reports.flatMap(({ workload }) => workload?.latenciesPs ?? []);
}

/** Payload bits per nanosecond from the start of traffic to the last completion. */
function goodput(bytes: number, reports: readonly NodeReport[]): number {
  const busy = reports.flatMap(({ workload }) =>
    workload && workload.lastPs > 0 ? [workload] : [],
  );
  if (busy.length === 0) return 0;
  const startPs = Math.min(...busy.map(({ startedPs }) => startedPs));
  const lastPs = Math.max(...busy.map(({ lastPs }) => lastPs));
  return lastPs > startPs ? (bytes * 8 * NS) / (lastPs - startPs) : 0;
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
