/**
 * Creating and connecting one queue pair of a scenario, as both sides do without a word: they know
 * each other's numbers (see `layout.ts`).
 */
import type {
  CompletionQueue,
  Host,
  QueuePair,
  SharedReceiveQueue,
  Sim,
} from '../../kernel/index.ts';
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_FLUSH_PERSISTENT,
  ACCESS_LOCAL_WRITE,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  assert,
  QPS_INIT,
  QPS_RTR,
  QPS_RTS,
  QPT_RC,
  QPT_UC,
  QPT_UD,
} from '../../transport/index.ts';
import type { QueuePairSpec } from '../scenario/schema.ts';
import { initialPsn, qpnOf } from './layout.ts';

export const QUEUE_ENTRIES = 2048;
/** The Q_Key of every datagram queue pair; perftest has the same. */
export const QKEY = 0x11111111;

/** IBV_QPT_* of a scenario's word. */
const typeOf = { RC: QPT_RC, UC: QPT_UC, UD: QPT_UD } as const;
/** What peers may do on every queue pair; regions say the rest. */
const ACCESS =
  ACCESS_LOCAL_WRITE |
  ACCESS_REMOTE_WRITE |
  ACCESS_REMOTE_READ |
  ACCESS_REMOTE_ATOMIC |
  ACCESS_FLUSH_GLOBAL |
  ACCESS_FLUSH_PERSISTENT;

export interface ConnectionPlan {
  readonly seed: number;
  readonly localName: string;
  readonly remoteName: string;
  /** LID of the peer's adapter. */
  readonly remoteLid: number;
  readonly mtuBytes: number;
}

/** What the two ends of a queue pair have to know of each other. */
export interface Numbers {
  readonly destLid: number;
  readonly destQpn: number;
  readonly mtuBytes: number;
  readonly sendPsn: number;
  readonly receivePsn: number;
}

/** Creates queue pair number `k` and takes it to RTS. */
export function* connect(
  host: Host,
  pd: number,
  cq: CompletionQueue,
  srq: SharedReceiveQueue | undefined,
  plan: ConnectionPlan,
  pair: QueuePairSpec,
  k: number,
): Sim<QueuePair> {
  const qp = yield* create(host, pd, cq, srq, pair);
  assert(qp.qpn === qpnOf(k), `queue pair ${k} is number ${qp.qpn}`, host.node);
  const { seed, localName, remoteName, remoteLid, mtuBytes } = plan;
  yield* toRts(host, qp, pair, {
    destLid: remoteLid,
    destQpn: qpnOf(k),
    mtuBytes,
    sendPsn: initialPsn(seed, localName, pair.name),
    receivePsn: initialPsn(seed, remoteName, pair.name),
  });
  return qp;
}

/** Creates a queue pair of a scenario. */
export function create(
  { verbs }: Pick<Host, 'verbs'>,
  pd: number,
  cq: CompletionQueue,
  srq: SharedReceiveQueue | undefined,
  { type }: QueuePairSpec,
): Sim<QueuePair> {
  return verbs.createQp(pd, {
    sendCq: cq,
    recvCq: cq,
    maxSendWr: QUEUE_ENTRIES,
    maxRecvWr: srq ? 0 : QUEUE_ENTRIES,
    type: typeOf[type],
    ...(srq ? { srq } : {}),
  });
}

/** Takes a new queue pair to RTS. */
export function* toRts(
  { verbs }: Pick<Host, 'verbs'>,
  qp: QueuePair,
  pair: QueuePairSpec,
  { destLid, destQpn, mtuBytes, sendPsn, receivePsn }: Numbers,
): Sim<void> {
  const init = { state: QPS_INIT, pkeyIndex: 0, port: 1 };
  if (pair.type === 'UD') {
    yield* verbs.modifyQp(qp, { ...init, qkey: QKEY });
    yield* verbs.modifyQp(qp, { state: QPS_RTR });
    yield* verbs.modifyQp(qp, { state: QPS_RTS, sendPsn });
    return;
  }
  const { maxDestRdAtomic, minRnrTimer, timeout, retryCnt, rnrRetry, maxRdAtomic } = pair;
  const isReliable = pair.type === 'RC';
  yield* verbs.modifyQp(qp, { ...init, access: ACCESS });
  yield* verbs.modifyQp(qp, {
    state: QPS_RTR,
    destLid,
    destQpn,
    mtuBytes,
    receivePsn,
    ...(isReliable ? { maxDestRdAtomic, minRnrTimer } : {}),
  });
  yield* verbs.modifyQp(qp, {
    state: QPS_RTS,
    sendPsn,
    ...(isReliable ? { timeout, retryCnt, rnrRetry, maxRdAtomic } : {}),
  });
}
