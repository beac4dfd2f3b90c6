/**
 * The control socket: lines of JSON from any number of clients, and the answers back.
 *
 * Owns sockets and lines. A line that is no command is answered here and goes no further; commands go
 * to whoever gives them a time. A client may close its side once it has said all: it is still
 * answered, and gone after the last answer.
 */
import type { Server, Socket } from 'node:net';
import { listenOnStream, parseStreamAddress } from '../../transport/index.ts';
import { CONTROL_LINE_BYTES, type CommandId, parseLine } from './control-protocol.ts';

const MAX_CLIENTS = 16;
/** Answers that wait for a client that does not read; more, and it is sent away. */
const QUEUE_BYTES = 16 * 2 ** 20;

/**
 * How often a client that has closed its side is looked for, milliseconds. To us, one that waits for
 * answers and one that is gone look alike until something is written: a space, which JSON ignores.
 */
const LOOK_EVERY_MS = 250;

/** Who hears of the clients. */
export interface ControlListener {
  /** A sound command, as the client wrote it. */
  onCommand(client: number, line: string): void;
  /** A client that has given commands is gone. */
  onGone(client: number): void;
}

/** What happened on the socket, as plain numbers. */
export interface ControlCounters {
  clients: number;
  clients_refused: number;
  commands: number;
  /** Lines that are no command. */
  bad_lines: number;
  /** Commands that were answered with an error. */
  errors: number;
}

interface Client {
  readonly socket: Socket;
  readonly parts: Buffer[];
  waitingBytes: number;
  /** Commands that have not been answered. */
  unanswered: number;
  /** It will say nothing more. */
  hasEnded: boolean;
  /** It has given commands. */
  isKnown: boolean;
  /** Looks whether it is still there. */
  look: NodeJS.Timeout | undefined;
}

export class ControlServer {
  readonly counters: ControlCounters = {
    clients: 0,
    clients_refused: 0,
    commands: 0,
    bad_lines: 0,
    errors: 0,
  };
  private readonly clients = new Map<number, Client>();

  private constructor(
    private readonly server: Server,
    private readonly listener: ControlListener,
  ) {
    server.on('connection', (socket) => this.greet(socket));
  }

  /** Listens at `text`. @throws Failure E_ADDRESS, E_LISTEN */
  static async listen(text: string, listener: ControlListener): Promise<ControlServer> {
    const server = await listenOnStream(parseStreamAddress(text), { allowHalfOpen: true });
    return new ControlServer(server, listener);
  }

  /** Answers a command of `client`, if it is still there. */
  reply(client: number, reply: Readonly<Record<string, unknown>>): void {
    if ('error' in reply) this.counters.errors++;
    const known = this.clients.get(client);
    if (known === undefined) return;
    known.unanswered--;
    this.write(client, known, reply);
    this.leaveIfOver(client, known);
  }

  /** Lets go of everybody, once what was answered has gone out. */
  async close(): Promise<void> {
    this.server.close();
    const closed = [...this.clients.values()].map(
      ({ socket, look }) =>
        new Promise<void>((resolve) => {
          clearInterval(look);
          socket.removeAllListeners('close');
          socket.once('close', () => resolve());
          // The other side need not close its own.
          socket.end(() => socket.destroy());
          setTimeout(() => socket.destroy(), 200).unref();
        }),
    );
    this.clients.clear();
    await Promise.all(closed);
  }

  private greet(socket: Socket): void {
    socket.on('error', () => {});
    if (this.clients.size === MAX_CLIENTS) {
      this.counters.clients_refused++;
      const message = `${MAX_CLIENTS} clients are connected`;
      socket.end(`${JSON.stringify({ id: null, error: { code: 'EBUSY', message } })}\n`);
      socket.resume();
      return;
    }
    const number = ++this.counters.clients;
    const client: Client = {
      socket,
      parts: [],
      waitingBytes: 0,
      unanswered: 0,
      hasEnded: false,
      isKnown: false,
      look: undefined,
    };
    this.clients.set(number, client);
    socket.on('data', (chunk: Buffer) => this.take(number, client, chunk));
    socket.on('end', () => {
      if (client.waitingBytes > 0) this.take(number, client, Buffer.from('\n'));
      client.hasEnded = true;
      client.look = setInterval(() => socket.write(' '), LOOK_EVERY_MS);
      this.leaveIfOver(number, client);
    });
    socket.on('close', () => this.drop(number, client));
  }

  private take(number: number, client: Client, chunk: Buffer): void {
    let from = 0;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      client.parts.push(chunk.subarray(from, at));
      const line = Buffer.concat(client.parts).toString('utf8').trim();
      client.parts.length = 0;
      client.waitingBytes = 0;
      from = at + 1;
      if (line !== '') this.takeLine(number, client, line);
    }
    if (from === chunk.length) return;
    client.parts.push(chunk.subarray(from));
    client.waitingBytes += chunk.length - from;
    if (client.waitingBytes <= CONTROL_LINE_BYTES) return;
    this.refuse(number, client, null, `a line of more than ${CONTROL_LINE_BYTES} bytes`);
    client.socket.end();
    this.drop(number, client);
  }

  private takeLine(number: number, client: Client, line: string): void {
    if (!this.clients.has(number)) return;
    const parsed = parseLine(line);
    if (!('command' in parsed)) {
      this.refuse(number, client, parsed.id, parsed.problem);
      return;
    }
    this.counters.commands++;
    client.unanswered++;
    client.isKnown = true;
    this.listener.onCommand(number, line);
  }

  private refuse(number: number, client: Client, id: CommandId, message: string): void {
    this.counters.bad_lines++;
    this.write(number, client, { id, error: { code: 'EINVAL', message } });
  }

  private write(number: number, client: Client, reply: Readonly<Record<string, unknown>>): void {
    client.socket.write(`${JSON.stringify(reply)}\n`);
    if (client.socket.writableLength > QUEUE_BYTES) this.drop(number, client);
  }

  private leaveIfOver(number: number, client: Client): void {
    if (!client.hasEnded || client.unanswered > 0) return;
    client.socket.end();
    this.drop(number, client, false);
  }

  private drop(number: number, client: Client, atOnce = true): void {
    if (!this.clients.delete(number)) return;
    clearInterval(client.look);
    if (atOnce && !client.socket.writableEnded) client.socket.destroy();
    if (client.isKnown) this.listener.onGone(number);
  }
}
