/**
 * kernel: the host. What harness and tests may use of it.
 */
export type { HostConfig } from './config.ts';
export { defaultHostCosts, type HostCosts } from './costs.ts';
export type { CompletionQueue } from './driver/completion-queue.ts';
export type { AsyncEvent } from './driver/events.ts';
export type { MemoryRegion } from './driver/memory-region.ts';
export type { MessageEntry } from './driver/message-log.ts';
export type { QueuePair, QueuePairAttributes } from './driver/queue-pair.ts';
export type { Verbs } from './driver/verbs.ts';
export type { ReceiveRequest, SendRequest, WorkCompletion } from './driver/work.ts';
export { type Errno, VerbsError } from './errno.ts';
export { Host } from './host.ts';
export { type AddressSpace, MAP_POPULATE } from './mm/address-space.ts';
export { PAGE_BYTES } from './mm/frames.ts';
export { PROT_EXEC, PROT_READ, PROT_WRITE, type Vma } from './mm/vma.ts';
export type { HostReport, RegionReport } from './report.ts';
export { Completion, type Sim, wait } from './sched/completion.ts';
export { Mutex } from './sched/mutex.ts';
export type { Scheduler, Thread } from './sched/scheduler.ts';
export type { RegionCounters } from './umem/counters.ts';
