/**
 * Work requests and completions, as a program posts and polls them (libibverbs/verbs.h).
 */
import type { TimePs } from '../../transport/index.ts';

/** ibv_sge: a piece of a registered buffer. */
export interface ScatterEntry {
  readonly address: number;
  readonly length: number;
  readonly lkey: number;
}

/** A 64-bit operand as two unsigned words. */
export type Words64 = readonly [high: number, low: number];

/** ibv_ah: the way to a port. In every world a port is named by its LID. */
export interface AddressHandle {
  readonly pd: number;
  readonly dlid: number;
}

/** ibv_send_wr. Fields an opcode does not use may be left out. */
export interface SendRequest {
  /** IBV_WR_*. */
  readonly opcode: number;
  /** An unsigned 32-bit number that comes back in the completion. */
  readonly wrId: number;
  /** IBV_SEND_*. */
  readonly flags: number;
  /** Local buffers; for a window to be bound, the one range with its region's lkey. */
  readonly sges?: readonly ScatterEntry[];
  /** For a window to be bound, its new key (see nextRkey). */
  readonly rkey?: number;
  readonly remoteAddress?: number;
  readonly immediate?: number;
  /** The key that SEND_WITH_INV (at the peer) or LOCAL_INV (here) invalidates. */
  readonly invalidateRkey?: number;
  /** What FETCH_AND_ADD adds, or CMP_AND_SWP compares with. */
  readonly compareAdd?: Words64;
  readonly swap?: Words64;
  /** Bytes of remote memory, placement type and selectivity level (FLUSH_*) of a flush. */
  readonly flush?: {
    readonly length: number;
    readonly placement: number;
    readonly selectivity: number;
  };
  /** Rights of a window to be bound (IBV_ACCESS_*). */
  readonly bindAccess?: number;
  /** Where a datagram goes. */
  readonly datagram?: {
    readonly ah: AddressHandle;
    readonly remoteQpn: number;
    readonly remoteQkey: number;
  };
}

/** ibv_recv_wr. */
export interface ReceiveRequest {
  readonly wrId: number;
  /** Where the message goes, one after the other; none takes messages without data. */
  readonly sges?: readonly ScatterEntry[];
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
  /** Immediate data, or the key that was invalidated, as the flags say. */
  readonly immediate: number;
  /** CQE_*. */
  readonly flags: number;
  /** Queue pair that sent it, of a datagram. */
  readonly srcQp: number;
  /** LID that sent it, of a datagram. */
  readonly slid: number;
  /** When the entry reached host memory. */
  readonly timePs: TimePs;
}

/** Bytes of a list of buffers. */
export function lengthOf(sges: readonly ScatterEntry[] | undefined): number {
  let bytes = 0;
  if (sges) for (const { length } of sges) bytes += length;
  return bytes;
}

/** The key for the next binding of a window: the same index, the next variant (ibv_inc_rkey). */
export function nextRkey(rkey: number): number {
  return (rkey & ~0xff) | ((rkey + 1) & 0xff);
}
