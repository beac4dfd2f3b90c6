/**
 * Lines of tab-separated columns, read where they stand: a recording has a million numbers, and no
 * string is made of any of them.
 *
 * Owns the place in the file, and says it in every error (Failure E_TRACE_INVALID).
 */
import { Failure } from '../../transport/index.ts';

const TAB = 9;
const NEWLINE = 10;
const MINUS = 45;
const DIGIT_0 = 48;
const LETTER_A = 97;

/** Addresses of user space end here (x86-64). */
const ADDRESS_LIMIT = 2 ** 47;

export class Columns {
  /** Number of the current line, from 1. */
  line = 0;
  private at = 0;
  private lineEnd = -1;

  constructor(
    readonly file: string,
    private readonly bytes: Buffer,
  ) {
    if (bytes.length > 0 && bytes[bytes.length - 1] !== NEWLINE) {
      this.line = 1 + bytes.reduce((count, byte) => count + (byte === NEWLINE ? 1 : 0), 0);
      throw this.bad('the last line is cut short', 'a complete file');
    }
  }

  /** Goes to the next line; false when there is none. */
  next(): boolean {
    this.at = this.lineEnd + 1;
    if (this.at >= this.bytes.length) return false;
    this.lineEnd = this.bytes.indexOf(NEWLINE, this.at);
    this.line++;
    return true;
  }

  /** Whether the line has a column that was not read. */
  get hasMore(): boolean {
    return this.at <= this.lineEnd;
  }

  /** Asserts that every column was read. */
  end(): void {
    if (this.hasMore)
      throw this.bad(`'${this.text()}' is a column too many`, 'the end of the line');
  }

  /** The rest of the line. */
  rest(): string {
    const text = this.bytes.toString('latin1', this.at, this.lineEnd);
    this.at = this.lineEnd + 1;
    return text;
  }

  text(): string {
    const start = this.start();
    const end = this.columnEnd();
    this.at = end + 1;
    return this.bytes.toString('latin1', start, end);
  }

  skip(): void {
    this.start();
    this.at = this.columnEnd() + 1;
  }

  /** Whether the next column is `-`, which is read if so. */
  dash(): boolean {
    const start = this.start();
    if (this.bytes[start] !== MINUS || start + 1 !== this.columnEnd()) return false;
    this.at = start + 2;
    return true;
  }

  /** A decimal integer from 0 to 2^53 - 1. */
  integer(): number {
    const { bytes } = this;
    const start = this.start();
    let at = start;
    let value = 0;
    for (; ; at++) {
      const digit = bytes[at] - DIGIT_0;
      if (!(digit >= 0 && digit <= 9)) break;
      value = value * 10 + digit;
    }
    if (at === start || !this.isColumnEnd(at) || value > Number.MAX_SAFE_INTEGER) {
      throw this.bad(`'${this.text()}' is not a number`, 'a decimal integer from 0');
    }
    this.at = at + 1;
    return value;
  }

  /** The same with a sign. */
  signed(): number {
    if (this.bytes[this.start()] !== MINUS) return this.integer();
    this.at++;
    return -this.integer();
  }

  /** A hexadecimal address below 2^47. */
  address(): number {
    const { bytes } = this;
    const start = this.start();
    let at = start;
    let value = 0;
    for (; ; at++) {
      const byte = bytes[at];
      const digit = byte < LETTER_A ? byte - DIGIT_0 : byte - LETTER_A + 10;
      if (!(digit >= 0 && digit <= 15) || (byte < LETTER_A && digit > 9)) break;
      value = value * 16 + digit;
    }
    if (at === start || !this.isColumnEnd(at) || value >= ADDRESS_LIMIT) {
      throw this.bad(`'${this.text()}' is not an address`, 'hexadecimal below 2^47');
    }
    this.at = at + 1;
    return value;
  }

  /** What is wrong with the current line. */
  bad(message: string, expected: string): Failure {
    return new Failure('E_TRACE_INVALID', message, `${this.file}:${this.line}`, expected);
  }

  private start(): number {
    if (!this.hasMore) throw this.bad('columns are missing', 'as many as the kind of line has');
    return this.at;
  }

  private columnEnd(): number {
    const tab = this.bytes.indexOf(TAB, this.at);
    return tab >= 0 && tab < this.lineEnd ? tab : this.lineEnd;
  }

  private isColumnEnd(at: number): boolean {
    const byte = this.bytes[at];
    return byte === TAB || byte === NEWLINE;
  }
}
