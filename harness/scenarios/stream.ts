/**
 * A bandwidth test: deep queue, warm memory, one direction.
 *
 * Look for: goodput near the link rate in both modes, and the latency that 16 outstanding messages
 * make. Memory that the program has touched enters the adapter's table at registration, so nothing
 * faults on demand either.
 */
import { host, region, scenario, write } from 'faultline';

const source = region(host('a'), 'source', '4MiB', { prefault: true });
const target = region(host('b'), 'target', '4MiB', { prefault: true });

export const stream = scenario('stream', 'A stream of large writes through warm memory', [
  write(source, target, { size: '1MiB', count: 128, depth: 16, refill: false }),
]);
