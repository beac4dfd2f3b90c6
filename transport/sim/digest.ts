/**
 * What two runs must agree on: everything that can be observed at a node.
 *
 * Each observable thing (a frame sent or received, a completion, a fault, a change of a device
 * table) is a record of integers; the digest is the sum, in two 32-bit lanes, of a hash of each
 * record. A sum does not depend on order, so handling a packet train in one step cannot change it,
 * while any record that is missing, added or different must.
 *
 * A RecordLog, where attached, keeps the records themselves so that two runs can be compared and
 * their first difference shown.
 */

/** What a record is about. The names appear in record logs. */
export const RECORD_FRAME_SENT = 1;
export const RECORD_FRAME_RECEIVED = 2;
export const RECORD_COMPLETION = 3;
export const RECORD_FAULT = 4;
export const RECORD_TABLE = 5;
export const RECORD_MESSAGE = 6;
export const RECORD_ADDRESS_SPACE = 7;
const recordName = [
  '',
  'frame sent',
  'frame received',
  'completion',
  'fault',
  'table',
  'message',
  'address space',
];

/** One record as a log keeps it. */
export interface LoggedRecord {
  readonly node: string;
  readonly timePs: number;
  readonly kind: string;
  readonly fields: readonly number[];
}

export class Digest {
  private low = 0;
  private high = 0;
  private count = 0;
  // Lanes of the record being hashed.
  private a = 0;
  private b = 0;
  private fields: number[] = [];
  private at = 0;
  private kind = 0;
  /** Off in benchmarks that measure the model alone; a run that compares keeps it on. */
  enabled = true;
  private log: LoggedRecord[] | undefined;

  constructor(private readonly node: string) {}

  /** Keeps every record from now on in `log`. */
  attach(log: LoggedRecord[]): void {
    this.log = log;
  }

  /** Starts a record of what happened at `timePs`. Call only while `enabled`. */
  begin(kind: number, timePs: number): void {
    this.a = kind | 0;
    this.b = 0x9e3779b9 | 0;
    this.count++;
    if (this.log) {
      this.fields = [];
      this.at = timePs;
      this.kind = kind;
    }
    this.mix(timePs | 0);
    this.mix((timePs / 4294967296) | 0);
  }

  /** Adds one 32-bit field to the record. */
  add(word: number): void {
    if (this.log) this.fields.push(word >>> 0);
    this.mix(word | 0);
  }

  /** Adds an integer below 2^53. */
  addLong(value: number): void {
    this.add(value | 0);
    this.add((value / 4294967296) | 0);
  }

  /** Ends the record and adds its hash to the sum. */
  end(): void {
    let a = this.a;
    a = Math.imul(a ^ (a >>> 16), 0x85ebca6b);
    a = Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
    let b = this.b;
    b = Math.imul(b ^ (b >>> 15), 0x2c1b3c6d);
    b = Math.imul(b ^ (b >>> 12), 0x297a2d39);
    this.low = (this.low + (a ^ (a >>> 16))) | 0;
    this.high = (this.high + (b ^ (b >>> 15) ^ a)) | 0;
    this.log?.push({
      node: this.node,
      timePs: this.at,
      kind: recordName[this.kind],
      fields: this.fields,
    });
  }

  /** Records of up to four fields in one call. */
  record(kind: number, timePs: number, w0: number, w1 = 0, w2 = 0, w3 = 0): void {
    if (!this.enabled) return;
    this.begin(kind, timePs);
    this.add(w0);
    this.add(w1);
    this.add(w2);
    this.add(w3);
    this.end();
  }

  /** The sum so far, with the number of records: 16 hexadecimal digits, a dash, a decimal count. */
  toString(): string {
    const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
    return `${hex(this.high)}${hex(this.low)}-${this.count}`;
  }

  private mix(word: number): void {
    this.a = Math.imul(this.a ^ word, 0x9e3779b1);
    this.a ^= this.a >>> 15;
    this.b = (Math.imul(this.b, 0x85ebca77) + word) | 0;
    this.b = (this.b << 13) | (this.b >>> 19);
  }
}

/** One digest for a whole run from the digests of its nodes, whatever order they come in. */
export function combineDigests(parts: ReadonlyMap<string, string>): string {
  const digest = new Digest('run');
  for (const name of [...parts.keys()].sort()) {
    const text = `${name}=${parts.get(name)}`;
    digest.begin(0, 0);
    for (let i = 0; i < text.length; i++) digest.add(text.charCodeAt(i));
    digest.end();
  }
  return digest.toString().slice(0, 16);
}

/** Sorts a log by what it says, since the order within a node is not part of the contract. */
function sorted(log: readonly LoggedRecord[]): { text: string; record: LoggedRecord }[] {
  return log
    .map((record) => ({
      record,
      text: `${String(record.timePs).padStart(16, '0')} ${record.node} ${record.kind} ${record.fields.join(' ')}`,
    }))
    .sort((x, y) => (x.text < y.text ? -1 : x.text > y.text ? 1 : 0));
}

/**
 * The first record, in time, that one log has and the other has not; undefined when the logs say
 * the same.
 */
export function firstDifference(
  left: readonly LoggedRecord[],
  right: readonly LoggedRecord[],
): { left: LoggedRecord | undefined; right: LoggedRecord | undefined } | undefined {
  const a = sorted(left);
  const b = sorted(right);
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    if (a[i]?.text !== b[i]?.text) return { left: a[i]?.record, right: b[i]?.record };
  }
  return undefined;
}
