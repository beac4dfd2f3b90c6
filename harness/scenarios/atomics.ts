/**
 * Two hosts count in one word: b has the counter, both add to it by fetch-and-add, and a takes a
 * lock word by compare-and-swap. Meanwhile the link loses packets, and b's kernel takes the page away.
 *
 * Look for: "every byte verified", which here says that each addition was made exactly once (the
 * counter ends at its sum, and no result came twice), although requests and answers were lost and
 * sent again; counters.csv has duplicate_request for repeated atomics, answered from saved results,
 * and dma_atomics for those executed. On demand, an RNR NAK where the page was gone.
 */
import { compareSwap, fetchAdd, host, link, reclaim, region, scenario, within } from 'faultline';

const a = host('a');
const b = host('b', { memory: '16MiB', swap: '16MiB' });
const results = region(a, 'results', '64KiB');
const locks = region(a, 'locks', '4KiB');
const counter = region(b, 'counter', '4KiB');
const spare = region(b, 'spare', '64KiB');
const words = region(a, 'words', '4KiB');

export const atomics = scenario(
  'atomics',
  'Two hosts count in each others words over a lossy link',
  [
    link(a, b, { loss: '1%' }),
    fetchAdd(results, counter, { add: 3, count: 1000, depth: 16 }),
    fetchAdd(within(results, '32KiB'), counter, { add: '0xffffffff', count: 500, depth: 4 }),
    fetchAdd(spare, words, { add: 1, count: 500, depth: 8 }),
    compareSwap(locks, within(counter, '64B'), { compare: 0, swap: 1, count: 8 }),
    reclaim(b, '4MiB', { at: '300us' }),
  ],
);
