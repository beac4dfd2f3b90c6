/**
 * Whether messages went where they should: the judge of a replay, which takes part in nothing.
 *
 * A *stale use* is a buffer that the adapter reached through a key whose page frames are not, at that
 * moment, those that the process has mapped there: the adapter's table is compared with the process'
 * page table, page by page, when a message has arrived and when its send completes. Independently of
 * that, the bytes that the sender's program had in its buffer are compared with what the receiver's
 * program sees in its own. Different bytes without a stale use would be a fault of the model.
 */
import type { AddressSpace } from '../../kernel/index.ts';
import { assert } from '../../transport/index.ts';
import { PAGE_BYTES } from '../workload/layout.ts';

/** The page frame that the adapter reaches at an address through a key, or -1. */
export type FrameOfKey = (key: number, address: number) => number;

interface Sent {
  readonly bytes: number;
  /** Hash of what the sender's program had in its buffer. */
  readonly hash: number;
  isStale: boolean;
  /** What the receiver saw was something else. */
  differs: boolean;
}

export class MessageCheck {
  /** Stale uses of each rank's buffers, by the rank's process. */
  private readonly stale = new Map<AddressSpace, number>();
  private readonly messages = new Map<number, Sent>();

  /** `verify`: whether bytes are compared. */
  constructor(
    private readonly frameOfKey: FrameOfKey,
    private readonly verify: boolean,
  ) {}

  /** The program has written its buffer and calls send. */
  onSend(key: number, mm: AddressSpace, address: number, bytes: number): void {
    assert(!this.messages.has(key), 'a message is sent twice');
    const hash = this.verify && bytes > 0 ? mm.hash(address, bytes) : 0;
    this.messages.set(key, { bytes, hash, isStale: false, differs: false });
  }

  /** The send of a message is complete; its buffer was read through `lkey`. */
  onSent(key: number, mm: AddressSpace, lkey: number, address: number, bytes: number): void {
    this.judge(this.message(key), mm, lkey, address, bytes);
  }

  /** A message has arrived through `rkey` at `address`; returns its length in bytes. */
  onReceive(key: number, mm: AddressSpace, rkey: number, address: number): number {
    const message = this.message(key);
    const { bytes, hash } = message;
    if (bytes === 0) return 0;
    this.judge(message, mm, rkey, address, bytes);
    if (this.verify && mm.hash(address, bytes) !== hash) message.differs = true;
    return bytes;
  }

  /** Stale uses of the buffers of `mm`. */
  staleUses(mm: AddressSpace): number {
    return this.stale.get(mm) ?? 0;
  }

  /** Messages of which the receiver saw other bytes than were sent. */
  get corrupted(): number {
    return this.countOf(({ differs }) => differs);
  }

  /** Those among them that no stale use explains. */
  get unexplained(): number {
    return this.countOf(({ differs, isStale }) => differs && !isStale);
  }

  private judge(
    message: Sent,
    mm: AddressSpace,
    key: number,
    address: number,
    bytes: number,
  ): void {
    if (!this.isStale(mm, key, address, bytes)) return;
    message.isStale = true;
    this.stale.set(mm, this.staleUses(mm) + 1);
  }

  private isStale(mm: AddressSpace, key: number, address: number, bytes: number): boolean {
    const end = Math.floor((address + bytes - 1) / PAGE_BYTES);
    for (let page = Math.floor(address / PAGE_BYTES); page <= end; page++) {
      const frame = this.frameOfKey(key, page * PAGE_BYTES);
      if (frame >= 0 && frame !== mm.pages.followPage(page, false)) return true;
    }
    return false;
  }

  private message(key: number): Sent {
    const message = this.messages.get(key);
    assert(message !== undefined, 'a message arrives that nobody has sent');
    return message;
  }

  private countOf(selected: (message: Sent) => boolean): number {
    let count = 0;
    for (const message of this.messages.values()) if (selected(message)) count++;
    return count;
  }
}
