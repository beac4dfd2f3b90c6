/**
 * Before time 0: both sides say what they are about to run, and only go on when it is one run.
 *
 * Each sends hello, compares the other's with its own, sends ready and waits for the other's ready.
 * A difference ends it on both sides, with the name of the field.
 */
import { Failure } from '../sim/failure.ts';
import { type Hello, SESSION_PROTOCOL, type SessionMessage } from '../wire/session.ts';
import type { Channel } from './channel.ts';
import { PEER_TIMEOUT_MS, Peer, unexpected } from './peer.ts';

/** What a run is, apart from who runs which part of it. */
export type RunIdentity = Pick<Hello, 'scenario' | 'seed' | 'mode' | 'nodes' | 'latencies'>;

export interface HandshakeOptions {
  readonly peerTimeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** The hello of a process that runs, or speaks for, the nodes named in `role`. */
export function makeHello(run: RunIdentity, role: readonly string[]): Hello {
  const { scenario, seed, mode, nodes, latencies } = run;
  const protocol = SESSION_PROTOCOL;
  return { type: 'hello', protocol, scenario, seed, mode, nodes, latencies, role: [...role] };
}

/**
 * Shakes hands over `channel`, which is named after the peer's role from then on and stays open.
 * @throws Failure E_HANDSHAKE (its place is the field, expected our own value), E_PEER_*.
 */
export function handshake(
  channel: Channel,
  own: Hello,
  { peerTimeoutMs = PEER_TIMEOUT_MS, signal }: HandshakeOptions = {},
): Promise<Hello> {
  return new Promise((resolve, reject) => {
    let theirs: Hello | undefined;
    const finish = (settle: () => void): void => {
      signal?.removeEventListener('abort', abort);
      settle();
    };
    const refuse = (error: unknown): void => {
      peer.refuse(error);
      finish(() => reject(error));
    };
    const abort = (): void => refuse(signal?.reason);

    const onSession = (message: SessionMessage): void => {
      if (message.type === 'hello' && !theirs) {
        const difference = compareHello(own, message);
        if (difference) {
          refuse(difference);
          return;
        }
        theirs = message;
        channel.name = message.role.join('+');
        peer.say({ type: 'ready' });
      } else if (message.type === 'ready' && theirs) {
        const hello = theirs;
        peer.release();
        finish(() => resolve(hello));
      } else refuse(unexpected(message.type, channel.name, theirs ? 'ready' : 'hello'));
    };
    const peer = new Peer(channel, peerTimeoutMs, {
      onWindow: () => refuse(unexpected('window', channel.name, theirs ? 'ready' : 'hello')),
      onSession,
      onFailure: (failure) => finish(() => reject(failure)),
    });
    if (signal?.aborted) abort();
    else {
      signal?.addEventListener('abort', abort);
      peer.say(own);
    }
  });
}

/** How two hellos contradict each other: E_HANDSHAKE, or undefined when they make one run. */
export function compareHello(own: Hello, theirs: Hello): Failure | undefined {
  const run = compareRun(own, theirs);
  if (run) return run;
  const both = [...own.role, ...theirs.role].sort();
  if (isEqual(both, [...own.nodes].sort())) return undefined;
  const missing = own.nodes.filter((name) => !own.role.includes(name));
  return mismatch('role', theirs.role, missing);
}

/** The same without the roles, for a hub that has several peers. */
export function compareRun(own: RunIdentity, theirs: RunIdentity): Failure | undefined {
  for (const field of ['scenario', 'seed', 'mode', 'nodes', 'latencies'] as const) {
    if (!isEqual(own[field], theirs[field])) return mismatch(field, theirs[field], own[field]);
  }
  return undefined;
}

/** An E_HANDSHAKE about one field of hello. */
export function mismatch(field: keyof Hello, theirs: unknown, own: unknown): Failure {
  return new Failure('E_HANDSHAKE', `the peer has ${field} ${brief(theirs)}`, field, brief(own));
}

function isEqual(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function brief(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length <= 200 ? text : `${text.slice(0, 200)}…`;
}
