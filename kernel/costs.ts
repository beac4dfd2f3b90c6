/**
 * What the host's work costs, in picoseconds of CPU time unless a name says otherwise.
 *
 * Every value names its source. "NPF" is Lesokhin et al., "Page Fault Support for Network
 * Controllers", ASPLOS 2017, figure 3: two measured points, 1 and 1024 pages (Connect-IB), joined by
 * a straight line. "UCX" is the registration cost model of openucx, uct/ib/base/ib_md.c. "Assumed"
 * values are ours, of the order of a current x86 server; they are data, so an experiment can set them.
 *
 * The adapter's part of a fault (raising the event, resuming) belongs to its own profile. Where a
 * measurement includes what bus and adapter charge by themselves, the value here is the rest of it:
 * test/kernel/costs.test.ts holds the sums against the measurements.
 */
import { MS, NS, type TimePs, US } from '../transport/index.ts';

export interface HostCosts {
  /** Switching a CPU to another thread. */
  readonly contextSwitchPs: TimePs;
  /** Entry and exit of a system call. */
  readonly systemCallPs: TimePs;
  /** CPU access to a page that is present. */
  readonly pageAccessPs: TimePs;
  /** Minor fault of an anonymous page, zeroing it included. */
  readonly minorFaultPs: TimePs;
  /** Software part of a fault that reads from swap; the device's time comes on top. */
  readonly majorFaultPs: TimePs;
  /** CPU writes of one page, when a buffer is filled. */
  readonly fillPagePs: TimePs;
  /** Change of the list of mappings (mmap, munmap, mremap, brk, mprotect). */
  readonly vmaChangePs: TimePs;
  /** Taking one present page out of the page table, or moving it. */
  readonly unmapPagePs: TimePs;
  /** Reclaim looking at one page. */
  readonly reclaimScanPs: TimePs;
  /** Reclaim unmapping and queueing one page. */
  readonly reclaimPagePs: TimePs;
  /** Moving one page between an LRU list and a private one, the LRU lock held. */
  readonly lruMovePs: TimePs;
  /** Pause of a thread whose reclaim frees nothing, not CPU time. */
  readonly reclaimThrottlePs: TimePs;
  /** Pause of the OOM reaper when the victim holds its mmap lock, not CPU time. */
  readonly oomReapRetryPs: TimePs;
  /** Taking one mapping of a page out of its page table by way of the reverse map. */
  readonly unmapMappingPs: TimePs;
  /** Looking at the accessed bit of one mapping by way of the reverse map. */
  readonly agePagePs: TimePs;

  /** Migration of one page but for its copy: lock, new frame, migration entries and back. */
  readonly migratePagePs: TimePs;
  /** A scanner of compaction, or of memory that goes offline, looking at one frame. */
  readonly scanFramePs: TimePs;

  /** Copying one page by the CPU: copy on write, migration. */
  readonly copyPagePs: TimePs;
  /** Reclaim making 512 pages of a huge page. */
  readonly hugeSplitPs: TimePs;
  /** Fault that a huge page answers, zeroing 2 MiB included. */
  readonly hugeFaultPs: TimePs;
  /** Mapping one page that is in the page cache already, next to one that was faulted. */
  readonly faultAroundPs: TimePs;
  /** Copying one page table entry to a child. */
  readonly forkEntryPs: TimePs;
  /** Making or ending a process, mappings and pages apart. */
  readonly forkPs: TimePs;

  /** Latency of the device that files lie on, not CPU time. */
  readonly fileLatencyPs: TimePs;
  /** Rate of that device in 10^9 bits per second. */
  readonly fileRateGbps: number;
  /** Latency of the swap device, not CPU time. */
  readonly swapLatencyPs: TimePs;
  /** Rate of the swap device in 10^9 bits per second. */
  readonly swapRateGbps: number;
  /** From a DMA read reaching the host to its data leaving (root complex and memory), not CPU time. */
  readonly dmaReadPs: TimePs;

  /** Registering a region, whatever its size; command and bus come on top. */
  readonly registerPs: TimePs;
  /** Pinning one page and writing its table entry. */
  readonly registerPagePs: TimePs;
  /** Deregistering a region. */
  readonly deregisterPs: TimePs;
  /** Unpinning one page. */
  readonly deregisterPagePs: TimePs;
  /** Looking up one page that the CPU has present, when an on-demand region takes its snapshot. */
  readonly snapshotPagePs: TimePs;

  /** Page fault of the adapter: driver and operating system translation. */
  readonly faultPs: TimePs;
  readonly faultPagePs: TimePs;
  /** Page fault of the adapter: writing its page table. */
  readonly tableUpdatePs: TimePs;
  readonly tableUpdatePagePs: TimePs;
  /** Invalidation: checking whether the adapter has the range at all; all that is paid if not. */
  readonly invalidateCheckPs: TimePs;
  readonly invalidateCheckPagePs: TimePs;
  /** Invalidation: writing the adapter's page table; its acknowledgement comes on top. */
  readonly invalidateUpdatePs: TimePs;
  readonly invalidateUpdatePagePs: TimePs;
  /** Invalidation: the driver's books. */
  readonly invalidateBookPs: TimePs;
  readonly invalidateBookPagePs: TimePs;

  /** Driver's part of a command to the adapter. */
  readonly commandPs: TimePs;
  /** Posting one work request. */
  readonly postPs: TimePs;
  /** Taking one completion out of a completion queue. */
  readonly pollPs: TimePs;

  /** Shortest wait for everybody who may be walking a list of notifiers; not CPU time. */
  readonly gracePeriodPs: TimePs;
  /** A callback of a skeleton driver: its lock taken and released, the list looked up. */
  readonly skeletonCallPs: TimePs;
  /** What a skeleton driver needs to zap or insert one page of its list. */
  readonly skeletonPagePs: TimePs;

  /** A load that hits the cache: asking a mapped counter whether anything has changed. */
  readonly memoryLoadPs: TimePs;
  /** Look-up in a registration cache. */
  readonly cacheLookupPs: TimePs;
  /** A libc call's way through a malloc hook. */
  readonly mallocHookPs: TimePs;
  /** Looking at one watched range in a walk over the tree of ummunotify. */
  readonly watchWalkPs: TimePs;
  /** Queueing one event of ummunotify. */
  readonly watchEventPs: TimePs;
  /** Copying one record of ummunotify to the program, or taking one out of a perf ring. */
  readonly eventReadPs: TimePs;
  /** Evaluating the filter of one perf event. */
  readonly perfFilterPs: TimePs;
  /** Writing one record into a perf ring. */
  readonly perfRecordPs: TimePs;
  /** Making or closing one perf event with its filter. */
  readonly perfOpenPs: TimePs;
}

export const defaultHostCosts: HostCosts = {
  contextSwitchPs: 1 * US, // assumed
  systemCallPs: 200 * NS, // assumed
  pageAccessPs: 20 * NS, // assumed: a few cache misses
  minorFaultPs: 500 * NS, // assumed
  majorFaultPs: 2 * US, // assumed
  fillPagePs: 400 * NS, // assumed: 10 GB/s
  vmaChangePs: 1 * US, // assumed
  unmapPagePs: 50 * NS, // assumed
  reclaimScanPs: 100 * NS, // assumed
  reclaimPagePs: 1 * US, // assumed
  lruMovePs: 20 * NS, // assumed: a cache miss
  reclaimThrottlePs: 1 * MS, // mm/vmscan.c, VMSCAN_THROTTLE_NOPROGRESS: a jiffy of 1 ms
  oomReapRetryPs: 100 * MS, // mm/oom_kill.c, oom_reap_task: HZ / 10
  unmapMappingPs: 100 * NS, // assumed: a page walk; the TLB flush is shared by a batch
  agePagePs: 50 * NS, // assumed: a page walk

  migratePagePs: 1 * US, // assumed: the order of reclaimPagePs, which does the same with a page
  scanFramePs: 5 * NS, // assumed: a struct page in sequence
  copyPagePs: 400 * NS, // assumed: 10 GB/s, as fillPagePs

  hugeSplitPs: 20 * US, // assumed: 512 entries and struct pages
  hugeFaultPs: 100 * US, // assumed: clearing 2 MiB at 20 GB/s
  faultAroundPs: 30 * NS, // assumed
  forkEntryPs: 20 * NS, // assumed: 5 ms a GiB
  forkPs: 50 * US, // assumed

  fileLatencyPs: 80 * US, // assumed: an NVMe flash drive
  fileRateGbps: 16, // assumed: 2 GB/s
  swapLatencyPs: 80 * US, // assumed: an NVMe flash drive
  swapRateGbps: 16, // assumed: 2 GB/s
  dmaReadPs: 300 * NS, // assumed

  // UCX: 16 us + 0.06 ns per byte, all in all. Two trips over the bus, the command's two sides and the
  // first table entry take 3.5 us of it, and the adapter 10 ns for each further entry.
  registerPs: 12_500 * NS,
  registerPagePs: 236 * NS,
  // 7.42 us + 0.77 us a page to register, 1.10 us + 0.23 us to deregister: Wu, Wyckoff, Panda, ICPP
  // 2003, quoted from memory.
  deregisterPs: 1_100 * NS,
  deregisterPagePs: 230 * NS,
  snapshotPagePs: 10 * NS, // assumed: a page walk without a fault

  faultPs: 5_300 * NS, // NPF
  faultPagePs: 98_200, // NPF
  tableUpdatePs: 6_600 * NS, // NPF
  tableUpdatePagePs: 12_700, // NPF
  invalidateCheckPs: 2_700 * NS, // NPF
  invalidateCheckPagePs: 1_400, // NPF
  invalidateUpdatePs: 13_200 * NS, // NPF: 13.7 us, of which the acknowledgement takes 0.5 us
  invalidateUpdatePagePs: 30_300, // NPF
  invalidateBookPs: 500 * NS, // NPF
  invalidateBookPagePs: 11_200, // NPF

  commandPs: 500 * NS, // assumed
  postPs: 100 * NS, // assumed
  pollPs: 50 * NS, // assumed

  gracePeriodPs: 4 * MS, // assumed: one tick at HZ=250; RCU waits for every CPU to pass one, or to switch
  skeletonCallPs: 100 * NS, // assumed: two atomic operations and a cache miss
  skeletonPagePs: 50 * NS, // assumed: a few cache misses, as unmapPagePs

  memoryLoadPs: 1 * NS, // assumed
  cacheLookupPs: 100 * NS, // assumed: a few cache misses of a tree
  mallocHookPs: 50 * NS, // assumed: a call and a look-up
  watchWalkPs: 10 * NS, // assumed: a cache miss now and then
  watchEventPs: 50 * NS, // assumed
  eventReadPs: 20 * NS, // assumed
  perfFilterPs: 20 * NS, // assumed: two comparisons and a call
  perfRecordPs: 100 * NS, // assumed
  perfOpenPs: 5 * US, // assumed: perf_event_open, a filter and the output set
};
