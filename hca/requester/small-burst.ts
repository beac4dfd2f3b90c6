/** Bursts of a few bytes: inline data, and the result of an atomic. */
import { BURST_MAX_PAGES, type FramePool } from '../../transport/index.ts';

/** A loaded burst with `bytes` (at most a block's) from `source`; made without a view of it. */
export function smallBurst(
  pool: FramePool,
  source: Uint8Array,
  offset: number,
  bytes: number,
): number {
  const burst = pool.allocateBurst(0, bytes);
  const block = pool.blocks.allocate();
  const target = pool.blocks.bytes;
  const start = block * 4096 - offset;
  for (let i = offset; i < offset + bytes; i++) target[start + i] = source[i];
  pool.burstEntries[burst * BURST_MAX_PAGES] = block;
  pool.markLoaded(burst);
  return burst;
}
