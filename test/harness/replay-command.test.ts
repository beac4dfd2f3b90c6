/** The replay command: what it prints, and what it says about bad input. */
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { schemeNames } from '../../harness/replay/scheme.ts';
import { writeRun } from '../fixtures/recorded-run.ts';
import { runHere, temporaryFolder } from './fixtures.ts';

const MAPS = ['10000000-10010000 rw-p 00000000 00:00 0'];

/** Two ranks of which the first has these events. */
const runOf = (...events: string[]): string =>
  writeRun(join(temporaryFolder(), 'case'), [
    { maps: MAPS, events, mapsEnd: MAPS },
    { maps: MAPS, mapsEnd: MAPS },
  ]);

interface BadInput {
  readonly what: string;
  readonly argv: () => readonly string[];
  readonly code: string;
  readonly place: string;
  readonly status?: number;
}

const bad = (what: string, event: string, place: string): BadInput => ({
  what,
  argv: () => ['replay', runOf('0\tret\t1', event)],
  code: 'E_TRACE_INVALID',
  place,
});

const cases: readonly BadInput[] = [
  { what: 'no run', argv: () => ['replay'], code: 'E_USAGE', place: 'command line' },
  {
    what: 'an unknown run',
    argv: () => ['replay', 'hpc'],
    code: 'E_TRACE_INVALID',
    place: "hpc: there is no recorded run; did you mean 'hpcc'? (expected hpcc, qe, qe-mmap128k,",
  },
  { what: 'no name', argv: () => ['replay', ''], code: 'E_TRACE_INVALID', place: 'the name of' },
  {
    what: 'a folder that is none',
    argv: () => ['replay', '/'],
    code: 'E_TRACE_INVALID',
    place: '/rank0',
  },
  {
    what: 'a pipe in place of a file',
    argv: () => {
      const run = runOf();
      rmSync(join(run, 'rank0.tsv.gz'));
      execFileSync('mkfifo', [join(run, 'rank0.tsv.gz')]);
      return ['replay', run];
    },
    code: 'E_TRACE_INVALID',
    place: 'rank0.tsv.gz: there is no recording of rank 0',
  },
  {
    what: 'mappings of another process',
    argv: () => {
      const run = runOf('0\tres\t10000000\t1\ta');
      writeFileSync(join(run, 'rank0.maps.gz'), gzipSync(''));
      return ['replay', run];
    },
    code: 'E_TRACE_INVALID',
    place: 'rank0.maps.gz: nothing is mapped at 0x',
  },
  {
    what: 'an unknown scheme',
    argv: () => ['replay', 'qe', '--scheme', 'cache+hook'],
    code: 'E_USAGE',
    place: "--scheme: 'cache+hook' is not known; did you mean 'cache+hooks'?",
  },
  {
    what: 'ranks that are none',
    argv: () => ['replay', 'qe', '--ranks', '0,x'],
    code: 'E_USAGE',
    place: "--ranks: '0,x' is no list",
  },
  {
    what: 'a rank twice',
    argv: () => ['replay', 'qe', '--ranks', '1,1'],
    code: 'E_USAGE',
    place: "--ranks: '1,1' repeats a rank",
  },
  {
    what: 'a rank that the run does not have',
    argv: () => ['replay', 'qe', '--ranks', '2,4'],
    code: 'E_USAGE',
    place: '--ranks: qe has no rank 4 (expected 0 to 3)',
  },
  {
    what: 'only a rank that the run does not have',
    argv: () => ['replay', 'qe', '--ranks', '9'],
    code: 'E_USAGE',
    place: '--ranks: qe has no rank 9 (expected 0 to 3)',
  },
  {
    what: 'a seed that is none',
    argv: () => ['replay', 'qe', '--seed', '-1'],
    code: 'E_USAGE',
    place: '--seed',
  },
  {
    what: 'a truncated file',
    argv: () => {
      const run = runOf();
      const file = join(run, 'rank1.tsv.gz');
      writeFileSync(file, readFileSync(file).subarray(0, 60));
      return ['replay', run];
    },
    code: 'E_TRACE_INVALID',
    place: 'rank1.tsv.gz: the file cannot be decompressed',
  },
  ...['tsv', 'maps', 'maps_end', 'res_end'].map(
    (part): BadInput => ({
      what: `a missing file, ${part}`,
      argv: () => {
        const run = runOf();
        rmSync(join(run, `rank1.${part}.gz`));
        return ['replay', run];
      },
      code: 'E_TRACE_INVALID',
      place: `rank1.${part}.gz: there is no recording of rank 1`,
    }),
  ),
  {
    what: 'a file of another rank',
    argv: () => {
      const run = runOf();
      const events = '# rank 0 of 2; brk at snapshot 1000; cmd case\n0\tfinalize\tenter\n';
      writeFileSync(join(run, 'rank1.tsv.gz'), gzipSync(events));
      return ['replay', run];
    },
    code: 'E_TRACE_INVALID',
    place: 'rank1.tsv.gz:1: the file is of rank 0 of 2',
  },
  bad('an unknown kind', '0\twhat\t1', "rank0.tsv.gz:3: 'what' is not a kind"),
  bad('a bad number', '0\tret\t0x1', "rank0.tsv.gz:3: '0x1' is not a number"),
  bad(
    'an address beyond 2^47',
    '0\tpf\t800000000000\t1\tu\t0',
    "rank0.tsv.gz:3: '800000000000' is not an address",
  ),
  bad(
    'a buffer outside mapped memory',
    '0	prx	1000fff0	17	17	1	0	0	-	1',
    'rank0.tsv.gz:3: the buffer 0x1000fff0 + 17 is not mapped',
  ),
  bad(
    'a page fault outside mapped memory',
    '0\tpf\t1000f000\t2\tu\t0',
    'rank0.tsv.gz:3: the page 0x1000f000 + 8192 is not mapped',
  ),
  bad('a call that cannot have succeeded', '0\tmunmap\t10000010\t4096', 'rank0.tsv.gz:3: munmap'),
  {
    what: 'messages that wait for each other',
    argv: () => {
      const meet = (peer: number): string[] => [
        `0\tprx\t10000000\t8\t8\t${peer}\t0\t0\t1\t1`,
        '0\tret\t1',
        `0\tptx\t10001000\t8\t8\t${peer}\t0\t0\t\t2`,
        '0\tret\t2',
      ];
      const ranks = [1, 0].map((peer) => ({ maps: MAPS, mapsEnd: MAPS, events: meet(peer) }));
      return ['replay', writeRun(join(temporaryFolder(), 'case'), ranks), '--scheme', 'cache'];
    },
    code: 'E_STALLED',
    place: 'waits for the receive of message 1 of rank 1',
    status: 1,
  },
];

describe('replay, given', () => {
  it.each(cases)('$what: $code', async ({ argv, code, place, status = 2 }) => {
    const result = await runHere(...argv());
    const error = result.stderr.trimEnd().split('\n').at(-1);
    expect(error).toContain(`faultline: ${code} `);
    expect(error).toContain(place);
    expect(result).toMatchObject({ status, stdout: '' });
  });
});

describe('replay', () => {
  const exchange = (): string =>
    writeRun(join(temporaryFolder(), 'pair'), [
      {
        maps: MAPS,
        mapsEnd: MAPS,
        residentEnd: ['10000000 1 a'],
        events: ['0\tpf\t10000000\t1\tu\t0', '0\tptx\t10000000\t99\t99\t1\t0\t0\t\t1', '0\tret\t1'],
      },
      {
        maps: MAPS,
        mapsEnd: MAPS,
        events: ['0\tprx\t10001800\t99\t99\t0\t0\t0\t1\t1', '0\tret\t1'],
      },
    ]);

  it('prints what came of it, and fails, where a rank does not end as recorded', async () => {
    const run = runOf();
    const longer = '10000000-10020000 rw-p 00000000 00:00 0\n';
    writeFileSync(join(run, 'rank0.maps_end.gz'), gzipSync(longer));
    const { status, stdout, stderr } = await runHere('replay', run, '--json');
    expect(status).toBe(1);
    expect(JSON.parse(stdout).ranks[0].maps_equal).toBe(false);
    expect(stderr).toContain('E_REPLAY_DIFFERS case: rank 0 does not end as recorded');
  });

  it.each(schemeNames)('prints JSON as documented: %s', async (scheme) => {
    const result = await runHere('replay', exchange(), '--scheme', scheme, '--json');
    expect(result.status).toBe(0);
    const report = JSON.parse(result.stdout);
    expect(report).toMatchObject({ run: 'pair', scheme, seed: 1, corrupted_messages: 0 });
    const isNone = scheme === 'none';
    // The receiver never touched its page: whoever registers or receives makes it present.
    const cause = scheme.startsWith('cache') ? 'registration' : 'device_fault';
    expect(report.ranks).toMatchObject([
      {
        rank: 0,
        messages: isNone ? 0 : 1,
        bytes: isNone ? 0 : 99,
        maps_equal: true,
        residency: { recorded: 1, replayed: 1, extra: 0, missing: 0, unattributed: 0 },
        stale_uses: 0,
        events_lost: 0,
      },
      {
        rank: 1,
        messages: isNone ? 0 : 1,
        residency: isNone
          ? { recorded: 0, replayed: 0, extra: 0, by_cause: {} }
          : { recorded: 0, replayed: 1, extra: 1, unattributed: 0, by_cause: { [cause]: 1 } },
        page_faults: scheme === 'odp' || scheme === 'implicit' ? 1 : 0,
        pinned_bytes_peak: scheme.startsWith('cache') ? 4096 : 0,
      },
    ]);
    for (const rank of report.ranks) {
      expect(rank.cost_ns > 0).toBe(!isNone);
      expect(typeof rank.hit_rate).toBe(isNone ? 'object' : 'number');
    }
  });

  it('prints a column for each rank', async () => {
    const result = await runHere('replay', exchange(), '--scheme', 'odp');
    expect(result.status).toBe(0);
    const lines = result.stdout.split('\n');
    expect(lines[0]).toMatch(/^pair, scheme odp, seed 1, /);
    const row = (title: string): string[] =>
      lines
        .find((line) => line.includes(` ${title} `))
        ?.split('│')
        .slice(2, -1)
        .map((cell) => cell.trim()) ?? [];
    expect(row('messages')).toEqual(['1', '1']);
    expect(row('mappings as recorded')).toEqual(['yes', 'yes']);
    expect(row('page fault of the adapter')).toEqual(['0', '1']);
    expect(row('without a cause')).toEqual(['0', '0']);
  });
});
