/**
 * How the kernel of a host is set up where memory is concerned: what sysctls, boot parameters and kernel
 * versions decide on a real machine. Plain data; each mechanism reads what concerns it.
 */

export interface MmSettings {
  /**
   * vm.overcommit_memory: 'heuristic' (0) refuses a mapping bigger than RAM and swap, 'never' (2) one with which
   * the sum of all would exceed the limit, 'always' (1) none.
   */
  readonly overcommit: 'heuristic' | 'always' | 'never';
  /** vm.overcommit_ratio: share of RAM, in percent, that counts towards the limit of 'never'. */
  readonly overcommitRatio: number;
  /** vm.max_map_count: mappings of one process. */
  readonly maxMapCount: number;
  /** RLIMIT_STACK in bytes: how far a stack grows. */
  readonly stackBytes: number;
  /** vm.nr_hugepages: huge pages of 2 MiB set aside at boot for MAP_HUGETLB. */
  readonly hugePages: number;
  /** Whether areas under MADV_HUGEPAGE get huge pages (transparent_hugepage = madvise, or never). */
  readonly transparentHugePages: boolean;
  /** Pages mapped around a fault on a file, if the page cache has them (fault_around_bytes). */
  readonly faultAroundPages: number;
  /** Pages read from a file's device at once where one is missed (VM_READAHEAD_PAGES). */
  readonly readAheadPages: number;
  /** Share of RAM, 0 to 1, that all processes together may lock with mlock (asked for in seed 000). */
  readonly mlockShare: number;
  /**
   * What fork and reads by drivers do about pinned pages. 'copied' is today's kernel (5.12 and later, with
   * the read pins of 6.0): the child gets a copy at once, and a pin never names a page that a write would
   * replace. 'shared' is the kernel of 2008: whoever writes first takes a copy, and the parent may be the one,
   * while the adapter goes on with the page that only the child still maps.
   */
  readonly pinnedAtFork: 'copied' | 'shared';
  /** copy_page_range as in patch 2 of the V6 notifiers: it forgets the end of the range when it fails. */
  readonly v6CopyPageRange: boolean;
  /**
   * When a process that ends releases its notifiers: before its mappings go, in one go, or after each of them
   * has been announced by itself (Andrea Arcangeli's version 7, which seed 002 is about).
   */
  readonly notifierRelease: 'first' | 'last';
  /** Fault injection (fail_page_alloc): fork runs out of memory after so many entries; Infinity for never. */
  readonly forkFailsAfterEntries: number;
}

/**
 * The values of Linux' own defaults, where it has any, but for overcommit: hosts of the model are small, and
 * programs recorded on bigger ones are to run on them.
 */
export const defaultMmSettings: MmSettings = {
  overcommit: 'always',
  overcommitRatio: 50,
  maxMapCount: 65530,
  stackBytes: 8 * 2 ** 20,
  hugePages: 0,
  transparentHugePages: true,
  faultAroundPages: 16,
  readAheadPages: 32,
  mlockShare: 1,
  pinnedAtFork: 'copied',
  v6CopyPageRange: false,
  notifierRelease: 'first',
  forkFailsAfterEntries: Number.POSITIVE_INFINITY,
};
