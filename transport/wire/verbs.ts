/**
 * Numbers that adapter and driver share because verbs define them (libibverbs/verbs.h).
 */

/** IBV_ACCESS_*. */
export const ACCESS_LOCAL_WRITE = 1;
export const ACCESS_REMOTE_WRITE = 2;
export const ACCESS_REMOTE_READ = 4;
export const ACCESS_REMOTE_ATOMIC = 8;
export const ACCESS_ON_DEMAND = 64;

/** IBV_WR_*: what a work request of the send queue does. */
export const WR_RDMA_WRITE = 0;
export const WR_RDMA_WRITE_WITH_IMM = 1;
export const WR_SEND = 2;
export const WR_SEND_WITH_IMM = 3;
export const WR_RDMA_READ = 4;

/** IBV_SEND_*. */
export const SEND_SIGNALED = 2;
export const SEND_SOLICITED = 4;

/** IBV_WC_*: opcode of a completion. */
export const WC_SEND = 0;
export const WC_RDMA_WRITE = 1;
export const WC_RDMA_READ = 2;
export const WC_RECV = 128;
export const WC_RECV_RDMA_WITH_IMM = 129;

/** IBV_WC_* status of a completion. */
export const WC_SUCCESS = 0;
export const WC_LOC_LEN_ERR = 1;
export const WC_LOC_QP_OP_ERR = 2;
export const WC_LOC_PROT_ERR = 4;
export const WC_WR_FLUSH_ERR = 5;
export const WC_BAD_RESP_ERR = 7;
export const WC_LOC_ACCESS_ERR = 8;
export const WC_REM_INV_REQ_ERR = 9;
export const WC_REM_ACCESS_ERR = 10;
export const WC_REM_OP_ERR = 11;
export const WC_RETRY_EXC_ERR = 12;
export const WC_RNR_RETRY_EXC_ERR = 13;

/** Names of completion statuses, as `ibv_wc_status_str` users know them. */
export const wcStatusName: Readonly<Record<number, string>> = {
  [WC_SUCCESS]: 'IBV_WC_SUCCESS',
  [WC_LOC_LEN_ERR]: 'IBV_WC_LOC_LEN_ERR',
  [WC_LOC_QP_OP_ERR]: 'IBV_WC_LOC_QP_OP_ERR',
  [WC_LOC_PROT_ERR]: 'IBV_WC_LOC_PROT_ERR',
  [WC_WR_FLUSH_ERR]: 'IBV_WC_WR_FLUSH_ERR',
  [WC_BAD_RESP_ERR]: 'IBV_WC_BAD_RESP_ERR',
  [WC_LOC_ACCESS_ERR]: 'IBV_WC_LOC_ACCESS_ERR',
  [WC_REM_INV_REQ_ERR]: 'IBV_WC_REM_INV_REQ_ERR',
  [WC_REM_ACCESS_ERR]: 'IBV_WC_REM_ACCESS_ERR',
  [WC_REM_OP_ERR]: 'IBV_WC_REM_OP_ERR',
  [WC_RETRY_EXC_ERR]: 'IBV_WC_RETRY_EXC_ERR',
  [WC_RNR_RETRY_EXC_ERR]: 'IBV_WC_RNR_RETRY_EXC_ERR',
};

/** IBV_QPS_*: states of a queue pair. */
export const QPS_RESET = 0;
export const QPS_INIT = 1;
export const QPS_RTR = 2;
export const QPS_RTS = 3;
export const QPS_ERR = 6;

/** IBV_EVENT_*: asynchronous events. */
export const EVENT_QP_FATAL = 1;
export const EVENT_QP_REQ_ERR = 2;
export const EVENT_QP_ACCESS_ERR = 3;

/** IBV_MTU_* code of a path MTU in bytes (256 is 1, 4096 is 5). */
export function mtuCode(bytes: number): number {
  return 24 - Math.clz32(bytes);
}

/** Bytes of an IBV_MTU_* code. */
export function mtuBytes(code: number): number {
  return 128 << code;
}
