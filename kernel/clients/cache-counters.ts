/**
 * What a registration cache counts.
 */

/** Counts of one cache; bytes are those of whole pages. */
export interface CacheCounters {
  lookups: number;
  hits: number;
  misses: number;
  /** Entries given up to make room, for a limit or because the kernel asked. */
  evictions: number;
  evictedPages: number;
  /** Entries dropped because their memory had changed. */
  invalidated: number;
  /** Of those, entries that were in use at that moment. */
  zombies: number;
  /** Times when everything was dropped because events had been lost. */
  flushes: number;
  /** Registrations that failed at a limit, and were tried again with less registered. */
  refusals: number;
  /** Requests of the kernel to give memory back. */
  requests: number;
  registrations: number;
  deregistrations: number;
  registeredBytes: number;
  registeredBytesPeak: number;
}

export function newCacheCounters(): CacheCounters {
  return {
    lookups: 0,
    hits: 0,
    misses: 0,
    evictions: 0,
    evictedPages: 0,
    invalidated: 0,
    zombies: 0,
    flushes: 0,
    refusals: 0,
    requests: 0,
    registrations: 0,
    deregistrations: 0,
    registeredBytes: 0,
    registeredBytesPeak: 0,
  };
}
