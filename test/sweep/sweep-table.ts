/** Adds up a sweep for people: a row for each operation, a column for each kind of wire. */
import { QPT_RC } from '../../transport/index.ts';
import { type Cell, faultKinds, operations, type Plan } from './sweep-cells.ts';
import type { Verdict } from './sweep-oracle.ts';
import type { Outcome } from './sweep-run.ts';

interface Sum {
  sent: number;
  arrived: number;
  retransmitted: number;
}

const COUNTERS = [
  ['port_xmit_packets', 'packets sent'],
  ['wire_drops', 'lost'],
  ['wire_duplicates', 'delivered twice'],
  ['wire_delays', 'delivered late'],
  ['wire_corruptions', 'damaged'],
  ['retransmitted_packets', 'sent again'],
  ['duplicate_request', 'duplicate requests'],
  ['packet_seq_err', 'sequence NAKs'],
  ['implied_nak_seq_err', 'implied NAKs'],
  ['rnr_nak_retry_err', 'RNR NAKs'],
  ['local_ack_timeout_err', 'time-outs'],
  ['odp_local_triggered_page_fault', 'faults of requesters'],
  ['odp_remote_triggered_page_fault', 'faults of responders'],
] as const;

/** The name of a cell, which repeats it: CELL. */
export function nameOf({ operation, faultName, mtu, isOnDemand, seed }: Cell): string {
  const memory = isOnDemand ? 'on demand' : 'pinned';
  return `${operation}, ${faultName}, MTU ${mtu}, ${memory}, seed ${seed}`;
}

export class SweepTable {
  cells = 0;
  gaveUp = 0;
  /** Names of the cells in which retries were used up. */
  private readonly unlucky: string[] = [];
  private bytes = 0;
  private readonly sums = new Map<string, Sum>();
  private readonly totals = new Map<string, number>();

  add(plan: Plan, { sides }: Outcome, verdict: Verdict): void {
    this.cells++;
    this.gaveUp += verdict.gaveUp;
    if (verdict.gaveUp > 0) this.unlucky.push(nameOf(plan));
    this.bytes += verdict.bytes;
    const key = `${plan.operation}/${plan.faultName}`;
    const sum = this.sums.get(key) ?? { sent: 0, arrived: 0, retransmitted: 0 };
    sum.sent += verdict.sent;
    sum.arrived += verdict.arrived;
    for (const { report } of sides) {
      sum.retransmitted += report.counters.retransmitted_packets ?? 0;
      for (const [name] of COUNTERS) {
        this.totals.set(name, (this.totals.get(name) ?? 0) + (report.counters[name] ?? 0));
      }
    }
    this.sums.set(key, sum);
    this.types.set(plan.operation, plan.type);
  }

  private readonly types = new Map<string, number>();

  /** The table, what it means, and the totals. */
  text(firstSeed: number): string {
    const faults = Object.keys(faultKinds);
    const rows = operations
      .filter((operation) => this.types.has(operation))
      .map((operation) => [
        operation,
        ...faults.map((fault) => {
          const sum = this.sums.get(`${operation}/${fault}`);
          if (sum === undefined) return '';
          const isReliable = this.types.get(operation) === QPT_RC;
          return isReliable ? `${sum.arrived} +${sum.retransmitted}` : `${sum.arrived}/${sum.sent}`;
        }),
      ]);
    const head = ['', ...faults.map((_, i) => `[${i + 1}]`)];
    const widths = head.map((_, i) =>
      Math.max(...[head, ...rows].map((row) => row[i]?.length ?? 0)),
    );
    const line = (row: readonly string[]): string =>
      row
        .map((text, i) => (i === 0 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0)))
        .join('  ');
    const totals = COUNTERS.map(([name, label]) => `${this.totals.get(name) ?? 0} ${label}`);
    return [
      '',
      `Sweep from seed ${firstSeed}: ${this.cells} cells, ${this.bytes} bytes delivered, ${this.gaveUp} queue pairs used up their retries.`,
      `Packets: ${totals.join(', ')}.`,
      'Reliable: messages delivered exactly once + packets sent again. Unreliable: arrived / sent.',
      line(head),
      ...rows.map(line),
      ...faults.map((fault, i) => `[${i + 1}] ${fault}`),
      ...this.unlucky.map((name) => `Retries used up: ${name}`),
      '',
    ].join('\n');
  }
}
