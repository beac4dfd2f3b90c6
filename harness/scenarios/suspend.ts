/**
 * The target's driver suspends its protection domain in the middle of a stream of writes.
 *
 * Look for: the peer is not told. What it sends meanwhile is lost in silence, so it waits for its
 * local ACK time-out (half a second: adapters of this generation do not go lower, whatever is asked
 * for) and retransmits: one time-out, a 200 us suspension, a 500 ms gap. The same in both modes.
 */
import { host, queuePair, region, scenario, suspend, write } from 'faultline';

const a = host('a');
const b = host('b');
const source = region(a, 'source', '1MiB', { prefault: true });
const target = region(b, 'target', '1MiB', { prefault: true });
const impatient = queuePair('impatient', a, b, { timeout: 4, retryCnt: 7 });

export const suspendTarget = scenario('suspend', 'A protection domain is suspended under traffic', [
  write(source, target, { size: '64KiB', count: 64, depth: 4, on: impatient }),
  suspend(b, '200us', { at: '100us' }),
]);
