/**
 * Writes and reads over a link that loses one packet in two hundred.
 *
 * Look for: sequence NAKs and go-back-N retransmission in both modes; a loss at the end of a message
 * costs a time-out, because nothing follows that would show the gap.
 */
import { host, link, read, region, scenario, write } from 'faultline';

const a = host('a');
const b = host('b');
const warm = { prefault: true };

export const lossyLink = scenario('lossy-link', 'Writes and reads over a link that loses packets', [
  link(a, b, { loss: '0.5%' }),
  write(region(a, 'out', '1MiB', warm), region(b, 'in', '1MiB', warm), {
    size: '64KiB',
    count: 64,
    depth: 4,
  }),
  read(region(b, 'shelf', '1MiB', warm), region(a, 'back', '1MiB', warm), {
    size: '64KiB',
    count: 64,
    depth: 4,
  }),
]);
