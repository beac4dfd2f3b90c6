/**
 * Attributes of a queue pair (ibv_qp_attr) and their mailbox.
 *
 * Which attributes a MODIFY_QP sets is what the caller's object holds: its keys are the attribute
 * mask of ibv_modify_qp. The adapter checks what a transition needs and allows.
 */
import {
  mtuBytes,
  mtuCode,
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
  QPA_ACCESS_FLAGS,
  QPA_CUR_STATE,
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
  QPA_STATE,
  QPA_TIMEOUT,
  QPA_WORDS,
} from '../../transport/index.ts';

export interface QueuePairAttributes {
  /** IBV_QPS_*. */
  readonly state: number;
  /** The state that the caller takes the queue pair to be in. */
  readonly currentState: number;
  /** Path MTU in bytes. */
  readonly mtuBytes: number;
  readonly qkey: number;
  /** First PSN expected, and first PSN sent. */
  readonly receivePsn: number;
  readonly sendPsn: number;
  readonly destQpn: number;
  /** What peers may do: IBV_ACCESS_*. */
  readonly access: number;
  readonly pkeyIndex: number;
  /** An event when a queue pair in SQD has drained. */
  readonly drainedEvent: number;
  /** READs and atomics outstanding as initiator, and as responder. */
  readonly maxRdAtomic: number;
  readonly maxDestRdAtomic: number;
  /** Code of the RNR NAK timer (IBTA table 45). */
  readonly minRnrTimer: number;
  readonly port: number;
  /** Local ACK timeout: 4.096 us * 2^timeout, 0 for none. */
  readonly timeout: number;
  readonly retryCnt: number;
  readonly rnrRetry: number;
  /** The address vector. */
  readonly destLid: number;
}

type Name = keyof QueuePairAttributes;

/** Each attribute with its bit in the mask and its word in the mailbox. */
const layout: readonly (readonly [name: Name, bit: number, word: number])[] = [
  ['state', QP_STATE, QPA_STATE],
  ['currentState', QP_CUR_STATE, QPA_CUR_STATE],
  ['mtuBytes', QP_PATH_MTU, QPA_PATH_MTU],
  ['qkey', QP_QKEY, QPA_QKEY],
  ['receivePsn', QP_RQ_PSN, QPA_RQ_PSN],
  ['sendPsn', QP_SQ_PSN, QPA_SQ_PSN],
  ['destQpn', QP_DEST_QPN, QPA_DEST_QPN],
  ['access', QP_ACCESS_FLAGS, QPA_ACCESS_FLAGS],
  ['pkeyIndex', QP_PKEY_INDEX, QPA_PKEY_INDEX],
  ['drainedEvent', QP_EN_SQD_ASYNC_NOTIFY, QPA_EN_SQD_ASYNC_NOTIFY],
  ['maxRdAtomic', QP_MAX_QP_RD_ATOMIC, QPA_MAX_RD_ATOMIC],
  ['maxDestRdAtomic', QP_MAX_DEST_RD_ATOMIC, QPA_MAX_DEST_RD_ATOMIC],
  ['minRnrTimer', QP_MIN_RNR_TIMER, QPA_MIN_RNR_TIMER],
  ['port', QP_PORT, QPA_PORT],
  ['timeout', QP_TIMEOUT, QPA_TIMEOUT],
  ['retryCnt', QP_RETRY_CNT, QPA_RETRY_CNT],
  ['rnrRetry', QP_RNR_RETRY, QPA_RNR_RETRY],
  ['destLid', QP_AV, QPA_DLID],
];

/** The mask and the mailbox that set `changes`. */
export function encodeAttributes(changes: Partial<QueuePairAttributes>): {
  mask: number;
  mailbox: Uint8Array;
} {
  const mailbox = new Uint8Array(QPA_WORDS * 4);
  const view = new DataView(mailbox.buffer);
  let mask = 0;
  for (const [name, bit, word] of layout) {
    const value = changes[name];
    if (value === undefined) continue;
    mask |= bit;
    view.setUint32(word * 4, name === 'mtuBytes' ? mtuCode(value) : value, true);
  }
  return { mask, mailbox };
}

/** All attributes in a mailbox that QUERY_QP brought back. */
export function decodeAttributes(mailbox: Uint8Array): QueuePairAttributes {
  const view = new DataView(mailbox.buffer, mailbox.byteOffset, mailbox.byteLength);
  const values: Partial<Record<Name, number>> = {};
  for (const [name, , word] of layout) {
    const value = view.getUint32(word * 4, true);
    values[name] = name === 'mtuBytes' ? mtuBytes(value) : value;
  }
  return values as QueuePairAttributes;
}
