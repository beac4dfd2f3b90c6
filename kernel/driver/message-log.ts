/**
 * What each side of a message saw of its bytes: the log by which a run is verified.
 *
 * A message is named by the queue pair of its responder and its number there (the responder's MSN, 24
 * bits). The initiator hashes its local range when its work request completes; the target hashes its
 * range when the last bytes land (SEND, WRITE) or are read (READ). Whoever holds both logs compares.
 */
import { type Node, RECORD_MESSAGE } from '../../transport/index.ts';
import type { AddressSpace } from '../mm/address-space.ts';

export interface MessageEntry {
  readonly side: 'initiator' | 'target';
  /** Queue pair of the responder: the initiator's destination, the target's own. */
  readonly qpn: number;
  /** LID of the responder as the initiator knows it; 0 on the target's side. */
  readonly lid: number;
  readonly message: number;
  readonly bytes: number;
  readonly hash: number;
}

/** Message numbers are MSNs: 24 bits. */
export const MESSAGE_MASK = 0xffffff;

export class MessageLog {
  readonly entries: MessageEntry[] = [];
  /** Where the entry of each answered READ stands, by queue pair and message. */
  private readonly answers = new Map<number, number>();

  constructor(
    private readonly node: Node,
    private readonly mm: AddressSpace,
    readonly enabled: boolean,
  ) {}

  /** The initiator's work request has completed. */
  addInitiator(qpn: number, lid: number, message: number, address: number, bytes: number): void {
    const entry = this.look('initiator', qpn, lid, message, address, bytes);
    if (entry) this.entries.push(entry);
  }

  /** The last bytes of a SEND or WRITE have landed at the target. */
  addWritten(qpn: number, message: number, address: number, bytes: number): void {
    const entry = this.look('target', qpn, 0, message, address, bytes);
    if (entry) this.entries.push(entry);
  }

  /**
   * The target has read the last bytes of a READ. An initiator that lost responses asks again, and
   * the answer it keeps is the last: so is the entry.
   */
  addRead(qpn: number, message: number, address: number, bytes: number): void {
    const entry = this.look('target', qpn, 0, message, address, bytes);
    if (!entry) return;
    const key = qpn * (MESSAGE_MASK + 1) + entry.message;
    const place = this.answers.get(key) ?? this.entries.length;
    this.answers.set(key, place);
    this.entries[place] = entry;
  }

  /** Hashes the bytes at `address` as they are now. Messages without bytes are not logged. */
  private look(
    side: MessageEntry['side'],
    qpn: number,
    lid: number,
    message: number,
    address: number,
    bytes: number,
  ): MessageEntry | undefined {
    if (!this.enabled || bytes === 0) return undefined;
    const number = message & MESSAGE_MASK;
    const hash = this.mm.hash(address, bytes);
    this.node.digest.record(RECORD_MESSAGE, this.node.now, qpn, number, bytes, hash);
    return { side, qpn, lid, message: number, bytes, hash };
  }
}
