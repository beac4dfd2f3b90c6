/**
 * Which state changes MODIFY_QP may make, and which attributes each must and may bring.
 *
 * The rules of verbs: IBTA volume 1, tables of section 11.2.5.2, as `qp_state_table` and
 * `ib_modify_qp_is_ok` of Linux (drivers/infiniband/core/verbs.c) have them, without the alternate
 * path, which our adapters do not have. Values of attributes are judged elsewhere (`attributes.ts`).
 */
import {
  QP_ACCESS_FLAGS,
  QP_AV,
  QP_CUR_STATE,
  QP_DEST_QPN,
  QP_EN_SQD_ASYNC_NOTIFY,
  QP_MAX_DEST_RD_ATOMIC,
  QP_MAX_QP_RD_ATOMIC,
  QP_MIN_RNR_TIMER,
  QP_PATH_MTU,
  QP_PKEY_INDEX,
  QP_PORT,
  QP_QKEY,
  QP_RETRY_CNT,
  QP_RNR_RETRY,
  QP_RQ_PSN,
  QP_SQ_PSN,
  QP_STATE,
  QP_TIMEOUT,
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

/** What one transition asks of one service. */
interface Transition {
  readonly from: number;
  readonly to: number;
  readonly type: number;
  readonly required: number;
  readonly optional: number;
}

const INIT = QP_PKEY_INDEX | QP_PORT;
const PATH = QP_AV | QP_PATH_MTU | QP_DEST_QPN | QP_RQ_PSN;
const RESPONDER = QP_MAX_DEST_RD_ATOMIC | QP_MIN_RNR_TIMER;
const REQUESTER = QP_TIMEOUT | QP_RETRY_CNT | QP_RNR_RETRY | QP_MAX_QP_RD_ATOMIC;
const RUNNING = QP_CUR_STATE | QP_ACCESS_FLAGS;

const transitions: readonly Transition[] = [
  row(QPS_RESET, QPS_INIT, QPT_RC, INIT | QP_ACCESS_FLAGS, 0),
  row(QPS_RESET, QPS_INIT, QPT_UC, INIT | QP_ACCESS_FLAGS, 0),
  row(QPS_RESET, QPS_INIT, QPT_UD, INIT | QP_QKEY, 0),
  row(QPS_INIT, QPS_INIT, QPT_RC, 0, INIT | QP_ACCESS_FLAGS),
  row(QPS_INIT, QPS_INIT, QPT_UC, 0, INIT | QP_ACCESS_FLAGS),
  row(QPS_INIT, QPS_INIT, QPT_UD, 0, INIT | QP_QKEY),
  row(QPS_INIT, QPS_RTR, QPT_RC, PATH | RESPONDER, QP_ACCESS_FLAGS | QP_PKEY_INDEX),
  row(QPS_INIT, QPS_RTR, QPT_UC, PATH, QP_ACCESS_FLAGS | QP_PKEY_INDEX),
  row(QPS_INIT, QPS_RTR, QPT_UD, 0, QP_PKEY_INDEX | QP_QKEY),
  row(QPS_RTR, QPS_RTS, QPT_RC, QP_SQ_PSN | REQUESTER, RUNNING | QP_MIN_RNR_TIMER),
  row(QPS_RTR, QPS_RTS, QPT_UC, QP_SQ_PSN, RUNNING),
  row(QPS_RTR, QPS_RTS, QPT_UD, QP_SQ_PSN, QP_CUR_STATE | QP_QKEY),
  row(QPS_RTS, QPS_RTS, QPT_RC, 0, RUNNING | QP_MIN_RNR_TIMER),
  row(QPS_RTS, QPS_RTS, QPT_UC, 0, RUNNING),
  row(QPS_RTS, QPS_RTS, QPT_UD, 0, QP_CUR_STATE | QP_QKEY),
  row(QPS_RTS, QPS_SQD, QPT_RC, 0, QP_EN_SQD_ASYNC_NOTIFY),
  row(QPS_RTS, QPS_SQD, QPT_UC, 0, QP_EN_SQD_ASYNC_NOTIFY),
  row(QPS_RTS, QPS_SQD, QPT_UD, 0, QP_EN_SQD_ASYNC_NOTIFY),
  row(QPS_SQD, QPS_RTS, QPT_RC, 0, RUNNING | QP_MIN_RNR_TIMER),
  row(QPS_SQD, QPS_RTS, QPT_UC, 0, RUNNING),
  row(QPS_SQD, QPS_RTS, QPT_UD, 0, QP_CUR_STATE | QP_QKEY),
  row(
    QPS_SQD,
    QPS_SQD,
    QPT_RC,
    0,
    QP_PORT | QP_AV | REQUESTER | RESPONDER | QP_ACCESS_FLAGS | QP_PKEY_INDEX,
  ),
  row(QPS_SQD, QPS_SQD, QPT_UC, 0, QP_AV | QP_ACCESS_FLAGS | QP_PKEY_INDEX),
  row(QPS_SQD, QPS_SQD, QPT_UD, 0, QP_PKEY_INDEX | QP_QKEY),
  row(QPS_SQE, QPS_RTS, QPT_UC, 0, RUNNING),
  row(QPS_SQE, QPS_RTS, QPT_UD, 0, QP_CUR_STATE | QP_QKEY),
];

/** Whether MODIFY_QP with attributes `mask` may take a queue pair of `type` from `from` to `to`. */
export function mayModify(from: number, to: number, type: number, mask: number): boolean {
  // cur_qp_state helps only where the adapter may have changed the state by itself.
  if ((mask & QP_CUR_STATE) !== 0 && (from < QPS_RTR || from > QPS_SQE)) return false;
  if (to === QPS_RESET) return (mask & ~QP_STATE) === 0;
  if (to === QPS_ERR) return from !== QPS_RESET && (mask & ~QP_STATE) === 0;
  const rule = transitions.find((t) => t.from === from && t.to === to && t.type === type);
  if (rule === undefined || (mask & rule.required) !== rule.required) return false;
  return (mask & ~(rule.required | rule.optional | QP_STATE)) === 0;
}

function row(
  from: number,
  to: number,
  type: number,
  required: number,
  optional: number,
): Transition {
  return { from, to, type, required, optional };
}
