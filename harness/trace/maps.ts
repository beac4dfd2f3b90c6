/**
 * The files of a recording that say what a process had: /proc/self/maps, and the runs of present
 * pages taken from /proc/self/pagemap.
 */
import { Columns } from './columns.ts';
import { PROT_EXEC, PROT_READ, PROT_WRITE, type ResidentRun, type TraceMapping } from './format.ts';

/** Of the kernel, above user space, in every process alike: no mapping of the program. */
const KERNEL_AREA = '[vsyscall]';
const PAGE_BYTES = 4096;
/** Addresses of user space end here (x86-64). */
const USER_END = 2 ** 47;

/** Reads /proc/self/maps: `start-end rwxp offset device inode name`. Throws E_TRACE_INVALID. */
export function parseMaps(bytes: Buffer, file: string): TraceMapping[] {
  const mappings: TraceMapping[] = [];
  const lines = new Columns(file, bytes);
  while (lines.next()) {
    const text = lines.rest();
    if (text.endsWith(KERNEL_AREA)) continue;
    const mapping = mappingOf(text);
    const before = mappings.at(-1)?.end ?? 0;
    if (
      !(
        mapping &&
        mapping.start >= before &&
        mapping.start < mapping.end &&
        mapping.end <= USER_END
      )
    ) {
      throw lines.bad(`'${text}' is not the next mapping`, 'a line of /proc/self/maps');
    }
    mappings.push(mapping);
  }
  return mappings;
}

/** Reads the pages present at the end: `address pages a|f`. Throws E_TRACE_INVALID. */
export function parseResident(bytes: Buffer, file: string): ResidentRun[] {
  const runs: ResidentRun[] = [];
  const lines = new Columns(file, bytes);
  while (lines.next()) {
    const text = lines.rest();
    const found = /^([0-9a-f]{1,12}) (\d{1,9}) ([af])$/.exec(text);
    const address = Number.parseInt(found?.[1] ?? '', 16);
    if (!found || !(address % PAGE_BYTES === 0)) {
      throw lines.bad(`'${text}' is not a run of pages`, 'an address, a count, and a or f');
    }
    runs.push({ address, pageCount: Number(found[2]), anonymous: found[3] === 'a' });
  }
  return runs;
}

/** The bits of `rwx`, or -1. */
export function protectionOf(text: string): number {
  if (!/^[r-][w-][x-]$/.test(text)) return -1;
  return (
    (text[0] === 'r' ? PROT_READ : 0) |
    (text[1] === 'w' ? PROT_WRITE : 0) |
    (text[2] === 'x' ? PROT_EXEC : 0)
  );
}

function mappingOf(text: string): TraceMapping | undefined {
  const found =
    /^([0-9a-f]{1,12})-([0-9a-f]{1,12}) ([r-][w-][x-])([ps]) ([0-9a-f]{1,12}) \S+ \d+ *(.*)$/.exec(
      text,
    );
  if (!found) return undefined;
  const [, start, end, prot, sharing, offset, name] = found as unknown as [
    string,
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  const area = name === '[heap]' ? 'heap' : name === '[stack]' ? 'stack' : 'other';
  return {
    start: Number.parseInt(start, 16),
    end: Number.parseInt(end, 16),
    prot: protectionOf(prot),
    isShared: sharing === 's',
    file: area === 'other' ? name : '',
    fileOffset: Number.parseInt(offset, 16),
    area,
  };
}
