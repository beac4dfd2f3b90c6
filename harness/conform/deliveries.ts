/**
 * What reached a queue pair: the captured packets, as the hub passed them on.
 *
 * A capture holds every frame as it was sent. The text lists, by number, frames that were dropped or
 * delivered otherwise; not what was delivered instead, nor when a frame was only held back. So there
 * may be more than one way to read the list. The plain reading comes first; others are tried only
 * where it does not explain what the receiver did, and are told as departures of their own.
 */
import {
  BTH_DAMAGED,
  HDR_AETH,
  HDR_ATOMICETH,
  HDR_RETH,
  headerOffset,
  OP_KNOWN,
  opFlags,
  opName,
  SERVICE_MASK,
  W_BTH_FLAGS,
} from '../../transport/index.ts';
import { type Capture, type CapturedPacket, readAltered } from './capture.ts';
import type { Arrival } from './flow.ts';
import type { CaptureText } from './rcpeer-text.ts';
import { type Rule, rules } from './rxe-profile.ts';

/** One way to read the list of interventions. */
export interface Reading {
  /** What became of an altered frame; undefined: it is taken as it was sent. */
  readonly alteration: Alteration | undefined;
  /** A frame that is listed as dropped and came late: its number, and that of the frame it came behind. */
  readonly late: { readonly frame: number; readonly behind: number } | undefined;
}

/** Changes a copy of a frame in place, whose BTH is at `bth`; false where it does not apply. */
interface Edit {
  readonly what: string;
  readonly apply: (bytes: Uint8Array, bth: number) => boolean;
}

type Alteration = Edit | 'damaged';

/** A late frame is looked for behind so many packets that went the same way, if there are few drops. */
const LATE_PACKETS = 12;
const LATE_FRAMES = 3;
const BTH_BYTES = 12;

/** The ways to read the list for what was delivered to one queue pair, the most likely first. */
export function readingsOf(
  text: CaptureText | undefined,
  capture: Capture,
  isForIt: (captured: CapturedPacket) => boolean,
): Reading[] {
  const listed = new Map(text?.interventions.map(({ frame, copies }) => [frame, copies]));
  const concerned = capture.packets.filter(
    (captured) => listed.has(captured.number) && isForIt(captured),
  );
  const altered = concerned.filter(({ number }) => listed.get(number) === 1);
  const plain: Reading = { alteration: undefined, late: undefined };
  const readings: Reading[] = [];
  if (altered.length > 0) {
    for (const alteration of [
      ...alterationsInWords(text?.description ?? ''),
      ...likelyAlterations(),
    ]) {
      readings.push({ alteration, late: undefined });
    }
  }
  readings.splice(altered.length > 0 ? readings.length : 0, 0, plain);
  const dropped = concerned.filter(({ number }) => listed.get(number) === 0);
  for (const { number, index } of dropped.length > LATE_FRAMES ? [] : dropped) {
    const following = capture.packets
      .slice(index + 1)
      .filter(isForIt)
      .slice(0, LATE_PACKETS);
    for (const behind of following) {
      readings.push({ alteration: undefined, late: { frame: number, behind: behind.number } });
    }
  }
  return readings;
}

/** What arrives when the list is read so, and which frames the reading departs at. */
export function deliver(
  packets: readonly CapturedPacket[],
  text: CaptureText | undefined,
  { alteration, late }: Reading,
): { arrivals: Arrival[]; departures: { rule: Rule; frame: number }[] } {
  const listed = new Map(text?.interventions.map(({ frame, copies }) => [frame, copies]));
  const held = packets.find(({ number }) => number === late?.frame);
  const arrivals: Arrival[] = [];
  const departures: { rule: Rule; frame: number }[] = [];
  for (const captured of packets) {
    const isBehind = held !== undefined && captured.number === late?.behind;
    // What was held back is one of the frames that were delivered together.
    const together = isBehind && (listed.get(captured.number) ?? 1) > 1 ? 1 : 0;
    const copies = (listed.get(captured.number) ?? 1) - together;
    const isAltered = listed.get(captured.number) === 1 && alteration !== undefined;
    const packet = isAltered ? alter(captured, alteration) : captured.packet;
    if (isAltered) departures.push({ rule: rules.ALTERED, frame: captured.number });
    for (let i = 0; i < copies; i++) {
      if (packet !== undefined) arrivals.push({ captured, packet, index: captured.index });
    }
    if (isBehind) {
      arrivals.push({ captured: held, packet: held.packet, index: captured.index });
      departures.push({ rule: rules.LATE, frame: held.number });
    }
  }
  return { arrivals, departures };
}

/** What an altered frame is to its receiver; undefined: nothing. */
function alter(captured: CapturedPacket, alteration: Alteration): Arrival['packet'] | undefined {
  const { packet, bytes, bthAt, hasEthernet } = captured;
  if (alteration === 'damaged') {
    return packet.with({ [W_BTH_FLAGS]: packet.words[W_BTH_FLAGS] | BTH_DAMAGED });
  }
  // A Buffer's own slice is not a copy.
  const copy = Uint8Array.from(bytes);
  return alteration.apply(copy, bthAt) ? readAltered(copy, hasEthernet) : packet;
}

/** What the text says in words about how a frame was altered. */
function alterationsInWords(description: string): Alteration[] {
  const found: Alteration[] = [];
  const words = description.replaceAll('_', ' ').toUpperCase();
  const names = namesOfOpcodes();
  const into = /(?:TURNED|CHANGED|MADE|REWRITTEN) INTO (.*)/.exec(words)?.[1];
  if (into !== undefined) {
    const [name] = [...names.keys()]
      .filter((candidate) => into.includes(candidate))
      .sort((a, b) => into.indexOf(a) - into.indexOf(b) || b.length - a.length);
    if (name !== undefined) found.push(setOpcode(names.get(name) as number));
  }
  const code = /OPCODE.*?\b0X([0-9A-F]{1,2})\b/.exec(words)?.[1];
  if (code !== undefined) found.push(setOpcode(Number.parseInt(code, 16)));
  const moved = /(?:ADDRESS|VA)\b.*?\bBY (-?\d+)/.exec(words)?.[1];
  if (moved !== undefined) found.push(moveAddress(Number(moved)));
  if (/FLIPPED|ICRC (IS |MADE )?(WRONG|BAD)|BAD ICRC|WRONG ICRC|CORRUPT|DAMAGED/.test(words)) {
    found.push('damaged');
  }
  return found;
}

/** Alterations to try where words do not tell: one field at a time, in the order of the headers. */
function likelyAlterations(): Alteration[] {
  const opcodes = Array.from({ length: 32 }, (_, opcode) => setOpcode(opcode));
  return [
    'damaged',
    ...opcodes,
    ...[1, 2, -1, 4, 0x100000].map(movePsn),
    setWord('P_Key', 2, 0x0001ffff, 0x00010000),
    setWord('destination QPN', 4, 0x00ffffff, 0x00fffff0),
    ...[4, 1, 2, 1 << 30].map(moveAddress),
    ...[setRkey(), setLength(0), setLength(0x7fffffff)],
    ...Array.from({ length: 5 }, (_, code) => setSyndrome(0x60 | code)),
    setSyndrome(0x2e),
    setSyndrome(0x1f),
  ];
}

/** Names of the RC opcodes, without the service and as a person writes them. */
function namesOfOpcodes(): Map<string, number> {
  const names = new Map<string, number>();
  for (let opcode = 0; opcode < 32; opcode++) {
    if ((opFlags[opcode] & OP_KNOWN) === 0) continue;
    const name = (opName[opcode] as string).replace(/^RC_/, '').replaceAll('_', ' ');
    names.set(name, opcode);
    names.set(name.replace('RDMA ', ''), opcode);
    names.set(
      name.replace('RDMA ', '').replace('REQUEST', 'REQ').replace('RESPONSE', 'RESP'),
      opcode,
    );
  }
  return names;
}

/** Another opcode of the same service. */
function setOpcode(opcode: number): Edit {
  return {
    what: `opcode ${opcode}`,
    apply: (bytes, bth) => {
      bytes[bth] = (bytes[bth] & SERVICE_MASK) | (opcode & ~SERVICE_MASK);
      return true;
    },
  };
}

function movePsn(by: number): Edit {
  return {
    what: `PSN moved by ${by}`,
    apply: (bytes, bth) => {
      const view = viewOf(bytes);
      const word = view.getUint32(bth + 8);
      view.setUint32(bth + 8, (word & 0xff000000) | ((word + by) & 0xffffff));
      return true;
    },
  };
}

/** Bits `mask` of the 32-bit word at `offset` of the BTH become those of `value`. */
function setWord(what: string, offset: number, mask: number, value: number): Edit {
  return {
    what,
    apply: (bytes, bth) => {
      const view = viewOf(bytes);
      const word = view.getUint32(bth + offset);
      view.setUint32(bth + offset, (word & ~mask) | (value & mask));
      return true;
    },
  };
}

function moveAddress(by: number): Edit {
  return withAddress(`address moved by ${by}`, (view, at) => {
    view.setBigUint64(at, BigInt.asUintN(64, view.getBigUint64(at) + BigInt(by)));
  });
}

function setRkey(): Edit {
  return withAddress('rkey', (view, at) => view.setUint32(at + 8, ~view.getUint32(at + 8)));
}

function setLength(length: number): Edit {
  return withAddress('DMA length', (view, at) => view.setUint32(at + 12, length));
}

/** An edit of a RETH or AtomicETH. */
function withAddress(what: string, edit: (view: DataView, at: number) => void): Edit {
  return {
    what,
    apply: (bytes, bth) => {
      const opcode = bytes[bth];
      const at = Math.max(headerOffset(opcode, HDR_RETH), headerOffset(opcode, HDR_ATOMICETH));
      if (at < BTH_BYTES) return false;
      edit(viewOf(bytes), bth + at);
      return true;
    },
  };
}

function setSyndrome(syndrome: number): Edit {
  return {
    what: `syndrome ${syndrome}`,
    apply: (bytes, bth) => {
      const at = headerOffset(bytes[bth], HDR_AETH);
      if (at < 0) return false;
      bytes[bth + at] = syndrome;
      return true;
    },
  };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
