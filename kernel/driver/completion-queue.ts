/**
 * A completion queue in host memory and the program that polls it.
 *
 * Entries are there as soon as the adapter's write arrives: the program polls, no interrupt is
 * involved. A polling thread that finds nothing sleeps in the model (its CPU does nothing that the
 * model could see) and goes on at the very arrival of the next entry.
 */
import { Failure, type Node } from '../../transport/index.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import type { WorkCompletion } from './work.ts';

export class CompletionQueue {
  private entries: WorkCompletion[] = [];
  private head = 0;
  private arrival: Completion<void>;

  constructor(
    private readonly node: Node,
    readonly cqn: number,
    readonly size: number,
    private readonly pollPs: number,
  ) {
    this.arrival = new Completion<void>(`a completion on CQ ${cqn}`);
  }

  /** Entries that wait to be polled. */
  get length(): number {
    return this.entries.length - this.head;
  }

  /** Takes the oldest entry, if there is one; costs no time (see next). */
  poll(): WorkCompletion | undefined {
    if (this.head === this.entries.length) return undefined;
    const entry = this.entries[this.head++];
    if (this.head === 1024 || this.head === this.entries.length) {
      this.entries = this.entries.slice(this.head);
      this.head = 0;
    }
    return entry;
  }

  /** Polls until there is an entry, and takes it. */
  *next(): Sim<WorkCompletion> {
    for (;;) {
      const entry = this.poll();
      if (entry !== undefined) {
        yield this.pollPs;
        return entry;
      }
      yield this.arrival;
    }
  }

  /** An entry has arrived from the adapter. */
  push(entry: WorkCompletion): void {
    if (this.length === this.size) {
      throw new Failure(
        'E_OPERATION',
        `completion queue ${this.cqn} overflows`,
        this.node.name,
        `at most ${this.size} completions not yet polled`,
      );
    }
    this.entries.push(entry);
    const arrival = this.arrival;
    this.arrival = new Completion<void>(arrival.purpose);
    arrival.resolve();
  }
}
