/**
 * A completion queue in host memory and the program that polls it.
 *
 * Entries are there as soon as the adapter's write arrives: the program polls, no interrupt is
 * involved. A polling thread that finds nothing sleeps in the model (its CPU does nothing that the
 * model could see) and goes on at the very arrival of the next entry.
 *
 * The adapter has to know how many entries the program has taken, or it could not tell a full queue
 * from an empty one. Real adapters read that from a record in host memory when they need it. Here
 * the driver writes it to them (CQ_DOORBELL), and only while it could matter: while the queue, as far
 * as the adapter knows, is half full or has no more room than a burst of completions takes. So a
 * program that keeps up pays next to nothing, one that really lets its queue overflow meets the
 * overflow exactly, and no other one meets it ever.
 */
import {
  assert,
  BUS_CQ_DOORBELL,
  CQ_ARM_NEXT,
  CQ_ARM_SOLICITED,
  FRAME_WORDS,
} from '../../transport/index.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import type { AdapterBus } from './adapter-bus.ts';
import type { CompletionChannel } from './completion-channel.ts';
import type { WorkCompletion } from './work.ts';

/**
 * Room, in entries, below which each entry taken is reported at once: more than an adapter completes
 * while a doorbell is on its way to it.
 */
const CLOSE_ROOM = 128;

export class CompletionQueue {
  private entries: WorkCompletion[] = [];
  private head = 0;
  private arrival: Completion<void>;
  /** Entries that have arrived, that the program has taken, and that the adapter knows as taken. */
  private arrived = 0;
  private taken = 0;
  private reported = 0;
  private readonly closeRoom: number;
  private isArmed = false;

  constructor(
    private readonly bus: AdapterBus,
    readonly cqn: number,
    readonly size: number,
    private readonly pollPs: number,
    readonly channel: CompletionChannel | undefined,
  ) {
    this.arrival = new Completion<void>(`a completion on CQ ${cqn}`);
    this.closeRoom = Math.max(CLOSE_ROOM, size >> 1);
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
    this.taken++;
    this.reportWhenClose();
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

  /** Takes an entry; while there is none, sleeps until the channel tells of one. */
  *nextByEvent(): Sim<WorkCompletion> {
    for (;;) {
      const entry = this.poll();
      if (entry !== undefined) {
        yield this.pollPs;
        return entry;
      }
      // Armed first and polled once more, so that no entry slips in between unnoticed.
      if (!this.isArmed) {
        this.arm(false);
        yield this.pollPs;
      } else yield* (this.channel as CompletionChannel).next();
    }
  }

  /** Asks for an event with the next completion, or the next solicited or failed one. */
  arm(solicitedOnly: boolean): void {
    this.isArmed = true;
    this.report(solicitedOnly ? CQ_ARM_SOLICITED : CQ_ARM_NEXT);
  }

  /** The event that was asked for has come. */
  notify(): void {
    this.isArmed = false;
    this.channel?.push(this);
  }

  /** An entry has arrived from the adapter. */
  push(entry: WorkCompletion): void {
    assert(this.length < this.size, `the adapter overfills CQ ${this.cqn}`, this.bus.node);
    this.entries.push(entry);
    this.arrived++;
    this.reportWhenClose();
    const arrival = this.arrival;
    this.arrival = new Completion<void>(arrival.purpose);
    arrival.resolve();
  }

  private reportWhenClose(): void {
    const room = this.size - (this.arrived - this.reported);
    if (this.taken > this.reported && room <= this.closeRoom) this.report(0);
  }

  private report(arm: number): void {
    this.reported = this.taken;
    const frame = this.bus.message(BUS_CQ_DOORBELL);
    const { words } = this.bus.pool;
    words[frame * FRAME_WORDS + 1] = this.cqn;
    words[frame * FRAME_WORDS + 2] = this.taken;
    words[frame * FRAME_WORDS + 3] = arm;
    this.bus.send(frame);
  }
}
