/**
 * Memory windows of type 2B: leave for one queue pair's peer to reach part of a region.
 *
 * A window is allocated free, is bound to a range by a work request of a queue pair, and is free
 * again once it is invalidated, by that queue pair or by its peer (SEND with invalidate). What a
 * message in progress holds is the *binding*, so that taking the leave back stops the message too.
 * Source: IBTA volume 1, 10.6.7; drivers/infiniband/sw/rxe/rxe_mw.c.
 */
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_FLUSH_PERSISTENT,
  ACCESS_LOCAL_WRITE,
  ACCESS_MW_BIND,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_ZERO_BASED,
} from '../../transport/index.ts';
import type { Region } from './region.ts';

/** Who may use a window, and bind it: a queue pair. */
export interface WindowUser {
  readonly pd: { readonly number: number };
}

/** One bind of a window; the same window bound again is another. */
export interface Binding {
  /** False once the window was invalidated. */
  alive: boolean;
  readonly user: WindowUser;
  readonly region: Region;
  /** IBV_ACCESS_* bits. */
  readonly access: number;
  /** What is added to an address of the window to have one of the region. */
  readonly bias: number;
  /** First address of the window, and bytes. */
  readonly address: number;
  readonly length: number;
}

export interface MemoryWindow {
  /** The R_Key; its variant changes with every bind. */
  key: number;
  readonly pd: number;
  /** undefined while free. */
  binding: Binding | undefined;
}

const WINDOW_ACCESS =
  ACCESS_REMOTE_WRITE |
  ACCESS_REMOTE_READ |
  ACCESS_REMOTE_ATOMIC |
  ACCESS_ZERO_BASED |
  ACCESS_FLUSH_GLOBAL |
  ACCESS_FLUSH_PERSISTENT;

/**
 * A bind of [address, address + length) of `region` for `user`; undefined where the rules forbid it.
 * What remote keys of the region itself allow does not matter (C10-73 to C10-75).
 */
export function newBinding(
  user: WindowUser,
  region: Region,
  address: number,
  length: number,
  access: number,
): Binding | undefined {
  if (region.pd !== user.pd.number || (region.access & ACCESS_MW_BIND) === 0) return undefined;
  if ((region.access & ACCESS_ZERO_BASED) !== 0 || (access & ~WINDOW_ACCESS) !== 0)
    return undefined;
  const changes = (access & (ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC)) !== 0;
  if (changes && (region.access & ACCESS_LOCAL_WRITE) === 0) return undefined;
  // Type 2 windows are not unbound by a bind of nothing (o10-37.2.40).
  if (length < 1 || !region.covers(address, length)) return undefined;
  const isZeroBased = (access & ACCESS_ZERO_BASED) !== 0;
  return {
    alive: true,
    user,
    region,
    access,
    bias: isZeroBased ? address : 0,
    address: isZeroBased ? 0 : address,
    length,
  };
}
