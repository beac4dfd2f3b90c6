/** Units, defaults, the scripting API and the scenarios that ship. */
import { describe, expect, it } from 'vitest';
import {
  host,
  link,
  queuePair,
  region,
  remap,
  repeat,
  scenario,
  send,
  us,
  within,
  write,
} from '../../harness/index.ts';
import { builtInNames, DEFAULT_SCENARIO, loadBuiltIns } from '../../harness/scenario/load.ts';
import { parseRate, parseShare, parseSize, parseTime } from '../../harness/scenario/quantity.ts';
import { scenarioHash, validateScenario } from '../../harness/scenario/validate.ts';

describe('quantities', () => {
  it.each([
    [parseTime, '1ps', 1],
    [parseTime, '936.25ns', 936_250],
    [parseTime, '1us', 1e6],
    [parseTime, '0.5 ms', 5e8],
    [parseTime, '2s', 2e12],
    [parseTime, '0.5ps', undefined],
    [parseTime, '10', undefined],
    [parseTime, '-1us', undefined],
    [parseTime, '1US', undefined],
    [parseTime, 1000, undefined],
    [parseTime, '10000s', undefined],
    [parseSize, '64KiB', 65_536],
    [parseSize, '1.5MiB', 1_572_864],
    [parseSize, '1kB', 1000],
    [parseSize, '1Kb', undefined],
    [parseRate, '100Gbps', 100],
    [parseRate, '0.4Tbps', 400],
    [parseRate, '10 GB/s', undefined],
    [parseShare, '0.1%', 1000],
    [parseShare, '7ppm', 7],
    [parseShare, '0.00001%', undefined],
  ] as const)('%o of %j is %j', (parse, text, expected) => {
    expect(parse(text)).toBe(expected);
  });
});

describe('the scripting API', () => {
  const a = host('a');
  const b = host('b', { memory: '16MiB', memlock: '1MiB' });
  const source = region(a, 'source', '1MiB', { prefault: true });
  const target = region(b, 'target', '1MiB');

  it('collects hosts, regions, a link and queue pairs from what is mentioned', () => {
    const data = validateScenario(
      scenario('case', 'a case', [
        write(source, within(target, '4KiB'), { size: '4KiB', count: 3, at: us(5) }),
        ...repeat(2, (i) => remap(target, { at: us(i) })),
      ]),
    );
    expect(data.hosts.map(({ name }) => name)).toEqual(['a', 'b']);
    expect(data.hosts[1]).toMatchObject({ memoryBytes: 2 ** 24, memlockBytes: 2 ** 20, cpus: 2 });
    expect(data.links).toMatchObject([
      { between: ['a', 'b'], rateGbps: 100, latencyPs: 1e6, lossPpm: 0, linkLayer: 'InfiniBand' },
    ]);
    expect(data.operations[0]).toMatchObject({
      kind: 'write',
      from: 'a',
      queuePair: 'qp0',
      target: { region: 'target', offsetBytes: 4096 },
      strideBytes: 4096,
      atPs: 5e6,
    });
    expect(data.events).toHaveLength(2);
  });

  it('shares a queue pair that is named, and keeps the order of a link', () => {
    const pair = queuePair('both', a, b, { timeout: 0 });
    const back = region(a, 'back', '4KiB');
    const data = validateScenario(
      scenario('case', '', [
        link(b, a, { latency: '2us' }),
        send(source, target, { size: '1KiB', on: pair }),
        send(region(b, 'other', '4KiB'), back, { size: '1KiB', on: pair }),
      ]),
    );
    expect(data.hosts.map(({ name }) => name)).toEqual(['b', 'a']);
    expect(data.queuePairs).toMatchObject([{ name: 'both', timeout: 0, rnrRetry: 7 }]);
  });

  it('gives equal hashes to equal worlds, however they were written', () => {
    const hashOf = (rate: '100Gbps' | '0.1Tbps' | '40Gbps') =>
      scenarioHash(
        validateScenario(
          scenario('case', '', [link(a, b, { rate }), write(source, target, { size: '4KiB' })]),
        ),
      );
    expect(hashOf('100Gbps')).toBe(hashOf('0.1Tbps'));
    expect(hashOf('100Gbps')).not.toBe(hashOf('40Gbps'));
  });
});

describe('the scenarios that ship', () => {
  it('are valid, say what they are, and are called what their files are called', async () => {
    const shipped = await loadBuiltIns();
    expect(shipped.map(({ name }) => name)).toEqual(builtInNames());
    expect(builtInNames()).toContain(DEFAULT_SCENARIO);
    for (const { summary } of shipped) expect(summary).not.toBe('');
  });
});
