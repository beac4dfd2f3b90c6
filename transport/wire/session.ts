/**
 * Session messages: what two processes say to each other beside windows.
 *
 * A byte 2, then MessagePack (msgpackr, maps with string keys, no extension types), checked by zod.
 * Owns: their fields and codec. Does not own: who says what when (`channel/handshake.ts`,
 * `channel/lockstep.ts`).
 */
import { Packr } from 'msgpackr';
import { z } from 'zod';
import { Failure } from '../sim/failure.ts';
import { msgpackProblem } from './msgpack.ts';

/** Version of everything in this file, in `window.ts`, `bus.ts` and `packet.ts`. */
export const SESSION_PROTOCOL = 1;
/** First byte of a session message. */
export const MESSAGE_SESSION = 2;

const MAX_NAMES = 4096;
const MAX_TEXT = 4096;
const name = z.string().min(1).max(256);

const hello = z.strictObject({
  type: z.literal('hello'),
  protocol: z.literal(SESSION_PROTOCOL),
  /** Hash of the resolved scenario. */
  scenario: z.string().max(256),
  seed: z.int(),
  mode: z.string().max(256),
  /** Names of all nodes of the world, in order of their numbers. */
  nodes: z.array(name).min(1).max(MAX_NAMES),
  /** Latency of each channel of the world, in picoseconds, in order. */
  latencies: z.array(z.int().positive()).max(MAX_NAMES),
  /** Names of the nodes that the sender runs, or speaks for. */
  role: z.array(name).max(MAX_NAMES),
});
/** The sender has accepted the hello and is about to start. */
const ready = z.strictObject({ type: z.literal('ready') });
/** The sender is alive, and computing or waiting for somebody else. */
const busy = z.strictObject({ type: z.literal('busy') });
/** The world has come to its end; the reports of whoever the sender speaks for. */
const bye = z.strictObject({ type: z.literal('bye'), reports: z.array(z.unknown()) });
/** The sender stops here, for this reason. */
const error = z.strictObject({
  type: z.literal('error'),
  code: z.string().max(64),
  message: z.string().max(MAX_TEXT),
});

const sessionMessage = z.discriminatedUnion('type', [hello, ready, busy, bye, error]);
const foreignHello = z.looseObject({ type: z.literal('hello'), protocol: z.number() });

export type SessionMessage = z.infer<typeof sessionMessage>;
/** What a process says about itself and the run it is about to take part in. */
export type Hello = z.infer<typeof hello>;

const packr = new Packr({ useRecords: false, variableMapSize: true, encodeUndefinedAsNil: true });

/** The bytes of a session message, in a buffer of their own. */
export function encodeSession(message: SessionMessage): Uint8Array {
  const packed = packr.pack(message);
  const bytes = new Uint8Array(packed.length + 1);
  bytes[0] = MESSAGE_SESSION;
  bytes.set(packed, 1);
  return bytes;
}

/** An error message, cut to what the protocol allows. */
export function sessionError(code: string, message: string): SessionMessage {
  return { type: 'error', code: code.slice(0, 64), message: message.slice(0, MAX_TEXT) };
}

/**
 * Reads a session message.
 * @throws Failure E_PEER_PROTOCOL, or E_HANDSHAKE for a hello of another protocol version, whose
 * other fields may be anything.
 */
export function decodeSession(bytes: Uint8Array): SessionMessage {
  const problem = msgpackProblem(bytes, 1);
  if (problem !== undefined) throw junk(problem);
  let value: unknown;
  try {
    value = packr.unpack(bytes.subarray(1));
  } catch (cause) {
    throw junk(cause instanceof Error ? cause.message : String(cause));
  }
  const foreign = foreignHello.safeParse(value);
  if (foreign.success && foreign.data.protocol !== SESSION_PROTOCOL) {
    throw new Failure(
      'E_HANDSHAKE',
      `the peer speaks protocol ${foreign.data.protocol}`,
      'protocol',
      String(SESSION_PROTOCOL),
    );
  }
  const parsed = sessionMessage.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw junk(`${issue.path.join('.') || 'message'}: ${issue.message}`);
  }
  return parsed.data;
}

function junk(why: string): Failure {
  return new Failure('E_PEER_PROTOCOL', `not a session message: ${why}`, 'session');
}
