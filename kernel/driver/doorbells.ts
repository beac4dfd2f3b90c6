/**
 * Work requests as the adapter gets them: the doorbell messages and their segments.
 *
 * A request with one buffer fits the fixed words. What fewer need follows as bytes, in the order that
 * `transport/wire/bus.ts` gives: address of a datagram, operands of an atomic, inline data or a list
 * of buffers.
 */
import {
  BURST,
  BUS_RECV_DOORBELL,
  BUS_SEND_DOORBELL,
  BUS_SRQ_DOORBELL,
  FRAME_WORDS,
  MAX_INLINE_BYTES,
  MAX_SGE,
  PAYLOAD_BYTES,
  SEGMENT_ATOMIC_BYTES,
  SEGMENT_SGE_BYTES,
  SEGMENT_UD_BYTES,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_BIND_MW,
  WR_FLUSH,
  WR_LOCAL_INV,
  WR_SEND_WITH_INV,
} from '../../transport/index.ts';
import type { AdapterBus } from './adapter-bus.ts';
import { lengthOf, type ReceiveRequest, type ScatterEntry, type SendRequest } from './work.ts';

const MAX_SEGMENT_BYTES =
  SEGMENT_UD_BYTES + SEGMENT_ATOMIC_BYTES + Math.max(MAX_INLINE_BYTES, MAX_SGE * SEGMENT_SGE_BYTES);

export class Doorbells {
  private readonly segments = new Uint8Array(MAX_SEGMENT_BYTES);
  private readonly view = new DataView(this.segments.buffer);
  private used = 0;

  constructor(private readonly bus: AdapterBus) {}

  /** Rings the send doorbell of `qpn`; with SEND_INLINE, `inline` holds the data. */
  send(qpn: number, request: SendRequest, inline: Uint8Array | undefined): void {
    const { pool } = this.bus;
    const frame = this.bus.message(BUS_SEND_DOORBELL);
    const at = frame * FRAME_WORDS;
    const { opcode, sges, flush } = request;
    pool.words[at + 1] = qpn;
    pool.words[at + 2] = opcode;
    pool.words[at + 3] = request.flags;
    pool.words[at + 4] = request.wrId;
    pool.words[at + 5] = sges?.[0]?.lkey ?? 0;
    pool.words[at + 6] = flush ? flush.length : lengthOf(sges);
    pool.words[at + 7] = (opcode === WR_LOCAL_INV ? request.invalidateRkey : request.rkey) ?? 0;
    pool.words[at + 8] = immediateOf(request);
    pool.words[at + 9] = inline ? Math.min(1, inline.length) : buffersIn(sges);
    pool.doubles[frame * 2] = sges?.[0]?.address ?? 0;
    pool.doubles[frame * 2 + 1] = request.remoteAddress ?? 0;
    this.used = 0;
    if (request.datagram) {
      const { ah, remoteQpn, remoteQkey } = request.datagram;
      for (const word of [remoteQpn, remoteQkey, ah.dlid, 0]) this.add(word);
    }
    if (opcode === WR_ATOMIC_CMP_AND_SWP || opcode === WR_ATOMIC_FETCH_AND_ADD) {
      const [compareHigh, compareLow] = request.compareAdd ?? [0, 0];
      const [swapHigh, swapLow] = request.swap ?? [0, 0];
      for (const word of [compareLow, compareHigh, swapLow, swapHigh]) this.add(word);
    }
    if (inline) {
      this.segments.set(inline, this.used);
      this.used += inline.length;
    } else this.addList(sges);
    this.ring(frame);
  }

  /** Rings the receive doorbell of queue pair, or shared receive queue, `number`. */
  receive(isShared: boolean, number: number, { wrId, sges }: ReceiveRequest): void {
    const { pool } = this.bus;
    const frame = this.bus.message(isShared ? BUS_SRQ_DOORBELL : BUS_RECV_DOORBELL);
    const at = frame * FRAME_WORDS;
    pool.words[at + 1] = number;
    pool.words[at + 2] = wrId;
    pool.words[at + 3] = sges?.[0]?.lkey ?? 0;
    pool.words[at + 4] = lengthOf(sges);
    pool.words[at + 5] = buffersIn(sges);
    pool.doubles[frame * 2] = sges?.[0]?.address ?? 0;
    this.used = 0;
    this.addList(sges);
    this.ring(frame);
  }

  private add(word: number): void {
    this.view.setUint32(this.used, word, true);
    this.used += 4;
  }

  private addList(sges: readonly ScatterEntry[] | undefined): void {
    if (!sges || sges.length < 2) return;
    for (const { address, length, lkey } of sges) {
      this.add(address);
      this.add(Math.floor(address / 2 ** 32));
      this.add(length);
      this.add(lkey);
    }
  }

  private ring(frame: number): void {
    if (this.used > 0) {
      const { pool } = this.bus;
      const at = frame * FRAME_WORDS;
      pool.words[at + BURST] = pool.burstFromBytes(this.segments, 0, this.used);
      pool.words[at + PAYLOAD_BYTES] = this.used;
    }
    this.bus.send(frame);
  }
}

/** The `sges` field: buffers there are; one without bytes is none. */
function buffersIn(sges: readonly ScatterEntry[] | undefined): number {
  if (!sges || sges.length > 1) return sges?.length ?? 0;
  return sges[0] !== undefined && sges[0].length > 0 ? 1 : 0;
}

/** What the `immediate` field means for the opcode. */
function immediateOf({ opcode, ...request }: SendRequest): number {
  switch (opcode) {
    case WR_SEND_WITH_INV:
      return request.invalidateRkey ?? 0;
    case WR_BIND_MW:
      return request.bindAccess ?? 0;
    case WR_FLUSH:
      return request.flush ? request.flush.placement | (request.flush.selectivity << 4) : 0;
    default:
      return request.immediate ?? 0;
  }
}
