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

  constructor(
    private readonly node: Node,
    private readonly mm: AddressSpace,
    readonly enabled: boolean,
  ) {}

  /** Hashes the bytes at `address` as they are now. Messages without bytes are not logged. */
  add(
    side: MessageEntry['side'],
    qpn: number,
    lid: number,
    message: number,
    address: number,
    bytes: number,
  ): void {
    if (!this.enabled || bytes === 0) return;
    const number = message & MESSAGE_MASK;
    const hash = this.mm.hash(address, bytes);
    this.entries.push({ side, qpn, lid, message: number, bytes, hash });
    this.node.digest.record(RECORD_MESSAGE, this.node.now, qpn, number, bytes, hash);
  }
}
