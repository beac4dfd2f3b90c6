/**
 * Reads one rank of a recorded run, and checks every line that it keeps.
 *
 * Everything wrong with a file is a Failure E_TRACE_INVALID that names file and line. The format is
 * described in docs/REPLAY.md.
 */
import { Failure } from '../../transport/index.ts';
import { Columns } from './columns.ts';
import { EventReader } from './event-reader.ts';
import { findRun, type RunFolder, readPart } from './folder.ts';
import type { Trace, TraceEnd } from './format.ts';
import { parseMaps, parseResident } from './maps.ts';

/** Reads and checks a rank of a run, given by name or folder. Throws Failure E_TRACE_INVALID. */
export function readTrace(run: string | RunFolder, rank: number): Trace {
  const folder = typeof run === 'string' ? findRun(run) : run;
  const maps = readPart(folder, rank, 'maps');
  const events = readPart(folder, rank, 'tsv');
  const trace = parseTrace(events.bytes, events.file, folder.name);
  const mappings = parseMaps(maps.bytes, maps.file);
  for (const { address } of trace.resident) {
    if (mappings.some(({ start, end }) => start <= address && address < end)) continue;
    throw new Failure(
      'E_TRACE_INVALID',
      `nothing is mapped at 0x${address.toString(16)}, where ${events.file} has a page at the start`,
      maps.file,
      'the mappings of the same process',
    );
  }
  return { ...trace, mappings };
}

/** Reads how a rank ended. Throws Failure E_TRACE_INVALID. */
export function readEnd(run: string | RunFolder, rank: number): TraceEnd {
  const folder = typeof run === 'string' ? findRun(run) : run;
  const maps = readPart(folder, rank, 'maps_end');
  const resident = readPart(folder, rank, 'res_end');
  return {
    mappings: parseMaps(maps.bytes, maps.file),
    resident: parseResident(resident.bytes, resident.file),
  };
}

/** The events of one file that is already decompressed; `file` names it in errors. */
export function parseTrace(bytes: Buffer, file: string, run = ''): Trace {
  const lines = new Columns(file, bytes);
  const header = headerOf(lines);
  const reader = new EventReader(lines);
  reader.readAll();
  if (!reader.isFinished) {
    throw lines.bad('the recording stops early', 'a line `finalize` at the end');
  }
  return {
    file,
    run,
    ...header,
    rssPeakBytes: reader.rssPeakBytes,
    mappings: [],
    resident: reader.resident,
    events: reader.events,
  };
}

function headerOf(lines: Columns): Pick<Trace, 'rank' | 'ranks' | 'brk'> {
  const text = lines.next() ? lines.rest() : '';
  const found = /^# rank (\d{1,4}) of (\d{1,4});.*brk at snapshot ([0-9a-f]{1,12})[;,]? /.exec(
    text,
  );
  if (!found) {
    throw lines.bad(
      'this is not a recording of a format known here',
      '# rank R of N; … brk at snapshot ADDRESS; …',
    );
  }
  return {
    rank: Number(found[1]),
    ranks: Number(found[2]),
    brk: Number.parseInt(found[3] as string, 16),
  };
}
