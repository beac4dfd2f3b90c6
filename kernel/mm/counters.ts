/**
 * Event counts of the memory manager, named as in /proc/vmstat.
 */
export interface MmCounters {
  pgfault: number;
  pgmajfault: number;
  pswpin: number;
  pswpout: number;
  pgscan: number;
  pgsteal: number;
  allocstall: number;
}

export function newMmCounters(): MmCounters {
  return {
    pgfault: 0,
    pgmajfault: 0,
    pswpin: 0,
    pswpout: 0,
    pgscan: 0,
    pgsteal: 0,
    allocstall: 0,
  };
}
