/** Whatever is wrong with the input: the code, the place, the exit status, and no half-written file. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it, onTestFinished } from 'vitest';
import { loadScenario } from '../../harness/scenario/load.ts';
import { eventText, writeRun } from '../fixtures/recorded-run.ts';
import { filesIn, runHere, temporaryFolder } from './fixtures.ts';

/** A valid scenario as data; cases change one thing in it. */
const valid = () => ({
  name: 'case',
  hosts: [{ name: 'a' }, { name: 'b' }] as Record<string, unknown>[],
  links: [{ between: ['a', 'b'] }] as Record<string, unknown>[],
  queuePairs: [{ name: 'qp0', between: ['a', 'b'] }] as Record<string, unknown>[],
  regions: [
    { name: 'source', host: 'a', size: '64KiB', prefault: true },
    { name: 'target', host: 'b', size: '64KiB' },
  ] as Record<string, unknown>[],
  operations: [
    {
      kind: 'write',
      from: 'a',
      queuePair: 'qp0',
      source: { region: 'source' },
      target: { region: 'target' },
      size: '4KiB',
    },
  ] as Record<string, unknown>[],
  events: [] as Record<string, unknown>[],
  limits: {} as Record<string, unknown>,
  replay: undefined as Record<string, unknown> | undefined,
});
type Data = ReturnType<typeof valid>;

interface BadInput {
  readonly what: string;
  /** Command line; SCENARIO stands for the file made by `change` or `script`. */
  readonly argv?: readonly string[];
  readonly change?: (data: Data, folder: string) => void;
  readonly script?: string;
  readonly code: string;
  /** Part of the error line that names the place. */
  readonly place: string;
  readonly status?: number;
}

/** A replay of a run whose event files are `file`. */
const replayOf = (file: Buffer) => (data: Data, folder: string) => {
  const run = writeRun(join(folder, 'case'), [{}, {}]);
  for (const rank of [0, 1]) writeFileSync(join(run, `rank${rank}.tsv.gz`), file);
  data.operations = [];
  data.replay = { run };
};
const trace = (...lines: string[]): string => eventText(lines);

const cases: readonly BadInput[] = [
  // The command line.
  { what: 'an unknown command', argv: ['comapre'], code: 'E_USAGE', place: 'command line' },
  {
    what: 'an unknown option',
    argv: ['run', 'one-write', '--sede', '1'],
    code: 'E_USAGE',
    place: '--sede',
  },
  { what: 'no scenario', argv: ['run'], code: 'E_USAGE', place: 'command line' },
  {
    what: 'a seed that is no number',
    argv: ['run', 'one-write', '--seed', 'x'],
    code: 'E_USAGE',
    place: '--seed',
  },
  {
    what: 'a seed out of range',
    argv: ['run', 'one-write', '--seed', '4294967296'],
    code: 'E_USAGE',
    place: '--seed',
  },
  {
    what: 'an unknown mode',
    argv: ['run', 'one-write', '--mode', 'pined'],
    code: 'E_USAGE',
    place: '--mode',
  },
  {
    what: 'a mode twice',
    argv: ['compare', 'one-write', '--modes', 'odp,odp'],
    code: 'E_USAGE',
    place: '--modes',
  },
  {
    what: 'an unknown transport',
    argv: ['compare', 'one-write', '--transport', 'tcp'],
    code: 'E_USAGE',
    place: '--transport',
  },
  {
    what: 'a split in one process',
    argv: ['compare', 'one-write', '--transport', 'inproc', '--split'],
    code: 'E_USAGE',
    place: '--split',
  },
  {
    what: 'no time to answer',
    argv: ['run', 'one-write', '--peer-timeout', '0'],
    code: 'E_USAGE',
    place: '--peer-timeout',
  },
  {
    what: 'gaps of no replay',
    argv: ['run', 'one-write', '--gap-scale', '1'],
    code: 'E_USAGE',
    place: '--gap-scale',
  },
  {
    what: 'an unknown role',
    argv: ['host', '--role', 'c', '--connect', 'ws://127.0.0.1:1', 'one-write'],
    code: 'E_USAGE',
    place: '--role',
  },
  {
    what: 'nobody to meet',
    argv: ['host', '--role', 'a', 'one-write'],
    code: 'E_USAGE',
    place: '--listen',
  },
  // Addresses.
  {
    what: 'no address',
    argv: ['host', '--role', 'a', '--listen', 'nowhere', 'one-write'],
    code: 'E_ADDRESS',
    place: 'nowhere',
  },
  {
    what: 'a wrong scheme',
    argv: ['host', '--role', 'a', '--listen', 'http://127.0.0.1:1', 'one-write'],
    code: 'E_ADDRESS',
    place: 'http://127.0.0.1:1',
  },
  {
    what: 'an open door',
    argv: ['host', '--role', 'a', '--listen', 'ws://0.0.0.0:0', 'one-write'],
    code: 'E_TOKEN_REQUIRED',
    place: 'ws://0.0.0.0:0',
  },
  // Finding and evaluating.
  {
    what: 'an unknown scenario',
    argv: ['run', 'one-wirte'],
    code: 'E_SCENARIO_NOT_FOUND',
    place: 'one-wirte',
  },
  {
    what: 'a missing file',
    argv: ['run', './nowhere.ts'],
    code: 'E_SCENARIO_NOT_FOUND',
    place: './nowhere.ts',
  },
  {
    what: 'a script that throws',
    script: "\nthrow new Error('no');\n",
    code: 'E_SCENARIO_SCRIPT',
    place: 'case.ts:2',
  },
  {
    what: 'a script that is no TypeScript',
    script: 'export const x = ;',
    code: 'E_SCENARIO_SCRIPT',
    place: 'case.ts:1',
  },
  {
    what: 'a script that leaves',
    script: 'process.exit(0);',
    code: 'E_SCENARIO_SCRIPT',
    place: 'case.ts',
  },
  {
    what: 'a script without a scenario',
    script: 'export const x = 1;',
    code: 'E_SCENARIO_INVALID',
    place: 'case.ts',
  },
  {
    what: 'a script with two scenarios',
    script: "export const x = { name: 'x', hosts: [] }; export const y = { name: 'y', hosts: [] };",
    code: 'E_SCENARIO_INVALID',
    place: 'case.ts',
  },
  // The scenario itself.
  {
    what: 'a number without a unit',
    change: (d) => {
      d.links[0]!.latency = 1000;
    },
    code: 'E_SCENARIO_INVALID',
    place: 'links[0].latency',
  },
  {
    what: 'a wrong unit',
    change: (d) => {
      d.regions[0]!.size = '1ms';
    },
    code: 'E_SCENARIO_INVALID',
    place: 'regions[0].size',
  },
  {
    what: 'a fraction of a byte',
    change: (d) => {
      d.regions[0]!.size = '0.3B';
    },
    code: 'E_SCENARIO_INVALID',
    place: 'regions[0].size',
  },
  {
    what: 'an unknown field',
    change: (d) => {
      d.hosts[0]!.ram = '1GiB';
    },
    code: 'E_SCENARIO_INVALID',
    place: 'hosts[0]',
  },
  {
    what: 'no latency',
    change: (d) => {
      d.links[0]!.latency = '0s';
    },
    code: 'E_SCENARIO_INVALID',
    place: 'links[0].latency',
  },
  {
    what: 'an unknown host',
    change: (d) => {
      d.links[0]!.between = ['a', 'c'];
    },
    code: 'E_SCENARIO_INVALID',
    place: 'links[0].between[1]',
  },
  {
    what: 'three hosts',
    change: (d) => {
      d.hosts.push({ name: 'c' });
    },
    code: 'E_SCENARIO_INVALID',
    place: 'hosts',
  },
  {
    what: 'a name twice',
    change: (d) => {
      d.regions[1]!.name = 'source';
    },
    code: 'E_SCENARIO_INVALID',
    place: 'regions[1].name',
  },
  {
    what: 'an unknown profile',
    change: (d) => {
      d.hosts[1]!.profile = 'connectx-99';
    },
    code: 'E_SCENARIO_INVALID',
    place: 'hosts[1].profile',
  },
  {
    what: 'a region larger than memory',
    change: (d) => {
      d.regions[1]!.size = '1GiB';
    },
    code: 'E_SCENARIO_INVALID',
    place: 'regions[1].size',
  },
  {
    what: 'a source of the wrong host',
    change: (d) => {
      d.operations[0]!.source = { region: 'target' };
    },
    code: 'E_SCENARIO_INVALID',
    place: 'operations[0].source.region',
  },
  {
    what: 'an operation beyond its region',
    change: (d) => {
      d.operations[0]!.size = '65KiB';
    },
    code: 'E_SCENARIO_INVALID',
    place: 'operations[0].source.offset',
  },
  {
    what: 'an odd MTU',
    change: (d) => {
      Object.assign(d, { mtu: 1500 });
    },
    code: 'E_SCENARIO_INVALID',
    place: 'mtu',
  },
  {
    what: 'a race between operations',
    change: (d) => {
      d.operations.push({ ...d.operations[0]!, size: '8KiB' });
    },
    code: 'E_SCENARIO_INVALID',
    place: 'operations[1].target',
  },
  {
    what: 'nothing to do',
    change: (d) => {
      d.operations = [];
    },
    code: 'E_SCENARIO_INVALID',
    place: 'operations',
  },
  // The recording.
  {
    what: 'no recording',
    change: (d) => {
      d.operations = [];
      d.replay = { run: 'nothing' };
    },
    code: 'E_TRACE_INVALID',
    place: 'nothing',
  },
  {
    what: 'a truncated file',
    change: replayOf(gzipSync(trace('5\tcall\t1')).subarray(0, 40)),
    code: 'E_TRACE_INVALID',
    place: 'rank0.tsv.gz',
  },
  {
    what: 'a truncated text',
    change: replayOf(gzipSync(trace('5\tret\t1').slice(0, -17))),
    code: 'E_TRACE_INVALID',
    place: 'rank0.tsv.gz:2: the recording stops early',
  },
  {
    what: 'another format',
    change: replayOf(gzipSync('time,event\n')),
    code: 'E_TRACE_INVALID',
    place: 'rank0.tsv.gz:1',
  },
  {
    what: 'an unknown event',
    change: replayOf(gzipSync(trace('5\tcal\t1'))),
    code: 'E_TRACE_INVALID',
    place: 'rank0.tsv.gz:2',
  },
  {
    what: 'a missing column',
    change: replayOf(gzipSync(trace('0\tret\t1', '5\tmunmap\t7f00'))),
    code: 'E_TRACE_INVALID',
    place: 'rank0.tsv.gz:3',
  },
  {
    what: 'a bad address',
    change: replayOf(gzipSync(trace('5\tmunmap\t0x7f\t4096'))),
    code: 'E_TRACE_INVALID',
    place: 'rank0.tsv.gz:2',
  },
  // What only the run finds out.
  {
    what: 'too little memlock',
    change: (d) => {
      d.hosts[1]!.memlock = '16KiB';
    },
    code: 'E_OPERATION',
    place: 'b.host',
    status: 1,
  },
  {
    what: 'too little time',
    change: (d) => {
      d.limits = { simulated: '10us' };
    },
    code: 'E_TIME_LIMIT',
    place: 'limits.simulated',
    status: 1,
  },
];

describe('bad input', () => {
  it.each(cases)('$what: $code', async ({ argv, change, script, code, place, status = 2 }) => {
    const folder = temporaryFolder();
    const out = join(folder, 'out');
    let line = argv;
    if (!line) {
      const file = join(folder, script === undefined ? 'case.json' : 'case.ts');
      const data = valid();
      change?.(data, folder);
      writeFileSync(file, script ?? JSON.stringify(data));
      line = ['run', file, '--transport', 'inproc'];
    }
    const result = await runHere(...line, ...(line.length > 1 ? ['--out', out] : []));
    const error = result.stderr.trimEnd().split('\n').at(-1);
    expect(error).toContain(`faultline: ${code} `);
    expect(error).toContain(place);
    expect(result.status).toBe(status);
    if (status === 2) {
      expect(result.stdout).toBe('');
      mkdirSync(out, { recursive: true });
      expect(filesIn(out)).toEqual([]);
    } else {
      const files = filesIn(out);
      expect(files).toEqual(['counters.csv', 'mr.csv', 'qp.csv', 'report.svg', 'summary.json']);
      const summary = JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8'));
      expect(summary.modes.pinned).toMatchObject({ complete: false, data_verified: false });
    }
  });

  it('a script that never ends: E_SCENARIO_TIMEOUT', async () => {
    const file = join(temporaryFolder(), 'case.ts');
    writeFileSync(file, 'for (;;);');
    await expect(loadScenario(file, 500)).rejects.toMatchObject({
      code: 'E_SCENARIO_TIMEOUT',
      place: file,
      exitStatus: 2,
    });
  });

  it('a folder that cannot be written to: E_OUTPUT', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'taken'), 'a file');
    const out = join(folder, 'taken', 'out');
    const result = await runHere('run', 'one-write', '--transport', 'inproc', '--out', out);
    expect(result).toMatchObject({ status: 2, stdout: '' });
    expect(result.stderr).toContain(`faultline: E_OUTPUT ${out}: `);
    expect(filesIn(folder)).toEqual(['taken']);
  });

  it('a port in use: E_LISTEN', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => {
      server.close();
    });
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as { port: number };
    const url = `ws://127.0.0.1:${port}`;
    const out = temporaryFolder();
    const result = await runHere('host', '--role', 'a', '--listen', url, '--out', out, 'one-write');
    expect(result.status).toBe(2);
    expect(result.stderr).toContain(`faultline: E_LISTEN ${url}: `);
    expect(filesIn(out)).toEqual([]);
  });
});
