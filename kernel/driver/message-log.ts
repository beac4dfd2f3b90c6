/**
 * What each side of a message saw of its bytes: the log by which a run is verified.
 *
 * A message is named by the queue pair of its responder and its number there (the responder's MSN, 24
 * bits). The initiator hashes its local buffers when its work request completes (inline data when it
 * is posted); the target hashes its range when the last bytes land (SEND, WRITE, ATOMIC WRITE) or are
 * read (READ). Whoever holds both logs compares. Messages of unreliable services may be lost, so
 * their numbers at the two ends differ; they are compared by their bytes alone.
 *
 * An atomic operation is logged with its operands and the original value: by the initiator as it came
 * back, by the target as memory held it.
 */
import {
  ATOMIC_ADD,
  ATOMIC_COMPARE_SWAP,
  type Node,
  QPT_RC,
  QPT_UD,
  RECORD_MESSAGE,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_FLUSH,
} from '../../transport/index.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import type { PostedSend, QueuePair } from './queue-pair.ts';
import { lengthOf, type ScatterEntry } from './work.ts';

export interface MessageEntry {
  readonly side: 'initiator' | 'target';
  /** IBV_QPT_* of the queue pair. */
  readonly service: number;
  /** Queue pair of the responder: the initiator's destination, the target's own. */
  readonly qpn: number;
  /** LID of the responder as the initiator knows it; 0 on the target's side. */
  readonly lid: number;
  readonly message: number;
  readonly bytes: number;
  readonly hash: number;
}

export interface AtomicEntry {
  readonly side: 'initiator' | 'target';
  /** LID of the responder as the initiator knows it; 0 on the target's side. */
  readonly lid: number;
  /** Virtual address at the responder. */
  readonly address: number;
  /** ATOMIC_*. */
  readonly operation: number;
  /** Each as two unsigned words, the high one first: added or new value, compared value, original. */
  readonly values: readonly number[];
}

/** Message numbers are MSNs: 24 bits. */
export const MESSAGE_MASK = 0xffffff;
/** Room for the GRH in front of each datagram in its receive. */
const GRH_BYTES = 40;

export class MessageLog {
  readonly entries: MessageEntry[] = [];
  readonly atomics: AtomicEntry[] = [];
  /** Where the entry of each answered READ stands, by queue pair and message. */
  private readonly answers = new Map<number, number>();

  /** `mmOf` says whose memory a queue pair works on, those that are destroyed included. */
  constructor(
    private readonly node: Node,
    private readonly queuePairs: ReadonlyMap<number, QueuePair>,
    private readonly mmOf: (qpn: number) => AddressSpace,
    readonly enabled: boolean,
  ) {}

  /** Hash of the bytes that are in these buffers of `qp` now, where anybody will ask for it. */
  hashOf(qp: QueuePair, buffers: readonly ScatterEntry[]): number | undefined {
    return this.enabled ? this.mmOf(qp.qpn).hashRanges(buffers) : undefined;
  }

  /** The initiator's work request has completed with success. */
  addInitiator(qp: QueuePair, { request, message, inlineHash }: PostedSend): void {
    const { opcode, sges = [], datagram } = request;
    if (!this.enabled || message === 0 || opcode === WR_FLUSH) return;
    const lid = datagram?.ah.dlid ?? qp.attributes.destLid;
    const mm = this.mmOf(qp.qpn);
    if (opcode === WR_ATOMIC_CMP_AND_SWP || opcode === WR_ATOMIC_FETCH_AND_ADD) {
      const isAdd = opcode === WR_ATOMIC_FETCH_AND_ADD;
      const [data, compare] = isAdd
        ? [request.compareAdd, undefined]
        : [request.swap, request.compareAdd];
      this.atomics.push({
        side: 'initiator',
        lid,
        address: request.remoteAddress ?? 0,
        operation: isAdd ? ATOMIC_ADD : ATOMIC_COMPARE_SWAP,
        values: [...(data ?? [0, 0]), ...(compare ?? [0, 0]), ...valueIn(mm, sges)].map(unsigned),
      });
      return;
    }
    const bytes = lengthOf(sges);
    if (bytes === 0) return;
    const qpn = datagram?.remoteQpn ?? qp.attributes.destQpn;
    const hash = inlineHash ?? mm.hashRanges(sges);
    this.entries.push(this.entry('initiator', qp.type, qpn, lid, message, bytes, hash));
  }

  /** The last bytes of a message have landed at the target, all of them at `address`. */
  addWritten(qpn: number, message: number, address: number, bytes: number): void {
    this.addTarget(qpn, message, [{ address, length: bytes, lkey: 0 }], bytes);
  }

  /** The same for a message that went into the receive `wrId`, which has several buffers. */
  addScattered(qpn: number, message: number, wrId: number, bytes: number): void {
    const qp = this.queuePairs.get(qpn);
    if (qp === undefined) return;
    const receives = qp.plan.srq?.receives ?? qp.receives;
    const skipped = qp.type === QPT_UD ? GRH_BYTES : 0;
    this.addTarget(qpn, message, piecesOf(receives.buffersOf(wrId), skipped, bytes), bytes);
  }

  /**
   * The target has read the last bytes of a READ. An initiator that lost responses asks again, and
   * the answer it keeps is the last: so is the entry.
   */
  addRead(qpn: number, message: number, address: number, bytes: number): void {
    if (!this.enabled || bytes === 0) return;
    const key = qpn * (MESSAGE_MASK + 1) + (message & MESSAGE_MASK);
    const place = this.answers.get(key) ?? this.entries.length;
    this.answers.set(key, place);
    const hash = this.mmOf(qpn).hash(address, bytes);
    this.entries[place] = this.entry('target', QPT_RC, qpn, 0, message, bytes, hash);
  }

  /** The target's memory has executed an atomic operation. */
  addAtomic(address: number, operation: number, values: readonly number[]): void {
    if (!this.enabled) return;
    this.atomics.push({
      side: 'target',
      lid: 0,
      address,
      operation,
      values: values.map(unsigned),
    });
  }

  private addTarget(
    qpn: number,
    message: number,
    buffers: readonly ScatterEntry[],
    bytes: number,
  ): void {
    if (!this.enabled || bytes === 0) return;
    const service = this.queuePairs.get(qpn)?.type ?? QPT_RC;
    const hash = this.mmOf(qpn).hashRanges(buffers);
    this.entries.push(this.entry('target', service, qpn, 0, message, bytes, hash));
  }

  private entry(
    side: MessageEntry['side'],
    service: number,
    qpn: number,
    lid: number,
    message: number,
    bytes: number,
    hash: number,
  ): MessageEntry {
    const number = message & MESSAGE_MASK;
    this.node.digest.record(RECORD_MESSAGE, this.node.now, qpn, number, bytes, hash);
    return { side, service, qpn, lid, message: number, bytes, hash };
  }
}

/** The 64-bit value in a list of buffers, high word first. */
function valueIn(mm: AddressSpace, sges: readonly ScatterEntry[]): [number, number] {
  const bytes = new Uint8Array(8);
  let at = 0;
  for (const { address, length } of sges) {
    bytes.set(mm.read(address, Math.min(length, 8 - at)), at);
    at += Math.min(length, 8 - at);
  }
  const view = new DataView(bytes.buffer);
  return [view.getUint32(4, true), view.getUint32(0, true)];
}

/** The parts of `buffers` that hold `bytes` bytes behind the first `skipped`. */
function piecesOf(
  buffers: readonly ScatterEntry[],
  skipped: number,
  bytes: number,
): ScatterEntry[] {
  const pieces: ScatterEntry[] = [];
  let skip = skipped;
  let left = bytes;
  for (const { address, length, lkey } of buffers) {
    const leave = Math.min(skip, length);
    const take = Math.min(left, length - leave);
    if (take > 0) pieces.push({ address: address + leave, length: take, lkey });
    skip -= leave;
    left -= take;
  }
  return pieces;
}

function unsigned(word: number): number {
  return word >>> 0;
}
