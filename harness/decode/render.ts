/**
 * A decoded frame as a line for people, and as an object for programs.
 */
import {
  BTH_ACK_REQUEST,
  BTH_BECN,
  BTH_FECN,
  BTH_NOT_MIGRATED,
  BTH_RESERVED6_SHIFT,
  BTH_RESERVED7_SHIFT,
  BTH_SOLICITED,
  BTH_TVER_SHIFT,
  HDR_AETH,
  HDR_ATOMICACKETH,
  HDR_ATOMICETH,
  HDR_DETH,
  HDR_FETH,
  HDR_IETH,
  HDR_IMMDT,
  HDR_RETH,
  PKEY_DEFAULT,
  RC_COMPARE_SWAP,
  W_BTH_FLAGS,
  W_COMPARE_HIGH,
  W_COMPARE_LOW,
  W_ORIGINAL_HIGH,
  W_ORIGINAL_LOW,
  W_PKEY,
  W_QKEY,
  W_SWAP_HIGH,
  W_SWAP_LOW,
} from '../../transport/index.ts';
import type { Packet } from '../capture/packet.ts';
import type { Reading, Sighting } from './frame-reader.ts';
import { opTitle, syndromeText } from './names.ts';

/** A frame and what was made of it. */
export interface Decoded {
  readonly number: number;
  /** Since the first frame of the capture. */
  readonly timeNs: number;
  readonly bytes: number;
  readonly reading: Reading;
  /** What the packet means to its receiver; '' for what is none. */
  readonly meaning: string;
}

type Field = readonly [name: string, value: string | number];

const placements = ['', 'global', 'persistent', 'global+persistent'];
const selectivities = ['range', 'region'];

/** The fields of the extension headers of a packet, in the order in which they stand there. */
export function fieldsOf(packet: Packet): Field[] {
  const { words } = packet;
  const fields: Field[] = [];
  if (packet.has(HDR_DETH)) {
    fields.push(['qkey', hex(words[W_QKEY])], ['source_qp', qpText(packet.sourceQpn)]);
  }
  if (packet.has(HDR_FETH)) {
    const feth = packet.immediate;
    const placement = placements[feth & 0xf] ?? `placement ${feth & 0xf}`;
    fields.push(['placement', placement]);
    fields.push(['selectivity', selectivities[(feth >>> 4) & 3] ?? `${(feth >>> 4) & 3}`]);
  }
  if (packet.has(HDR_RETH) || packet.has(HDR_ATOMICETH)) {
    fields.push(['va', addressText(packet)], ['rkey', hex(packet.rkey)]);
  }
  if (packet.has(HDR_RETH)) fields.push(['length', packet.dmaBytes]);
  if (packet.has(HDR_ATOMICETH)) {
    const operand = hex64(words[W_SWAP_HIGH], words[W_SWAP_LOW]);
    if (packet.opcode === RC_COMPARE_SWAP) {
      fields.push(['compare', hex64(words[W_COMPARE_HIGH], words[W_COMPARE_LOW])]);
      fields.push(['swap', operand]);
    } else fields.push(['add', operand]);
  }
  if (packet.has(HDR_AETH))
    fields.push(['aeth', syndromeText(packet.syndrome)], ['msn', packet.msn]);
  if (packet.has(HDR_ATOMICACKETH)) {
    fields.push(['original', hex64(words[W_ORIGINAL_HIGH], words[W_ORIGINAL_LOW])]);
  }
  if (packet.has(HDR_IMMDT)) fields.push(['imm', hex(packet.immediate)]);
  if (packet.has(HDR_IETH)) fields.push(['invalidate', hex(packet.immediate)]);
  return fields;
}

/** Bits of the BTH that are set, and what of it is not as usual. */
function bthMarks(packet: Packet): string[] {
  const flags = packet.words[W_BTH_FLAGS];
  const marks: string[] = [];
  if (flags & BTH_SOLICITED) marks.push('SE');
  if (flags & BTH_ACK_REQUEST) marks.push('AckReq');
  if (flags & BTH_FECN) marks.push('FECN');
  if (flags & BTH_BECN) marks.push('BECN');
  if (packet.words[W_PKEY] !== PKEY_DEFAULT) marks.push(`P_Key ${hex(packet.words[W_PKEY])}`);
  const version = (flags >>> BTH_TVER_SHIFT) & 0xf;
  if (version !== 0) marks.push(`TVer ${version}`);
  const reserved =
    ((flags >>> BTH_RESERVED6_SHIFT) & 0x3f) | ((flags >>> BTH_RESERVED7_SHIFT) & 0x7f);
  if (reserved !== 0) marks.push('reserved BTH bits set');
  return marks;
}

/** One line, without its end. */
export function renderLine({ number, timeNs, reading, meaning }: Decoded): string {
  const place = `${String(number).padStart(5)} ${timeText(timeNs)}`;
  const way = reading.source === '' ? '' : `${reading.source} > ${reading.dest}  `;
  if (reading.kind !== 'packet') {
    const prefix = reading.kind === 'malformed' ? 'MALFORMED: ' : '';
    return `${place}  ${way}${prefix}${reading.text}`;
  }
  const { packet, icrc, oddities } = reading;
  const fields = fieldsOf(packet).map(([name, value]) =>
    name === 'aeth' ? String(value) : `${name.replace('_', ' ')} ${value}`,
  );
  const details = [
    `QP ${qpText(packet.destQpn)}`,
    `PSN ${packet.psn}`,
    ...bthMarks(packet),
    ...fields,
    `${packet.payload.length} bytes`,
    `ICRC ${icrcText(icrc)}`,
    ...oddities,
  ].join(', ');
  return `${place}  ${way}${opTitle(packet.opcode)}, ${details} | ${meaning}`;
}

/** The same for programs. */
export function renderObject(decoded: Decoded): Record<string, unknown> {
  const { number, timeNs, bytes, reading, meaning } = decoded;
  const common = { frame: number, time_ns: timeNs, bytes, kind: reading.kind };
  const { source, dest } = reading;
  if (reading.kind !== 'packet') return { ...common, source, dest, text: reading.text };
  const { packet, network, icrc, oddities } = reading;
  const flags = packet.words[W_BTH_FLAGS];
  return {
    ...common,
    network,
    source,
    dest,
    opcode: packet.opcode,
    name: opTitle(packet.opcode),
    qpn: packet.destQpn,
    psn: packet.psn,
    pkey: packet.words[W_PKEY],
    solicited: (flags & BTH_SOLICITED) !== 0,
    ack_request: (flags & BTH_ACK_REQUEST) !== 0,
    migrated: (flags & BTH_NOT_MIGRATED) === 0,
    fecn: (flags & BTH_FECN) !== 0,
    becn: (flags & BTH_BECN) !== 0,
    fields: Object.fromEntries(fieldsOf(packet)),
    payload_bytes: packet.payload.length,
    icrc,
    oddities,
    meaning,
  };
}

/** Whether something is wrong with a frame that only a broken link or adapter would make. */
export function isBad(reading: Reading): boolean {
  return reading.kind === 'malformed' || (reading.kind === 'packet' && isWrong(reading));
}

function isWrong({ icrc }: Sighting): boolean {
  return icrc === 'wrong';
}

function icrcText(icrc: string): string {
  if (icrc === 'wrong') return 'WRONG';
  return icrc === 'ok' ? 'ok' : `ok by ${icrc}`;
}

/** Seconds with nine digits. */
function timeText(ns: number): string {
  const sign = ns < 0 ? '-' : '';
  const seconds = Math.floor(Math.abs(ns) / 1e9);
  const rest = String(Math.abs(ns) % 1e9).padStart(9, '0');
  return `${sign}${seconds}.${rest}`.padStart(13);
}

export function qpText(qpn: number): string {
  return `0x${qpn.toString(16).padStart(6, '0')}`;
}

function hex(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
}

function hex64(high: number, low: number): string {
  return `${hex(high)}${hex(low).slice(2)}`;
}

/** Addresses of 2^53 and more have their low half beside them (`transport/wire/packet.ts`). */
function addressText({ doubles: [address, low] }: Packet): string {
  const high = Math.floor(address / 2 ** 32);
  return hex64(high, high < 0x200000 ? address % 2 ** 32 : low);
}
