/**
 * Counters of one memory region, with the names that mlx5 gives them in `rdma statistic show mr`
 * (drivers/infiniband/hw/mlx5/restrack.c). They count what changed in the adapter's table: mlx5 also
 * counts pages of a fault's range that were there already, and rounds invalidations up to its groups
 * of eight entries.
 */
export interface RegionCounters {
  /** Pages brought in by page faults of the adapter. */
  page_faults: number;
  /** Page fault events served; neither those that failed nor those that lost a race. */
  page_faults_handled: number;
  /** Pages taken from the adapter by notifiers. */
  page_invalidations: number;
  /** Invalidations that took any page. */
  page_invalidations_handled: number;
  /** Pages brought in by advice. */
  page_prefetch: number;
  /** Pages in the adapter's table: now, or when the region was deregistered. Ours, not mlx5's. */
  pages_mapped: number;
}

export function newRegionCounters(): RegionCounters {
  return {
    page_faults: 0,
    page_faults_handled: 0,
    page_invalidations: 0,
    page_invalidations_handled: 0,
    page_prefetch: 0,
    pages_mapped: 0,
  };
}
