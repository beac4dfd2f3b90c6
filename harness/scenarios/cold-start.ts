/**
 * Writes that walk through a cold region twice.
 *
 * Look for: on demand every page of the first pass faults at the target (p99 latency is an RNR
 * delay), the second pass runs at the speed of pinned memory. Pinned pays at registration instead:
 * compare registration_ns.
 */
import { host, region, scenario, write } from 'faultline';

const source = region(host('a'), 'source', '4MiB', { prefault: true });
const target = region(host('b'), 'target', '4MiB');

export const coldStart = scenario('cold-start', 'Writes that walk through a cold region twice', [
  write(source, target, { size: '64KiB', count: 128, depth: 4 }),
]);
