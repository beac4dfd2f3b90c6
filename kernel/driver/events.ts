/**
 * Bus messages from the adapter as streams.
 *
 * Completions and command answers appear when they arrive. Entries of an event queue wait in it until
 * the interrupt of its vector has arrived and its handler runs; one run of the handler drains the
 * queue, entries that came meanwhile included. DMA is not here: it never passes through RxJS.
 */
import { concatMap, delay, filter, map, type Observable, Subject } from 'rxjs';
import {
  BUS_ASYNC_EVENT,
  BUS_COMMAND_DONE,
  BUS_COMPLETION,
  BUS_INTERRUPT,
  BUS_PAGE_FAULT,
  busName,
  FRAME_WORDS,
  type FramePool,
  SimulationBug,
  type TimePs,
  VECTOR_ASYNC,
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

/** An entry of the asynchronous event queue; numbers as IBV_EVENT_*. */
export interface AsyncEvent {
  readonly event: number;
  readonly qpn: number;
  readonly arrivedPs: TimePs;
}

export interface CommandDone {
  readonly tag: number;
  readonly status: number;
  readonly result: number;
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
  private readonly commandsDone = new Subject<CommandDone>();
  private readonly completions = new Subject<CompletionEntry>();
  private readonly interrupts = new Subject<number>();
  private readonly pageFaultQueue: PageFaultEvent[] = [];
  private readonly asyncQueue: AsyncEvent[] = [];

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
      );
    this.commandsDone$ = this.commandsDone.asObservable();
    this.completions$ = this.completions.asObservable();
    this.pageFaults$ = drained(VECTOR_PAGE_FAULT, this.pageFaultQueue);
    this.asyncEvents$ = drained(VECTOR_ASYNC, this.asyncQueue);
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
            timePs: now,
          },
        });
        return;
      case BUS_COMMAND_DONE:
        this.commandsDone.next({
          tag: words[at + 1],
          status: words[at + 2],
          result: words[at + 3],
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
        this.asyncQueue.push({ event: words[at + 1], qpn: words[at + 2], arrivedPs: now });
        return;
      case BUS_INTERRUPT:
        this.interrupts.next(words[at + 1]);
        return;
      default:
        throw new SimulationBug(`a host gets a ${busName(words[at])} message`);
    }
  }
}
