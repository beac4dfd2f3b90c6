/**
 * Owns the guest's end of a connection: an rcpeer process in the guest, its command lines and what it
 * prints. Does not own the guest (guest.ts) nor what is done with the connection (operations.ts).
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
import type { Guest } from './guest.ts';

const SCRIPT_TIMEOUT_MS = 60_000;
/** rxe's GID table: the link-local address of the card, then its IPv4 address. */
const GID_INDEX = { ipv6: 0, ipv4: 1 } as const;

/** Opens queue pairs in `guest`. */
export class GuestSide implements Side {
  private serial = 0;

  constructor(
    private readonly guest: Guest,
    private readonly name = 'guest',
  ) {}

  async open({ service, psn, path, memoryBytes, isOnDemand }: EndOptions): Promise<End> {
    const socket = `/tmp/rcpeer.${this.serial++}`;
    const options = `type=${service} psn=${psn} len=${memoryBytes} gid=${GID_INDEX[path.network]} odp=${Number(isOnDemand)} access=lrwabg`;
    const { status, output } = await this.guest.exec(
      `rcpeer serve ${socket} ${options} >${socket}.log 2>&1 & rcpeer do ${socket} info || cat ${socket}.log`,
      SCRIPT_TIMEOUT_MS,
    );
    if (status !== 0) throw new Error(`rcpeer did not start: ${output.trim()}`);
    return new GuestEnd(this.guest, this.name, socket, parseAddress(output));
  }
}

class GuestEnd implements End {
  constructor(
    private readonly guest: Guest,
    readonly name: string,
    private readonly socket: string,
    readonly address: EndAddress,
  ) {}

  async connect(peer: EndAddress, { mtuBytes }: Path): Promise<void> {
    const { errors } = await this.run([
      {
        verb: 'connect',
        qpn: peer.qpn,
        psn: peer.psn,
        gid: peer.gid,
        mtu: mtuBytes,
        qkey: QKEY,
        ...connectionAttributes,
      },
    ]);
    if (errors.length > 0) throw new Error(`the guest cannot connect: ${errors.join('; ')}`);
  }

  async run(commands: readonly Command[]): Promise<Answer> {
    const { output } = await this.guest.exec(
      `rcpeer do ${this.socket} '${commands.map(commandLine).join(';')}'`,
      SCRIPT_TIMEOUT_MS,
    );
    return parseAnswer(output);
  }

  async close(): Promise<void> {
    await this.guest.exec(
      `rcpeer do ${this.socket} quit; rm -f ${this.socket}*`,
      SCRIPT_TIMEOUT_MS,
    );
  }
}

/** A command as rcpeer reads it. */
export function commandLine({ verb, ...args }: Command): string {
  const words = Object.entries(args).map(([name, value]) => {
    const isItsNumber = name === 'wrid' || (verb === 'mw' && name === 'mw');
    return `${isItsNumber ? 'id' : name}=${value}`;
  });
  return [verb, ...words].join(' ');
}

function parseAddress(output: string): EndAddress {
  const local = /^LOCAL .*qpn=(\w+) psn=(\w+) gid=(\S+)/m.exec(output);
  const region = /^MR id=0 addr=(\w+) .*rkey=(\w+)/m.exec(output);
  if (local === null || region === null) throw new Error(`rcpeer said: ${output.trim()}`);
  return {
    qpn: Number(local[1]),
    psn: Number(local[2]),
    gid: local[3] as string,
    memoryAddress: BigInt(region[1] as string),
    rkey: Number(region[2]),
  };
}

/** What rcpeer prints, line by line. */
export function parseAnswer(output: string): Answer {
  const completions: Completion[] = [];
  const dumps: Buffer[] = [];
  const windowRkeys: number[] = [];
  const errors: string[] = [];
  for (const text of output.split('\n')) {
    const [word, ...rest] = text.split(' ');
    if (word === 'WC') completions.push(parseCompletion(text));
    else if (word === 'ERR') errors.push(rest.join(' '));
    else if (word === 'DUMP') dumps.push(Buffer.from(rest[0] ?? '', 'hex'));
    else if (word === 'MW') windowRkeys.push(Number(/rkey=(\w+)/.exec(text)?.[1]));
    // Said by `rcpeer do` itself, or by the shell.
    else if (/^(\/tmp|sh:|rcpeer)/.test(text)) errors.push(text);
  }
  return { completions, dumps, windowRkeys, errors };
}

function parseCompletion(text: string): Completion {
  const field = (name: string) => new RegExp(` ${name}=(\\w+)`).exec(text)?.[1];
  const optional = (name: string) => {
    const value = field(name);
    return value === undefined ? undefined : Number(value);
  };
  return {
    id: Number(field('id')),
    status: Number(field('status')),
    statusText: /\((.*?)\)/.exec(text)?.[1] ?? '',
    op: field('op') ?? '',
    length: Number(field('len') ?? 0),
    immediate: optional('imm'),
    invalidatedRkey: optional('inv'),
  };
}
