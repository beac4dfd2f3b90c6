/** What a scenario may not say about operations, queues and windows: each with the field it is about. */
import { describe, expect, it } from 'vitest';
import type { ScenarioInput } from '../../harness/index.ts';
import { validateScenario } from '../../harness/scenario/validate.ts';
import { Failure } from '../../transport/index.ts';

type Part<K extends 'operations' | 'queuePairs' | 'regions' | 'windows' | 'sharedReceiveQueues'> =
  NonNullable<ScenarioInput[K]>[number];

/** A valid scenario that has everything; cases change one thing in it. */
const valid = (): ScenarioInput & {
  operations: Part<'operations'>[];
  queuePairs: Part<'queuePairs'>[];
  regions: Part<'regions'>[];
  windows: Part<'windows'>[];
  sharedReceiveQueues: Part<'sharedReceiveQueues'>[];
} => ({
  name: 'case',
  hosts: [{ name: 'a' }, { name: 'b' }],
  links: [{ between: ['a', 'b'] }],
  mtu: 1024,
  queuePairs: [
    { name: 'rc', between: ['a', 'b'] },
    { name: 'uc', between: ['a', 'b'], type: 'UC' },
    { name: 'ud', between: ['a', 'b'], type: 'UD' },
    { name: 'shared', between: ['a', 'b'], srqs: ['inbox'] },
  ],
  regions: [
    { name: 'out', host: 'a', size: '64KiB' },
    { name: 'words', host: 'b', size: '4KiB' },
    {
      name: 'in',
      host: 'b',
      size: '64KiB',
      access: ['local-write', 'remote-write', 'remote-read', 'mw-bind', 'flush-global'],
    },
    { name: 'slots', host: 'b', size: '64KiB' },
    { name: 'results', host: 'a', size: '64B' },
    { name: 'datagrams', host: 'b', size: '64KiB' },
  ],
  sharedReceiveQueues: [{ name: 'inbox', region: 'slots', slot: '4KiB', entries: 16 }],
  windows: [{ name: 'window', region: 'in', queuePair: 'rc', offset: '4KiB', length: '8KiB' }],
  operations: [
    operation('write', { region: 'in', offset: '4KiB', window: 'window' }, { size: '4KiB' }),
    {
      ...operation('fetchAdd', { region: 'words' }, { count: 100, depth: 8 }),
      source: { region: 'results' },
    },
    operation('send', { region: 'slots' }, { size: '1KiB', queuePair: 'shared' }),
    operation('send', { region: 'datagrams' }, { size: '1KiB', queuePair: 'ud', count: 4 }),
    operation('atomicWrite', { region: 'in', offset: '32KiB' }, { flush: 'global' }),
    {
      ...operation('sendInv', { region: 'in', offset: '48KiB' }, { size: '1KiB' }),
      invalidates: 'window',
    },
  ],
  events: [],
});

function operation(
  kind: Part<'operations'>['kind'],
  target: Part<'operations'>['target'],
  rest: Partial<Part<'operations'>>,
): Part<'operations'> {
  return { kind, from: 'a', queuePair: 'rc', source: { region: 'out' }, target, ...rest };
}

type Data = ReturnType<typeof valid>;
const set = (i: number, changes: object) => (d: Data) => Object.assign(d.operations[i]!, changes);

const cases: readonly [what: string, place: string, change: (d: Data) => unknown][] = [
  // Operations and their queue pairs.
  ['an unknown kind', 'operations[0].kind', set(0, { kind: 'copy' })],
  ['no size', 'operations[0].size', set(0, { size: undefined })],
  ['a size of a word', 'operations[4].size', set(4, { size: '16B' })],
  [
    'a word that is none',
    'operations[1].target.offset',
    set(1, { target: { region: 'words', offset: '4B' } }),
  ],
  ['words that overlap', 'operations[1].stride', set(1, { stride: '4B' })],
  ['more results than room', 'operations[1].source.offset', set(1, { depth: 9 })],
  ['a number with a sign', 'operations[1].add', set(1, { add: -1 })],
  ['a number of 65 bits', 'operations[1].add', set(1, { add: '18446744073709551616' })],
  [
    'atomics without the right',
    'operations[1].target.region',
    (d: Data) => {
      d.regions[1]!.access = ['local-write'];
    },
  ],
  ['an atomic on UC', 'operations[1].kind', set(1, { queuePair: 'uc' })],
  ['a write on UD', 'operations[3].kind', set(3, { kind: 'write' })],
  ['a datagram of two packets', 'operations[3].size', set(3, { size: '1025B' })],
  [
    'a datagram without room for its header',
    'operations[3].target.offset',
    set(3, { target: { region: 'datagrams', offset: '64512B' } }),
  ],
  ['too much inline', 'operations[2].inline', set(2, { inline: true })],
  ['results inline', 'operations[1].inline', set(1, { inline: true })],
  ['a solicited write', 'operations[0].solicited', set(0, { solicited: true })],
  ['a flush behind a send', 'operations[2].flush', set(2, { flush: 'global' })],
  ['a flush without the right', 'operations[4].target.region', set(4, { flush: 'persistent' })],
  ['nothing signalled', 'operations[2].signalEvery', set(2, { signalEvery: 2 })],
  [
    'unsignalled work and a rebind',
    'operations[0].signalEvery',
    set(0, { signalEvery: 2, depth: 2 }),
  ],
  ['more pieces than bytes', 'operations[2].sges', set(2, { size: '3B', sges: 4 })],
  ['17 pieces', 'operations[2].sges', set(2, { sges: 17 })],
  ['a receive for a write', 'operations[0].receiveSges', set(0, { receiveSges: 2 })],
  // Windows.
  [
    'an unknown window',
    'operations[0].target.window',
    set(0, { target: { region: 'in', window: 'w' } }),
  ],
  [
    'a window of another region',
    'operations[0].target.window',
    set(0, { target: { region: 'words', window: 'window' } }),
  ],
  ['a window of another queue pair', 'operations[0].target.window', set(0, { queuePair: 'uc' })],
  ['bytes behind a window', 'operations[0].target.offset', set(0, { size: '9KiB' })],
  [
    'bytes in front of a window',
    'operations[0].target.window',
    set(0, { target: { region: 'in', window: 'window' } }),
  ],
  [
    'a window without the right',
    'operations[0].target.window',
    (d: Data) => {
      d.windows[0]!.access = ['remote-read'];
    },
  ],
  [
    'a window for a send',
    'operations[5].target.window',
    set(5, { target: { region: 'in', window: 'window' } }),
  ],
  ['a sendInv of nothing', 'operations[5].invalidates', set(5, { invalidates: undefined })],
  ['a send that invalidates', 'operations[2].invalidates', set(2, { invalidates: 'window' })],
  [
    'a window that does not fit',
    'windows[0].offset',
    (d: Data) => {
      d.windows[0]!.length = '61KiB';
    },
  ],
  [
    'a window of a region that forbids it',
    'windows[0].region',
    (d: Data) => {
      d.windows[0]!.region = 'words';
    },
  ],
  [
    'a window for datagrams',
    'windows[0].queuePair',
    (d: Data) => {
      d.windows[0]!.queuePair = 'ud';
    },
  ],
  [
    'an event on an unknown window',
    'events[0].window',
    (d: Data) => {
      d.events = [{ kind: 'rebind', host: 'b', window: 'w', at: '1us' }];
    },
  ],
  [
    'an event on the window of the other host',
    'events[0].window',
    (d: Data) => {
      d.events = [{ kind: 'rebind', host: 'a', window: 'window', at: '1us' }];
    },
  ],
  [
    'a remap under a window',
    'events[0].region',
    (d: Data) => {
      d.operations.splice(5, 1);
      d.events = [{ kind: 'remap', host: 'b', region: 'in', at: '1us' }];
    },
  ],
  // Shared receive queues.
  [
    'receives that do not fit',
    'sharedReceiveQueues[0].entries',
    (d: Data) => {
      d.sharedReceiveQueues[0]!.entries = 17;
    },
  ],
  [
    'a limit above the number of receives',
    'sharedReceiveQueues[0].limit',
    (d: Data) => {
      d.sharedReceiveQueues[0]!.limit = 17;
    },
  ],
  [
    'two queues in one region',
    'sharedReceiveQueues[1].region',
    (d: Data) => {
      d.sharedReceiveQueues.push({ name: 'second', region: 'slots', slot: '4KiB', entries: 1 });
    },
  ],
  [
    'two queues for one end',
    'queuePairs[3].srqs[1]',
    (d: Data) => {
      d.sharedReceiveQueues.push({ name: 'second', region: 'words', slot: '8B', entries: 1 });
      d.queuePairs[3]!.srqs = ['inbox', 'second'];
    },
  ],
  ['a send past its slot', 'operations[2].size', set(2, { size: '5KiB' })],
  ['a send elsewhere', 'operations[2].target.region', set(2, { target: { region: 'datagrams' } })],
  ['a write into receives', 'operations[0].target.region', set(0, { target: { region: 'slots' } })],
  // Races.
  [
    'a write into words that others count in',
    'operations[6].target',
    (d: Data) => d.operations.push(operation('write', { region: 'words' }, { size: '8B' })),
  ],
  [
    'two operations with receives on one queue pair',
    'operations[6].queuePair',
    (d: Data) => {
      const target = { region: 'datagrams', offset: '32KiB' } as const;
      d.operations.push(operation('send', target, { size: '8B' }));
    },
  ],
  // Hosts and links.
  [
    'a period that no adapter has',
    'hosts[0].moderation.period',
    (d: Data) => {
      d.hosts[0]!.moderation = { count: 4, period: '1ns' };
    },
  ],
  [
    'a count without a period',
    'hosts[0].moderation.period',
    (d: Data) => {
      d.hosts[0]!.moderation = { count: 4, period: '0us' };
    },
  ],
  [
    'a link that damages everything',
    'links[0].corrupt',
    (d: Data) => {
      d.links[0]!.corrupt = '100%';
    },
  ],
  [
    'a link layer there is not',
    'links[0].linkLayer',
    (d: Data) => {
      Object.assign(d.links[0]!, { linkLayer: 'Omni-Path' });
    },
  ],
];

describe('a scenario', () => {
  it('may have all of it', () => {
    expect(() => validateScenario(valid())).not.toThrow();
  });

  it.each(cases)('may not have %s (%s)', (_what, place, change) => {
    const data = valid();
    change(data);
    let problem: unknown;
    try {
      validateScenario(data);
    } catch (error) {
      problem = error;
    }
    expect(problem).toBeInstanceOf(Failure);
    expect(problem).toMatchObject({ code: 'E_SCENARIO_INVALID', place });
  });

  it('of 20,000 operations is checked in less than a second', () => {
    const count = 20_000;
    const data = {
      name: 'large',
      hosts: [{ name: 'a' }, { name: 'b' }],
      links: [{ between: ['a', 'b'] }],
      queuePairs: Array.from({ length: count }, (_, i) => ({
        name: `qp${i}`,
        between: ['a', 'b'],
      })),
      regions: [
        { name: 'out', host: 'a', size: '32MiB' },
        { name: 'in', host: 'b', size: '32MiB' },
      ],
      operations: Array.from({ length: count }, (_, i) => ({
        kind: i % 2 === 0 ? 'writeImm' : 'send',
        from: 'a',
        queuePair: `qp${i}`,
        source: { region: 'out', offset: `${i}KiB` },
        target: { region: 'in', offset: `${i}KiB` },
        size: '1KiB',
      })),
      events: Array.from({ length: 1000 }, (_, i) => ({
        kind: 'prefetch',
        host: 'b',
        region: 'in',
        at: `${i}us`,
      })),
    };
    // Processor time, and the best of some, because other tests run at the same time.
    const spentMs = Array.from({ length: 4 }, () => {
      const start = process.cpuUsage();
      validateScenario(data);
      return process.cpuUsage(start).user / 1000;
    });
    expect(Math.min(...spentMs)).toBeLessThan(1000);
  });
});
