/** Scenarios with an external host: what they may say, and two gateways that are external to each other. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ScenarioInput } from '../../harness/scenario/schema.ts';
import { regionAddress } from '../../harness/workload/layout.ts';
import { runHere, temporaryFolder } from '../harness/fixtures.ts';
import { digestOf, gatewayScenario, setupOf, startGateway } from './fixtures.ts';

/** The number of the first queue pair of a host. */
const FIRST_QPN = 17;
/** The key of region `k` of a host, counted over its own. */
const rkeyOf = (k: number): number => ((k + 1) << 8) | (k + 1);

type Pair = NonNullable<ScenarioInput['queuePairs']>[number];
type Region = NonNullable<ScenarioInput['regions']>[number];
type Operation = NonNullable<ScenarioInput['operations']>[number];

/** The same work as each of the two hosts sees it: `own` is simulated, the other one is external. */
function seenBy(own: 'a' | 'b', change: Partial<ScenarioInput> = {}): ScenarioInput {
  const other = own === 'a' ? 'b' : 'a';
  const remote = (k: number) => ({ address: regionAddress(k), rkey: rkeyOf(k % 3) });
  const region = (k: number, host: string, more: Partial<Region> = {}): Region => ({
    name: `${host}${k % 3}`,
    host,
    size: '256KiB',
    ...more,
    ...(host === other ? { remote: remote(k) } : {}),
  });
  const pair = (k: number, type: Pair['type']): Pair => ({
    name: type === 'RC' ? 'reliable' : 'datagram',
    between: ['a', 'b'],
    type,
    remote: {
      qpn: FIRST_QPN + k,
      psn: own === 'a' ? 200 : 100,
      localPsn: own === 'a' ? 100 : 200,
    },
  });
  const warm = { prefault: true };
  const flush: Partial<Region> = {
    access: ['local-write', 'remote-write', 'remote-read', 'remote-atomic', 'flush-global'],
  };
  const operation = (
    kind: Operation['kind'],
    from: string,
    queuePair: string,
    source: string,
    target: string,
    more: Partial<Operation>,
  ): Operation => ({
    kind,
    from,
    queuePair,
    source: { region: source },
    target: { region: target },
    ...more,
  });
  const all = [
    operation('write', 'a', 'reliable', 'a0', 'b0', {
      size: '20KiB',
      count: 8,
      depth: 2,
      flush: 'global',
    }),
    operation('send', 'b', 'reliable', 'b1', 'a1', { size: '10KiB', count: 8, depth: 3 }),
    operation('sendImm', 'a', 'datagram', 'a0', 'b2', { size: '1KiB', count: 4 }),
  ];
  // What the external host does without our knowing is not in our scenario.
  const operations = all.filter(({ from, kind }) => from === own || kind !== 'write');
  const hosts = (['a', 'b'] as const).map((name) =>
    name === own
      ? { name, profile: 'spec', memory: '64MiB' as const }
      : { name, external: { ip: name === 'a' ? '192.0.2.9' : '192.0.2.8' } },
  );
  return {
    name: 'both',
    hosts,
    links: [{ between: ['a', 'b'], rate: '10Gbps', linkLayer: 'Ethernet' }],
    mtu: 1024,
    queuePairs: [pair(0, 'RC'), pair(1, 'UD')],
    regions: [
      region(0, 'a', warm),
      region(1, 'a'),
      region(2, 'a'),
      region(3, 'b', flush),
      region(4, 'b', warm),
      region(5, 'b'),
    ],
    operations,
    limits: { simulated: '60s' },
    ...change,
  };
}

describe('a scenario with an external host', () => {
  it('and its counterpart do their work with each other', async () => {
    const folder = temporaryFolder();
    const wire = `unix:${join(folder, 'wire')}`;
    const a = startGateway({
      scenario: gatewayScenario(seenBy('a')),
      setup: setupOf(9),
      listen: wire,
    });
    const b = startGateway({
      scenario: gatewayScenario(seenBy('b')),
      setup: setupOf(8),
      connect: wire,
    });
    const outcomes = await Promise.all([a.done, b.done]);
    expect(outcomes.map(({ error }) => error)).toEqual([undefined, undefined]);
    expect(outcomes.map(({ ending }) => ending)).toEqual(['done', 'done']);
    const workloads = outcomes.map(
      ({ reports }) => reports.find(({ workload }) => workload)?.workload,
    );
    expect(workloads.map((report) => report?.operations)).toEqual([12, 8]);
    expect(workloads.map((report) => report?.bytes)).toEqual([8 * 20_480 + 4 * 1024, 8 * 10_240]);
  });

  it('fails with its peer', async () => {
    const folder = temporaryFolder();
    const wire = `unix:${join(folder, 'wire')}`;
    const wrong = seenBy('a');
    const regions = wrong.regions?.map((region) =>
      region.remote ? { ...region, remote: { ...region.remote, rkey: 99 } } : region,
    );
    const a = startGateway({
      scenario: gatewayScenario({ ...wrong, regions: regions ?? [] }),
      setup: setupOf(9),
      listen: wire,
    });
    startGateway({ scenario: gatewayScenario(seenBy('b')), setup: setupOf(8), connect: wire });
    const { error, ending } = await a.done;
    expect(ending).toBe('failed');
    expect(error).toMatchObject({ code: 'E_OPERATION', exitStatus: 1 });
  });

  it('and nothing else is refused by the commands that need both hosts', async () => {
    const file = join(temporaryFolder(), 'both.json');
    writeFileSync(file, JSON.stringify(seenBy('a')));
    for (const command of ['run', 'compare']) {
      const { status, stderr } = await runHere(command, file);
      expect(stderr).toContain('E_USAGE scenario: ');
      expect(status).toBe(2);
    }
  });

  const cases: readonly [what: string, change: (data: ScenarioInput) => unknown, place: string][] =
    [
      [
        'two external hosts',
        (data) => ({
          hosts: data.hosts.map((host, i) => ({ ...host, external: { ip: `192.0.2.${i}` } })),
        }),
        'hosts[1].external',
      ],
      [
        'an address that is none',
        (data) => ({ hosts: [data.hosts[0], { name: 'b', external: { ip: 'there' } }] }),
        'hosts[1].external.ip',
      ],
      [
        'a MAC of a group',
        (data) => ({
          hosts: [
            data.hosts[0],
            { name: 'b', external: { ip: '192.0.2.1', mac: '01:00:5e:00:00:01' } },
          ],
        }),
        'hosts[1].external.mac',
      ],
      [
        'a queue pair without numbers',
        (data) => ({ queuePairs: data.queuePairs?.map(({ remote: _, ...pair }) => pair) }),
        'queuePairs[0].remote',
      ],
      [
        'a region there without numbers',
        (data) => ({ regions: data.regions?.map(({ remote: _, ...region }) => region) }),
        'regions[3].remote',
      ],
      [
        'a region here with numbers',
        (data) => ({
          regions: data.regions?.map((region) => ({ ...region, remote: { address: 0, rkey: 0 } })),
        }),
        'regions[0].remote',
      ],
      [
        'a write of the external host',
        (data) => ({
          operations: [
            {
              ...data.operations?.[0],
              from: 'b',
              source: { region: 'b1' },
              target: { region: 'a1' },
            },
          ],
        }),
        'operations[0].from',
      ],
      [
        'an event',
        () => ({ events: [{ kind: 'reclaim', at: '1ms', host: 'a', size: '1MiB' }] }),
        'events',
      ],
      ['a replay', () => ({ operations: [], replay: { run: 'qe-alltoall' } }), 'replay'],
    ];
  for (const [what, change, place] of cases) {
    it(`is refused with ${what}`, () => {
      const data = seenBy('a');
      const changed = { ...data, ...(change(data) as Partial<ScenarioInput>) };
      expect(() => gatewayScenario(changed)).toThrowError(
        expect.objectContaining({ code: 'E_SCENARIO_INVALID', place }),
      );
    });
  }

  it('is refused with numbers for a host that is simulated', () => {
    const data = seenBy('a');
    const hosts = [{ name: 'a' }, { name: 'b' }];
    expect(() => gatewayScenario({ ...data, hosts })).toThrowError(
      expect.objectContaining({ place: 'queuePairs[0].remote' }),
    );
  });

  it('gives the same digest whatever the wall clock does', async () => {
    // Nobody is there: what the adapter sends is lost, and its operation runs out of retries.
    const digests = [];
    for (let i = 0; i < 2; i++) {
      const gateway = startGateway({
        scenario: gatewayScenario(),
        listen: `unix:${join(temporaryFolder(), 'wire')}`,
        durationMs: 30,
      });
      digests.push(digestOf(await gateway.done));
    }
    expect(digests[0]).toBe(digests[1]);
  });
});
