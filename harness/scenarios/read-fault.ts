/**
 * RDMA READs into cold memory, from cold memory.
 *
 * Look for: on demand both ends fault, differently: the responder answers RNR NAK and is asked
 * again, the initiator's own fault stops its queue pair without a word on the wire.
 */
import { host, read, region, scenario } from 'faultline';

const source = region(host('b'), 'source', '1MiB');
const target = region(host('a'), 'target', '1MiB');

export const readFault = scenario('read-fault', 'RDMA READs from and into cold memory', [
  read(source, target, { size: '64KiB', count: 32, depth: 2 }),
]);
