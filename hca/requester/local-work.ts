/** Work that is done inside the adapter, when its turn in the send queue comes: BIND_MW, LOCAL_INV. */
import { WR_BIND_MW } from '../../transport/index.ts';
import type { MkeyTable } from '../memory/region.ts';
import type { QueuePair } from '../qp/queue-pair.ts';

/** Does the work request in `row`; returns the status it completes with. */
export function doLocalWork(qp: QueuePair, mkeys: MkeyTable, row: number): number {
  const queue = qp.sendQueue;
  const rkey = queue.rkey[row];
  if (queue.opcode[row] !== WR_BIND_MW) return mkeys.invalidateLocal(qp, rkey);
  const lkey = queue.lkey[row];
  const address = queue.localAddress[row];
  const bytes = queue.length[row] >>> 0;
  return mkeys.bindWindow(qp, rkey, lkey, address, bytes, queue.immediate[row]);
}
