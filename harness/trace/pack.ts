/**
 * Makes the compact form of `format.ts` from an original recording: a folder with rankR.maps.gz and
 * rankR.tsv.gz of each rank.
 *
 *     node --import tsx harness/trace/pack.ts FOLDER RUN RANK… [--out FOLDER]
 *
 * writes RUN.rankR.gz. It keeps what a replay needs and leaves out tags, communicators, the user's
 * view of collectives, memory statistics and file names. shmat and shmdt become mmap and munmap; the
 * stack is extended by the 8 MiB that it may grow without a system call.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gunzipSync, gzipSync } from 'node:zlib';
import { TRACE_FORMAT } from './format.ts';
import { parseTrace } from './reader.ts';

const STACK_GROWTH = 8 * 2 ** 20;

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { out: { type: 'string', default: '.' } },
});
const [folder, run, ...ranks] = positionals;
if (folder === undefined || run === undefined || ranks.length === 0) {
  process.stderr.write('usage: pack.ts FOLDER RUN RANK… [--out FOLDER]\n');
  process.exitCode = 2;
} else {
  for (const rank of ranks) {
    const text = pack(folder, run, rank);
    const file = join(values.out, `${run}.rank${rank}.gz`);
    const trace = parseTrace(text, file);
    const packed = gzipSync(text, { level: 9 });
    writeFileSync(file, packed);
    process.stdout.write(`${file}: ${trace.events.length} events, ${packed.length} bytes\n`);
  }
}

function pack(folder: string, run: string, rank: string): string {
  const read = (name: string): string[] =>
    gunzipSync(readFileSync(join(folder, `rank${rank}.${name}.gz`)))
      .toString('latin1')
      .trimEnd()
      .split('\n');
  const [header, ...events] = read('tsv');
  const ranks = /of (\d+)/.exec(header as string)?.[1];
  const brk = /brk at snapshot ([0-9a-f]+)/.exec(header as string)?.[1];
  const lines = [
    [TRACE_FORMAT, run, rank, ranks, brk].join('\t'),
    ...read('maps').flatMap(packMap),
  ];
  let gap = 0;
  for (const line of events) {
    const [ns, kind, ...columns] = line.split('\t');
    gap += Number(ns);
    const kept = packEvent(kind as string, columns);
    if (kept === undefined) continue;
    lines.push([gap, ...kept].join('\t'));
    gap = 0;
  }
  lines.push(`end\t${lines.length}`);
  return `${lines.join('\n')}\n`;
}

function packMap(line: string): string[] {
  const [range, flags] = line.split(/\s+/) as [string, string];
  if (line.endsWith('[vsyscall]')) return []; // beyond 2^47
  const [start, end] = range.split('-').map((text) => Number.parseInt(text, 16)) as [
    number,
    number,
  ];
  const from = line.endsWith('[stack]') ? start - STACK_GROWTH : start;
  return [`0\tmap\t${from.toString(16)}\t${end - from}\t${flags.slice(0, 3)}`];
}

/** The kind and the columns that are kept, or undefined when the line is not needed. */
function packEvent(kind: string, columns: string[]): string[] | undefined {
  const first = (count: number): string[] => [kind, ...columns.slice(0, count)];
  switch (kind) {
    case 'brk':
    case 'done':
    case 'call':
    case 'ret':
      return first(1);
    case 'res':
    case 'pf':
    case 'munmap':
      return first(2);
    case 'mmap':
    case 'madvise':
    case 'mprotect':
      return first(3);
    case 'mremap':
      return first(4);
    case 'shmat':
      return ['mmap', ...columns.slice(0, 2), 'rw-'];
    case 'shmdt':
      return ['munmap', ...columns.slice(0, 2)];
    case 'tx': // addr len bytes peer tag ctx - id op
    case 'ptx':
      return [...first(4), columns[7] as string];
    case 'rx': // addr len bytes peer tag ctx match id op; with any source, match is sender.n
    case 'prx': {
      const [sender, match] = (columns[6] as string).split('.') as [string, string?];
      const ends = match === undefined ? [columns[3] as string, sender] : [sender, match];
      return [...first(3), ...ends, columns[7] as string];
    }
    default:
      return undefined;
  }
}
