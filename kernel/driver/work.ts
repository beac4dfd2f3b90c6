/**
 * Work requests and completions, as a program posts and polls them (libibverbs/verbs.h).
 */
import type { TimePs } from '../../transport/index.ts';

/** ibv_send_wr with one scatter entry. Fields an opcode does not use may be left out. */
export interface SendRequest {
  /** IBV_WR_*. */
  readonly opcode: number;
  /** An unsigned 32-bit number that comes back in the completion. */
  readonly wrId: number;
  readonly lkey: number;
  readonly localAddress: number;
  readonly length: number;
  readonly rkey?: number;
  readonly remoteAddress?: number;
  readonly immediate?: number;
  /** IBV_SEND_*. */
  readonly flags: number;
}

/** ibv_recv_wr with one scatter entry. */
export interface ReceiveRequest {
  readonly wrId: number;
  readonly lkey: number;
  readonly localAddress: number;
  readonly length: number;
}

/** ibv_wc. */
export interface WorkCompletion {
  readonly qpn: number;
  readonly wrId: number;
  /** IBV_WC_* status. */
  readonly status: number;
  /** IBV_WC_* opcode. */
  readonly opcode: number;
  readonly byteLen: number;
  readonly immediate: number;
  /** CQE_RECEIVE, CQE_WITH_IMMEDIATE. */
  readonly flags: number;
  /** When the entry reached host memory. */
  readonly timePs: TimePs;
}
