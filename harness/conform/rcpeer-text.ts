/**
 * The text beside a capture: which programs ran, what they were told, what they said, and what the hub
 * did to frames.
 *
 * Owns the form of that text. What a command does is `program.ts`'s. A `rcpeer` is a small program
 * that drives one queue pair by commands (`post op=write len=…; wait`), a *peer* here; each of its
 * commands answers lines. Lines of other tools are skipped: what those did is in the capture itself.
 */
import { Failure } from '../../transport/index.ts';
import { parseIp } from '../gateway/addresses.ts';
import { gidOfAddress } from './gid.ts';

/** key=value words of a command or of a line of output; the first of a key counts, as in rcpeer. */
export class Words {
  private readonly values = new Map<string, string>();

  constructor(
    text: string,
    private readonly place: string,
  ) {
    for (const word of text.split(/\s+/)) {
      const at = word.indexOf('=');
      if (at > 0 && !this.values.has(word.slice(0, at))) {
        this.values.set(word.slice(0, at), word.slice(at + 1));
      }
    }
  }

  has(key: string): boolean {
    return this.values.has(key);
  }

  text(key: string): string | undefined {
    return this.values.get(key);
  }

  /** An integer as C's strtoull reads it: as far as it is one. `otherwise` where the key is missing. */
  big(key: string, otherwise = 0n): bigint {
    const value = this.values.get(key);
    if (value === undefined || value === '') return otherwise;
    const [, sign, digits = ''] = /^([+-]?)(0[xX][0-9a-fA-F]+|\d+)?/.exec(value) ?? [];
    if (digits === '') return 0n;
    const isOctal = /^0\d/.test(digits);
    const number = BigInt(isOctal ? `0o${/^[0-7]*/.exec(digits)?.[0]}` : digits);
    return BigInt.asUintN(64, sign === '-' ? -number : number);
  }

  /** The same for what rcpeer says itself. Throws Failure E_SETUP_INVALID where it is no number. */
  said(key: string): number {
    const value = this.values.get(key);
    if (value === undefined || !/^(\d+|0x[0-9a-f]+)$/.test(value)) {
      throw invalid(`'${key}=${value ?? ''}' is no number`, this.place, 'a number');
    }
    return Number(value);
  }

  number(key: string, otherwise = 0): number {
    return Number(this.big(key, BigInt(otherwise)));
  }
}

/** A line `MR id=… addr=… len=… lkey=… rkey=…`. */
export interface RegionText {
  readonly id: number;
  readonly address: number;
  readonly length: number;
  readonly lkey: number;
  readonly rkey: number;
}

/** An opened rcpeer: its options, and what its LOCAL and MR lines say. */
export interface PeerText {
  readonly name: string;
  readonly options: Words;
  readonly type: string;
  readonly qpn: number;
  readonly psn: number;
  /** 16 bytes in hexadecimal. */
  readonly gid: string;
  readonly region: RegionText | undefined;
  readonly line: number;
}

/** One command of a peer, and what it answered. */
export interface CommandText {
  /** Place of its peer in the list of peers: a name may be opened again. */
  readonly peer: number;
  readonly name: string;
  readonly words: Words;
  readonly answers: readonly string[];
  /** Where in the text, for messages. */
  readonly place: string;
}

/** What the hub did to a frame: how many frames it delivered instead of it. */
export interface Intervention {
  readonly frame: number;
  readonly copies: number;
}

export interface CaptureText {
  /** The lines that say in words what was captured. */
  readonly description: string;
  /** Whether the hosts' own network devices lost packets, before the capture could see them. */
  readonly isLossy: boolean;
  readonly peers: readonly PeerText[];
  readonly commands: readonly CommandText[];
  readonly interventions: readonly Intervention[];
}

const OPEN = /^(\w+): rcpeer\b(.*)$/;
const COMMANDS = /^(\w+)> ?(.*)$/;
const OTHER = /^(\w+\$ |\w+'s output:)/;
const INTERVENTIONS = /^the hub's interventions:/;
const INTERVENTION = /^\s+frame (\d+): (?:(dropped)|delivered as (\d+) frame)/;

/** Reads the text of `file`. Throws Failure E_SETUP_INVALID. */
export function parseCaptureText(text: string, file: string): CaptureText {
  const lines = text.split('\n').map((line) => line.replace(/\r$/, ''));
  const peers: PeerText[] = [];
  const commands: CommandText[] = [];
  const interventions: Intervention[] = [];
  for (let i = 0; i < lines.length; i++) {
    const place = `${file}:${i + 1}`;
    const end = endOfBlock(lines, i + 1);
    const block = lines.slice(i + 1, end).map((line) => line.trim());
    const open = OPEN.exec(lines[i]);
    const typed = COMMANDS.exec(lines[i]);
    if (open !== null) {
      peers.push(parsePeer(open[1] as string, open[2] as string, block, place, i + 1));
      i = end - 1;
    } else if (typed !== null) {
      const name = typed[1] as string;
      const peer = peers.findLastIndex((opened) => opened.name === name);
      if (peer < 0) {
        throw invalid(
          `'${name}' is told something but was never opened`,
          place,
          `${name}: rcpeer …`,
        );
      }
      commands.push(...parseCommands(peer, typed[2] as string, block, place));
      i = end - 1;
    } else if (INTERVENTIONS.test(lines[i])) {
      for (let k = i + 1; k < end; k++) interventions.push(parseIntervention(lines[k], file, k));
      i = end - 1;
    } else if (OTHER.test(lines[i])) {
      i = end - 1;
    }
  }
  const blank = lines.indexOf('');
  const description = lines.slice(1, blank < 0 ? lines.length : blank).join(' ');
  const isLossy = /\bnetem\b.*\bloss\b/.test(text);
  return { description, isLossy, peers, commands, interventions };
}

/** Lines that are indented belong to the one before them. */
function endOfBlock(lines: readonly string[], start: number): number {
  let end = start;
  while (end < lines.length && /^\s+\S/.test(lines[end])) end++;
  return end;
}

function parsePeer(
  name: string,
  options: string,
  block: readonly string[],
  place: string,
  line: number,
): PeerText {
  const local = block.find((answer) => answer.startsWith('LOCAL '));
  if (local === undefined) {
    throw invalid(`rcpeer ${name} does not say what it is`, place, 'a LOCAL line');
  }
  const words = new Words(local, place);
  for (const key of ['type', 'qpn', 'psn', 'gid']) {
    if (!words.has(key)) throw invalid(`the LOCAL line has no ${key}`, place, `${key}=…`);
  }
  const region = block.find((answer) => answer.startsWith('MR '));
  return {
    name,
    options: new Words(options, place),
    type: words.text('type') as string,
    qpn: words.said('qpn'),
    psn: words.said('psn'),
    gid: parseGid(words.text('gid') as string, place),
    region: region === undefined ? undefined : parseRegion(region, place),
    line,
  };
}

/** A GID or an IPv4 address, as 16 bytes in hexadecimal. Throws Failure E_SETUP_INVALID. */
export function parseGid(text: string, place: string): string {
  const address = parseIp(text);
  if (address === undefined) throw invalid(`'${text}' is no address`, place, 'IPv4, IPv6 or a GID');
  return gidOfAddress(address);
}

/** Reads an MR line. */
export function parseRegion(line: string, place: string): RegionText {
  const words = new Words(line, place);
  const [id, address, length, lkey, rkey] = ['id', 'addr', 'len', 'lkey', 'rkey'].map((key) => {
    if (!words.has(key)) throw invalid(`the MR line has no ${key}`, place, `${key}=…`);
    return words.said(key);
  }) as [number, number, number, number, number];
  return { id, address, length, lkey, rkey };
}

/** Splits a line of commands, and what they answered, command by command. */
function parseCommands(
  peer: number,
  line: string,
  block: readonly string[],
  place: string,
): CommandText[] {
  const commands: CommandText[] = [];
  let next = 0;
  for (const text of line.split(';')) {
    const name = text.trim().split(/\s+/)[0] as string;
    if (name === '') continue;
    const words = new Words(text, place);
    const start = next;
    next = endOfAnswer(name, words, block, start);
    commands.push({ peer, name, words, answers: block.slice(start, next), place });
  }
  if (next < block.length) {
    throw invalid(`'${block[next]}' answers none of the commands`, place, 'answers in their order');
  }
  return commands;
}

/** Where the answer to a command ends that starts at line `start`; an ERR line ends every answer. */
function endOfAnswer(name: string, words: Words, block: readonly string[], start: number): number {
  let at = start;
  const while_ = (pattern: RegExp): void => {
    while (at < block.length && pattern.test(block[at])) at++;
  };
  const once = (pattern: RegExp): boolean => {
    if (at >= block.length || !pattern.test(block[at])) return false;
    return !block[at++].startsWith('ERR ');
  };
  switch (name) {
    case 'info':
      if (once(/^LOCAL /)) while_(/^MR /);
      break;
    case 'connect':
      for (let i = 0; i < 3 && once(/^(QP |ERR )/); i++);
      break;
    case 'post':
    case 'recv':
      for (let i = words.number('n', 1); i > 0; i--) {
        if (words.text('op') === 'bind' && !once(/^(MW |ERR )/)) break;
        if (!once(/^(POSTED |ERR )/)) break;
      }
      break;
    case 'wait':
    case 'expect':
      while_(/^WC /);
      once(/^(WAITED |ERR )/);
      break;
    case 'async':
      while_(/^ASYNC /);
      once(/^ERR /);
      break;
    case 'sleep':
    case 'quit':
      break;
    default:
      once(/^(QP|QUERY|FILLED|CHECK|POKED|DUMP|COUNTERS|MR|DEREG|ADVISED|MW|ERR)\b/);
  }
  return at;
}

function parseIntervention(line: string, file: string, index: number): Intervention {
  const match = INTERVENTION.exec(line);
  if (match === null) {
    throw invalid(
      `'${line.trim()}' is no intervention`,
      `${file}:${index + 1}`,
      'frame N: dropped, or delivered as M frame(s)',
    );
  }
  return { frame: Number(match[1]), copies: match[2] === undefined ? Number(match[3]) : 0 };
}

function invalid(message: string, place: string, expected: string): Failure {
  return new Failure('E_SETUP_INVALID', message, place, expected);
}
