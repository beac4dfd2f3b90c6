/**
 * A completion channel (ibv_comp_channel): where a program sleeps until an armed completion queue has
 * an entry. Events come by interrupt, so later than the entries that caused them.
 */
import { Completion, type Sim } from '../sched/completion.ts';
import type { CompletionQueue } from './completion-queue.ts';

export class CompletionChannel {
  private readonly events: CompletionQueue[] = [];
  private arrival = new Completion<void>('a completion event');

  /** Sleeps until there is an event and takes it: the queue that it is about (ibv_get_cq_event). */
  *next(): Sim<CompletionQueue> {
    for (;;) {
      const queue = this.events.shift();
      if (queue !== undefined) return queue;
      yield this.arrival;
    }
  }

  /** The interrupt handler has found an event of `queue`. */
  push(queue: CompletionQueue): void {
    this.events.push(queue);
    const { arrival } = this;
    this.arrival = new Completion<void>(arrival.purpose);
    arrival.resolve();
  }
}
