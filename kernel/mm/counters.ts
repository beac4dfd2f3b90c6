/**
 * Event counts of the memory manager, named as in /proc/vmstat.
 */
export interface MmCounters {
  pgfault: number;
  pgmajfault: number;
  pswpin: number;
  pswpout: number;
  /** Pages that reclaim looked at on inactive lists, and pages that it freed: by kswapd, by allocating threads. */
  pgscan_kswapd: number;
  pgscan_direct: number;
  pgsteal_kswapd: number;
  pgsteal_direct: number;
  /** Pages that went to the old end of their list because their write was over. */
  pgrotated: number;
  /** Pages that went to an active list, and from one to an inactive list. */
  pgactivate: number;
  pgdeactivate: number;
  /** Allocations that had to reclaim by themselves. */
  allocstall: number;
  /** Processes ended for want of memory. */
  oom_kill: number;
  /** Pages read from swap before anybody asked, and those that somebody did ask for. */
  swap_ra: number;
  swap_ra_hit: number;
  /** Pages moved to another frame, and pages that were given up on. */
  pgmigrate_success: number;
  pgmigrate_fail: number;
  /** Compactions that an allocation waited for, and how they ended; pages looked at and taken by each scanner. */
  compact_stall: number;
  compact_success: number;
  compact_fail: number;
  compact_migrate_scanned: number;
  compact_free_scanned: number;
  compact_isolated: number;
}

export function newMmCounters(): MmCounters {
  return {
    pgfault: 0,
    pgmajfault: 0,
    pswpin: 0,
    pswpout: 0,
    pgscan_kswapd: 0,
    pgscan_direct: 0,
    pgsteal_kswapd: 0,
    pgsteal_direct: 0,
    pgrotated: 0,
    pgactivate: 0,
    pgdeactivate: 0,
    allocstall: 0,
    oom_kill: 0,
    swap_ra: 0,
    swap_ra_hit: 0,
    pgmigrate_success: 0,
    pgmigrate_fail: 0,
    compact_stall: 0,
    compact_success: 0,
    compact_fail: 0,
    compact_migrate_scanned: 0,
    compact_free_scanned: 0,
    compact_isolated: 0,
  };
}
