/**
 * What a control client may ask for: one JSON object on a line, checked here and nowhere else.
 *
 * The verbs are those of `rcpeer`, which drives a real adapter in the same way. Numbers may be
 * written as JSON numbers or as strings in any C base. docs/GATEWAY.md describes the protocol.
 */
import { z } from 'zod';
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_FLUSH_PERSISTENT,
  ACCESS_LOCAL_WRITE,
  ACCESS_MW_BIND,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_ZERO_BASED,
  MAX_SGE,
} from '../../transport/index.ts';
import { parseIp, parseMac } from './addresses.ts';

/** The longest line a client may send. */
export const CONTROL_LINE_BYTES = 1 << 20;
/** The longest a command may wait, milliseconds. */
const MAX_WAIT_MS = 600_000;
/** The largest region. */
const MAX_REGION_BYTES = 2 ** 30;

const accessLetters: Readonly<Record<string, number>> = {
  l: ACCESS_LOCAL_WRITE,
  r: ACCESS_REMOTE_READ,
  w: ACCESS_REMOTE_WRITE,
  a: ACCESS_REMOTE_ATOMIC,
  b: ACCESS_MW_BIND,
  z: ACCESS_ZERO_BASED,
  g: ACCESS_FLUSH_GLOBAL,
  p: ACCESS_FLUSH_PERSISTENT,
};

/** An integer from `low` to `high`; `0x10`, `020` and `16` are all sixteen when written as text. */
const integer = (low: number, high: number) =>
  z
    .union([z.number(), z.string()])
    .transform((value) => (typeof value === 'number' ? value : numberOf(value)))
    .refine((value) => Number.isInteger(value) && value >= low && value <= high, {
      error: `not an integer from ${low} to ${high}`,
    });

/** A 64-bit operand. */
const operand = () =>
  z
    .union([z.number().int(), z.string().regex(/^-?(0x[0-9a-f]{1,16}|\d{1,20})$/i)])
    .transform((value) => BigInt.asUintN(64, bigOf(String(value))));

const flag = () =>
  z.union([z.boolean(), z.literal(0), z.literal(1)]).transform((value) => Number(value));

const access = () =>
  z
    .string()
    .regex(/^[lrwabzgp]*$/, { error: 'access is letters out of l r w a b z g p' })
    .transform((text) => [...text].reduce((sum, letter) => sum | accessLetters[letter], 0));

const gid = () =>
  z.string().refine((text) => parseIp(text) !== undefined, { error: 'not an IP address' });
const mac = () =>
  z.string().refine((text) => parseMac(text) !== undefined, { error: 'not a unicast MAC address' });

const u8 = () => integer(0, 0xff);
const u24 = () => integer(0, 0xffffff);
const u32 = () => integer(0, 0xffffffff);
const address = () => integer(0, 2 ** 53 - 1);
const name = () => integer(0, 65_535);
const milliseconds = () => integer(0, MAX_WAIT_MS);

/** Which queue pair; the client numbers its own. */
const onPair = { qp: name().default(0) };
const range = {
  mr: name().default(0),
  off: address().default(0),
  len: integer(0, MAX_REGION_BYTES).default(0),
};

/** The way to a peer, and what the address vector says beside its address. */
const path = {
  gid: gid().optional(),
  mac: mac().optional(),
  hop: u8().default(64),
  tclass: u8().default(0),
  flow: integer(0, 0xfffff).default(0),
};

const initial = { dacc: access().prefault('lrwagp'), qkey: u32().default(0x11111111) };
const receiving = {
  qpn: u24().default(0),
  psn: u24().default(0),
  mtu: z.union([256, 512, 1024, 2048, 4096].map((bytes) => z.literal(bytes))).default(1024),
  drd: u8().default(16),
  minrnr: integer(0, 31).default(12),
  ...path,
};
const sending = {
  timeout: integer(0, 31).default(14),
  retry: integer(0, 7).default(7),
  rnr: integer(0, 7).default(7),
  rd: u8().default(16),
};

const commandSchema = z.discriminatedUnion('verb', [
  verb('info', {}),
  verb('open', {
    ...onPair,
    type: z.enum(['rc', 'uc', 'ud']).default('rc'),
    psn: u24().default(0),
    sq: integer(1, 32_768).default(256),
    rq: integer(0, 32_768).default(256),
    sge: integer(1, MAX_SGE).default(MAX_SGE),
    cq: integer(1, 32_768).default(1024),
    sigall: flag().default(0),
    srq: name().optional(),
    /** The region that comes with it; its number is that of the queue pair. */
    len: integer(0, MAX_REGION_BYTES).default(2 ** 20),
    access: access().prefault('lrwa'),
    odp: flag().default(0),
  }),
  verb('close', onPair),
  verb('mr', {
    mr: name(),
    len: integer(1, MAX_REGION_BYTES).default(4096),
    access: access().prefault('lrwa'),
    odp: flag().default(0),
  }),
  verb('dereg', { mr: name() }),
  verb('mw', { mw: name().default(0) }),
  verb('srq', {
    srq: name().default(0),
    entries: integer(1, 32_768).default(256),
    limit: integer(0, 32_768).default(0),
  }),
  verb('connect', { ...onPair, ...initial, ...receiving, ...sending, gid: gid() }),
  verb('init', { ...onPair, ...initial }),
  verb('rtr', { ...onPair, ...receiving, gid: gid() }),
  verb('rts', { ...onPair, ...sending }),
  verb('modify', {
    ...onPair,
    state: z.enum(['reset', 'init', 'rtr', 'rts', 'sqd', 'sqe', 'err']),
  }),
  verb('query', onPair),
  verb('post', {
    ...onPair,
    ...range,
    ...path,
    op: z.enum([
      'send',
      'sendimm',
      'sendinv',
      'write',
      'writeimm',
      'read',
      'cas',
      'faa',
      'awrite',
      'flush',
      'inv',
      'bind',
    ]),
    len: integer(0, 0xffffffff).optional(),
    sges: integer(0, MAX_SGE).optional(),
    lkey: u32().optional(),
    raddr: address().default(0),
    rkey: u32().default(0),
    imm: u32().default(0),
    inv: u32().default(0),
    cmp: operand().default(0n),
    swap: operand().default(0n),
    add: operand().default(1n),
    val: operand().optional(),
    wrid: u32().optional(),
    inline: flag().default(0),
    fence: flag().default(0),
    sol: flag().default(0),
    sig: flag().default(1),
    n: integer(1, 65_536).default(1),
    step: address().default(0),
    rstep: address().default(0),
    level: integer(0, 1).default(0),
    ftype: integer(0, 15).default(1),
    mw: name().default(0),
    access: access().prefault('rwa'),
    /** Of a datagram: where to, when not to whom the queue pair was connected. */
    qpn: u24().optional(),
    qkey: u32().optional(),
  }),
  verb('recv', {
    ...onPair,
    ...range,
    srq: name().optional(),
    sges: integer(0, MAX_SGE).optional(),
    lkey: u32().optional(),
    wrid: u32().optional(),
    n: integer(1, 65_536).default(1),
    step: address().default(0),
  }),
  verb('wait', {
    ...onPair,
    n: integer(1, 2 ** 20).default(1),
    ms: milliseconds().default(5000),
  }),
  verb('expect', { ...onPair, ms: milliseconds().default(500) }),
  verb('fill', { ...range, seed: u32().default(0) }),
  verb('check', { ...range, seed: u32().default(0) }),
  verb('poke', {
    ...range,
    hex: z
      .string()
      .regex(/^([0-9a-f]{2})*$/i, { error: 'hex is an even number of hexadecimal digits' }),
  }),
  verb('dump', { ...range, len: integer(0, 65_536).default(0) }),
  verb('advise', { ...range, write: flag().default(1) }),
  verb('dontneed', range),
  verb('reclaim', { pages: integer(1, 2 ** 28) }),
  verb('suspend', { ms: milliseconds() }),
  verb('async', { ms: milliseconds().default(0) }),
  verb('counters', {}),
  verb('impair', {
    direction: z.enum(['send', 'receive', 'both']).default('both'),
    dropPpm: integer(0, 1_000_000).default(0),
    duplicatePpm: integer(0, 1_000_000).default(0),
    corruptPpm: integer(0, 1_000_000).default(0),
    reorderPpm: integer(0, 1_000_000).default(0),
    reorderUs: integer(1, 10_000_000).default(1000),
    /** The so-manieth RoCE packets from now on, each direction counted from 1, are lost. */
    drop: z
      .array(integer(1, 2 ** 32))
      .max(1024)
      .default([]),
    seed: u32().default(1),
  }),
  verb('sleep', { ms: milliseconds() }),
  verb('quit', {}),
]);

/** A command as it is carried out, and as it is recorded. */
export type Command = z.output<typeof commandSchema>;
export type CommandOf<Verb extends Command['verb']> = Extract<Command, { verb: Verb }>;
/** What comes back with the answer. */
export type CommandId = Command['id'];

/** A command, or what is wrong with the line; whatever id it has is kept. */
export type ParsedLine =
  | { readonly command: Command }
  | { readonly id: CommandId; readonly problem: string };

/** Reads one line of a client. */
export function parseLine(line: string): ParsedLine {
  let data: unknown;
  try {
    data = JSON.parse(line);
  } catch (error) {
    return { id: null, problem: `not JSON: ${(error as Error).message}` };
  }
  return parseCommand(data);
}

/** Checks a command that came as data. */
export function parseCommand(data: unknown): ParsedLine {
  const parsed = commandSchema.safeParse(data);
  if (parsed.success) return { command: parsed.data };
  const [issue] = parsed.error.issues;
  const place = issue?.path.join('.') ?? '';
  const message = issue?.message ?? 'not a command';
  return { id: idIn(data), problem: place === '' ? message : `${place}: ${message}` };
}

function verb<Verb extends string, Fields extends z.ZodRawShape>(name: Verb, fields: Fields) {
  return z.strictObject({
    id: z.union([z.string().max(64), z.number(), z.null()]).default(null),
    verb: z.literal(name),
    ...fields,
  });
}

function idIn(data: unknown): CommandId {
  if (typeof data !== 'object' || data === null || !('id' in data)) return null;
  const { id } = data;
  return typeof id === 'number' || (typeof id === 'string' && id.length <= 64) ? id : null;
}

function numberOf(text: string): number {
  return /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(bigOf(text)) : Number.NaN;
}

/** An integer as C reads it. */
function bigOf(text: string): bigint {
  const isNegative = text.startsWith('-');
  const digits = isNegative ? text.slice(1) : text;
  const value = BigInt(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
  return isNegative ? -value : value;
}
