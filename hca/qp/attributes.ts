/**
 * Attributes of a queue pair, and how the mailbox of MODIFY_QP and QUERY_QP holds them.
 *
 * Which attributes a command may bring is a matter of the state (`transitions.ts`); here their
 * values are judged, and all of them before one is taken.
 */
import {
  mtuBytes,
  mtuCode,
  QP_ACCESS_FLAGS,
  QP_AV,
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
  QP_TIMEOUT,
  QPA_ACCESS_FLAGS,
  QPA_DEST_QPN,
  QPA_DLID,
  QPA_EN_SQD_ASYNC_NOTIFY,
  QPA_MAX_DEST_RD_ATOMIC,
  QPA_MAX_RD_ATOMIC,
  QPA_MIN_RNR_TIMER,
  QPA_PATH_MTU,
  QPA_PKEY_INDEX,
  QPA_PORT,
  QPA_QKEY,
  QPA_RETRY_CNT,
  QPA_RNR_RETRY,
  QPA_RQ_PSN,
  QPA_SQ_PSN,
  QPA_TIMEOUT,
} from '../../transport/index.ts';

import type { PortAttributes } from '../config.ts';

/** max_qp_rd_atom and max_qp_init_rd_atom of our adapters, as of mlx5. */
export const MAX_RD_ATOMIC = 16;

/** Attributes set by MODIFY_QP; names as in `ibv_qp_attr`. */
export interface QpAttributes {
  destQpn: number;
  destLid: number;
  /** Path MTU in bytes. */
  mtu: number;
  timeout: number;
  retryCnt: number;
  rnrRetry: number;
  minRnrTimer: number;
  maxRdAtomic: number;
  maxDestRdAtomic: number;
  /** What the peer may do through this queue pair: IBV_ACCESS_* bits. */
  access: number;
  qkey: number;
  pkeyIndex: number;
  /** First PSN of the receive and of the send queue. */
  rqPsn: number;
  sqPsn: number;
  enSqdAsyncNotify: number;
}

/** Attributes of a queue pair in RESET. A UD queue pair sends packets of any length a port can. */
export function newAttributes(mtu: number): QpAttributes {
  return {
    destQpn: 0,
    destLid: 0,
    mtu,
    timeout: 0,
    retryCnt: 0,
    rnrRetry: 0,
    minRnrTimer: 0,
    maxRdAtomic: 0,
    maxDestRdAtomic: 0,
    access: 0,
    qkey: 0,
    pkeyIndex: 0,
    rqPsn: 0,
    sqPsn: 0,
    enSqdAsyncNotify: 0,
  };
}

/** One attribute: its mask bit, its place in the mailbox, and the values it may have. */
interface Field {
  readonly bit: number;
  readonly word: number;
  readonly least: number;
  readonly most: number;
  /** undefined for the port, of which an adapter has one. */
  readonly name: keyof QpAttributes | undefined;
}

const U32 = 0xffffffff;
const fields: readonly Field[] = [
  field(QP_ACCESS_FLAGS, QPA_ACCESS_FLAGS, 0, U32, 'access'),
  field(QP_PORT, QPA_PORT, 1, 1, undefined),
  field(QP_QKEY, QPA_QKEY, 0, U32, 'qkey'),
  field(QP_AV, QPA_DLID, 1, 0xffff, 'destLid'),
  field(QP_PATH_MTU, QPA_PATH_MTU, 1, 5, 'mtu'),
  field(QP_TIMEOUT, QPA_TIMEOUT, 0, 31, 'timeout'),
  field(QP_RETRY_CNT, QPA_RETRY_CNT, 0, 7, 'retryCnt'),
  field(QP_RNR_RETRY, QPA_RNR_RETRY, 0, 7, 'rnrRetry'),
  field(QP_RQ_PSN, QPA_RQ_PSN, 0, U32, 'rqPsn'),
  field(QP_MAX_QP_RD_ATOMIC, QPA_MAX_RD_ATOMIC, 0, MAX_RD_ATOMIC, 'maxRdAtomic'),
  field(QP_MIN_RNR_TIMER, QPA_MIN_RNR_TIMER, 0, 31, 'minRnrTimer'),
  field(QP_SQ_PSN, QPA_SQ_PSN, 0, U32, 'sqPsn'),
  field(QP_MAX_DEST_RD_ATOMIC, QPA_MAX_DEST_RD_ATOMIC, 0, MAX_RD_ATOMIC, 'maxDestRdAtomic'),
  field(QP_DEST_QPN, QPA_DEST_QPN, 0, 0xffffff, 'destQpn'),
  field(QP_EN_SQD_ASYNC_NOTIFY, QPA_EN_SQD_ASYNC_NOTIFY, 0, 1, 'enSqdAsyncNotify'),
];

/**
 * Takes the attributes that `mask` names out of `mailbox`. Returns false, and changes nothing, where
 * one of them has a value that no queue pair of this port can have.
 */
export function takeAttributes(
  attributes: QpAttributes,
  mailbox: Int32Array,
  mask: number,
  port: PortAttributes,
): boolean {
  const pkeyIndex = mailbox[QPA_PKEY_INDEX] >>> 0;
  if ((mask & QP_PKEY_INDEX) !== 0 && pkeyIndex >= port.pkeys.length) return false;
  const isPath = (mask & QP_PATH_MTU) !== 0;
  if (isPath && mailbox[QPA_PATH_MTU] >>> 0 > mtuCode(port.mtu)) return false;
  for (const { bit, word, least, most } of fields) {
    const value = mailbox[word] >>> 0;
    if ((mask & bit) !== 0 && (value < least || value > most)) return false;
  }
  if ((mask & QP_PKEY_INDEX) !== 0) attributes.pkeyIndex = pkeyIndex;
  for (const { bit, word, name } of fields) {
    if ((mask & bit) !== 0 && name !== undefined) attributes[name] = mailbox[word] >>> 0;
  }
  // Linux masks first PSNs instead of refusing them.
  attributes.rqPsn &= 0xffffff;
  attributes.sqPsn &= 0xffffff;
  if (isPath) attributes.mtu = mtuBytes(mailbox[QPA_PATH_MTU]);
  return true;
}

/** Writes all attributes to the mailbox of QUERY_QP. */
export function putAttributes(attributes: QpAttributes, mailbox: Int32Array): void {
  for (const { word, name } of fields) mailbox[word] = name === undefined ? 1 : attributes[name];
  mailbox[QPA_PKEY_INDEX] = attributes.pkeyIndex;
  mailbox[QPA_PATH_MTU] = mtuCode(attributes.mtu);
}

function field(
  bit: number,
  word: number,
  least: number,
  most: number,
  name: keyof QpAttributes | undefined,
): Field {
  return { bit, word, least, most, name };
}
