/**
 * The driver of an adapter whose regions may have no holes and never change (drivers/infiniband/hw/ehca).
 *
 * Everything that would need a hole or a change is refused with the reason that stands here. Its kernel
 * region covers all of memory through the hypervisor, so memory that came or went would change it too:
 * while the driver is loaded, memory hot-plug is refused (ehca_mem_notifier, "DMEM operations are not
 * allowed in conjunction with eHCA").
 */
import type { MemoryNotifier } from '../memory-notifier.ts';

/** Why such an adapter refuses; the end of a sentence that names what. */
export const FIXED_REGIONS =
  'the regions of this adapter may have no holes and cannot be changed once registered';

/** Refuses memory hot-plug for as long as the driver is loaded. */
export const fixedRegionsNotifier: MemoryNotifier = {
  name: 'ehca',
  refuse: (action) => `memory ${action}: ${FIXED_REGIONS}`,
};
