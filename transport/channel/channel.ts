/**
 * What every channel between two processes is: an ordered, reliable carrier of binary messages.
 *
 * Owns: the contract and the mailbox that keeps it. Does not own: what the messages say. One
 * contract suite (`test/channel/contract.test.ts`) runs over every implementation.
 */
import type { Failure } from '../sim/failure.ts';

export interface ChannelHandler {
  /** A message of the peer. The bytes do not change later, so they may be kept. */
  onMessage(bytes: Uint8Array): void;
  /** The channel is gone, after the last message; never called after a `close` of our own. */
  onClose(reason: Failure): void;
}

export interface Channel {
  /** The peer, in messages for people; set once it is known who that is. */
  name: string;
  /** Bytes of messages so far. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /**
   * Sends a message; never blocks. The channel may go on reading `bytes` until the peer has
   * received them, so they must not be changed before it has answered. On a channel that is closed
   * the message is lost, as it would be a moment later.
   */
  send(bytes: Uint8Array): void;
  /**
   * Hands messages to `handler` from now on, first those that came while there was none. Undefined
   * keeps them waiting.
   */
  attach(handler: ChannelHandler | undefined): void;
  /** Closes, once what was sent has gone out. */
  close(): void;
}

/** Keeps messages, and the end, until there is a handler for them. Never calls it from `attach`. */
export class Mailbox {
  private handler: ChannelHandler | undefined;
  private readonly waiting: Uint8Array[] = [];
  private reason: Failure | undefined;
  private isShut = false;

  attach(handler: ChannelHandler | undefined): void {
    this.handler = handler;
    if (handler && (this.waiting.length > 0 || this.reason)) queueMicrotask(() => this.drain());
  }

  /** A message has come. */
  deliver(bytes: Uint8Array): void {
    if (this.isShut) return;
    if (this.handler && this.waiting.length === 0) this.handler.onMessage(bytes);
    else this.waiting.push(bytes);
  }

  /** The channel is gone; only the first reason counts. */
  end(reason: Failure): void {
    if (this.isShut || this.reason) return;
    this.reason = reason;
    this.drain();
  }

  /** We have closed the channel: nothing is handed on any more. */
  shut(): void {
    this.isShut = true;
    this.waiting.length = 0;
  }

  private drain(): void {
    while (this.handler && this.waiting.length > 0) {
      this.handler.onMessage(this.waiting.shift() as Uint8Array);
    }
    if (this.handler && this.reason && !this.isShut) {
      this.isShut = true;
      this.handler.onClose(this.reason);
    }
  }
}
