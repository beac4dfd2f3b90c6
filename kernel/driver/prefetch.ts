/**
 * Advice about memory regions (ibv_advise_mr): pages of on-demand regions are brought in ahead of use
 * (hw/mlx5/odp.c, mlx5_ib_advise_mr_prefetch).
 *
 * Keys are judged before anything is done, whatever the flags. With IBV_ADVISE_MR_FLAG_FLUSH the caller
 * sleeps until the pages are in and hears what went wrong. Without it a work item does the work, and
 * nobody hears of its errors: the adapter will fault instead.
 */
import {
  ADVICE_PREFETCH,
  ADVICE_PREFETCH_NO_FAULT,
  ADVICE_PREFETCH_WRITE,
  ADVISE_FLUSH,
} from '../../transport/index.ts';
import { VerbsError } from '../errno.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import { MAP_EAGAIN, type Prefetch } from '../umem/odp.ts';
import type { Device } from './device.ts';
import { FIXED_REGIONS } from './fixed-regions.ts';
import type { MemoryRegion } from './memory-region.ts';
import { WRITING } from './regions.ts';
import type { ScatterEntry } from './work.ts';

const VERB = 'advise_mr';

/** How each advice gets its pages. */
const howOf: Readonly<Record<number, Prefetch>> = {
  [ADVICE_PREFETCH]: { write: false, fault: true, readOnly: true },
  [ADVICE_PREFETCH_WRITE]: { write: true, fault: true, readOnly: false },
  [ADVICE_PREFETCH_NO_FAULT]: { write: false, fault: false, readOnly: false },
};

/** A range that is prefetched, of a region that is held. */
interface Item {
  readonly region: MemoryRegion;
  readonly sge: ScatterEntry;
}

/**
 * Advises ranges that `sges` name by their lkeys, for protection domain `pd`.
 * @throws VerbsError ENOENT (no such lkey), EINVAL (not an on-demand region, no range, flags), EPERM
 * (another domain, or to write a read-only region), EOPNOTSUPP (advice, or no paging at all); with
 * ADVISE_FLUSH also EFAULT (beyond the region, or not accessible) and EAGAIN (invalidations kept
 * getting in the way)
 */
export function* adviseRegions(
  device: Device,
  pd: number,
  advice: number,
  flags: number,
  sges: readonly ScatterEntry[],
): Sim<void> {
  const how = howOf[advice];
  if (device.traits.fixedRegions) {
    throw new VerbsError('EOPNOTSUPP', VERB, `prefetching: ${FIXED_REGIONS}`);
  }
  if (how === undefined) throw new VerbsError('EOPNOTSUPP', VERB, `there is no advice ${advice}`);
  if ((flags & ~ADVISE_FLUSH) !== 0) throw new VerbsError('EINVAL', VERB, `flags ${flags}`);
  if (sges.length === 0) throw new VerbsError('EINVAL', VERB, 'no range');
  yield device.costs.systemCallPs;
  const isWrite = advice === ADVICE_PREFETCH_WRITE;
  const items = sges.map((sge) => ({ sge, region: findRegion(device, pd, sge.lkey, isWrite) }));
  for (const { region } of items) region.hold();
  if ((flags & ADVISE_FLUSH) !== 0) {
    yield* bringIn(items, how);
    return;
  }
  const { scheduler } = items[0].region.mm.memory;
  scheduler.spawn('prefetch', inBackground(items, how));
}

/** The region that may be prefetched under `lkey` (get_prefetchable_mr). */
function findRegion(device: Device, pd: number, lkey: number, isWrite: boolean): MemoryRegion {
  const region = device.regions.find(lkey);
  const key = `0x${lkey.toString(16)}`;
  if (region === undefined) throw new VerbsError('ENOENT', VERB, `no region has the lkey ${key}`);
  if (region.odp === undefined) {
    throw new VerbsError('EINVAL', VERB, `the region of lkey ${key} is not an on-demand one`);
  }
  if (region.pd !== pd) {
    throw new VerbsError(
      'EPERM',
      VERB,
      `the region of lkey ${key} is of another domain than ${pd}`,
    );
  }
  if (isWrite && (region.access & WRITING) === 0) {
    throw new VerbsError('EPERM', VERB, `the region of lkey ${key} is read-only`);
  }
  return region;
}

/** Brings all ranges in, one after the other, and lets go of the regions; the first error ends it. */
function* bringIn(items: readonly Item[], how: Prefetch): Sim<void> {
  try {
    for (const { region, sge } of items) yield* bringInOne(region, sge, how);
  } finally {
    for (const { region } of items) region.put();
  }
}

function* bringInOne(region: MemoryRegion, sge: ScatterEntry, how: Prefetch): Sim<void> {
  const { odp } = region;
  const { address, length } = sge;
  const isInside = address >= region.address && address + length <= region.address + region.length;
  if (odp === undefined || !isInside) {
    const range = `0x${address.toString(16)} + ${length}`;
    throw new VerbsError('EFAULT', VERB, `${range} is not inside its region`);
  }
  if (length === 0) return;
  const first = Math.floor(address / PAGE_BYTES);
  const count = Math.ceil((address + length) / PAGE_BYTES) - first;
  const pages = yield* odp.prefetch(first - odp.firstPage, count, how);
  if (pages === MAP_EAGAIN) throw new VerbsError('EAGAIN', VERB, 'pages keep going away');
  if (pages < 0) throw new VerbsError('EFAULT', VERB, 'a page is not accessible');
}

/** The work item: its errors are nobody's. */
function* inBackground(items: readonly Item[], how: Prefetch): Sim<void> {
  try {
    yield* bringIn(items, how);
  } catch (error) {
    if (!(error instanceof VerbsError)) throw error;
  }
}
