/**
 * A region over all physical memory of a host, for kernel code (ib_get_dma_mr, as Lustre, iSER and SRP
 * used it in 2008): its addresses are page frame number * 4096, its table never changes.
 *
 * The adapter checks nothing but that the frame exists. Whoever gives the key away has to see to it that
 * a peer uses only frames that it was told to use, and stops when it is told to.
 */
import { CMD_CREATE_MKEY, MKEY_PLAIN } from '../../transport/index.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import { ENTRY_READ, ENTRY_SHIFT, ENTRY_WRITE } from '../umem/device-table.ts';
import type { Device } from './device.ts';
import { RegionTable } from './region-table.ts';

export interface DmaRegion {
  readonly pd: number;
  /** lkey and rkey. */
  readonly key: number;
}

/** Entries set before the bus may have a rest. */
const BATCH = 512;

/** Creates the key in domain `pd` with rights `access` (IBV_ACCESS_*) for frames 0 to `frameCount` - 1. */
export function* getDmaRegion(
  { bus, commands, regions }: Device,
  frameCount: number,
  pd: number,
  access: number,
): Sim<DmaRegion> {
  const parameters = [pd, access, regions.nextVariant(), MKEY_PLAIN];
  const bytes = frameCount * PAGE_BYTES;
  const key = yield* commands.run('get_dma_mr', CMD_CREATE_MKEY, parameters, 0, bytes);
  const table = new RegionTable(bus, commands);
  table.mkey = key;
  for (let frame = 0; frame < frameCount; frame++) {
    if (frame % BATCH === 0) yield* table.room();
    table.set(frame, (frame << ENTRY_SHIFT) | ENTRY_READ | ENTRY_WRITE);
  }
  yield* table.flushAndWait();
  return { pd, key };
}
