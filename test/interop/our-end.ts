/**
 * Owns our end of a connection: the verbs of rcpeer as commands of the gateway's control socket, and
 * its answers. Does not own the gateway process (gateway.ts) nor what is done with the connection
 * (operations.ts).
 */
import {
  type Answer,
  type Command,
  type Completion,
  connectionAttributes,
  type End,
  type EndAddress,
  type EndOptions,
  type Path,
  QKEY,
  type Side,
} from './end.ts';
import type { Gateway, Reply } from './gateway.ts';

/** Windows of different ends have different numbers on the control socket. */
const WINDOWS_PER_END = 16;
/** Arguments of rcpeer that say which region, where the control socket has the same. */
const memoryVerbs = new Set(['fill', 'check', 'dump', 'advise']);

/** Opens queue pairs at `gateway`. */
export class OurSide implements Side {
  private serial = 0;

  constructor(private readonly gateway: Gateway) {}

  async open({ service, psn, path, memoryBytes, isOnDemand }: EndOptions): Promise<End> {
    const qp = this.serial++;
    const [reply] = await this.gateway.ask([
      {
        verb: 'open',
        qp,
        type: service,
        psn,
        len: memoryBytes,
        access: 'lrwabg',
        odp: Number(isOnDemand),
      },
    ]);
    if (reply === undefined || reply.error !== undefined) {
      throw new Error(`we cannot open a queue pair: ${reply?.error?.message}`);
    }
    return new OurEnd(this.gateway, qp, addressOf(reply, qp, psn, path));
  }
}

class OurEnd implements End {
  readonly name = 'us';

  constructor(
    private readonly gateway: Gateway,
    private readonly qp: number,
    readonly address: EndAddress,
  ) {}

  async connect({ qpn, psn, gid }: EndAddress, { mtuBytes }: Path): Promise<void> {
    const { errors } = await this.run([
      { verb: 'connect', qpn, psn, gid, mtu: mtuBytes, qkey: QKEY, ...connectionAttributes },
    ]);
    if (errors.length > 0) throw new Error(`we cannot connect: ${errors.join('; ')}`);
  }

  async run(commands: readonly Command[]): Promise<Answer> {
    return answerOf(await this.gateway.ask(commands.map((command) => this.numbered(command))));
  }

  async close(): Promise<void> {
    await this.gateway.ask([
      { verb: 'close', qp: this.qp },
      { verb: 'dereg', mr: this.qp },
    ]);
  }

  /** With the numbers under which the control socket knows what is this end's. */
  private numbered(command: Command): Record<string, unknown> {
    const mw = Number(command.mw ?? 0) + this.qp * WINDOWS_PER_END;
    if (command.verb === 'mw') return { ...command, mw };
    if (memoryVerbs.has(command.verb)) return { ...command, mr: this.qp };
    if (command.verb !== 'post' && command.verb !== 'recv') return { ...command, qp: this.qp };
    return { ...command, qp: this.qp, mr: this.qp, ...(command.op === 'bind' ? { mw } : {}) };
  }
}

function addressOf(reply: Reply, qp: number, psn: number, { network }: Path): EndAddress {
  const regions = reply.mrs as { mr: number; addr: number | string; rkey: number }[];
  const region = regions.find(({ mr }) => mr === qp);
  if (region === undefined) throw new Error('the gateway names no region');
  return {
    qpn: Number(reply.qpn),
    psn,
    gid: (reply.gids as Record<Path['network'], string>)[network],
    memoryAddress: BigInt(region.addr),
    rkey: region.rkey,
  };
}

function answerOf(replies: readonly Reply[]): Answer {
  const completions: Completion[] = [];
  const dumps: Buffer[] = [];
  const windowRkeys: number[] = [];
  const errors: string[] = [];
  for (const reply of replies) {
    if (reply.error !== undefined) errors.push(`${reply.error.code} ${reply.error.message}`);
    const found = (reply.completions ?? reply.error?.completions ?? []) as WireCompletion[];
    completions.push(...found.map(completionOf));
    if (typeof reply.hex === 'string') dumps.push(Buffer.from(reply.hex, 'hex'));
    if (typeof reply.rkey === 'number') windowRkeys.push(reply.rkey);
  }
  return { completions, dumps, windowRkeys, errors };
}

/** A completion as the control socket has it. */
interface WireCompletion {
  readonly wrid: number;
  readonly status: number;
  readonly name: string;
  readonly op?: string;
  readonly len?: number;
  readonly imm?: number;
  readonly inv?: number;
}

function completionOf({ wrid, status, name, op, len, imm, inv }: WireCompletion): Completion {
  return {
    id: wrid,
    status,
    statusText: name,
    op: op ?? '',
    length: len ?? 0,
    immediate: imm,
    invalidatedRkey: inv,
  };
}
