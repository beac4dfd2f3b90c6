/**
 * READ, atomics, ATOMIC WRITE and FLUSH at the responder: one packet each, and an answer of their own.
 *
 * Judges their sizes, keys, ranges, alignment and pages, in that order, and starts what memory has to
 * do. Does not own their order among other requests and what a verdict means (`rc-responder.ts`), nor
 * the answers (`answer-queue.ts`).
 */
import {
  ATOMIC_ADD,
  ATOMIC_COMPARE_SWAP,
  BURST,
  BURST_OFFSET,
  FLUSH_MR,
  FRAME_WORDS,
  OP_ATOMIC,
  OP_ATOMIC_WRITE,
  OP_FLUSH,
  OP_READ,
  PAYLOAD_BYTES,
  RC_COMPARE_SWAP,
  type TimePs,
  W_COMPARE_HIGH,
  W_COMPARE_LOW,
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_OPCODE,
  W_RKEY,
  W_SWAP_HIGH,
  W_SWAP_LOW,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import type { Region } from '../memory/region.ts';
import { XLT_HIT } from '../memory/translator.ts';
import { MAX_MESSAGE_BYTES, type Parts } from '../qp/parts.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import { packetsOf } from './answer.ts';
import type { AnswerQueue } from './answer-queue.ts';
import { ATOMIC_BYTES, flushLevel, isValidFlush, rightsFor } from './request-rules.ts';
import type { OperationRange, SavedOperation } from './saved-operation.ts';

/** Answers of `judge`. */
export const ADMITTED = 0;
export const INVALID = 1;
export const NO_ACCESS = 2;
/** A page is missing: see `region`, `missedAddress`, `missedBytes` and `isWrite`. */
export const NO_PAGE = 3;

export class Operations {
  region: Region | undefined;
  missedAddress = 0;
  missedBytes = 0;
  isWrite = false;
  /** Where the operation that was judged last works. */
  private range: OperationRange | undefined;

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
    private readonly answers: AnswerQueue,
  ) {}

  /** Whether a new operation can be done. */
  judge(frame: number, kind: number): number {
    const { counters } = this.parts;
    if (kind === OP_READ) counters[C.rx_read_requests]++;
    else if (kind === OP_ATOMIC) counters[C.rx_atomic_requests]++;
    const bytes = this.bytesOf(frame, kind);
    if (this.answers.isFull || !this.hasValidSize(frame, kind, bytes)) return INVALID;
    const range = this.rangeOf(frame, kind, bytes);
    if (range === undefined) return NO_ACCESS;
    this.range = range;
    this.isWrite = kind === OP_ATOMIC || kind === OP_ATOMIC_WRITE;
    // Atomics work on memory at multiples of eight, whatever a zero-based key makes of the address.
    const at = range.address + (range.region?.bias ?? 0);
    if (this.isWrite && at % ATOMIC_BYTES !== 0) return INVALID;
    return this.isPresent(range) ? ADMITTED : NO_PAGE;
  }

  /** Starts the operation that has just been admitted; returns how many PSNs it takes. */
  start(frame: number, kind: number, psn: number, msn: number, readyPs: TimePs): number {
    const { qp, parts, answers } = this;
    const range = this.range as OperationRange;
    const packets = kind === OP_READ ? packetsOf(range.bytes, qp.attributes.mtu) : 1;
    const operation = answers.add(kind, psn, packets, range, msn, readyPs);
    if (kind === OP_ATOMIC) this.startAtomic(frame, operation, readyPs);
    else if (kind === OP_ATOMIC_WRITE) this.writeAtomically(frame, operation, readyPs);
    else if (kind === OP_FLUSH) {
      // Nothing is read, but the bus keeps order: what was written before is in memory by then.
      parts.bus.dmaRead(readyPs, parts.tags.take(operation, 0, 0), 0);
    }
    return packets;
  }

  /** An operation that was done is asked for once more. `msn` is where the responder is now. */
  repeat(frame: number, kind: number, psn: number, msn: number, readyPs: TimePs): void {
    const { pool } = this.parts;
    const rkey = pool.words[frame * FRAME_WORDS + W_RKEY];
    const bytes = this.bytesOf(frame, kind);
    this.answers.repeat(kind, psn, rkey, pool.doubles[frame * 2], bytes, msn, readyPs);
  }

  private bytesOf(frame: number, kind: number): number {
    if (kind === OP_ATOMIC) return ATOMIC_BYTES;
    return this.parts.pool.words[frame * FRAME_WORDS + W_DMA_BYTES] >>> 0;
  }

  /** Whether an operation has the payload and the bytes that one of its kind has. */
  private hasValidSize(frame: number, kind: number, bytes: number): boolean {
    const words = this.parts.pool.words;
    const base = frame * FRAME_WORDS;
    const payload = words[base + PAYLOAD_BYTES];
    if (kind === OP_READ) return payload === 0 && bytes <= MAX_MESSAGE_BYTES;
    if (kind === OP_FLUSH) return payload === 0 && isValidFlush(words[base + W_IMMEDIATE]);
    return bytes === ATOMIC_BYTES && payload === (kind === OP_ATOMIC_WRITE ? ATOMIC_BYTES : 0);
  }

  /** Where an operation works, or undefined where its key, range or right is wrong. */
  private rangeOf(frame: number, kind: number, bytes: number): OperationRange | undefined {
    const { qp, parts } = this;
    const { translator, pool } = parts;
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    const rkey = words[base + W_RKEY];
    const remoteAddress = pool.doubles[frame * 2];
    const feth = words[base + W_IMMEDIATE];
    const rights = rightsFor(kind, feth);
    // A READ of nothing touches no memory; a FLUSH of the whole region has no range.
    if (kind === OP_READ && bytes === 0) {
      return { rkey, remoteAddress, bytes, region: undefined, grant: undefined, address: 0 };
    }
    const isWhole = kind === OP_FLUSH && flushLevel(feth) === FLUSH_MR;
    const region = isWhole
      ? translator.grantRemote(rkey, qp, rights)
      : translator.checkRemote(rkey, qp, remoteAddress, bytes, rights);
    if (region === undefined) return undefined;
    const address = isWhole ? region.address : translator.address;
    const length = isWhole ? 0 : bytes;
    return { rkey, remoteAddress, bytes: length, region, grant: translator.grant, address };
  }

  /** Whether all pages that an operation needs are there. */
  private isPresent({ region, address, bytes }: OperationRange): boolean {
    if (region === undefined || bytes === 0) return true;
    const { translator } = this.parts;
    const isThere = this.isWrite
      ? translator.pages(region, address, bytes, true) === XLT_HIT
      : translator.isReadable(region, address, bytes);
    this.region = region;
    this.missedAddress = translator.missAddress;
    this.missedBytes = address + bytes - translator.missAddress;
    return isThere;
  }

  /** Sends an atomic operation to the memory that `isPresent` has found. */
  private startAtomic(frame: number, operation: SavedOperation, readyPs: TimePs): void {
    const { atomics, pool, translator } = this.parts;
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    atomics.start(
      readyPs + translator.latencyPs,
      translator.frame,
      translator.within,
      words[base + W_OPCODE] === RC_COMPARE_SWAP ? ATOMIC_COMPARE_SWAP : ATOMIC_ADD,
      words[base + W_SWAP_HIGH],
      words[base + W_SWAP_LOW],
      words[base + W_COMPARE_HIGH],
      words[base + W_COMPARE_LOW],
      operation,
    );
  }

  /** Eight aligned bytes in one DMA write are written at once. */
  private writeAtomically(frame: number, operation: SavedOperation, readyPs: TimePs): void {
    const { bus, pool, translator } = this.parts;
    const { range, message } = operation;
    const base = frame * FRAME_WORDS;
    const burst = pool.words[base + BURST];
    const offset = pool.words[base + BURST_OFFSET];
    const { frame: page, within } = translator;
    const write = bus.dmaWrite(page, within, 0, burst, offset, ATOMIC_BYTES);
    const address = range.address + (range.region as Region).bias;
    bus.endMessage(write, this.qp.qpn, message, address, ATOMIC_BYTES, false);
    bus.sendDmaWrite(readyPs + translator.latencyPs, write);
    operation.finish(readyPs);
  }
}
