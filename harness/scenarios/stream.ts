/**
 * A bandwidth test: deep queue, warm memory, one direction.
 *
 * Look for: goodput near the link rate in both modes; on demand only the first pass through the
 * region differs.
 */
import { host, region, scenario, write } from 'faultline';

const source = region(host('a'), 'source', '4MiB', { prefault: true });
const target = region(host('b'), 'target', '4MiB', { prefault: true });

export const stream = scenario('stream', 'A stream of large writes through warm memory', [
  write(source, target, { size: '1MiB', count: 128, depth: 16 }),
]);
