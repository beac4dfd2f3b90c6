/**
 * One RDMA WRITE of 64 KiB into memory that nobody has touched: the smallest scenario there is.
 *
 * Look for: with pinned memory no fault and one latency; on demand one page fault at the target
 * (and, unless the source is resident, one at the initiator), answered by an RNR NAK and a retry.
 */
import { host, region, scenario, write } from 'faultline';

const source = region(host('a'), 'source', '64KiB', { prefault: true });
const target = region(host('b'), 'target', '64KiB');

export const oneWrite = scenario('one-write', 'One 64 KiB RDMA WRITE into untouched memory', [
  write(source, target, { size: '64KiB' }),
]);
