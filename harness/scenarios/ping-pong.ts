/**
 * Small SENDs both ways and small writes with immediate data: latency, not bandwidth.
 *
 * Look for: p50 of a few microseconds in both modes; on demand only the first use of each page
 * differs, and by three orders of magnitude when the responder answers RNR NAK.
 */
import { host, region, scenario, send, writeImm } from 'faultline';

const a = host('a');
const b = host('b');
const left = region(a, 'left', '64KiB', { prefault: true });
const right = region(b, 'right', '64KiB', { prefault: true });

export const pingPong = scenario('ping-pong', 'Small messages both ways', [
  send(left, right, { size: '256B', count: 200 }),
  send(right, left, { size: '256B', count: 200 }),
  writeImm(left, right, { size: '2KiB', count: 100 }),
]);
