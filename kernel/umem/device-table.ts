/**
 * The page table that an adapter keeps of one memory region, as umem sees it; the driver implements it.
 */
import type { Sim } from '../sched/completion.ts';

/** Entry bits: MTT bits of mlx5. An entry is frame << 2 | bits; 0 is not present. */
export const ENTRY_READ = 1;
export const ENTRY_WRITE = 2;
export const ENTRY_SHIFT = 2;

/**
 * Writes go out in order and are collected into messages of neighbouring pages. Page numbers count
 * from the first page of the region.
 */
export interface DeviceTable {
  /** Sets one entry; it may stay in the driver until one of the flushes. */
  set(page: number, entry: number): void;
  /** Sends what has been set. Whatever is sent to the adapter later finds it in force. */
  flush(): void;
  /** Sends what has been set and sleeps until the adapter uses no older entry of these pages. */
  flushAndWait(): Sim<void>;
  /** Sleeps while the bus has a backlog, so that a large region does not flood it. */
  room(): Sim<void>;
}
