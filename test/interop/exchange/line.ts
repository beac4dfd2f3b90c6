/**
 * Owns a byte stream read in pieces of known length, as the tools' exchanges do, and the TCP ends of
 * it: one connection accepted on loopback, or one made. Does not own what is said on it.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net';

/** What an exchange is spoken on. */
export interface Line {
  /** Exactly `length` bytes; rejects when the peer is silent or gone. */
  read(length: number): Promise<Buffer>;
  /** In one piece: the tools take what one read gives them for the whole message. */
  write(bytes: Buffer): void;
  close(): void;
}

/** A message that is not of the exchange. */
export class ExchangeError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ExchangeError';
  }
}

class TcpLine implements Line {
  private received: Buffer = Buffer.alloc(0);
  private ended: string | undefined;
  private wake: (() => void) | undefined;

  constructor(
    private readonly socket: Socket,
    private readonly timeoutMs: number,
  ) {
    socket.setNoDelay(true);
    socket.on('data', (bytes: Buffer) => {
      this.received = Buffer.concat([this.received, bytes]);
      this.wake?.();
    });
    const end = (why: string) => {
      this.ended ??= why;
      this.wake?.();
    };
    socket.on('error', (error) => end(error.message));
    socket.on('close', () => end('the tool closed the connection'));
  }

  async read(length: number): Promise<Buffer> {
    const timer = setTimeout(() => {
      this.ended ??= `the tool said nothing for ${this.timeoutMs} ms`;
      this.wake?.();
    }, this.timeoutMs);
    try {
      while (this.received.length < length) {
        if (this.ended !== undefined) {
          throw new ExchangeError(`${this.ended} (${this.received.length} of ${length} bytes)`);
        }
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
      this.wake = undefined;
    }
    const bytes = this.received.subarray(0, length);
    this.received = this.received.subarray(length);
    return bytes;
  }

  write(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  close(): void {
    this.socket.destroy();
  }
}

/** Listens on loopback for one connection. */
export class OneConnection {
  private constructor(
    private readonly server: Server,
    private readonly connected: Promise<Socket>,
    readonly port: number,
  ) {}

  static listen(): Promise<OneConnection> {
    return new Promise((resolve, reject) => {
      const server = createServer();
      const connected = new Promise<Socket>((accept) => server.once('connection', accept));
      server.once('error', reject);
      server.listen(0, '127.0.0.1', () => {
        const address = server.address();
        const port = typeof address === 'object' && address !== null ? address.port : 0;
        resolve(new OneConnection(server, connected, port));
      });
    });
  }

  /** The line to whoever connected first; rejects when `given up` does before. */
  async accept(givenUp: Promise<never>, timeoutMs: number): Promise<Line> {
    try {
      return new TcpLine(await Promise.race([this.connected, givenUp]), timeoutMs);
    } finally {
      this.server.close();
    }
  }

  close(): void {
    this.server.close();
  }
}

/** Connects to a tool that listens. */
export function connect(port: number, timeoutMs: number): Promise<Line> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(port, '127.0.0.1');
    socket.once('error', (error) => reject(new ExchangeError(error.message)));
    socket.once('connect', () => resolve(new TcpLine(socket, timeoutMs)));
  });
}
