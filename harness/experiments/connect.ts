/**
 * Taking reliable connections of an experiment to RTS.
 */
import type { Host, QueuePair, Sim } from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  QPS_INIT,
  QPS_RTR,
  QPS_RTS,
} from '../../transport/index.ts';

/** What the two ends of a connection agree on, and what may differ from usual. */
export interface ConnectOptions {
  readonly destLid: number;
  readonly destQpn: number;
  /** Path MTU; 4096 when not given. */
  readonly mtuBytes?: number;
  /** Codes of the timers as verbs have them; 12 (0.64 ms) and 14 (67 ms) when not given. */
  readonly minRnrTimer?: number;
  readonly timeout?: number;
  readonly retryCnt?: number;
  readonly rnrRetry?: number;
}

/** Takes a reset RC queue pair to RTS; both sides start at PSN 0. */
export function* connectRc({ verbs }: Host, qp: QueuePair, options: ConnectOptions): Sim<void> {
  const access =
    ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ | ACCESS_REMOTE_ATOMIC;
  const { destLid, destQpn, mtuBytes = 4096, minRnrTimer = 12 } = options;
  const { timeout = 14, retryCnt = 7, rnrRetry = 7 } = options;
  yield* verbs.modifyQp(qp, { state: QPS_INIT, pkeyIndex: 0, port: 1, access });
  yield* verbs.modifyQp(qp, {
    state: QPS_RTR,
    destLid,
    destQpn,
    mtuBytes,
    receivePsn: 0,
    minRnrTimer,
    maxDestRdAtomic: 16,
  });
  yield* verbs.modifyQp(qp, {
    state: QPS_RTS,
    sendPsn: 0,
    timeout,
    retryCnt,
    rnrRetry,
    maxRdAtomic: 16,
  });
}
