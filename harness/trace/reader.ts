/**
 * Reads one rank of a recorded run in the compact form of `format.ts`, and checks every line.
 *
 * Everything wrong with a file is a Failure E_TRACE_INVALID that names file and line.
 */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { Failure } from '../../transport/index.ts';
import {
  columnCount,
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE,
  TRACE_FORMAT,
  type Trace,
  type TraceEvent,
} from './format.ts';

const shipped = fileURLToPath(new URL('../traces/', import.meta.url));
/** Addresses of user space end here (x86-64). */
const ADDRESS_LIMIT = 2 ** 47;

/** The file of `rank` of `run`: a run that ships, or a path prefix. Throws E_TRACE_INVALID. */
export function locateTrace(run: string, rank: number): string {
  for (const prefix of [`${shipped}${run}`, run]) {
    const file = `${prefix}.rank${rank}.gz`;
    if (existsSync(file)) return file;
  }
  throw new Failure(
    'E_TRACE_INVALID',
    `there is no recording of rank ${rank}`,
    `${run}.rank${rank}.gz`,
    'a run in harness/traces, or a path without .rankN.gz',
  );
}

/** Reads and checks one file. Throws Failure E_TRACE_INVALID. */
export function readTrace(file: string): Trace {
  let text: string;
  try {
    text = gunzipSync(readFileSync(file)).toString('latin1');
  } catch (error) {
    throw new Failure(
      'E_TRACE_INVALID',
      `the file cannot be decompressed: ${(error as Error).message}`,
      file,
      'a complete gzip file',
    );
  }
  return parseTrace(text, file);
}

/** The same from text that is already decompressed; `file` names it in errors. */
export function parseTrace(text: string, file: string): Trace {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  const [format, run, rank, ranks, brk] = (lines[0] ?? '').split('\t');
  if (format !== TRACE_FORMAT || brk === undefined) {
    throw bad(file, 1, 'this is not a recording of a format known here', TRACE_FORMAT);
  }
  const [end, count] = (lines.at(-1) as string).split('\t');
  if (end !== 'end')
    throw bad(file, lines.length, 'the recording stops early', 'a last line `end`');
  if (Number(count) !== lines.length - 1) {
    throw bad(
      file,
      lines.length,
      `lines are missing: ${count} were written`,
      `${lines.length - 1}`,
    );
  }
  const start: TraceEvent[] = [];
  const events: TraceEvent[] = [];
  let sends = 0;
  for (let i = 1; i < lines.length - 1; i++) {
    const event = new Line(file, i + 1, lines[i] as string).event(sends);
    if (event.kind === 'tx' || event.kind === 'ptx') sends++;
    (event.kind === 'map' || event.kind === 'res' ? start : events).push(event);
  }
  const first = new Line(file, 1, `0\tbrk\t${brk}`);
  return {
    file,
    run: run as string,
    rank: Number(rank),
    ranks: Number(ranks),
    brk: first.address(0),
    start,
    events,
  };
}

/**
 * Checks that the messages between two ranks agree: every receive from the other names a send of
 * the other to it, of no more bytes than the receive holds. Throws E_TRACE_INVALID.
 */
export function checkPair(receiver: Trace, sender: Trace): void {
  const sends = new Map<number, number>();
  for (const event of sender.events) {
    if ((event.kind === 'tx' || event.kind === 'ptx') && event.peer === receiver.rank) {
      sends.set(event.message, event.bytes);
    }
  }
  for (const event of receiver.events) {
    if ((event.kind !== 'rx' && event.kind !== 'prx') || event.peer !== sender.rank) continue;
    if (event.message === 0) continue;
    const bytes = sends.get(event.message);
    if (bytes === undefined) {
      throw bad(
        receiver.file,
        event.line,
        `message ${event.message} of rank ${sender.rank} is not a send to rank ${receiver.rank}`,
        `a match in ${sender.file}`,
      );
    }
    if (bytes > event.bytes) {
      throw bad(receiver.file, event.line, `${bytes} bytes are received`, `at most ${event.bytes}`);
    }
    sends.delete(event.message);
  }
  for (const [message] of sends) {
    throw bad(
      sender.file,
      0,
      `message ${message} is never received`,
      `a match in ${receiver.file}`,
    );
  }
}

function bad(file: string, line: number, message: string, expected: string): Failure {
  return new Failure('E_TRACE_INVALID', message, line > 0 ? `${file}:${line}` : file, expected);
}

/** One line taken apart. */
class Line {
  private readonly columns: string[];

  constructor(
    private readonly file: string,
    private readonly number: number,
    private readonly text: string,
  ) {
    this.columns = text.split('\t');
  }

  /** `sendsBefore` is the number of tx and ptx lines before this one. */
  event(sendsBefore: number): TraceEvent {
    const kind = this.columns[1] as TraceEvent['kind'];
    const count = Object.hasOwn(columnCount, kind ?? '') ? columnCount[kind] : undefined;
    if (count === undefined)
      throw this.bad(`'${kind}' is not a kind of event`, 'see trace/format.ts');
    if (this.columns.length !== count + 2) {
      throw this.bad(`${this.columns.length - 2} columns follow '${kind}'`, `${count} columns`);
    }
    const head = { line: this.number, gapNs: this.integer(-2) };
    switch (kind) {
      case 'map':
      case 'mmap':
      case 'mprotect':
        return { ...head, kind, ...this.range(), prot: this.protection(2) };
      case 'munmap':
        return { ...head, kind, ...this.range() };
      case 'madvise':
        return { ...head, kind, ...this.range(), advice: this.column(2) };
      case 'mremap':
        return {
          ...head,
          kind,
          ...this.range(),
          newAddress: this.address(2),
          newLength: this.integer(3),
        };
      case 'brk':
        return { ...head, kind, end: this.address(0) };
      case 'res':
      case 'pf':
        return { ...head, kind, address: this.address(0), pageCount: this.integer(1) };
      case 'tx':
      case 'ptx':
      case 'rx':
      case 'prx':
        return { ...head, kind, ...this.message(kind.endsWith('tx'), sendsBefore) };
      case 'done':
      case 'call':
      case 'ret':
        return { ...head, kind, id: this.integer(0) };
    }
  }

  address(index: number): number {
    const text = this.column(index);
    const value = /^[0-9a-f]{1,12}$/.test(text) ? Number.parseInt(text, 16) : Number.NaN;
    if (!(value < ADDRESS_LIMIT))
      throw this.bad(`'${text}' is not an address`, 'hexadecimal below 2^47');
    return value;
  }

  private message(sends: boolean, sendsBefore: number) {
    const peer = this.column(3) === '-1' ? -1 : this.integer(3);
    const match = sends || this.column(4) === '-' ? 0 : this.integer(4);
    return {
      ...this.range(),
      bytes: this.integer(2),
      peer,
      message: sends ? sendsBefore + 1 : match,
      id: this.integer(sends ? 4 : 5),
    };
  }

  private range(): { address: number; length: number } {
    return { address: this.address(0), length: this.integer(1) };
  }

  private protection(index: number): number {
    const text = this.column(index);
    if (!/^[r-][w-][x-]$/.test(text))
      throw this.bad(`'${text}' is not a protection`, 'such as rw-');
    const bit = (at: number, value: number): number => (text[at] === '-' ? 0 : value);
    return bit(0, PROT_READ) + bit(1, PROT_WRITE) + bit(2, PROT_EXEC);
  }

  /** A decimal column; -2 is the gap in front of the kind. */
  private integer(index: number): number {
    const text = this.column(index);
    const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value))
      throw this.bad(`'${text}' is not a number`, 'a decimal integer');
    return value;
  }

  private column(index: number): string {
    return this.columns[index + 2] as string;
  }

  private bad(message: string, expected: string): Failure {
    return bad(this.file, this.number, `${message} in '${this.text.slice(0, 60)}'`, expected);
  }
}
