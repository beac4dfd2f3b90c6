/**
 * `qp.csv`: a row for each mode, host and queue pair, as the adapter counted; what belongs to no
 * region stands here.
 */
import { QPS_ERR, QPS_INIT, QPS_RESET, QPS_RTR, QPS_RTS } from '../../transport/index.ts';
import type { NodeReport } from '../report.ts';
import type { Mode } from '../scenario/schema.ts';
import { csv } from './csv.ts';

const header = [
  'mode',
  'host',
  'qpn',
  'pd',
  'state',
  'packets_sent',
  'packets_received',
  'retransmitted_packets',
  'rnr_naks_sent',
  'rnr_naks_received',
  'timeouts',
  'sequence_naks_sent',
  'duplicate_requests',
] as const;

const stateNames: Readonly<Record<number, string>> = {
  [QPS_RESET]: 'RESET',
  [QPS_INIT]: 'INIT',
  [QPS_RTR]: 'RTR',
  [QPS_RTS]: 'RTS',
  [QPS_ERR]: 'ERR',
};

/** The text of `qp.csv`. */
export function queuePairsCsv(runs: readonly (readonly [Mode, readonly NodeReport[]])[]): string {
  return csv(
    header,
    runs.flatMap(([mode, reports]) =>
      reports.flatMap(({ node, hca }) =>
        (hca?.queuePairs ?? []).map((queuePair) => ({
          ...queuePair,
          mode,
          host: node.replace(/\.hca$/, ''),
          state: stateNames[queuePair.state] ?? queuePair.state,
        })),
      ),
    ),
  );
}
