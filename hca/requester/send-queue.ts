/**
 * The send queue of a queue pair: posted work requests, in order, until they complete.
 *
 * Positions (`head`, `next`, `tail`) count work requests since the queue pair left RESET and never
 * wrap; `at` turns one into a row. A work request owns the PSNs from `firstPsn` on, one for each
 * packet; an RDMA READ owns one for each packet of its response, local work owns none. What is wrong
 * with a work request by itself is found here; its memory is judged when it is read.
 */
import {
  FRAME_WORDS,
  type FramePool,
  MAX_INLINE_BYTES,
  nextPowerOfTwo,
  PAYLOAD_BYTES,
  QPT_UD,
  SEGMENT_ATOMIC_BYTES,
  SEGMENT_UD_BYTES,
  SEND_FENCE,
  SEND_INLINE,
  WC_LOC_LEN_ERR,
  WC_LOC_QP_OP_ERR,
  WC_SUCCESS,
  WR_ATOMIC_WRITE,
} from '../../transport/index.ts';
import { MAX_MESSAGE_BYTES } from '../qp/parts.ts';
import { psnAdd } from '../qp/psn.ts';
import { ScatterLists } from '../qp/scatter-list.ts';
import type { Trailer } from '../trailer.ts';
import { smallBurst } from './small-burst.ts';
import {
  isOperationOf,
  WORK_ANSWER,
  WORK_ATOMIC,
  WORK_DATA,
  WORK_INLINE,
  WORK_LOCAL,
  WORK_RESULT,
  workFlags,
} from './work-kinds.ts';

/** Words of a row that hold the address of a datagram, or the operands of an atomic. */
const OPERAND_WORDS = 4;
const ATOMIC_BYTES = 8;

export class SendQueue {
  readonly opcode: Uint8Array;
  readonly flags: Uint8Array;
  /** WORK_* of the operation. */
  readonly kind: Uint16Array;
  readonly wrId: Int32Array;
  readonly lkey: Int32Array;
  readonly length: Int32Array;
  readonly rkey: Int32Array;
  readonly immediate: Int32Array;
  readonly localAddress: Float64Array;
  readonly remoteAddress: Float64Array;
  readonly firstPsn: Int32Array;
  readonly packets: Int32Array;
  /** Number of the message on its connection, from 1 (SSN); of local work, that of the one before. */
  readonly ssn: Int32Array;
  /** Entries of a work request that has more than one; else 0, and the words above say it all. */
  readonly entries: Uint8Array;
  readonly scatterLists: ScatterLists;
  /** Why a work request cannot be sent: the status it will complete with, or WC_SUCCESS. */
  readonly problem: Uint8Array;
  /** Whether local work has been done; it waits for what was posted before it. */
  readonly isDone: Uint8Array;
  private readonly waitsFor: Float64Array;
  private operands = new Int32Array(0);
  private inlineBytes = new Uint8Array(0);
  private readonly mask: number;
  /** The oldest work request that has not completed. */
  head = 0;
  /** The work request that is being sent. */
  next = 0;
  /** One behind the newest. */
  tail = 0;
  /** The PSN and the number of the next work request to be posted. */
  postPsn = 0;
  private postSsn = 0;
  /** The newest work request that an answer completes, or -1. */
  private lastAnswer = -1;

  /** `entries` is rounded up to a power of two. */
  constructor(entries: number) {
    const size = nextPowerOfTwo(entries);
    this.mask = size - 1;
    this.opcode = new Uint8Array(size);
    this.flags = new Uint8Array(size);
    this.kind = new Uint16Array(size);
    this.wrId = new Int32Array(size);
    this.lkey = new Int32Array(size);
    this.length = new Int32Array(size);
    this.rkey = new Int32Array(size);
    this.immediate = new Int32Array(size);
    this.localAddress = new Float64Array(size);
    this.remoteAddress = new Float64Array(size);
    this.firstPsn = new Int32Array(size);
    this.packets = new Int32Array(size);
    this.ssn = new Int32Array(size);
    this.entries = new Uint8Array(size);
    this.scatterLists = new ScatterLists(size);
    this.problem = new Uint8Array(size);
    this.isDone = new Uint8Array(size);
    this.waitsFor = new Float64Array(size);
  }

  /** The row of the work request at `position`. */
  at(position: number): number {
    return position & this.mask;
  }

  /** LID of the port that the datagram in `row` goes to. */
  datagramLid(row: number): number {
    return this.operand(row, 2) & 0xffff;
  }

  get isFull(): boolean {
    return this.tail - this.head > this.mask;
  }

  get isEmpty(): boolean {
    return this.tail === this.head;
  }

  /** Adds the work request of a SEND_DOORBELL frame. The queue is not full. */
  post(pool: FramePool, frame: number, trailer: Trailer, type: number, mtu: number): void {
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    const row = this.tail & this.mask;
    const operation = words[base + 2];
    const isKnown = isOperationOf(operation, type);
    this.opcode[row] = operation;
    this.flags[row] = words[base + 3];
    this.kind[row] = isKnown ? workFlags[operation] : 0;
    this.wrId[row] = words[base + 4];
    this.lkey[row] = words[base + 5];
    this.length[row] = words[base + 6];
    this.rkey[row] = words[base + 7];
    this.immediate[row] = words[base + 8];
    this.localAddress[row] = pool.doubles[frame * 2];
    this.remoteAddress[row] = pool.doubles[frame * 2 + 1];
    this.entries[row] = 0;
    this.isDone[row] = 0;
    this.waitsFor[row] = (this.flags[row] & SEND_FENCE) !== 0 ? this.lastAnswer : -1;
    if (!isKnown) this.problem[row] = WC_LOC_QP_OP_ERR;
    else {
      this.problem[row] = this.problemOf(row, mtu, type);
      const isPlain = words[base + PAYLOAD_BYTES] === 0 && words[base + 9] <= 1;
      const needsMore = type === QPT_UD || (this.kind[row] & WORK_ATOMIC) !== 0;
      if (!isPlain || needsMore || (this.flags[row] & SEND_INLINE) !== 0) {
        trailer.load(frame);
        const problem = this.takeSegments(row, words[base + 9], trailer, type);
        if (problem !== WC_SUCCESS) this.problem[row] = problem;
      }
    }
    this.number(row, type, mtu);
    this.tail++;
  }

  /** Bytes that the packets of a row carry and that memory is to be asked for. */
  bytesToRead(row: number): number {
    return (this.kind[row] & (WORK_DATA | WORK_INLINE)) === WORK_DATA ? this.length[row] : 0;
  }

  isAnswered(row: number): boolean {
    return (this.kind[row] & WORK_ANSWER) !== 0;
  }

  isLocal(row: number): boolean {
    return (this.kind[row] & WORK_LOCAL) !== 0;
  }

  /** Whether SEND_FENCE holds a row back: READs or atomics before it are not answered. */
  isFenced(row: number): boolean {
    return this.waitsFor[row] >= this.head;
  }

  /** Word `index` of a row's operands: UD address, or atomic operands, as their segment has them. */
  operand(row: number, index: number): number {
    return this.operands[row * OPERAND_WORDS + index];
  }

  /** A loaded burst with the inline data of a row. */
  inlineBurst(pool: FramePool, row: number): number {
    return smallBurst(pool, this.inlineBytes, row * MAX_INLINE_BYTES, this.length[row]);
  }

  /** PSN of the last packet of a row. */
  lastPsn(row: number): number {
    return psnAdd(this.firstPsn[row], this.packets[row] - 1);
  }

  /** What a work request owns: PSNs, and its number. */
  private number(row: number, type: number, mtu: number): void {
    const kind = this.kind[row];
    const isLong = type !== QPT_UD && (kind & (WORK_DATA | WORK_RESULT)) !== 0;
    if ((kind & WORK_LOCAL) !== 0) this.packets[row] = 0;
    else this.packets[row] = isLong ? Math.max(1, Math.ceil(this.length[row] / mtu)) : 1;
    this.firstPsn[row] = this.postPsn;
    this.postPsn = psnAdd(this.postPsn, this.packets[row]);
    if ((kind & WORK_LOCAL) === 0) this.postSsn = psnAdd(this.postSsn, 1);
    this.ssn[row] = this.postSsn;
    if ((kind & WORK_ANSWER) !== 0) this.lastAnswer = this.tail;
  }

  /** What is wrong with the common words of a work request, or WC_SUCCESS. */
  private problemOf(row: number, mtu: number, type: number): number {
    const kind = this.kind[row];
    const length = this.length[row];
    if ((kind & WORK_LOCAL) !== 0) return WC_SUCCESS;
    if (length < 0 || length > MAX_MESSAGE_BYTES) return WC_LOC_LEN_ERR;
    if (type === QPT_UD && length > mtu) return WC_LOC_LEN_ERR;
    if (this.opcode[row] === WR_ATOMIC_WRITE && length !== ATOMIC_BYTES) return WC_LOC_LEN_ERR;
    if ((kind & WORK_ATOMIC) !== 0) {
      if (length < ATOMIC_BYTES) return WC_LOC_LEN_ERR;
      this.length[row] = ATOMIC_BYTES;
    }
    return WC_SUCCESS;
  }

  /** Stores what stands behind the common words; returns what is wrong with it, or WC_SUCCESS. */
  private takeSegments(row: number, sges: number, trailer: Trailer, type: number): number {
    const isAtomic = (this.kind[row] & WORK_ATOMIC) !== 0;
    let at = 0;
    if (type === QPT_UD || isAtomic) {
      at = type === QPT_UD ? SEGMENT_UD_BYTES : SEGMENT_ATOMIC_BYTES;
      if (trailer.length < at) return WC_LOC_QP_OP_ERR;
      if (this.operands.length === 0) {
        this.operands = new Int32Array(this.opcode.length * OPERAND_WORDS);
      }
      for (let i = 0; i < OPERAND_WORDS; i++) {
        this.operands[row * OPERAND_WORDS + i] = trailer.word(i * 4);
      }
    }
    const length = this.length[row];
    if ((this.flags[row] & SEND_INLINE) !== 0) {
      if ((this.kind[row] & WORK_DATA) === 0) return WC_LOC_QP_OP_ERR;
      if (length > MAX_INLINE_BYTES || length > trailer.length - at) return WC_LOC_LEN_ERR;
      if (this.inlineBytes.length === 0) {
        this.inlineBytes = new Uint8Array(this.opcode.length * MAX_INLINE_BYTES);
      }
      const start = row * MAX_INLINE_BYTES;
      for (let i = 0; i < length; i++) this.inlineBytes[start + i] = trailer.bytes[at + i];
      this.kind[row] |= WORK_INLINE;
      return WC_SUCCESS;
    }
    if (sges <= 1) return WC_SUCCESS;
    const total = this.scatterLists.load(row, sges, trailer, at);
    if (total < 0) return WC_LOC_QP_OP_ERR;
    if (total < length || (total > length && !isAtomic)) return WC_LOC_LEN_ERR;
    this.entries[row] = sges;
    this.lkey[row] = this.scatterLists.lkey(row, 0);
    return WC_SUCCESS;
  }
}
