/**
 * Writes and reads over a link that loses one packet in a thousand.
 *
 * Look for: sequence NAKs and go-back-N retransmission, the same in both modes; on demand a loss
 * during a fault's back-off adds up with it.
 */
import { host, link, queuePair, read, region, scenario, write } from 'faultline';

const a = host('a');
const b = host('b');
const local = region(a, 'local', '1MiB', { prefault: true });
const remote = region(b, 'remote', '1MiB', { prefault: true });
const back = region(a, 'back', '1MiB');

export const lossyLink = scenario('lossy-link', 'Writes and reads over a link that loses packets', [
  link(a, b, { loss: '0.1%' }),
  write(local, remote, {
    size: '64KiB',
    count: 64,
    depth: 4,
    on: queuePair('w', a, b, { timeout: 8 }),
  }),
  read(remote, back, {
    size: '64KiB',
    count: 64,
    depth: 4,
    on: queuePair('r', a, b, { timeout: 8 }),
  }),
]);
