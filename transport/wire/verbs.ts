/**
 * Numbers that adapter, driver and program share because verbs define them (libibverbs/verbs.h).
 */

/** IBV_ACCESS_*. */
export const ACCESS_LOCAL_WRITE = 1;
export const ACCESS_REMOTE_WRITE = 2;
export const ACCESS_REMOTE_READ = 4;
export const ACCESS_REMOTE_ATOMIC = 8;
export const ACCESS_MW_BIND = 16;
export const ACCESS_ZERO_BASED = 32;
export const ACCESS_ON_DEMAND = 64;
export const ACCESS_HUGETLB = 128;
export const ACCESS_FLUSH_GLOBAL = 256;
export const ACCESS_FLUSH_PERSISTENT = 512;

/**
 * SIZE_MAX of C, as near as a double comes: the length of an implicit on-demand region, which begins
 * at address 0 and covers all that the process has or will have.
 */
export const SIZE_MAX = 2 ** 64;

/** IBV_REREG_MR_CHANGE_*. */
export const REREG_TRANSLATION = 1;
export const REREG_PD = 2;
export const REREG_ACCESS = 4;

/** IBV_ADVISE_MR_ADVICE_*, and IBV_ADVISE_MR_FLAG_FLUSH. */
export const ADVICE_PREFETCH = 0;
export const ADVICE_PREFETCH_WRITE = 1;
export const ADVICE_PREFETCH_NO_FAULT = 2;
export const ADVISE_FLUSH = 1;

/** IBV_QPT_*: services of a queue pair. */
export const QPT_RC = 2;
export const QPT_UC = 3;
export const QPT_UD = 4;

/** IBV_WR_*: what a work request of the send queue does. */
export const WR_RDMA_WRITE = 0;
export const WR_RDMA_WRITE_WITH_IMM = 1;
export const WR_SEND = 2;
export const WR_SEND_WITH_IMM = 3;
export const WR_RDMA_READ = 4;
export const WR_ATOMIC_CMP_AND_SWP = 5;
export const WR_ATOMIC_FETCH_AND_ADD = 6;
export const WR_LOCAL_INV = 7;
export const WR_BIND_MW = 8;
export const WR_SEND_WITH_INV = 9;
export const WR_FLUSH = 14;
export const WR_ATOMIC_WRITE = 15;

/** IBV_SEND_*. */
export const SEND_FENCE = 1;
export const SEND_SIGNALED = 2;
export const SEND_SOLICITED = 4;
export const SEND_INLINE = 8;

/** IBV_FLUSH_*: placement type and selectivity level of a FLUSH (FETH bits 0-3 and 4-5). */
export const FLUSH_GLOBAL = 1;
export const FLUSH_PERSISTENT = 2;
export const FLUSH_RANGE = 0;
export const FLUSH_MR = 1;

/** IBV_WC_*: opcode of a completion. */
export const WC_SEND = 0;
export const WC_RDMA_WRITE = 1;
export const WC_RDMA_READ = 2;
export const WC_COMP_SWAP = 3;
export const WC_FETCH_ADD = 4;
export const WC_BIND_MW = 5;
export const WC_LOCAL_INV = 6;
export const WC_FLUSH = 8;
export const WC_ATOMIC_WRITE = 9;
export const WC_RECV = 128;
export const WC_RECV_RDMA_WITH_IMM = 129;

/** IBV_WC_* status of a completion. */
export const WC_SUCCESS = 0;
export const WC_LOC_LEN_ERR = 1;
export const WC_LOC_QP_OP_ERR = 2;
export const WC_LOC_PROT_ERR = 4;
export const WC_WR_FLUSH_ERR = 5;
export const WC_MW_BIND_ERR = 6;
export const WC_BAD_RESP_ERR = 7;
export const WC_LOC_ACCESS_ERR = 8;
export const WC_REM_INV_REQ_ERR = 9;
export const WC_REM_ACCESS_ERR = 10;
export const WC_REM_OP_ERR = 11;
export const WC_RETRY_EXC_ERR = 12;
export const WC_RNR_RETRY_EXC_ERR = 13;
export const WC_GENERAL_ERR = 21;

/** Names of completion statuses, as `ibv_wc_status_str` users know them. */
export const wcStatusName: Readonly<Record<number, string>> = {
  [WC_SUCCESS]: 'IBV_WC_SUCCESS',
  [WC_LOC_LEN_ERR]: 'IBV_WC_LOC_LEN_ERR',
  [WC_LOC_QP_OP_ERR]: 'IBV_WC_LOC_QP_OP_ERR',
  [WC_LOC_PROT_ERR]: 'IBV_WC_LOC_PROT_ERR',
  [WC_WR_FLUSH_ERR]: 'IBV_WC_WR_FLUSH_ERR',
  [WC_MW_BIND_ERR]: 'IBV_WC_MW_BIND_ERR',
  [WC_BAD_RESP_ERR]: 'IBV_WC_BAD_RESP_ERR',
  [WC_LOC_ACCESS_ERR]: 'IBV_WC_LOC_ACCESS_ERR',
  [WC_REM_INV_REQ_ERR]: 'IBV_WC_REM_INV_REQ_ERR',
  [WC_REM_ACCESS_ERR]: 'IBV_WC_REM_ACCESS_ERR',
  [WC_REM_OP_ERR]: 'IBV_WC_REM_OP_ERR',
  [WC_RETRY_EXC_ERR]: 'IBV_WC_RETRY_EXC_ERR',
  [WC_RNR_RETRY_EXC_ERR]: 'IBV_WC_RNR_RETRY_EXC_ERR',
  [WC_GENERAL_ERR]: 'IBV_WC_GENERAL_ERR',
};

/** IBV_QPS_*: states of a queue pair. */
export const QPS_RESET = 0;
export const QPS_INIT = 1;
export const QPS_RTR = 2;
export const QPS_RTS = 3;
export const QPS_SQD = 4;
export const QPS_SQE = 5;
export const QPS_ERR = 6;

/** IBV_QP_*: which attributes a MODIFY_QP sets. */
export const QP_STATE = 1 << 0;
export const QP_CUR_STATE = 1 << 1;
export const QP_EN_SQD_ASYNC_NOTIFY = 1 << 2;
export const QP_ACCESS_FLAGS = 1 << 3;
export const QP_PKEY_INDEX = 1 << 4;
export const QP_PORT = 1 << 5;
export const QP_QKEY = 1 << 6;
export const QP_AV = 1 << 7;
export const QP_PATH_MTU = 1 << 8;
export const QP_TIMEOUT = 1 << 9;
export const QP_RETRY_CNT = 1 << 10;
export const QP_RNR_RETRY = 1 << 11;
export const QP_RQ_PSN = 1 << 12;
export const QP_MAX_QP_RD_ATOMIC = 1 << 13;
export const QP_MIN_RNR_TIMER = 1 << 15;
export const QP_SQ_PSN = 1 << 16;
export const QP_MAX_DEST_RD_ATOMIC = 1 << 17;
export const QP_DEST_QPN = 1 << 20;

/** IBV_EVENT_*: asynchronous events. */
export const EVENT_CQ_ERR = 0;
export const EVENT_QP_FATAL = 1;
export const EVENT_QP_REQ_ERR = 2;
export const EVENT_QP_ACCESS_ERR = 3;
export const EVENT_COMM_EST = 4;
export const EVENT_SQ_DRAINED = 5;
export const EVENT_SRQ_ERR = 14;
export const EVENT_SRQ_LIMIT_REACHED = 15;
export const EVENT_QP_LAST_WQE_REACHED = 16;

/** The most scatter/gather entries of a work request (max_sge). */
export const MAX_SGE = 16;
/** The most inline data of a work request (max_inline_data). */
export const MAX_INLINE_BYTES = 256;

/** IBV_MTU_* code of a path MTU in bytes (256 is 1, 4096 is 5). */
export function mtuCode(bytes: number): number {
  return 24 - Math.clz32(bytes);
}

/** Bytes of an IBV_MTU_* code. */
export function mtuBytes(code: number): number {
  return 128 << code;
}
