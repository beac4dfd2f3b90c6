/**
 * The message that is coming in: where its bytes go, and the receive it uses.
 *
 * Both kinds of message fill *entries*: a WRITE the one range of its RETH, a SEND the scatter entries
 * of a receive, one after another. An entry's key is judged when the first byte goes there, so what a
 * message does not reach does not matter. Nothing of a packet is written unless all of it can be.
 * Owns the current receive from its taking to its completion. Does not own which packets are good
 * (`rc-responder.ts`, `uc-responder.ts`, `ud-responder.ts`).
 */
import { type TimePs, WC_RECV, WC_WR_FLUSH_ERR } from '../../transport/index.ts';
import { PIECE_BYTES, Pieces } from '../dma/pieces.ts';
import type { Region } from '../memory/region.ts';
import { LOCAL_WRITE, XLT_HIT } from '../memory/translator.ts';
import type { Binding } from '../memory/window.ts';
import type { Parts } from '../qp/parts.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import { MALFORMED, ReceiveBuffer } from './receive-queue.ts';

/** Answers of `place`. */
export const PLACED = 0;
/** A page is missing: see `faultRegion`, `faultAddress` and `faultBytes`. */
export const FAULTED = 1;
/** The memory may not be written, or not any more. */
export const DENIED = 2;

/** `message` of `place` while more packets follow. */
export const NOT_LAST = -1;

export class Inbound {
  /** Whether there is a current receive: taken, and not completed. */
  hasReceive = false;
  /** Bytes that the message may have (SEND) or must have (WRITE), and those that came. */
  totalBytes = 0;
  placedBytes = 0;
  /** After PLACED: when the last of the bytes are on their way to memory. */
  donePs: TimePs = 0;
  faultRegion: Region | undefined;
  faultAddress = 0;
  faultBytes = 0;
  private readonly receive = new ReceiveBuffer();
  private readonly pieces: Pieces;
  private isWrite = false;

  // The entry that is filled. Its region and what allows its use are not known before it is reached.
  private entry = 0;
  private used = 0;
  private address = 0;
  private length = 0;
  private region: Region | undefined;
  private grant: Region | Binding | undefined;
  /** Bytes at the start of a datagram's receive that are for its header. */
  private headerBytes = 0;

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {
    this.pieces = new Pieces(parts);
  }

  /** Makes the oldest receive the current one, unless there is one that no message has used up. */
  takeReceive(now: TimePs): void {
    if (this.hasReceive) return;
    this.qp.receiveQueue.take(this.receive, now);
    this.hasReceive = true;
  }

  /** Whether the current receive is one that should never have been posted. */
  get isMalformed(): boolean {
    return this.receive.count === MALFORMED;
  }

  /**
   * A SEND begins, at the start of the current receive. The receive of a datagram has `headerBytes`
   * for its header, which `place` or `skip` deals with before the message's own bytes.
   */
  beginReceive(headerBytes = 0): void {
    this.isWrite = false;
    this.placedBytes = 0;
    this.headerBytes = headerBytes;
    this.totalBytes = this.receive.totalBytes;
    this.entry = 0;
    this.openEntry();
  }

  /** A WRITE of `bytes` begins; `grant` may take `region` away before its end. */
  beginWrite(
    region: Region | undefined,
    grant: Region | Binding | undefined,
    address: number,
    bytes: number,
  ): void {
    this.isWrite = true;
    this.placedBytes = 0;
    this.headerBytes = 0;
    this.totalBytes = bytes;
    this.used = 0;
    this.address = address;
    this.length = bytes;
    this.region = region;
    this.grant = grant;
  }

  /** Leaves the next `bytes` of the receive as they are. */
  skip(bytes: number): void {
    this.placedBytes += bytes;
    let left = bytes;
    while (left > this.length - this.used) {
      left -= this.length - this.used;
      this.entry++;
      this.openEntry();
    }
    this.used += left;
  }

  /**
   * Writes `bytes` of a burst where the message goes on; the caller has seen that there is room. With
   * them ends message number `message`, unless it is NOT_LAST.
   */
  place(burst: number, offset: number, bytes: number, message: number, readyPs: TimePs): number {
    this.donePs = readyPs;
    if (bytes === 0) return PLACED;
    if (bytes > this.length - this.used || bytes > PIECE_BYTES) {
      return this.scatter(burst, offset, bytes, message, readyPs);
    }
    if (!this.mayWrite()) return DENIED;
    const { bus, translator } = this.parts;
    const region = this.region as Region;
    if (translator.pages(region, this.address + this.used, bytes, true) !== XLT_HIT) {
      return this.missed(region);
    }
    const { frame, within, nextFrame } = translator;
    const write = bus.dmaWrite(frame, within, nextFrame, burst, offset, bytes);
    this.used += bytes;
    this.placedBytes += bytes;
    this.send(write, message, readyPs + translator.latencyPs);
    return PLACED;
  }

  /** Reports the current receive. `flags` are CQE_* bits; a datagram has a source. */
  completeReceive(
    now: TimePs,
    status: number,
    opcode: number,
    bytes: number,
    immediate: number,
    flags: number,
    sourceQpn: number,
    slid: number,
  ): void {
    this.hasReceive = false;
    const { wrId } = this.receive;
    this.qp.completeReceive(now, wrId, status, opcode, bytes, immediate, flags, sourceQpn, slid);
  }

  /** Reports the current receive, which a message could not use. */
  failReceive(now: TimePs, status: number): void {
    this.completeReceive(now, status, WC_RECV, 0, 0, 0, 0, 0);
  }

  /** Reports the current receive and, unless others take from it too, all of the queue as flushed. */
  flush(now: TimePs): void {
    const queue = this.qp.receiveQueue;
    if (this.hasReceive) this.failReceive(now, WC_WR_FLUSH_ERR);
    while (!queue.isShared && !queue.isEmpty) {
      this.takeReceive(now);
      this.failReceive(now, WC_WR_FLUSH_ERR);
    }
  }

  /** Bytes over several entries, or of more than a piece. */
  private scatter(
    burst: number,
    offset: number,
    bytes: number,
    message: number,
    readyPs: TimePs,
  ): number {
    const { entry, used } = this;
    const verdict = this.findPieces(bytes);
    if (verdict !== PLACED) {
      this.entry = entry;
      this.openEntry();
      this.used = used;
      return verdict;
    }
    const write = this.pieces.write(burst, offset, readyPs);
    this.placedBytes += bytes;
    this.send(write, message, this.pieces.donePs(readyPs));
    return PLACED;
  }

  /** Looks `bytes` up, going on from entry to entry. */
  private findPieces(bytes: number): number {
    const { pieces } = this;
    pieces.clear();
    for (let left = bytes; left > 0; ) {
      while (this.used === this.length) {
        this.entry++;
        this.openEntry();
      }
      const piece = Math.min(left, this.length - this.used, PIECE_BYTES);
      if (!this.mayWrite()) return DENIED;
      const region = this.region as Region;
      if (!pieces.find(region, this.address + this.used, piece)) return this.missed(region);
      this.used += piece;
      left -= piece;
    }
    return PLACED;
  }

  /** Whether the current entry may be written; finds its region. */
  private mayWrite(): boolean {
    if (this.region === undefined) {
      if (this.isWrite) return false;
      const pd = this.qp.pd.number;
      const lkey = this.receive.lkeys[this.entry];
      const { translator } = this.parts;
      this.region = translator.check(lkey, pd, this.address, this.length, LOCAL_WRITE);
      this.grant = this.region;
    }
    return this.grant?.alive === true;
  }

  /** A page of the current entry is missing: notes all that is still to come of the entry. */
  private missed(region: Region): number {
    const { missAddress } = this.parts.translator;
    this.faultRegion = region;
    this.faultAddress = missAddress;
    this.faultBytes = this.address + this.length - missAddress;
    return FAULTED;
  }

  /** Sends the last DMA write of a packet. */
  private send(write: number, message: number, donePs: TimePs): void {
    if (message !== NOT_LAST) this.endMessage(write, message);
    this.donePs = donePs;
    this.parts.bus.sendDmaWrite(donePs, write);
  }

  /** Says of the last write where the host finds the whole message. */
  private endMessage(write: number, message: number): void {
    const isScattered = !this.isWrite && this.receive.count > 1;
    const region = this.region as Region;
    const start = this.address + region.bias + this.headerBytes;
    const place = isScattered ? this.receive.wrId >>> 0 : start;
    const bytes = this.placedBytes - this.headerBytes;
    this.parts.bus.endMessage(write, this.qp.qpn, message, place, bytes, isScattered);
  }

  /** Goes to the start of entry `entry` of the receive. */
  private openEntry(): void {
    this.used = 0;
    this.address = this.receive.addresses[this.entry];
    this.length = this.receive.lengths[this.entry];
    this.region = undefined;
    this.grant = undefined;
  }
}
