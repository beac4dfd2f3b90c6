/**
 * What every node says at the end of a run, as plain data that can travel between processes.
 */
import type { HcaReport } from '../hca/index.ts';
import type { HostReport } from '../kernel/index.ts';
import { Failure, type TimePs } from '../transport/index.ts';
import type { EdgeCounters } from './gateway/edge-counters.ts';
import type { WorkloadReport } from './workload/progress.ts';

export interface NodeReport {
  /** Name of the node: `a.hca`, `a.host`. */
  readonly node: string;
  readonly digest: string;
  /** Time of the node's last event. */
  readonly nowPs: TimePs;
  /** Whether events were left when the run ended. */
  readonly pending: boolean;
  /** Of an adapter. */
  readonly hca?: HcaReport;
  /** Of a host. */
  readonly host?: HostReport;
  readonly workload?: WorkloadReport;
  /** Of the place where a real wire meets the world. */
  readonly edge?: EdgeCounters;
  /** Threads that had not ended, and what they waited for. */
  readonly sleeping?: readonly string[];
}

/** How a run, or one process's part of it, ended. */
export interface Outcome {
  /** Of every node when the run came to its end; of those that are known otherwise. */
  readonly reports: readonly NodeReport[];
  /** Windows exchanged with the peer. */
  readonly windows: number;
  readonly wallSeconds: number;
  /** Why it ended early; undefined when it came to its end. */
  readonly error: unknown;
}

/** Takes over a peer's reports. Throws Failure E_PEER_PROTOCOL when they are something else. */
export function readReports(value: unknown, place: string): NodeReport[] {
  const isReport = (item: unknown): item is NodeReport =>
    typeof item === 'object' &&
    item !== null &&
    typeof (item as NodeReport).node === 'string' &&
    typeof (item as NodeReport).digest === 'string' &&
    typeof (item as NodeReport).nowPs === 'number' &&
    ('hca' in item || ('host' in item && 'workload' in item));
  if (Array.isArray(value) && value.every(isReport)) return value;
  throw new Failure('E_PEER_PROTOCOL', 'the report of the peer is not one', place, 'node reports');
}

/** Why the world came to rest before its work was done, or undefined. */
export function unfinishedWork(reports: readonly NodeReport[]): Failure | undefined {
  const stuck = reports.filter(({ workload }) => workload && !workload.finished);
  if (stuck.length === 0) return undefined;
  const places = stuck.map(({ node, workload }) => `${node}: ${workload?.position}`).join('; ');
  if (reports.some(({ pending }) => pending)) {
    return new Failure('E_TIME_LIMIT', places, 'limits.simulated', 'to finish within the limit');
  }
  const sleeping = stuck.flatMap(({ sleeping }) => sleeping ?? []).join('; ');
  return new Failure('E_STALLED', places, sleeping, 'both programs to end');
}
