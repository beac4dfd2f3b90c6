/**
 * Where recorded runs are: a folder with rankR.maps.gz, rankR.tsv.gz, rankR.maps_end.gz and
 * rankR.res_end.gz of each rank. Runs that ship are folders of harness/traces.
 *
 * Owns finding and decompressing the files; everything wrong with them is a Failure E_TRACE_INVALID.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { Failure } from '../../transport/index.ts';
import { nearest } from '../nearest.ts';

const shipped = fileURLToPath(new URL('../traces/', import.meta.url));

/** A folder with a recorded run. */
export interface RunFolder {
  readonly name: string;
  readonly path: string;
}

type Part = 'maps' | 'tsv' | 'maps_end' | 'res_end';

/** Names of the runs that ship. */
export function shippedRuns(): string[] {
  return readdirSync(shipped).filter((name) => isFolder(join(shipped, name)));
}

/** The folder of `run`: a run that ships, or a path. Throws E_TRACE_INVALID. */
export function findRun(run: string): RunFolder {
  const places = /[/\\]/.test(run) ? [run] : [join(shipped, run), run];
  for (const path of places) {
    if (run !== '' && isFolder(path)) return { name: basename(resolve(path)), path };
  }
  const near = nearest(run, shippedRuns());
  throw new Failure(
    'E_TRACE_INVALID',
    `there is no recorded run${near === undefined ? '' : `; did you mean '${near}'?`}`,
    run || 'the name of the run',
    `${shippedRuns().join(', ')}, or a folder with rankR.maps.gz and rankR.tsv.gz`,
  );
}

/** Reads one file of a rank; `file` names it in errors. */
export function readPart(
  { path }: RunFolder,
  rank: number,
  part: Part,
): { readonly file: string; readonly bytes: Buffer } {
  const file = join(path, `rank${rank}.${part}.gz`);
  // A pipe would be waited for, without end.
  if (!(statSync(file, { throwIfNoEntry: false })?.isFile() ?? false)) {
    throw new Failure(
      'E_TRACE_INVALID',
      `there is no recording of rank ${rank}`,
      file,
      'a file for each rank',
    );
  }
  try {
    return { file, bytes: gunzipSync(readFileSync(file)) };
  } catch (error) {
    throw new Failure(
      'E_TRACE_INVALID',
      `the file cannot be decompressed: ${(error as Error).message}`,
      file,
      'a complete gzip file',
    );
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
