/**
 * `npm run bench`: every performance claim of the project, measured.
 *
 *     npm run bench                      a table
 *     npm run bench -- --json            [{ name, value, unit, min, max, runs, note }]
 *     npm run bench -- --runs 9 --only stream_4k_inproc_packets_per_cpu_s
 */
import Table from 'cli-table3';
import { Command, InvalidArgumentError } from 'commander';
import { type BenchRow, calibrate, rowOf } from './measure.ts';
import { type MemoryUse, odpMemoryUse } from './odp-memory.ts';
import { faultsPerCpuSecond, invalidationsPerCpuSecond } from './paging.ts';
import { replayEventsPerCpuSecond } from './replay.ts';
import { streamPacketsPerCpuSecond } from './stream.ts';
import { runPeer } from './window-peer.ts';
import { bareRun, windowRun } from './windows.ts';

/** A benchmark: what it is called and how its row is made from `runs` runs. */
interface Benchmark {
  readonly name: string;
  run(name: string, runs: number): Promise<BenchRow>;
}

const benchmarks: readonly Benchmark[] = [
  {
    name: 'stream_4k_inproc_packets_per_cpu_s',
    run: async (name, runs) =>
      rowOf(
        name,
        'packets/s',
        repeat(runs, () => streamPacketsPerCpuSecond(1_500, false)),
        'one process, 100 Gb/s, 16 MiB a host, pinned, warm; digest off, verification off',
      ),
  },
  {
    name: 'stream_4k_verified_packets_per_cpu_s',
    run: async (name, runs) =>
      rowOf(
        name,
        'packets/s',
        repeat(runs, () => streamPacketsPerCpuSecond(500, true)),
        'the same; digest on, verification on',
      ),
  },
  {
    name: 'replay_events',
    run: async (name, runs) =>
      rowOf(
        name,
        'events/s',
        repeat(runs, replayEventsPerCpuSecond),
        'qe-mmap128k, four ranks, scheme none: address-space calls and page faults, no wire',
      ),
  },
  {
    name: 'ws_window_ratio',
    run: async (name, runs) => {
      const ratios: number[] = [];
      let note = '';
      for (let i = 0; i <= runs; i++) {
        const window = await windowRun();
        const bare = await bareRun(window.sentBytes, window.receivedBytes);
        // The first pair warms the machine up.
        if (i > 0) ratios.push(window.roundsPerSecond / bare);
        note = `last: ${Math.round(window.roundsPerSecond)} windows/s of ${window.sentBytes} and ${window.receivedBytes} bytes, bare ws ${Math.round(bare)} round trips/s`;
      }
      return rowOf(name, 'ratio', ratios, note);
    },
  },
  paging(
    'page_fault_handling',
    'page faults from event to resume, with the 64-byte WRITEs that raise them, 16 queue pairs',
    () => faultsPerCpuSecond(16_384),
  ),
  paging('range_invalidation', 'madvise of 64 KiB that the adapter has', () =>
    invalidationsPerCpuSecond(8_192, true),
  ),
  paging('range_invalidation_unmapped', 'the same of 64 KiB that the adapter does not have', () =>
    invalidationsPerCpuSecond(8_192, false),
  ),
  {
    name: 'odp_64gib_memory',
    run: async (name, runs) => {
      const uses: MemoryUse[] = [];
      for (let i = 0; i < runs; i++) uses.push(await odpMemoryUse());
      const { arrayBuffersMib, heapMib, pages } = uses.at(-1) as MemoryUse;
      const parts = `last: ${Math.round(arrayBuffersMib)} MiB in array buffers, ${Math.round(heapMib)} MiB in the heap`;
      const note = `resident memory above the empty process: 64 regions of 1 GiB on demand, ${pages} pages at random brought in; ${parts}`;
      return rowOf(
        name,
        'MiB',
        uses.map(({ rssMib }) => rssMib),
        note,
      );
    },
  },
];

/** A benchmark of speed in one process. */
function paging(name: string, what: string, run: () => number): Benchmark {
  const note = `one process, no wire; ${what}; digest and verification off`;
  return { name, run: async (row, runs) => rowOf(row, '1/s', repeat(runs, run), note) };
}

function repeat(runs: number, run: () => number): number[] {
  run();
  return Array.from({ length: runs }, run);
}

function runsOption(text: string): number {
  const runs = Number(text);
  if (!Number.isInteger(runs) || runs < 1) throw new InvalidArgumentError('expected 1 or more.');
  return runs;
}

async function main(): Promise<void> {
  const command = new Command('bench')
    .description('Runs the benchmarks; values are medians, with the spread of the runs.')
    .option('--json', 'print the rows as JSON')
    .option('--runs <n>', 'runs of each benchmark, after one that is not counted', runsOption, 5)
    .option('--only <name>', `one of ${benchmarks.map(({ name }) => name).join(', ')}`)
    .parse();
  const { json, runs, only } = command.opts<{ json?: boolean; runs: number; only?: string }>();
  const chosen = benchmarks.filter(({ name }) => only === undefined || name === only);
  if (chosen.length === 0) command.error(`error: there is no benchmark '${only}'`, { exitCode: 2 });

  const rows: BenchRow[] = [];
  const calibration: number[] = [];
  for (const { name, run } of chosen) {
    process.stderr.write(`${name} …\n`);
    calibration.push(calibrate());
    rows.push(await run(name, runs));
    calibration.push(calibrate());
  }
  const note =
    'fixed integer loop, before and after each benchmark: divide by it to compare machines';
  rows.push(rowOf('calibration_msteps_per_cpu_s', 'Msteps/s', calibration, note));
  if (json) process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
  else process.stdout.write(`${render(rows)}\n`);
}

function render(rows: readonly BenchRow[]): string {
  const table = new Table({
    head: ['benchmark', 'median', 'min', 'max', 'unit'],
    style: { head: [] },
  });
  for (const { name, value, min, max, unit } of rows) {
    const shown = [value, min, max].map((n) => n.toLocaleString('en'));
    table.push([name, ...shown.map((content) => ({ content, hAlign: 'right' as const })), unit]);
  }
  const notes = rows.map(({ name, runs, note }) => `${name}: ${runs} runs; ${note}`);
  return `${table.toString()}\n${notes.join('\n')}`;
}

// The window benchmark starts this program again as the other process.
if (process.argv[2] === 'peer') await runPeer(process.argv.slice(3));
else await main();
