/**
 * Small SENDs both ways and small writes with immediate data: latency, not bandwidth.
 *
 * Look for: a p50 of a few microseconds in both modes. On demand nothing faults, because a region
 * that is resident when it is registered is mapped at once; drop `prefault` to see it.
 */
import { host, region, scenario, send, writeImm } from 'faultline';

const a = host('a');
const b = host('b');
const warm = { prefault: true };

export const pingPong = scenario('ping-pong', 'Small messages both ways', [
  send(region(a, 'a-out', '64KiB', warm), region(b, 'b-in', '64KiB', warm), {
    size: '256B',
    count: 200,
  }),
  send(region(b, 'b-out', '64KiB', warm), region(a, 'a-in', '64KiB', warm), {
    size: '256B',
    count: 200,
  }),
  writeImm(region(a, 'a-big', '64KiB', warm), region(b, 'b-big', '64KiB', warm), {
    size: '2KiB',
    count: 100,
  }),
]);
