/**
 * Owns the rows of the table: which operations there are. Does not own how each is tried and judged
 * (two-sided.ts, one-sided.ts, atomics.ts, windows.ts), nor the conditions (cells.ts).
 */
import { atomicWrite, compareAndSwap, fetchAndAdd } from './atomics.ts';
import type { Bench, Outcome } from './bench.ts';
import type { Service } from './end.ts';
import { flush, read, write, writeImmediate } from './one-sided.ts';
import { send } from './two-sided.ts';
import { sendInvalidate, throughWindow } from './windows.ts';

/** One row of the table, for one direction. */
export interface Operation {
  readonly name: string;
  readonly service: Service;
  play(bench: Bench): Promise<Outcome>;
}

export const operations: readonly Operation[] = [
  { name: 'SEND', service: 'rc', play: (bench) => send(bench, 'send') },
  { name: 'SEND imm', service: 'rc', play: (bench) => send(bench, 'sendimm') },
  { name: 'SEND inv', service: 'rc', play: sendInvalidate },
  { name: 'WRITE', service: 'rc', play: write },
  { name: 'WRITE imm', service: 'rc', play: writeImmediate },
  { name: 'READ', service: 'rc', play: read },
  { name: 'CMP_SWAP', service: 'rc', play: compareAndSwap },
  { name: 'FETCH_ADD', service: 'rc', play: fetchAndAdd },
  { name: 'ATOMIC_WRITE', service: 'rc', play: atomicWrite },
  { name: 'FLUSH', service: 'rc', play: flush },
  { name: 'window', service: 'rc', play: throughWindow },
  { name: 'UC SEND', service: 'uc', play: (bench) => send(bench, 'send') },
  { name: 'UC SEND imm', service: 'uc', play: (bench) => send(bench, 'sendimm') },
  { name: 'UC WRITE', service: 'uc', play: write },
  { name: 'UC WRITE imm', service: 'uc', play: writeImmediate },
  { name: 'UD SEND', service: 'ud', play: (bench) => send(bench, 'send') },
  { name: 'UD SEND imm', service: 'ud', play: (bench) => send(bench, 'sendimm') },
];
