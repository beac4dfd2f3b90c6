/**
 * The other side of a channel, as one who may be silent, lost or out of its mind.
 *
 * Owns: telling windows, session messages and junk apart; noticing silence; telling the peer why we
 * stop. Every way in which a peer can fail comes out as one Failure, once. Does not own: what comes
 * when (`handshake.ts`, `lockstep.ts`, `switchboard.ts`).
 */
import { Failure } from '../sim/failure.ts';
import {
  decodeSession,
  encodeSession,
  MESSAGE_SESSION,
  type SessionMessage,
  sessionError,
} from '../wire/session.ts';
import { MESSAGE_WINDOW } from '../wire/window.ts';
import type { Channel, ChannelHandler } from './channel.ts';

/** How long a peer may say nothing while something is expected of it, in milliseconds. */
export const PEER_TIMEOUT_MS = 30_000;

/** In how many steps silence is measured. Steps, not a clock: time we were stopped does not count. */
const SILENCE_STEPS = 8;

export interface PeerListener {
  onWindow(bytes: Uint8Array): void;
  /** Any session message but busy and error. */
  onSession(message: SessionMessage): void;
  /** The peer is of no more use; the channel is closed, and nothing more is called. */
  onFailure(failure: Failure): void;
}

const busyBytes = encodeSession({ type: 'busy' });

export class Peer implements ChannelHandler {
  private readonly timer: NodeJS.Timeout;
  private isAwaited = true;
  private quietSteps = 0;

  constructor(
    private readonly channel: Channel,
    private readonly timeoutMs: number,
    private readonly listener: PeerListener,
  ) {
    this.timer = setInterval(() => this.step(), timeoutMs / SILENCE_STEPS);
    channel.attach(this);
  }

  get name(): string {
    return this.channel.name;
  }

  /** Says whether it is the peer's turn to speak: only then is silence a failure. */
  expectMessage(isExpected: boolean): void {
    this.isAwaited = isExpected;
    this.quietSteps = 0;
  }

  /** Sends a window; see Channel.send about its bytes. */
  send(window: Uint8Array): void {
    this.channel.send(window);
  }

  say(message: SessionMessage): void {
    this.channel.send(encodeSession(message));
  }

  /** Tells the peer that we are alive. */
  sayBusy(): void {
    this.channel.send(busyBytes);
  }

  /** Tells the peer why we stop, and closes the channel. */
  refuse(error: unknown): void {
    this.say(describeError(error));
    this.close();
  }

  /** Lets go of the channel, which stays open. */
  release(): void {
    clearInterval(this.timer);
    this.channel.attach(undefined);
  }

  close(): void {
    this.release();
    this.channel.close();
  }

  onMessage(bytes: Uint8Array): void {
    this.quietSteps = 0;
    if (bytes[0] === MESSAGE_WINDOW) this.listener.onWindow(bytes);
    else this.onOther(bytes);
  }

  onClose(reason: Failure): void {
    this.release();
    this.listener.onFailure(reason);
  }

  private onOther(bytes: Uint8Array): void {
    let message: SessionMessage;
    try {
      if (bytes[0] !== MESSAGE_SESSION) {
        const what = bytes.length === 0 ? 'an empty message' : `a message of type ${bytes[0]}`;
        throw new Failure('E_PEER_PROTOCOL', what, this.name);
      }
      message = decodeSession(bytes);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.refuse(error);
      this.listener.onFailure(error);
      return;
    }
    if (message.type === 'busy') return;
    if (message.type === 'error') {
      this.close();
      // It goes to a terminal: what is not text does not.
      const said = `${message.code}: ${message.message}`.replace(/\p{Cc}/gu, ' ');
      this.listener.onFailure(new Failure('E_PEER_FAILED', said, this.name));
      return;
    }
    this.listener.onSession(message);
  }

  private step(): void {
    if (!this.isAwaited || ++this.quietSteps <= SILENCE_STEPS) return;
    const silent = new Failure(
      'E_PEER_SILENT',
      `the peer has said nothing for ${this.timeoutMs} ms`,
      this.name,
    );
    this.refuse(silent);
    this.listener.onFailure(silent);
  }
}

/** A message that does not belong where it came. */
export function unexpected(message: string, place: string, expected: string): Failure {
  return new Failure('E_PEER_PROTOCOL', `an unexpected ${message}`, place, expected);
}

/** The error message that tells a peer about `error`. */
function describeError(error: unknown): SessionMessage {
  if (error instanceof Failure) return sessionError(error.code, error.explain());
  // An abort is somebody's decision, not a bug.
  const isAbort = error instanceof Error && error.name === 'Interrupted';
  const code = isAbort ? 'E_PEER_LOST' : 'E_BUG';
  return sessionError(code, error instanceof Error ? error.message : String(error));
}
