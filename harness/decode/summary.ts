/**
 * What a whole capture comes to: packets of each kind, and what became of each flow.
 */
import Table from 'cli-table3';
import { formatCount } from '../stats/format.ts';
import type { Flow, Flows } from './flow.ts';
import type { Reading } from './frame-reader.ts';
import { opTitle } from './names.ts';
import { qpText } from './render.ts';

export class Summary {
  private frames = 0;
  private others = 0;
  private malformed = 0;
  private wrongIcrcs = 0;
  private readonly rules = new Map<string, number>();
  private readonly opcodes = new Map<number, { packets: number; bytes: number }>();

  note(reading: Reading): void {
    this.frames++;
    if (reading.kind !== 'packet') {
      if (reading.kind === 'other') this.others++;
      else this.malformed++;
      return;
    }
    const { packet, icrc } = reading;
    if (icrc === 'wrong') this.wrongIcrcs++;
    else if (icrc !== 'ok') this.rules.set(icrc, (this.rules.get(icrc) ?? 0) + 1);
    const row = this.opcodes.get(packet.opcode) ?? { packets: 0, bytes: 0 };
    row.packets++;
    row.bytes += packet.payload.length;
    this.opcodes.set(packet.opcode, row);
  }

  toObject(flows: Flows): Record<string, unknown> {
    return {
      frames: this.frames,
      other_frames: this.others,
      malformed: this.malformed,
      wrong_icrcs: this.wrongIcrcs,
      icrc_rules: Object.fromEntries(this.rules),
      opcodes: this.ranked().map(([opcode, row]) => ({
        opcode,
        name: opTitle(opcode),
        packets: row.packets,
        payload_bytes: row.bytes,
      })),
      flows: flows.all.filter(hasPackets).map((flow) => ({
        source: flow.source,
        source_qpn: flow.peer?.qpn ?? null,
        dest: flow.dest,
        dest_qpn: flow.qpn,
        packets: flow.counts.packets,
        payload_bytes: flow.counts.payloadBytes,
        first_psn: flow.firstPsn < 0 ? null : flow.firstPsn,
        next_psn: flow.endPsn < 0 ? null : flow.endPsn,
        retransmitted: flow.counts.retransmitted,
        duplicates: flow.counts.duplicates,
        gaps: flow.counts.gaps,
        naks: flow.counts.naks,
        rnr_naks: flow.counts.rnrNaks,
        wrong_icrcs: flow.counts.wrongIcrcs,
      })),
    };
  }

  /** Tables for people, with a line end. */
  toText(flows: Flows): string {
    const rules = [...this.rules].map(([name, count]) => `, ${count} right by ${name}`).join('');
    const packets = this.frames - this.others - this.malformed;
    const head =
      `${formatCount(this.frames)} frames: ${formatCount(packets)} packets, ` +
      `${formatCount(this.wrongIcrcs)} with a wrong ICRC${rules}, ` +
      `${formatCount(this.malformed)} malformed, ${formatCount(this.others)} other frames`;
    if (packets === 0) return `\n${head}\n`;
    return `\n${head}\n${this.opcodeTable()}\n${flowTable(flows.all.filter(hasPackets))}\n`;
  }

  private opcodeTable(): string {
    const table = newTable(['opcode', 'packets', 'payload bytes']);
    for (const [opcode, { packets, bytes }] of this.ranked()) {
      table.push([opTitle(opcode), formatCount(packets), formatCount(bytes)]);
    }
    return table.toString();
  }

  private ranked(): [number, { packets: number; bytes: number }][] {
    return [...this.opcodes].sort(([a], [b]) => a - b);
  }
}

function flowTable(flows: readonly Flow[]): string {
  const table = newTable([
    'from (QP)',
    'to (QP)',
    'packets',
    'request PSNs',
    'again',
    'duplicates',
    'gaps',
    'NAKs',
    'RNR NAKs',
    'wrong ICRCs',
  ]);
  for (const flow of flows) {
    const { counts, peer } = flow;
    const from = peer === undefined ? flow.source : `${flow.source} (${qpText(peer.qpn)})`;
    table.push([
      from,
      `${flow.dest} (${qpText(flow.qpn)})`,
      formatCount(counts.packets),
      flow.firstPsn < 0 ? '-' : `${flow.firstPsn} to ${(flow.endPsn - 1) & 0xffffff}`,
      counts.retransmitted,
      counts.duplicates,
      counts.gaps,
      counts.naks,
      counts.rnrNaks,
      counts.wrongIcrcs,
    ]);
  }
  return table.toString();
}

function hasPackets({ counts }: Flow): boolean {
  return counts.packets > 0;
}

function newTable(head: string[]) {
  return new Table({
    head,
    colAligns: head.map((_, i) => (i === 0 ? 'left' : 'right')),
    style: { head: [], border: [], compact: true },
  });
}
