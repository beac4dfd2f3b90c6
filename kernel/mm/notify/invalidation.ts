/**
 * One invalidation of a range of a process, as all kinds of notifier see it, and why it happens.
 *
 * The cause is what the prototype of 2011 asked for ("extra information regarding the invalidation
 * cause", seed 004); Linux has since got enum mmu_notifier_event. A client may postpone some causes
 * and must not postpone others.
 */

/** munmap, exit of a part, mmap over something: the addresses go away (MMU_NOTIFY_UNMAP). */
export const CAUSE_UNMAP = 'unmap';
/** The pages go, the addresses stay: madvise, truncation of a file (MMU_NOTIFY_CLEAR). */
export const CAUSE_CLEAR = 'clear';
/** mprotect and other changes of rights (MMU_NOTIFY_PROTECTION_VMA). */
export const CAUSE_PROTECTION = 'protection';
/** A page is copied on a write, or made read-only so that it can be (fork; do_wp_page). */
export const CAUSE_COW = 'cow';
/** mremap: the pages go to other addresses. */
export const CAUSE_MOVE = 'move';
/** Reclaim takes a page. */
export const CAUSE_SWAP = 'swap';
/** A page goes to another frame: migration, compaction, memory unplug. */
export const CAUSE_MIGRATE = 'migrate';
/** The process ends. */
export const CAUSE_RELEASE = 'release';

export type InvalidationCause =
  | typeof CAUSE_UNMAP
  | typeof CAUSE_CLEAR
  | typeof CAUSE_PROTECTION
  | typeof CAUSE_COW
  | typeof CAUSE_MOVE
  | typeof CAUSE_SWAP
  | typeof CAUSE_MIGRATE
  | typeof CAUSE_RELEASE;

/** How many there were of each cause: none yet. */
export function newCauseCounts(): Record<InvalidationCause, number> {
  return {
    unmap: 0,
    clear: 0,
    protection: 0,
    cow: 0,
    move: 0,
    swap: 0,
    migrate: 0,
    release: 0,
  };
}

/** Bytes [start, end) of a process whose page table entries are about to change. */
export interface Invalidation {
  readonly start: number;
  readonly end: number;
  readonly cause: InvalidationCause;
  /** The caller holds spinlocks: a callback must not sleep. */
  readonly atomic: boolean;
  /** The caller can do without (the OOM killer): a client that would have to sleep refuses. */
  readonly nonblock?: boolean;
  /** A client does not let go, where `isRefusable`; the caller leaves the entries as they are. */
  refused: boolean;
}

/** True for an invalidation that a client may refuse: nobody but the memory manager wants it. */
export function isRefusable({ cause, nonblock }: Invalidation): boolean {
  return nonblock === true || mayWait(cause);
}

/** True for causes for which a client may keep a page a while, seed 004: "it's probably OK to delay". */
export function mayWait(cause: InvalidationCause): boolean {
  return cause === CAUSE_SWAP || cause === CAUSE_MIGRATE;
}
