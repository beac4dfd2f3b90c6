/**
 * `qp.csv`: a row for each mode, host and queue pair; what belongs to no region stands here. Packets
 * and states are as the adapter has them, work requests and completions as the host's driver counted.
 */
import {
  QPS_ERR,
  QPS_INIT,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  QPS_SQE,
  QPT_RC,
  QPT_UC,
  QPT_UD,
} from '../../transport/index.ts';
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
  'type',
  'send_requests',
  'receive_requests',
  'completions',
  'failed_completions',
] as const;

const stateNames: Readonly<Record<number, string>> = {
  [QPS_RESET]: 'RESET',
  [QPS_INIT]: 'INIT',
  [QPS_RTR]: 'RTR',
  [QPS_RTS]: 'RTS',
  [QPS_SQD]: 'SQD',
  [QPS_SQE]: 'SQE',
  [QPS_ERR]: 'ERR',
};

const typeNames: Readonly<Record<number, string>> = {
  [QPT_RC]: 'RC',
  [QPT_UC]: 'UC',
  [QPT_UD]: 'UD',
};

/** The text of `qp.csv`. */
export function queuePairsCsv(runs: readonly (readonly [Mode, readonly NodeReport[]])[]): string {
  return csv(
    header,
    runs.flatMap(([mode, reports]) =>
      reports.flatMap(({ node, hca }) => {
        const name = node.replace(/\.hca$/, '');
        const host = reports.find((report) => report.node === `${name}.host`)?.host;
        // Numbers are not given twice.
        const driver = new Map(host?.queuePairs.map((pair) => [pair.qpn, pair]));
        return (hca?.queuePairs ?? []).map((queuePair) => {
          const known = driver.get(queuePair.qpn);
          return {
            ...queuePair,
            ...known?.counters,
            mode,
            host: name,
            state: stateNames[queuePair.state] ?? queuePair.state,
            type: known ? (typeNames[known.type] ?? known.type) : '',
          };
        });
      }),
    ),
  );
}
