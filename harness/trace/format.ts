/**
 * What one rank of a recorded MPI run says, line by line: its address space when recording began, and
 * then every change of it, every page fault and every message, in recorded order.
 *
 * Owns the shapes; `reader.ts` makes them from a folder of the recording, `docs/REPLAY.md` describes
 * the files. Left out are the user's view of collectives (the messages inside them are there), memory
 * statistics, tags and communicators.
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

/** One mapping of /proc/self/maps. */
export interface TraceMapping {
  readonly start: number;
  readonly end: number;
  readonly prot: number;
  readonly isShared: boolean;
  /** What is mapped, `''` for anonymous memory. The pages of [vdso] and [vvar] count as files. */
  readonly file: string;
  readonly fileOffset: number;
  readonly area: 'heap' | 'stack' | 'other';
}

/** Adjacent pages that are present. */
export interface ResidentRun {
  readonly address: number;
  readonly pageCount: number;
  /** False for pages of files and of shared memory. */
  readonly anonymous: boolean;
}

interface FromThread {
  /** Made by another thread than the one that runs the program. */
  readonly isHelper: boolean;
}

/** One line; `line` is its number in the file and `gapNs` the recorded time since the one before. */
export type TraceEvent = { readonly line: number; readonly gapNs: number } & (
  | ({
      /** Also shmat. Replaces what was there. */
      readonly kind: 'mmap';
      readonly prot: number;
      /** MAP_* bits of Linux. */
      readonly flags: number;
      readonly file: string;
      readonly fileOffset: number;
    } & Range &
      FromThread)
  /** Also shmdt. */
  | ({ readonly kind: 'munmap' } & Range & FromThread)
  | ({ readonly kind: 'mprotect'; readonly prot: number } & Range & FromThread)
  | ({ readonly kind: 'madvise'; readonly advice: number } & Range)
  | ({ readonly kind: 'mremap'; readonly newAddress: number; readonly newLength: number } & Range)
  | { readonly kind: 'brk'; readonly end: number }
  | { readonly kind: 'pf'; readonly address: number; readonly pageCount: number }
  | TraceMessage
  | { readonly kind: 'done' | 'call' | 'ret'; readonly id: number }
  | { readonly kind: 'rma' }
);

/** A send or receive of the recorded program; `ptx` and `prx` are parts of a collective. */
export interface TraceMessage extends Range {
  readonly kind: 'tx' | 'ptx' | 'rx' | 'prx';
  /** Payload, of a receive its capacity; bytes. `length` is more for derived datatypes. */
  readonly bytes: number;
  /** World rank; of a receive posted with any source the one whose message it took, or -1. */
  readonly peer: number;
  /**
   * Which message it is: the number of the sender's line, counting tx and ptx from 1. 0 for a
   * receive that never matched.
   */
  readonly message: number;
  /** The call it is part of (ptx, prx; 0: of none that was recorded) or its own id (tx, rx). */
  readonly id: number;
}

/** A line that sends or receives. */
export type MessageLine = TraceEvent & TraceMessage;

/** One rank of a recorded run. */
export interface Trace {
  /** The file of the events, for messages about them. */
  readonly file: string;
  readonly run: string;
  readonly rank: number;
  /** How many ranks the run had. */
  readonly ranks: number;
  /** End of the heap when recording began. */
  readonly brk: number;
  /** The most memory that the process was seen to have resident. */
  readonly rssPeakBytes: number;
  readonly mappings: readonly TraceMapping[];
  readonly resident: readonly ResidentRun[];
  readonly events: readonly TraceEvent[];
}

/** How a recorded rank ended: at MPI_Finalize. */
export interface TraceEnd {
  readonly mappings: readonly TraceMapping[];
  readonly resident: readonly ResidentRun[];
}

export function isSend(event: TraceEvent): event is TraceEvent & { kind: 'tx' | 'ptx' } {
  return event.kind === 'tx' || event.kind === 'ptx';
}

export function isReceive(event: TraceEvent): event is TraceEvent & { kind: 'rx' | 'prx' } {
  return event.kind === 'rx' || event.kind === 'prx';
}
