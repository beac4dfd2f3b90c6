/**
 * Channels over WebSockets; the only file that knows the `ws` package.
 *
 * Owns: connecting, listening, and who is let in. Messages are binary, one window or session message
 * each, never compressed. A server binds to what its URL says and asks for a token beyond loopback;
 * browsers (an Origin header) are refused, and so is whoever comes while all places are taken.
 *
 * RFC 6455 has clients mask what they send, to protect proxies. On loopback there are none, so the
 * mask is zero, which is a valid one and which ws skips: that is worth a factor of seven for large
 * windows. Anyone else gets random masks. ws corks the socket around header and body, and turns
 * Nagle's algorithm off, by itself.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ClientOptions, WebSocket, WebSocketServer } from 'ws';
import { Failure } from '../sim/failure.ts';
import { WINDOW_MAX_BYTES } from '../wire/window.ts';
import { type Address, parseAddress } from './address.ts';
import { type Channel, type ChannelHandler, Mailbox } from './channel.ts';

/** How long `connect` tries: the peer may start later. */
export const CONNECT_TIMEOUT_MS = 10_000;
const CONNECT_RETRY_MS = 50;
/** How long a peer has to answer a close before the socket is destroyed, in milliseconds. */
const CLOSE_TIMEOUT_MS = 1_000;

/** Options of both sides, as ws names them. */
const socketOptions = {
  perMessageDeflate: false,
  maxPayload: WINDOW_MAX_BYTES,
  closeTimeout: CLOSE_TIMEOUT_MS,
} as const;

export interface ListenOptions {
  /** What a client must present; without one, any client on this machine is let in. */
  readonly token?: string;
  /** How many clients may be connected at a time. */
  readonly peerCount?: number;
}

export interface Listener {
  /** Where clients reach it: the URL given, with the port that was found for port 0. */
  readonly url: string;
  /** The next client; rejects when the listener closes or `signal` aborts. */
  accept(signal?: AbortSignal): Promise<Channel>;
  /** Takes no more clients; channels stay open. */
  close(): void;
}

/**
 * Listens on `url`.
 * @throws Failure E_ADDRESS, E_TOKEN_REQUIRED, E_LISTEN.
 */
export async function listen(
  url: string,
  { token, peerCount = 1 }: ListenOptions = {},
): Promise<Listener> {
  const address = parseAddress(url);
  if (!address.isLoopback && !token) {
    throw new Failure('E_TOKEN_REQUIRED', 'anyone could connect', url, 'a token, or loopback');
  }
  const server = createServer((_request, response) => {
    response.writeHead(426, { Connection: 'close' }).end();
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(new Failure('E_LISTEN', error.message, url)));
    server.listen(address.endpoint, resolve);
  });
  const upgrader = new WebSocketServer({ noServer: true, clientTracking: false, ...socketOptions });
  const arrivals = new Arrivals(url);
  let connected = 0;
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // Until ws takes over, a reset of the connection is nobody else's to handle.
    const ignore = (): void => {};
    socket.on('error', ignore);
    const refusal = refusalOf(request, token) ?? (connected >= peerCount ? BUSY : undefined);
    if (refusal) {
      socket.end(`HTTP/1.1 ${refusal}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    connected++;
    socket.once('close', () => connected--);
    upgrader.handleUpgrade(request, socket, head, (client) => {
      socket.off('error', ignore);
      arrivals.add(new WebSocketChannel(client, `a client of ${url}`));
    });
  });
  return {
    url: reachableUrl(address, server.address()),
    accept: (signal) => arrivals.next(signal),
    close: () => {
      server.close();
      arrivals.end();
    },
  };
}

export interface ConnectOptions {
  readonly token?: string;
  /** How long to try, in milliseconds. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * Connects to `url`, again and again until somebody listens there.
 * @throws Failure E_ADDRESS, E_CONNECT, E_REFUSED, or the signal's reason.
 */
export async function connect(
  url: string,
  { token, timeoutMs = CONNECT_TIMEOUT_MS, signal }: ConnectOptions = {},
): Promise<Channel> {
  const address = parseAddress(url);
  const untilMs = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const leftMs = untilMs - performance.now();
    const outcome = await tryConnect(address, token, Math.max(leftMs, 1));
    if (outcome instanceof WebSocketChannel) {
      if (!signal?.aborted) return outcome;
      outcome.close();
    } else if (outcome instanceof Failure) throw outcome;
    else if (leftMs <= CONNECT_RETRY_MS) throw new Failure('E_CONNECT', outcome.message, url);
    await sleep(CONNECT_RETRY_MS);
  }
}

/** One attempt: the channel, a final refusal, or an error that may pass. */
function tryConnect(
  { url, isLoopback }: Address,
  token: string | undefined,
  timeoutMs: number,
): Promise<WebSocketChannel | Failure | Error> {
  const options: ClientOptions = { ...socketOptions, handshakeTimeout: timeoutMs };
  if (token) options.headers = { Authorization: `Bearer ${token}` };
  if (isLoopback) options.generateMask = (mask) => mask.fill(0);
  return new Promise((resolve) => {
    const socket = new WebSocket(url, options);
    socket.once('open', () => {
      socket.off('error', resolve);
      resolve(new WebSocketChannel(socket, url));
    });
    socket.once('unexpected-response', (request, response) => {
      request.destroy();
      const why = refusalMeaning[response.statusCode ?? 0] ?? `status ${response.statusCode}`;
      resolve(new Failure('E_REFUSED', why, url));
    });
    socket.on('error', resolve);
  });
}

const UNAUTHORIZED = '401 Unauthorized';
const FORBIDDEN = '403 Forbidden';
const BUSY = '503 Service Unavailable';
const refusalMeaning: Readonly<Record<number, string>> = {
  401: 'it asks for another token',
  403: 'it does not serve browsers',
  503: 'somebody else is connected to it',
};

/** The HTTP status with which a client is turned away for what it is, or undefined. */
function refusalOf(request: IncomingMessage, token: string | undefined): string | undefined {
  if (request.headers.origin !== undefined) return FORBIDDEN;
  if (!token) return undefined;
  const given = digestOf(request.headers.authorization ?? '');
  // Digests, since the comparison needs equal lengths.
  return timingSafeEqual(given, digestOf(`Bearer ${token}`)) ? undefined : UNAUTHORIZED;
}

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function reachableUrl(address: Address, bound: AddressInfo | string | null): string {
  if (bound === null || typeof bound === 'string') return address.url;
  const url = new URL(address.url);
  url.port = String(bound.port);
  return url.href.replace(/\/$/, '');
}

/** Clients that nobody has asked for yet, and those who ask. */
class Arrivals {
  private readonly channels: Channel[] = [];
  private readonly waiting: ((channel: Channel | undefined) => void)[] = [];
  private isOver = false;

  constructor(private readonly url: string) {}

  add(channel: Channel): void {
    const next = this.waiting.shift();
    if (next) next(channel);
    else if (this.isOver) channel.close();
    else this.channels.push(channel);
  }

  next(signal?: AbortSignal): Promise<Channel> {
    signal?.throwIfAborted();
    const channel = this.channels.shift();
    if (channel) return Promise.resolve(channel);
    return new Promise((resolve, reject) => {
      const settle = (arrived: Channel | undefined): void => {
        signal?.removeEventListener('abort', abort);
        if (arrived) resolve(arrived);
        else reject(new Failure('E_CONNECT', 'closed before a client came', this.url));
      };
      const abort = (): void => {
        this.waiting.splice(this.waiting.indexOf(settle), 1);
        reject(signal?.reason);
      };
      signal?.addEventListener('abort', abort, { once: true });
      if (this.isOver) settle(undefined);
      else this.waiting.push(settle);
    });
  }

  end(): void {
    this.isOver = true;
    for (const settle of this.waiting.splice(0)) settle(undefined);
    for (const channel of this.channels.splice(0)) channel.close();
  }
}

class WebSocketChannel implements Channel {
  sentBytes = 0;
  receivedBytes = 0;
  private readonly mailbox = new Mailbox();

  constructor(
    private readonly socket: WebSocket,
    public name: string,
  ) {
    socket.on('message', (data: Buffer, isBinary: boolean) => {
      if (isBinary) {
        this.receivedBytes += data.length;
        this.mailbox.deliver(data);
      } else this.violation('a text message');
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // What ws itself finds wrong is the peer's fault; anything else is the connection's.
      if (error.code?.startsWith('WS_ERR_')) this.violation(error.message);
      else this.mailbox.end(new Failure('E_PEER_LOST', error.message, this.name));
    });
    socket.on('close', (code: number) => {
      const how = code === 1006 ? 'without a word' : `with code ${code}`;
      this.mailbox.end(new Failure('E_PEER_LOST', `the peer disconnected ${how}`, this.name));
    });
  }

  send(bytes: Uint8Array): void {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.sentBytes += bytes.length;
    this.socket.send(bytes);
  }

  attach(handler: ChannelHandler | undefined): void {
    this.mailbox.attach(handler);
  }

  close(): void {
    this.mailbox.shut();
    this.socket.close(1000);
  }

  private violation(message: string): void {
    this.mailbox.end(new Failure('E_PEER_PROTOCOL', message, this.name));
    this.socket.close(1002);
  }
}
