/**
 * Memory pressure at the target while writes run: the kernel takes pages back and swaps them out.
 *
 * Look for: pinned pages cannot be reclaimed, so pinned_bytes_peak stays and nothing faults; on
 * demand pages leave, the next write to them faults and waits for the swap device.
 */
import { host, reclaim, region, repeat, scenario, us, write } from 'faultline';

const b = host('b', { memory: '16MiB', swap: '64MiB' });
const source = region(host('a'), 'source', '1MiB', { prefault: true });
const target = region(b, 'target', '4MiB', { prefault: true });

export const pressure = scenario('pressure', 'Writes into memory that the kernel swaps out', [
  write(source, target, { size: '64KiB', count: 192, depth: 2 }),
  ...repeat(3, (i) => reclaim(b, '2MiB', { at: us(200 * (i + 1)) })),
]);
