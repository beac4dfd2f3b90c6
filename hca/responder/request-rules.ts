/**
 * What a request packet may be, whatever the queue pair has done before: lengths and rights.
 *
 * Source: IBTA volume 1, 9.7.4.1 (RC), 9.8.2.1 (UC), annex A19 (FLUSH, ATOMIC WRITE).
 */
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_FLUSH_PERSISTENT,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  FLUSH_GLOBAL,
  FLUSH_MR,
  FLUSH_PERSISTENT,
  OP_ATOMIC,
  OP_ATOMIC_WRITE,
  OP_FIRST,
  OP_FLUSH,
  OP_LAST,
  OP_READ,
  OP_SEND,
  OP_WRITE,
} from '../../transport/index.ts';

/** The kinds of request: bits of `opFlags`. */
export const KINDS = OP_SEND | OP_WRITE | OP_READ | OP_ATOMIC | OP_ATOMIC_WRITE | OP_FLUSH;

/** Operands of atomics, and what ATOMIC WRITE writes: eight bytes at a multiple of eight. */
export const ATOMIC_BYTES = 8;

/** Whether a packet of `flags` may carry `bytes`: all of a message but the last are full. */
export function hasValidLength(flags: number, bytes: number, mtu: number): boolean {
  if ((flags & OP_LAST) === 0) return bytes === mtu;
  return bytes <= mtu && (bytes > 0 || (flags & OP_FIRST) !== 0);
}

/** The rights (IBV_ACCESS_*) that a request of `kind` needs; `feth` says which for a FLUSH. */
export function rightsFor(kind: number, feth: number): number {
  if (kind === OP_WRITE || kind === OP_ATOMIC_WRITE) return ACCESS_REMOTE_WRITE;
  if (kind === OP_READ) return ACCESS_REMOTE_READ;
  if (kind === OP_ATOMIC) return ACCESS_REMOTE_ATOMIC;
  if (kind !== OP_FLUSH) return 0;
  return (
    ((feth & FLUSH_GLOBAL) !== 0 ? ACCESS_FLUSH_GLOBAL : 0) |
    ((feth & FLUSH_PERSISTENT) !== 0 ? ACCESS_FLUSH_PERSISTENT : 0)
  );
}

/** Selectivity level of a FETH: FLUSH_RANGE, FLUSH_MR, or one that is reserved. */
export function flushLevel(feth: number): number {
  return (feth >>> 4) & 3;
}

/** Whether a FETH names placement types that exist, at least one, and a level that exists. */
export function isValidFlush(feth: number): boolean {
  const placement = feth & 0xf;
  const isKnown = (placement & ~(FLUSH_GLOBAL | FLUSH_PERSISTENT)) === 0;
  return placement !== 0 && isKnown && flushLevel(feth) <= FLUSH_MR;
}
