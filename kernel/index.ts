/**
 * kernel: the host. What harness and tests may use of it.
 */

export type { CacheCounters } from './clients/cache-counters.ts';
export { FabricChannel } from './clients/fabric-channel.ts';
export { Gru } from './clients/gru.ts';
export { ALL_ENTRIES, type InvalidationSource, NoSource } from './clients/invalidation-source.ts';
export { HooksSource } from './clients/invalidation-source-hooks.ts';
export { type PerfReading, PerfSource } from './clients/invalidation-source-perf.ts';
export { UmmunotifySource } from './clients/invalidation-source-ummunotify.ts';
export { Kvm } from './clients/kvm.ts';
export { PerfEvents, type PerfOptions } from './clients/perf-events.ts';
export {
  type CacheOptions,
  type Lease,
  type Registrar,
  RegistrationCache,
  type ReleasePolicy,
} from './clients/registration-cache.ts';
export { RemoteSegment } from './clients/remote-segment.ts';
export {
  type RemoteSharer,
  type RevocationPlan,
  RevocationServer,
} from './clients/revocation.ts';
export type { RecallForm } from './clients/sharing-protocol.ts';
export {
  POPULATE_EAGAIN,
  POPULATE_EFAULT,
  type Skeleton,
} from './clients/skeleton.ts';
export { SkeletonV6 } from './clients/skeleton-v6.ts';
export { SkeletonV7 } from './clients/skeleton-v7.ts';
export { Ummunotify } from './clients/ummunotify.ts';
export type { Vcpu } from './clients/vcpu.ts';
export { VerbsRegistrar } from './clients/verbs-registrar.ts';
export { Xpmem } from './clients/xpmem.ts';
export type { HostConfig } from './config.ts';
export { defaultHostCosts, type HostCosts } from './costs.ts';
export type { QueuePairAttributes } from './driver/attributes.ts';
export type { CompletionChannel } from './driver/completion-channel.ts';
export type { CompletionQueue } from './driver/completion-queue.ts';
export type { AsyncEvent } from './driver/events.ts';
export type { MemoryRegion } from './driver/memory-region.ts';
export type { MemoryWindow } from './driver/memory-window.ts';
export type { AtomicEntry, MessageEntry } from './driver/message-log.ts';
export type { QueuePair, QueuePairPlan } from './driver/queue-pair.ts';
export type { MoveMethod, MoveReport } from './driver/region-mover.ts';
export type { SharedReceiveQueue } from './driver/shared-receive-queue.ts';
export type { Verbs } from './driver/verbs.ts';
export {
  type AddressHandle,
  nextRkey,
  type ReceiveRequest,
  type ScatterEntry,
  type SendRequest,
  type WorkCompletion,
} from './driver/work.ts';
export { type Errno, SystemCallError, VerbsError } from './errno.ts';
export { Host, type Result } from './host.ts';
export {
  type MemoryAction,
  type MemoryNotifier,
  MemoryNotifiers,
  type MemoryVeto,
} from './memory-notifier.ts';
export {
  type AddressSpace,
  MAP_HUGETLB,
  MAP_POPULATE,
  MAP_SHARED,
} from './mm/address-space.ts';
export { MADV_DONTNEED, MADV_FREE, MADV_REMOVE } from './mm/calls/advice.ts';
export type { MappedFile } from './mm/files/mapped-file.ts';
export { movePages } from './mm/migrate/move-pages.ts';
export type { IntervalOps } from './mm/notify/interval-notifier.ts';
export {
  CAUSE_CLEAR,
  CAUSE_COW,
  CAUSE_MIGRATE,
  CAUSE_MOVE,
  CAUSE_PROTECTION,
  CAUSE_RELEASE,
  CAUSE_SWAP,
  CAUSE_UNMAP,
  type Invalidation,
  type InvalidationCause,
} from './mm/notify/invalidation.ts';
export type { MmuNotifier } from './mm/notify/mmu-notifiers.ts';
export type { RmapNotifier } from './mm/notify/rmap-notifier.ts';
export { PAGE_BYTES } from './mm/physical/frames.ts';
export { ProcessKilled, untilKilled } from './mm/reclaim/process-killed.ts';
export { PROT_EXEC, PROT_READ, PROT_WRITE, type Vma } from './mm/virtual/vma.ts';
export { HostProcess } from './process.ts';
export type { HostReport, RegionReport } from './report.ts';
export { Completion, type Sim, wait } from './sched/completion.ts';
export { Mutex } from './sched/mutex.ts';
export type { Scheduler, Thread } from './sched/scheduler.ts';
export { SpinLock } from './sched/spin-lock.ts';
export type { RegionCounters } from './umem/counters.ts';
export { PostponedUmem } from './umem/postponed.ts';
export { batchingPolicy, immediatePolicy, type PostponedPolicy } from './umem/postponed-policy.ts';
