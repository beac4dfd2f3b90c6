/** The work requests of an operation: what a scenario's words mean in verbs. */
import type { AddressHandle, ScatterEntry } from '../../kernel/index.ts';
import {
  FLUSH_GLOBAL,
  FLUSH_PERSISTENT,
  FLUSH_RANGE,
  SEND_FENCE,
  SEND_INLINE,
  SEND_SIGNALED,
  SEND_SOLICITED,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_FLUSH,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
  WR_SEND_WITH_INV,
} from '../../transport/index.ts';
import type { OperationKind } from '../scenario/operation-schema.ts';
import type { OperationSpec } from '../scenario/schema.ts';
import { QKEY } from './connection.ts';
import type { Work } from './posting.ts';

const opcodeOf: Readonly<Record<OperationKind, number>> = {
  write: WR_RDMA_WRITE,
  writeImm: WR_RDMA_WRITE_WITH_IMM,
  send: WR_SEND,
  sendImm: WR_SEND_WITH_IMM,
  sendInv: WR_SEND_WITH_INV,
  read: WR_RDMA_READ,
  fetchAdd: WR_ATOMIC_FETCH_AND_ADD,
  compareSwap: WR_ATOMIC_CMP_AND_SWP,
  atomicWrite: WR_ATOMIC_WRITE,
};

/** The two ends of one work request. */
export interface Ends {
  readonly local: ScatterEntry;
  readonly remote: { readonly address: number; readonly rkey: number };
  /** Where it goes on a datagram queue pair. */
  readonly datagram?: { readonly ah: AddressHandle; readonly remoteQpn: number };
  /** The key that a sendInv invalidates. */
  readonly invalidateRkey?: number;
}

/** Work request number `k` of an operation. */
export function requestOf(operation: OperationSpec, k: number, ends: Ends): Work {
  const { kind, add, compare, swap } = operation;
  const { local, remote, datagram, invalidateRkey } = ends;
  return {
    opcode: opcodeOf[kind],
    flags: flagsOf(operation, k) & ~(operation.flush === null ? 0 : SEND_SIGNALED),
    sges: piecesOf(local, operation.sges),
    rkey: remote.rkey,
    remoteAddress: remote.address,
    immediate: k,
    ...(kind === 'fetchAdd' ? { compareAdd: add } : {}),
    ...(kind === 'compareSwap' ? { compareAdd: compare, swap } : {}),
    ...(datagram ? { datagram: { ...datagram, remoteQkey: QKEY } } : {}),
    ...(invalidateRkey === undefined ? {} : { invalidateRkey }),
  };
}

/** The flush that follows work request number `k`. */
export function flushOf(operation: OperationSpec, k: number, { remote }: Ends): Work {
  const placement = operation.flush === 'persistent' ? FLUSH_PERSISTENT : FLUSH_GLOBAL;
  return {
    opcode: WR_FLUSH,
    flags: flagsOf(operation, k) & SEND_SIGNALED,
    rkey: remote.rkey,
    remoteAddress: remote.address,
    flush: { length: operation.sizeBytes, placement, selectivity: FLUSH_RANGE },
  };
}

/** A buffer in `count` pieces, as even as can be. */
export function piecesOf({ address, length, lkey }: ScatterEntry, count: number): ScatterEntry[] {
  return Array.from({ length: count }, (_, i) => {
    const from = Math.floor((length * i) / count);
    const to = Math.floor((length * (i + 1)) / count);
    return { address: address + from, length: to - from, lkey };
  });
}

function flagsOf(
  { fence, solicited, inline, signalEvery, count }: OperationSpec,
  k: number,
): number {
  const isSignaled = (k + 1) % signalEvery === 0 || k === count - 1;
  return (
    (fence ? SEND_FENCE : 0) |
    (solicited ? SEND_SOLICITED : 0) |
    (inline ? SEND_INLINE : 0) |
    (isSignaled ? SEND_SIGNALED : 0)
  );
}
