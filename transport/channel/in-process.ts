/**
 * A channel between two places in one process. It copies messages and hands them over in a later
 * turn of the event loop, as a socket does, so that what works here works there.
 */
import { Failure } from '../sim/failure.ts';
import { type Channel, type ChannelHandler, Mailbox } from './channel.ts';

/** The two ends of a new channel. */
export function inProcessPair(): [Channel, Channel] {
  const left = new InProcessChannel('left');
  const right = new InProcessChannel('right');
  left.peer = right;
  right.peer = left;
  return [left, right];
}

class InProcessChannel implements Channel {
  peer: InProcessChannel | undefined;
  sentBytes = 0;
  receivedBytes = 0;
  private readonly mailbox = new Mailbox();
  /** What is on its way to this end: messages, and undefined for the end of the channel. */
  private inFlight: (Uint8Array | undefined)[] = [];
  private isOpen = true;

  constructor(public name: string) {}

  send(bytes: Uint8Array): void {
    if (!this.isOpen) return;
    this.sentBytes += bytes.length;
    this.peer?.push(bytes.slice());
  }

  attach(handler: ChannelHandler | undefined): void {
    this.mailbox.attach(handler);
  }

  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.mailbox.shut();
    this.peer?.push(undefined);
  }

  private push(item: Uint8Array | undefined): void {
    this.inFlight.push(item);
    if (this.inFlight.length === 1) setImmediate(() => this.arrive());
  }

  private arrive(): void {
    const arrived = this.inFlight;
    this.inFlight = [];
    for (const bytes of arrived) {
      if (bytes) {
        this.receivedBytes += bytes.length;
        this.mailbox.deliver(bytes);
      } else {
        this.isOpen = false;
        this.mailbox.end(new Failure('E_PEER_LOST', 'the peer closed the channel', this.name));
      }
    }
  }
}
