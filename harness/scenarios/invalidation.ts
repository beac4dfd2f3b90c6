/**
 * The target unmaps and maps its buffer again between writes, as an allocator does.
 *
 * Look for: pinned must register anew each time (registration_ns, one row per region in mr.csv); on
 * demand the region stays, munmap waits for the adapter to drop its mappings (page_invalidations),
 * and the next write faults.
 */
import { host, region, remap, repeat, scenario, us, write } from 'faultline';

const source = region(host('a'), 'source', '256KiB', { prefault: true });
const target = region(host('b'), 'target', '256KiB');

export const invalidation = scenario('invalidation', 'The target is unmapped between writes', [
  write(source, target, { size: '64KiB', count: 256, depth: 2 }),
  ...repeat(4, (i) => remap(target, { at: us(300 * (i + 1)) })),
]);
