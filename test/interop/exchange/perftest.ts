/**
 * Owns the TCP exchange of perftest's ib_*_bw (25.01, which calls itself 6.24): the messages as bytes,
 * and the order in which the two ends say them. Every step is a swap in which the client speaks first.
 * Does not own the queue pairs (tools.ts).
 */
import { ExchangeError, type Line } from './line.ts';

/** An end of a connection, as the exchange has it. */
export interface PerftestAddress {
  readonly lid: number;
  /** READs and atomics it would have outstanding. */
  readonly outstandingReads: number;
  readonly qpn: number;
  readonly psn: number;
  readonly rkey: number;
  readonly address: bigint;
  readonly gid: Buffer;
  readonly srqn: number;
}

/** What a client measured; a server of a one-way test has nothing to report. */
export interface PerftestReport {
  readonly messageBytes: bigint;
  readonly iterations: bigint;
  readonly bandwidthPeak: number;
  readonly bandwidthAverage: number;
  readonly messageRate: number;
}

export const noReport: PerftestReport = {
  messageBytes: 0n,
  iterations: 0n,
  bandwidthPeak: 0,
  bandwidthAverage: 0,
  messageRate: 0,
};

export const PERFTEST_VERSION = '6.24';
/** The span in which the tools move small messages through a buffer, and the step (a cache line). */
const CYCLE_BYTES = 4096;
const CACHE_LINE_BYTES = 64;

const VERSION_BYTES = 16;
export const ADDRESS_BYTES = 108;
const REPORT_WORD_BYTES = 8;
const GID_FORM = '([0-9a-f]{2}(?::[0-9a-f]{2}){15})';
const FORM = new RegExp(
  `^([0-9a-f]{4}):([0-9a-f]{4}):([0-9a-f]{6}):([0-9a-f]{6}):([0-9a-f]{8}):([0-9a-f]{16}):${GID_FORM}:([0-9a-f]{8}):$`,
);

export function encodeAddress(end: PerftestAddress): Buffer {
  const gid = [...end.gid].map((byte) => hex(byte, 2)).join(':');
  const numbers = [
    hex(end.lid, 4),
    hex(end.outstandingReads, 4),
    hex(end.qpn, 6),
    hex(end.psn, 6),
    hex(end.rkey, 8),
    hex(end.address, 16),
  ];
  return Buffer.from(`${numbers.join(':')}:${gid}:${hex(end.srqn, 8)}:\0`);
}

export function decodeAddress(bytes: Buffer): PerftestAddress {
  const match = FORM.exec(bytes.toString('latin1', 0, ADDRESS_BYTES - 1));
  if (match === null)
    throw new ExchangeError(`not a perftest address: ${JSON.stringify(String(bytes))}`);
  const field = (i: number) => match[i] as string;
  return {
    lid: Number.parseInt(field(1), 16),
    outstandingReads: Number.parseInt(field(2), 16),
    qpn: Number.parseInt(field(3), 16),
    psn: Number.parseInt(field(4), 16),
    rkey: Number.parseInt(field(5), 16),
    address: BigInt(`0x${field(6)}`),
    gid: Buffer.from(field(7).replaceAll(':', ''), 'hex'),
    srqn: Number.parseInt(field(8), 16),
  };
}

/** The five words of a report, each swapped by itself. */
export function encodeReport(report: PerftestReport): Buffer[] {
  const words = Array.from({ length: 5 }, () => Buffer.alloc(REPORT_WORD_BYTES));
  const [size, iterations, peak, average, rate] = words as [Buffer, Buffer, Buffer, Buffer, Buffer];
  size.writeBigUInt64BE(report.messageBytes);
  iterations.writeBigUInt64BE(report.iterations);
  peak.writeDoubleBE(report.bandwidthPeak);
  average.writeDoubleBE(report.bandwidthAverage);
  rate.writeDoubleBE(report.messageRate);
  return words;
}

export function decodeReport(words: readonly Buffer[]): PerftestReport {
  const [size, iterations, peak, average, rate] = words as [Buffer, Buffer, Buffer, Buffer, Buffer];
  return {
    messageBytes: size.readBigUInt64BE(),
    iterations: iterations.readBigUInt64BE(),
    bandwidthPeak: peak.readDoubleBE(),
    bandwidthAverage: average.readDoubleBE(),
    messageRate: rate.readDoubleBE(),
  };
}

/** One end of the exchange of one test. */
export class PerftestExchange {
  constructor(
    private readonly line: Line,
    private readonly role: 'client' | 'server',
  ) {}

  /**
   * Versions, the buffer's cycle, and the path MTU, of which both ends take the smaller: returns the
   * number of bytes agreed on.
   */
  async open(mtuBytes: number): Promise<number> {
    const version = Buffer.alloc(VERSION_BYTES);
    version.write(PERFTEST_VERSION);
    const theirs = text(await this.swap(version));
    // From 5.70 on the exchange is this one; earlier ones leave steps out.
    if (!(Number.parseFloat(theirs) >= 5.7)) throw new ExchangeError(`perftest version ${theirs}`);
    await this.swapWord(CYCLE_BYTES);
    await this.swapWord(CACHE_LINE_BYTES);
    const mtu = Buffer.from(`${mtuCode(mtuBytes)}\0`);
    const theirMtu = Number(text(await this.swap(mtu)));
    if (!(theirMtu >= 1 && theirMtu <= 5)) throw new ExchangeError(`path MTU ${theirMtu}`);
    return Math.min(mtuBytes, 128 << theirMtu);
  }

  /** Both ends' addresses; the same swap, repeated, is how the tools wait for each other. */
  async swapAddress(mine: PerftestAddress): Promise<PerftestAddress> {
    return decodeAddress(await this.swap(encodeAddress(mine)));
  }

  async swapReport(mine: PerftestReport): Promise<PerftestReport> {
    const theirs: Buffer[] = [];
    for (const word of encodeReport(mine)) theirs.push(await this.swap(word));
    return decodeReport(theirs);
  }

  private async swapWord(value: number): Promise<void> {
    const word = Buffer.alloc(4);
    word.writeUInt32BE(value);
    await this.swap(word);
  }

  /** Both ends' messages have the same length. */
  private async swap(mine: Buffer): Promise<Buffer> {
    if (this.role === 'client') this.line.write(mine);
    const theirs = await this.line.read(mine.length);
    if (this.role === 'server') this.line.write(mine);
    return theirs;
  }
}

/** What of a test the exchange has to know. */
export interface PerftestSession {
  readonly mtuBytes: number;
  readonly address: PerftestAddress;
  /** SEND and WRITE with immediate: the server posts receives, and no report is swapped. */
  readonly isTwoSided: boolean;
  /** What this end says about its traffic. */
  readonly report: PerftestReport;
  /** Connects the queue pair and posts what receives it needs. */
  connect(theirs: PerftestAddress, mtuBytes: number): Promise<void>;
  /** Does this end's part of the traffic. */
  run(theirs: PerftestAddress): Promise<void>;
}

/** A whole test on `line`; returns what the other end reports, if it reports. */
export async function runPerftest(
  line: Line,
  role: 'client' | 'server',
  session: PerftestSession,
): Promise<PerftestReport | undefined> {
  const exchange = new PerftestExchange(line, role);
  const mtuBytes = await exchange.open(session.mtuBytes);
  const theirs = await exchange.swapAddress(session.address);
  await session.connect(theirs, mtuBytes);
  // Connected; printed; and, where there are receives, receives posted.
  const waits = session.isTwoSided ? 3 : 2;
  for (let i = 0; i < waits; i++) await exchange.swapAddress(session.address);
  await session.run(theirs);
  await exchange.swapAddress(session.address);
  if (session.isTwoSided) return undefined;
  const report = await exchange.swapReport(session.report);
  await exchange.swapAddress(session.address);
  return report;
}

/** The verbs' number of a path MTU: 1 for 256 to 5 for 4096. */
export function mtuCode(mtuBytes: number): number {
  return Math.round(Math.log2(mtuBytes)) - 7;
}

/** A string that ends at its first zero byte. */
function text(bytes: Buffer): string {
  return bytes.toString('latin1').replace(/\0.*$/s, '');
}

function hex(value: number | bigint, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
