/**
 * Bus messages from the adapter as streams.
 *
 * Completions and command answers appear when they arrive. Entries of an event queue wait in it until
 * the interrupt of its vector has arrived and its handler runs; one run of the handler drains the
 * queue, entries that came meanwhile included. DMA is not here: it never passes through RxJS.
 */
import { concatMap, delay, filter, map, type Observable, Subject, share } from 'rxjs';
import {
  BURST,
  BURST_OFFSET,
  BUS_ASYNC_EVENT,
  BUS_COMMAND_DONE,
  BUS_COMPLETION,
  BUS_CQ_EVENT,
  BUS_INTERRUPT,
  BUS_PAGE_FAULT,
  busName,
  FRAME_WORDS,
  type FramePool,
  PAYLOAD_BYTES,
  SimulationBug,
  type TimePs,
  VECTOR_ASYNC,
  VECTOR_COMPLETION,
  VECTOR_PAGE_FAULT,
} from '../../transport/index.ts';
import type { VirtualScheduler } from '../rx/virtual-scheduler.ts';
import type { WorkCompletion } from './work.ts';

/** An entry of the page-fault event queue. */
export interface PageFaultEvent {
  readonly token: number;
  readonly mkey: number;
  readonly qpn: number;
  /** ACCESS_READ or ACCESS_WRITE, + FAULT_AT_RESPONDER. */
  readonly access: number;
  readonly address: number;
  readonly length: number;
  /** When it reached the host. */
  readonly arrivedPs: TimePs;
}

/** An entry of the asynchronous event queue (ibv_async_event). */
export interface AsyncEvent {
  /** IBV_EVENT_*. */
  readonly event: number;
  /** Of the queue pair, completion queue or shared receive queue. */
  readonly number: number;
  readonly arrivedPs: TimePs;
}

export interface CommandDone {
  readonly tag: number;
  readonly status: number;
  readonly result: number;
  /** What the adapter wrote into the mailbox. */
  readonly mailbox: Uint8Array;
}

/** A completion queue entry with the queue it is for. */
export interface CompletionEntry {
  readonly cqn: number;
  readonly work: WorkCompletion;
}

export class BusEvents {
  readonly pageFaults$: Observable<PageFaultEvent>;
  readonly asyncEvents$: Observable<AsyncEvent>;
  readonly commandsDone$: Observable<CommandDone>;
  readonly completions$: Observable<CompletionEntry>;
  /** Numbers of completion queues that were armed and have an entry. */
  readonly completionEvents$: Observable<number>;
  private readonly commandsDone = new Subject<CommandDone>();
  private readonly completions = new Subject<CompletionEntry>();
  private readonly interrupts = new Subject<number>();
  private readonly pageFaultQueue: PageFaultEvent[] = [];
  private readonly asyncQueue: AsyncEvent[] = [];
  private readonly completionEventQueue: number[] = [];

  /** `interruptPs`: from the arrival of an MSI-X write to its handler at work. */
  constructor(
    private readonly pool: FramePool,
    scheduler: VirtualScheduler,
    interruptPs: TimePs,
  ) {
    const drained = <T>(vector: number, queue: T[]): Observable<T> =>
      this.interrupts.pipe(
        filter((which) => which === vector),
        delay(interruptPs, scheduler),
        map(() => queue.splice(0)),
        concatMap((entries) => entries),
        // One run of the handler for all who listen: the first would leave nothing for the others.
        share(),
      );
    this.commandsDone$ = this.commandsDone.asObservable();
    this.completions$ = this.completions.asObservable();
    this.pageFaults$ = drained(VECTOR_PAGE_FAULT, this.pageFaultQueue);
    this.asyncEvents$ = drained(VECTOR_ASYNC, this.asyncQueue);
    this.completionEvents$ = drained(VECTOR_COMPLETION, this.completionEventQueue);
  }

  /** Takes in one message; the frame stays the caller's. */
  accept(frame: number, now: TimePs): void {
    const { words, doubles } = this.pool;
    const at = frame * FRAME_WORDS;
    switch (words[at]) {
      case BUS_COMPLETION:
        this.completions.next({
          cqn: words[at + 1],
          work: {
            qpn: words[at + 2],
            wrId: words[at + 3] >>> 0,
            status: words[at + 4],
            opcode: words[at + 5],
            byteLen: words[at + 6] >>> 0,
            immediate: words[at + 7] >>> 0,
            flags: words[at + 8],
            srcQp: words[at + 9],
            slid: words[at + 10],
            timePs: now,
          },
        });
        return;
      case BUS_COMMAND_DONE:
        this.commandsDone.next({
          tag: words[at + 1],
          status: words[at + 2],
          result: words[at + 3],
          mailbox: this.payload(frame),
        });
        return;
      case BUS_PAGE_FAULT:
        this.pageFaultQueue.push({
          token: words[at + 1],
          mkey: words[at + 2],
          qpn: words[at + 3],
          access: words[at + 4],
          length: words[at + 5] >>> 0,
          address: doubles[frame * 2],
          arrivedPs: now,
        });
        return;
      case BUS_ASYNC_EVENT:
        this.asyncQueue.push({ event: words[at + 1], number: words[at + 2], arrivedPs: now });
        return;
      case BUS_CQ_EVENT:
        this.completionEventQueue.push(words[at + 1]);
        return;
      case BUS_INTERRUPT:
        this.interrupts.next(words[at + 1]);
        return;
      default:
        throw new SimulationBug(`a host gets a ${busName(words[at])} message`);
    }
  }

  private payload(frame: number): Uint8Array {
    const { pool } = this;
    const at = frame * FRAME_WORDS;
    const bytes = new Uint8Array(pool.words[at + PAYLOAD_BYTES]);
    if (bytes.length > 0) {
      const offset = pool.words[at + BURST_OFFSET];
      pool.burstToBytes(pool.words[at + BURST], offset, bytes.length, bytes, 0);
    }
    return bytes;
  }
}
