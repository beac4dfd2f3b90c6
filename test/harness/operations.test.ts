/** Scenarios of every operation and option, in both modes, on a link that loses, doubles and reorders. */
import { describe, expect, it } from 'vitest';
import {
  atomicWrite,
  compareSwap,
  fetchAdd,
  host,
  link,
  memoryWindow,
  queuePair,
  read,
  rebind,
  region,
  repeat,
  scenario,
  send,
  sendImm,
  sendInv,
  sharedReceiveQueue,
  suspend,
  us,
  within,
  write,
  writeImm,
} from '../../harness/index.ts';
import { runInProcess } from '../../harness/run.ts';
import type { Mode } from '../../harness/scenario/schema.ts';
import { validateScenario } from '../../harness/scenario/validate.ts';
import { summarize } from '../../harness/stats/summarize.ts';

const bad = {
  loss: '2%',
  lossBurst: 2,
  duplicate: '1%',
  duplicateDelay: '3us',
  reorder: '2%',
  reorderPackets: 3,
  corrupt: '0.5%',
} as const;

type Parts = Parameters<typeof scenario>[2];

async function run(parts: Parts, mode: Mode) {
  const input = scenario('case', '', parts, { mtu: 1024 });
  const outcome = await runInProcess({ scenario: validateScenario(input), mode, seed: 3 });
  if (outcome.error !== undefined) throw outcome.error;
  const counters = Object.fromEntries(
    outcome.reports.map(({ node, hca, host: own }) => [node, { ...hca?.counters, ...own?.dma }]),
  ) as Record<string, Record<string, number>>;
  return { outcome, counters, summary: summarize(outcome, 4) };
}

const a = host('a', { profile: 'spec' });
const b = host('b', {
  profile: 'spec',
  completions: 'event',
  moderation: { count: 4, period: '10us' },
});
const out = region(a, 'out', '256KiB', { prefault: true });
const results = region(a, 'results', '4KiB');
const inbox = region(b, 'inbox', '256KiB', {
  access: [
    'local-write',
    'remote-write',
    'remote-read',
    'remote-atomic',
    'flush-global',
    'mw-bind',
  ],
});
const words = region(b, 'words', '4KiB');
const back = region(b, 'back', '64KiB', { prefault: true });
const answers = region(a, 'answers', '64KiB');
const on = queuePair('io', a, b);
const window = memoryWindow('window', inbox, on, { length: '64KiB' });
const slots = region(b, 'slots', '64KiB');
const pool = sharedReceiveQueue('pool', slots, { slot: '4KiB', entries: 16, limit: 6 });
const first = queuePair('first', a, b, { srqs: [pool] });
const second = queuePair('second', a, b, { srqs: [pool] });

const cases: readonly [what: string, parts: Parts][] = [
  [
    'writes with a flush behind each',
    [write(out, inbox, { size: '3KiB', count: 20, depth: 4, flush: 'global' })],
  ],
  [
    'unsignalled writes',
    [write(out, inbox, { size: '3KiB', count: 50, depth: 8, signalEvery: 8 })],
  ],
  [
    'inline writes with immediate data',
    [writeImm(out, inbox, { size: '200B', count: 40, depth: 8, inline: true, solicited: true })],
  ],
  [
    'sends of pieces into pieces',
    [send(out, inbox, { size: '5000B', count: 30, depth: 4, sges: 16, receiveSges: 5 })],
  ],
  [
    'sends with immediate data both ways',
    [
      sendImm(out, inbox, { size: '2000B', count: 30, depth: 4, on, fence: true }),
      sendImm(back, answers, { size: '300B', count: 30, depth: 4, on, inline: false }),
    ],
  ],
  ['reads into pieces', [read(back, answers, { size: '5KiB', count: 30, depth: 8, sges: 7 })]],
  ['atomic writes', [atomicWrite(out, inbox, { count: 100, depth: 8, inline: true })]],
  [
    'additions to one word and to many',
    [
      fetchAdd(results, words, { count: 100, depth: 8, add: '0xffffffffffffffff' }),
      fetchAdd(within(results, '2KiB'), words, { count: 100, depth: 8, add: 3, stride: '8B' }),
      compareSwap(within(results, '1KiB'), within(words, '2040B'), {
        count: 9,
        compare: 0,
        swap: 9,
      }),
    ],
  ],
  [
    'a window that its owner binds again and again',
    [
      write(out, window, { size: '2KiB', count: 60, depth: 4, fence: true }),
      ...repeat(5, (i) => rebind(window, { at: us(20 * i) })),
    ],
  ],
  [
    'a window that the peer invalidates',
    [
      write(out, window, { size: '2KiB', count: 30, depth: 4 }),
      sendInv(out, within(inbox, '128KiB'), { invalidates: window, size: '100B', count: 8 }),
    ],
  ],
  [
    'two connections into one shared receive queue',
    [
      send(out, slots, { size: '3000B', count: 40, depth: 8, sges: 3, on: first }),
      sendImm(out, slots, { size: '100B', count: 40, depth: 8, on: second }),
      writeImm(out, words, { size: '64B', count: 40, depth: 8, on: second }),
    ],
  ],
];

describe.each<Mode>(['pinned', 'odp'])('%s, on a bad link', (mode) => {
  it.each(cases)('%s', async (_what, parts) => {
    const { summary } = await run([link(a, b, bad), ...parts], mode);
    expect(summary).toMatchObject({ complete: true, data_verified: true, messages_lost: 0 });
    expect(summary.retransmitted_packets).toBeGreaterThan(0);
  });

  it.each(['UC', 'UD'] as const)(
    '%s: what arrives is right, what is lost is counted',
    async (type) => {
      const pair = queuePair('unreliable', a, b, { type });
      const target = region(b, 'arrivals', '256KiB', { prefault: true });
      const work = sendImm(out, target, { size: '900B', count: 300, depth: 8, on: pair });
      const { summary, counters } = await run([link(a, b, bad), work], mode);
      expect(summary).toMatchObject({ complete: true, data_verified: true, operations: 300 });
      expect(summary.messages_lost).toBeGreaterThan(0);
      expect(summary.messages_lost).toBeLessThan(60);
      const { wire_drops = 0, wire_corruptions = 0 } = counters['a.hca'] ?? {};
      if (type === 'UD')
        expect(summary.messages_lost).toBeLessThanOrEqual(wire_drops + wire_corruptions);
    },
  );
});

describe('link layers', () => {
  it('take more of the line with Ethernet, IP and UDP around each packet', async () => {
    const time = async (linkLayer: 'InfiniBand' | 'Ethernet'): Promise<number> => {
      const work = write(out, inbox, { size: '64KiB', count: 40, depth: 8, refill: false });
      const { summary } = await run([link(a, b, { linkLayer, rate: '10Gbps' }), work], 'pinned');
      expect(summary.data_verified).toBe(true);
      return summary.goodput_gbps;
    };
    const [infiniBand, ethernet] = [await time('InfiniBand'), await time('Ethernet')];
    // Per 1024 bytes: LRH 8, BTH 12 (RETH 16 on the first), ICRC 4, VCRC 2; against Ethernet 14 + 4,
    // preamble and gap 20, IP 20, UDP 8, BTH, ICRC.
    expect(infiniBand / ethernet).toBeGreaterThan(1.03);
    expect(infiniBand / ethernet).toBeLessThan(1.07);
  });
});

describe('a suspended protection domain', () => {
  it('costs a peer its time-out in silence, and next to nothing when announced', async () => {
    const slowest = async (pdSuspend: 'silent' | 'announced') => {
      const target = host('t', { pdSuspend });
      const near = host('n', { pdSuspend });
      const source = region(near, 'source', '256KiB', { prefault: true });
      const work = write(source, region(target, 'sink', '256KiB', { prefault: true }), {
        size: '16KiB',
        count: 60,
        depth: 4,
      });
      const { summary } = await run([work, suspend(target, '200us', { at: '50us' })], 'pinned');
      expect(summary).toMatchObject({ complete: true, data_verified: true });
      return summary;
    };
    const silent = await slowest('silent');
    const announced = await slowest('announced');
    expect(silent.timeouts).toBeGreaterThan(0);
    expect(announced.timeouts).toBe(0);
    expect(announced.latency_ns.max).toBeLessThan(300_000);
    expect(silent.latency_ns.max).toBeGreaterThan(100_000_000);
  });
});
