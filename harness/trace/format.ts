/**
 * The compact form of one rank of a recorded MPI run: what is kept and how it is written.
 *
 * Text, gzip-compressed, tab-separated. The first line names the format, the run and the rank; the
 * last line is `end` with the number of lines before it, so that a file cut short is noticed even
 * when its compression is intact. In between, in recorded order, first what the address space was
 * at time 0 (`map`, `res`), then events. Column 1 is the time in ns since the previous line.
 *
 *     faultline-trace 1 <run> <rank> <ranks> <brk, hex>
 *     0    map      addr len prot              mapped at time 0
 *     0    res      addr pages                 resident at time 0
 *     gap  mmap     addr len prot              replaces what was there
 *     gap  munmap   addr len
 *     gap  mremap   addr len newaddr newlen
 *     gap  brk      newend
 *     gap  madvise  addr len advice
 *     gap  mprotect addr len prot
 *     gap  pf       addr pages                 the program touched pages that were not resident
 *     gap  tx|ptx   addr len bytes peer id     a message leaves (ptx: part of a collective)
 *     gap  rx|prx   addr len bytes peer match id
 *     gap  done     id                         buffer of tx or rx `id` is the program's again
 *     gap  call|ret id                         a collective begins, returns
 *     end  lines
 *
 * Addresses are hexadecimal, lengths decimal bytes. `match` n: receives the n-th tx or ptx line of
 * the peer's file (`-`: never matched). The original recording has more columns; see `pack.ts`.
 */

/** Reading, writing and executing, as mmap numbers them. */
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;

interface Range {
  readonly address: number;
  /** Bytes. */
  readonly length: number;
}

/** One line; `line` is its number in the file and `gapNs` the recorded time since the one before. */
export type TraceEvent = { readonly line: number; readonly gapNs: number } & (
  | ({ readonly kind: 'map' | 'mmap' | 'mprotect'; readonly prot: number } & Range)
  | ({ readonly kind: 'munmap' } & Range)
  | ({ readonly kind: 'madvise'; readonly advice: string } & Range)
  | ({ readonly kind: 'mremap'; readonly newAddress: number; readonly newLength: number } & Range)
  | { readonly kind: 'brk'; readonly end: number }
  | { readonly kind: 'res' | 'pf'; readonly address: number; readonly pageCount: number }
  | TraceMessage
  | { readonly kind: 'done' | 'call' | 'ret'; readonly id: number }
);

/** A send or receive of the recorded program. */
export interface TraceMessage extends Range {
  readonly kind: 'tx' | 'ptx' | 'rx' | 'prx';
  /** Payload, bytes; differs from `length` only for derived datatypes. */
  readonly bytes: number;
  readonly peer: number;
  /**
   * Which message it is: the number of the sender's line, counting tx and ptx from 1. 0 for a
   * receive that never matched.
   */
  readonly message: number;
  /** The call it is part of (ptx, prx) or its own id (tx, rx). */
  readonly id: number;
}

/** One rank of a recorded run. */
export interface Trace {
  readonly file: string;
  readonly run: string;
  readonly rank: number;
  readonly ranks: number;
  /** End of the heap at time 0. */
  readonly brk: number;
  /** `map` and `res` lines: the address space at time 0. */
  readonly start: readonly TraceEvent[];
  readonly events: readonly TraceEvent[];
}

export const TRACE_FORMAT = 'faultline-trace 1';

/** How many columns follow the kind. */
export const columnCount: Readonly<Record<TraceEvent['kind'], number>> = {
  map: 3,
  res: 2,
  mmap: 3,
  munmap: 2,
  mremap: 4,
  brk: 1,
  madvise: 3,
  mprotect: 3,
  pf: 2,
  tx: 5,
  ptx: 5,
  rx: 6,
  prx: 6,
  done: 1,
  call: 1,
  ret: 1,
};
