/**
 * MODIFY_QP and QUERY_QP: a queue pair as the driver changes and sees it.
 *
 * Does not own which transitions there are (`transitions.ts`) nor what attributes may be
 * (`attributes.ts`).
 */
import {
  QP_CUR_STATE,
  QP_EN_SQD_ASYNC_NOTIFY,
  QP_STATE,
  QPA_CUR_STATE,
  QPA_RQ_PSN,
  QPA_SQ_PSN,
  QPA_STATE,
  QPS_ERR,
  QPS_INIT,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  type TimePs,
  WC_SUCCESS,
} from '../../transport/index.ts';
import type { PortAttributes } from '../config.ts';
import { putAttributes, takeAttributes } from './attributes.ts';
import type { QueuePair } from './queue-pair.ts';
import { mayModify } from './transitions.ts';

/**
 * Sets the attributes that `mask` names and goes to the state among them. Returns false, and changes
 * nothing, where verbs do not allow it.
 */
export function modifyQueuePair(
  qp: QueuePair,
  mask: number,
  mailbox: Int32Array,
  port: PortAttributes,
  now: TimePs,
): boolean {
  const from = qp.state;
  const to = (mask & QP_STATE) !== 0 ? mailbox[QPA_STATE] : from;
  if ((mask & QP_CUR_STATE) !== 0 && mailbox[QPA_CUR_STATE] !== from) return false;
  if (!mayModify(from, to, qp.type, mask)) return false;
  // While the send queue drains, only the ways out of all trouble are open.
  const isWayOut = to === QPS_RESET || to === QPS_ERR;
  if (qp.requester.drain.isActive && !isWayOut) return false;
  if (!takeAttributes(qp.attributes, mailbox, mask, port)) return false;
  qp.readdress();
  if (to === QPS_ERR) qp.fail(WC_SUCCESS, now);
  else if (to === QPS_RESET) qp.reset(now);
  else {
    if (from === QPS_INIT && to === QPS_RTR) qp.responder.start(qp.attributes.rqPsn);
    if (from === QPS_RTR && to === QPS_RTS) qp.requester.start(qp.attributes.sqPsn);
    // The event of a drained queue is asked for anew each time.
    if (from === QPS_RTS && to === QPS_SQD && (mask & QP_EN_SQD_ASYNC_NOTIFY) === 0) {
      qp.attributes.enSqdAsyncNotify = 0;
    }
    qp.state = to;
    qp.completer.takeAttributes();
    if (from === QPS_RTS && to === QPS_SQD) qp.requester.beginDrain(now);
    if (from === QPS_SQD && to === QPS_RTS) qp.requester.endDrain(now);
  }
  return true;
}

/** Writes state, attributes and the current PSNs to the mailbox of QUERY_QP. */
export function queryQueuePair(qp: QueuePair, mailbox: Int32Array): void {
  putAttributes(qp.attributes, mailbox);
  mailbox[QPA_STATE] = qp.state;
  mailbox[QPA_CUR_STATE] = qp.state;
  mailbox[QPA_RQ_PSN] = qp.responder.expectedPsn;
  mailbox[QPA_SQ_PSN] = qp.requester.nextPsn;
}
