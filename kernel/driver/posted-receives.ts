/**
 * Receives that have been posted to a receive queue, own or shared, and not completed.
 *
 * Those with several buffers are kept as posted: when the adapter says that a message went into one,
 * the message log needs to know where its bytes are.
 */
import { VerbsError } from '../errno.ts';
import { lengthOf, type ReceiveRequest, type ScatterEntry } from './work.ts';

export class PostedReceives {
  private count = 0;
  private scattered: ReceiveRequest[] = [];

  constructor(
    readonly entries: number,
    private readonly maxSges: number,
  ) {}

  /** Receives that have not completed. */
  get outstanding(): number {
    return this.count;
  }

  /** Books a receive that `verb` posts. @throws VerbsError ENOMEM (full), EINVAL (too many buffers) */
  add(request: ReceiveRequest, verb: string, queue: string): void {
    if (this.count === this.entries) throw new VerbsError('ENOMEM', verb, `${queue} is full`);
    checkSges(request.sges, this.maxSges, verb);
    this.count++;
    if ((request.sges?.length ?? 0) > 1) this.scattered.push(request);
  }

  /** A receive with that id has completed. */
  retire(wrId: number): void {
    this.count--;
    const at = this.scattered.findIndex((request) => request.wrId === wrId);
    if (at >= 0) this.scattered.splice(at, 1);
  }

  /** The buffers of the oldest receive of several with that id. */
  buffersOf(wrId: number): readonly ScatterEntry[] {
    return this.scattered.find((request) => request.wrId === wrId)?.sges ?? [];
  }

  /** Forgets everything: the queue has been reset. */
  clear(): void {
    this.count = 0;
    this.scattered = [];
  }
}

/** @throws VerbsError EINVAL for a list of buffers that no work request may have */
export function checkSges(
  sges: readonly ScatterEntry[] | undefined,
  limit: number,
  verb: string,
): void {
  const count = sges?.length ?? 0;
  if (count > limit) {
    throw new VerbsError('EINVAL', verb, `${count} scatter/gather entries, of at most ${limit}`);
  }
  for (const { address, length } of sges ?? []) {
    const isRange =
      Number.isSafeInteger(address) && address >= 0 && Number.isSafeInteger(length) && length >= 0;
    if (!isRange) throw new VerbsError('EINVAL', verb, `${address} + ${length} is no buffer`);
  }
  const bytes = lengthOf(sges);
  if (bytes > 0xffffffff) throw new VerbsError('EINVAL', verb, `${bytes} bytes in one request`);
}
