/**
 * Control clients inside the world: commands come in with their times and go to the client's session.
 *
 * An input queue on the host's node, so a command takes effect at its simulated time and nowhere
 * else. Does not own sockets (`control-server.ts`) or what a command does (`control-session.ts`).
 */
import type { Host } from '../../kernel/index.ts';
import type { TimePs } from '../../transport/index.ts';
import { Alarms } from './alarms.ts';
import type { MemoryBudget, Reply } from './client-resources.ts';
import { type ControlPort, ControlSession, type Submission } from './control-session.ts';
import { InputQueue } from './input-queue.ts';

/** Where the regions of client n are mapped: 2^40 bytes for each, far from those of a scenario. */
const CLIENT_BASE = 2 ** 46;
const CLIENT_BYTES = 2 ** 40;
/** So many clients find room below 2^47, one after the other. */
const CLIENT_PLACES = 63;

/** The share of a host's memory that regions may take; the rest is left to the kernel. */
const REGION_SHARE = 0.75;

/** What leaves the world again. */
export interface ControlOutput {
  reply(client: number, reply: Reply): void;
  /** A client has asked for the end of the gateway. */
  quit(): void;
}

interface ControlInput {
  readonly client: number;
  /** Undefined: the client is gone. */
  readonly submission: Submission | undefined;
}

export class ControlHost {
  /** Set by who wants to hear; a recorded session is run again without anybody. */
  output: ControlOutput | undefined;
  private readonly inputs: InputQueue<ControlInput>;
  private readonly alarms: Alarms;
  private readonly sessions = new Map<number, ControlSession>();
  private readonly memory: MemoryBudget;
  private opened = 0;

  constructor(
    private readonly host: Host,
    private readonly port: ControlPort,
  ) {
    this.inputs = new InputQueue<ControlInput>(host.node, (input) => this.take(input));
    this.alarms = new Alarms(host.node);
    this.memory = { leftBytes: Math.floor(port.memoryBytes * REGION_SHARE) };
  }

  /** A command of a client, which takes effect at `timePs`. */
  submit(timePs: TimePs, client: number, submission: Submission): void {
    this.inputs.add(timePs, { client, submission });
  }

  /** The client is gone from `timePs` on. */
  leave(timePs: TimePs, client: number): void {
    this.inputs.add(timePs, { client, submission: undefined });
  }

  private take({ client, submission }: ControlInput): void {
    const session = this.sessions.get(client);
    if (submission !== undefined) (session ?? this.begin(client)).submit(submission);
    else if (session !== undefined) {
      this.sessions.delete(client);
      session.leave();
    }
  }

  private begin(client: number): ControlSession {
    const base = CLIENT_BASE + (this.opened++ % CLIENT_PLACES) * CLIENT_BYTES;
    const session = new ControlSession(
      this.host,
      this.port,
      this.alarms,
      base,
      this.memory,
      (reply) => this.output?.reply(client, reply),
      () => this.output?.quit(),
    );
    this.sessions.set(client, session);
    this.host.spawn(`control client ${client}`, session.run());
    return session;
  }
}
