/**
 * A request that is answered with more than an ACK, kept so that it can be answered again.
 *
 * These are the responder resources of IBTA 9.4.5: a READ is read from memory anew, of the others the
 * result is saved, because they must not be carried out twice. `answer-queue.ts` keeps the last
 * `max_dest_rd_atomic` of them.
 */
import type { TimePs } from '../../transport/index.ts';
import type { AtomicWaiter } from '../dma/atomic-tags.ts';
import type { BurstWaiter } from '../dma/gather-tags.ts';
import type { Region } from '../memory/region.ts';
import type { Binding } from '../memory/window.ts';
import type { Parts } from '../qp/parts.ts';
import type { QueuePair } from '../qp/queue-pair.ts';

/** Where an operation works: what a key led to, and the range there and as the packet named it. */
export interface OperationRange {
  readonly rkey: number;
  readonly remoteAddress: number;
  readonly bytes: number;
  /** undefined for a READ of nothing. */
  readonly region: Region | undefined;
  readonly grant: Region | Binding | undefined;
  readonly address: number;
}

export class SavedOperation implements AtomicWaiter, BurstWaiter {
  /** Whether memory has given what the answer needs; what a READ needs comes with each answer. */
  isDone = false;
  /** Whether its last packet has been sent, so that the peer may need no other answer. */
  isAnswered = false;
  /** What stood in memory before an atomic operation. */
  originalHigh = 0;
  originalLow = 0;

  /** `kind` is OP_READ, OP_ATOMIC, OP_ATOMIC_WRITE or OP_FLUSH; `message` its number (MSN). */
  constructor(
    readonly kind: number,
    readonly psn: number,
    readonly packets: number,
    readonly range: OperationRange,
    readonly message: number,
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {}

  /** The atomic operation is done. */
  onOriginal(high: number, low: number, now: TimePs): void {
    this.originalHigh = high;
    this.originalLow = low;
    this.finish(now);
  }

  /** The read that went behind everything to be flushed is back. */
  onData(_place: number, _generation: number, burst: number, now: TimePs): void {
    if (burst !== 0) this.parts.pool.releaseBurst(burst);
    this.finish(now);
  }

  /** The answer may be sent. */
  finish(now: TimePs): void {
    this.isDone = true;
    this.qp.activate(now);
  }
}
