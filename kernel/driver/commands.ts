/**
 * Commands to the adapter and their answers.
 *
 * Everything that COMMAND_DONE answers (commands, acknowledged table updates, suspends) draws its tag
 * from here, so that one table of waiters serves them all. Tag 0 asks for no answer.
 */
import {
  assert,
  BURST,
  BUS_COMMAND,
  CMD_BAD_OPCODE,
  CMD_BAD_PARAMETER,
  CMD_BAD_RESOURCE,
  CMD_BUSY,
  CMD_NOT_SUPPORTED,
  CMD_OK,
  FRAME_WORDS,
  PAYLOAD_BYTES,
  type TimePs,
} from '../../transport/index.ts';
import { type Errno, VerbsError } from '../errno.ts';
import { subscribeOrFail } from '../rx/subscribe.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import type { AdapterBus } from './adapter-bus.ts';
import type { BusEvents, CommandDone } from './events.ts';

const errnoOf: Readonly<Record<number, Errno>> = {
  [CMD_BAD_PARAMETER]: 'EINVAL',
  [CMD_BAD_RESOURCE]: 'EINVAL',
  [CMD_BUSY]: 'EBUSY',
  [CMD_BAD_OPCODE]: 'EOPNOTSUPP',
  [CMD_NOT_SUPPORTED]: 'EOPNOTSUPP',
};

interface Command {
  readonly opcode: number;
  readonly parameters: readonly number[];
  readonly mailbox?: Uint8Array;
  readonly q0?: number;
  readonly q1?: number;
}

export class Commands {
  private readonly waiting = new Map<number, Completion<CommandDone>>();
  private lastTag = 0;

  constructor(
    private readonly bus: AdapterBus,
    events: BusEvents,
    private readonly commandPs: TimePs,
  ) {
    subscribeOrFail(bus.node, events.commandsDone$, (done) => this.finish(done));
  }

  /** A tag for a message that COMMAND_DONE will answer, and what resolves then. */
  expectDone(purpose: string): { tag: number; done: Completion<CommandDone> } {
    this.lastTag = (this.lastTag % 0x7fffffff) + 1;
    const done = new Completion<CommandDone>(purpose);
    this.waiting.set(this.lastTag, done);
    return { tag: this.lastTag, done };
  }

  /**
   * Runs a command and returns its result.
   * @throws VerbsError when the adapter refuses it; `verb` is what it was for
   */
  *run(verb: string, opcode: number, parameters: readonly number[], q0 = 0, q1 = 0): Sim<number> {
    return (yield* this.exchange(verb, { opcode, parameters, q0, q1 })).result;
  }

  /** The same with a mailbox; returns all of the answer. */
  *exchange(verb: string, command: Command): Sim<CommandDone> {
    yield this.commandPs;
    const { pool } = this.bus;
    const { opcode, parameters, mailbox, q0 = 0, q1 = 0 } = command;
    const { tag, done } = this.expectDone(`the adapter to answer ${verb}`);
    const frame = this.bus.message(BUS_COMMAND);
    const at = frame * FRAME_WORDS;
    pool.words[at + 1] = opcode;
    pool.words[at + 2] = tag;
    for (let i = 0; i < parameters.length; i++) pool.words[at + 3 + i] = parameters[i];
    pool.doubles[frame * 2] = q0;
    pool.doubles[frame * 2 + 1] = q1;
    if (mailbox) {
      pool.words[at + BURST] = pool.burstFromBytes(mailbox, 0, mailbox.length);
      pool.words[at + PAYLOAD_BYTES] = mailbox.length;
    }
    this.bus.send(frame);
    yield done;
    const { status } = done.value;
    if (status !== CMD_OK) {
      throw new VerbsError(errnoOf[status] ?? 'EINVAL', verb, `the adapter answered ${status}`);
    }
    return done.value;
  }

  private finish(done: CommandDone): void {
    const waiter = this.waiting.get(done.tag);
    assert(waiter !== undefined, 'COMMAND_DONE for a tag nobody waits for', this.bus.node);
    this.waiting.delete(done.tag);
    waiter.resolve(done);
  }
}
