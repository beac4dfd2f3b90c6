/**
 * Messages that a replayed program has begun and not yet been told to be done, and the places where it
 * waits for them: where the recorded program did, and where a buffer is used again.
 */
import { Completion, type Sim, wait } from '../../kernel/index.ts';
import type { Progress } from './progress.ts';

/** A message as the program knows it. */
export interface BegunMessage {
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  /** The call or request it belongs to. */
  readonly id: number;
}

interface OutstandingMessage {
  readonly start: number;
  readonly end: number;
  readonly id: number;
  readonly isSend: boolean;
  readonly isDetached: boolean;
  readonly done: Completion<void>;
}

/** What is particular about a message. */
export interface MessageTraits {
  /** It only reads its buffer. */
  readonly isSend?: boolean;
  /** The recorded program did not wait for it: the library had a copy. */
  readonly isDetached?: boolean;
}

export class Outstanding {
  private messages: OutstandingMessage[] = [];

  constructor(private readonly progress: Pick<Progress, 'position'>) {}

  /** Begins a message; resolve what is returned when it is over. `purpose` names it for people. */
  begin(
    { address, length, id }: BegunMessage,
    purpose: string,
    { isSend = false, isDetached = false }: MessageTraits = {},
  ): Completion<void> {
    const done = new Completion<void>(purpose);
    const range = { start: address, end: address + length };
    this.messages.push({ ...range, id, isSend, isDetached, done });
    return done;
  }

  /** Whether a send that is not over uses a byte of the range. */
  isBeingSent(address: number, length: number): boolean {
    const end = address + length;
    return this.messages.some(
      (message) =>
        message.isSend && !message.done.done && message.start < end && message.end > address,
    );
  }

  /** Waits for every message of a call or request that the program waits for. */
  *waitForId(id: number): Sim<void> {
    if (this.messages.length === 0) return;
    yield* this.waitWhere((message) => message.id === id && !message.isDetached);
  }

  /** Waits for what uses a byte of the range. */
  *waitForRange(address: number, length: number): Sim<void> {
    if (this.messages.length === 0) return;
    const end = address + length;
    yield* this.waitWhere((message) => message.start < end && message.end > address);
  }

  /** Waits for receives into the range. */
  *waitForReceives(address: number, length: number): Sim<void> {
    if (this.messages.length === 0) return;
    const end = address + length;
    yield* this.waitWhere(
      (message) => !message.isSend && message.start < end && message.end > address,
    );
  }

  *waitForAll(): Sim<void> {
    yield* this.waitWhere(() => true);
  }

  private *waitWhere(selected: (message: OutstandingMessage) => boolean): Sim<void> {
    const awaited = this.messages.filter(selected);
    if (awaited.length === 0) return;
    const { progress } = this;
    const place = progress.position;
    for (const { done } of awaited) {
      if (!done.done) progress.position = `${place} waits for the ${done.purpose}`;
      yield* wait(done);
    }
    progress.position = place;
    // Detached ones may have ended unnoticed.
    this.messages = this.messages.filter(({ done }) => !done.done);
  }
}
