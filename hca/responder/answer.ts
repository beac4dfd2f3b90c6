/** One thing that a responder has to send: the packets of an answer, or an ACK made before. */
import {
  RC_READ_RESPONSE_FIRST,
  RC_READ_RESPONSE_LAST,
  RC_READ_RESPONSE_MIDDLE,
  RC_READ_RESPONSE_ONLY,
} from '../../transport/index.ts';
import { psnAdd, psnDistance } from '../qp/psn.ts';
import type { SavedOperation } from './saved-operation.ts';

export const NO_FRAME = -1;

export class Answer {
  /** A finished ACK or NAK in place of an operation; a fatal one ends the connection. */
  ackFrame = NO_FRAME;
  isFatal = false;
  /** The packet that is next. */
  next = 0;
  /** Bytes that memory was asked for, and a NAK code where it cannot give the rest. */
  fetched = 0;
  refusal = 0;

  /**
   * `number` names its bursts in the gather and is never used twice. It takes `packets` PSNs from
   * `psn` on; those of a READ carry `bytes` at `address`. `msn` is the MSN that it carries.
   */
  constructor(
    readonly number: number,
    readonly operation: SavedOperation | undefined,
    readonly psn: number,
    readonly packets: number,
    readonly address: number,
    readonly bytes: number,
    readonly msn: number,
  ) {}

  /** The opcode of the next packet of a READ; a repeated READ is answered like one of its own. */
  get readOpcode(): number {
    const isLast = this.next + 1 === this.packets;
    if (this.next === 0) return isLast ? RC_READ_RESPONSE_ONLY : RC_READ_RESPONSE_FIRST;
    return isLast ? RC_READ_RESPONSE_LAST : RC_READ_RESPONSE_MIDDLE;
  }
}

/** Packets that `bytes` of payload take: one even for none. */
export function packetsOf(bytes: number, mtu: number): number {
  return Math.max(1, Math.ceil(bytes / mtu));
}

/** Whether `packets` from `psn` on go further than `others` from `other` on. */
export function endsAfter(psn: number, packets: number, other: number, others: number): boolean {
  return psnDistance(psnAdd(psn, packets), psnAdd(other, others)) > 0;
}
