/**
 * kernel: the host. What harness and tests may use of it.
 */

export { ALL_ENTRIES, type InvalidationSource, NoSource } from './clients/invalidation-source.ts';
export { HooksSource } from './clients/invalidation-source-hooks.ts';
export { type PerfReading, PerfSource } from './clients/invalidation-source-perf.ts';
export { UmmunotifySource } from './clients/invalidation-source-ummunotify.ts';
export { PerfEvents, type PerfOptions } from './clients/perf-events.ts';
export {
  type CacheCounters,
  type CacheOptions,
  type Lease,
  type Registrar,
  RegistrationCache,
  type ReleasePolicy,
} from './clients/registration-cache.ts';
export { Ummunotify } from './clients/ummunotify.ts';
export { VerbsRegistrar } from './clients/verbs-registrar.ts';
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
export { type AddressSpace, MAP_POPULATE } from './mm/address-space.ts';
export { PAGE_BYTES } from './mm/physical/frames.ts';
export { ProcessKilled, untilKilled } from './mm/reclaim/process-killed.ts';
export { PROT_EXEC, PROT_READ, PROT_WRITE, type Vma } from './mm/virtual/vma.ts';
export { HostProcess } from './process.ts';
export type { HostReport, RegionReport } from './report.ts';
export { Completion, type Sim, wait } from './sched/completion.ts';
export { Mutex } from './sched/mutex.ts';
export type { Scheduler, Thread } from './sched/scheduler.ts';
export type { RegionCounters } from './umem/counters.ts';
export {
  batchingPolicy,
  immediatePolicy,
  type PostponedPolicy,
  PostponedUmem,
} from './umem/postponed.ts';
