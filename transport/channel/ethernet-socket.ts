/**
 * A wire that is a socket: Ethernet frames, each behind its length in four bytes, big-endian (QEMU's
 * `-netdev stream`). No preamble, no FCS.
 *
 * Owns: listening and connecting, who may be at the other end (one at a time), cutting the stream
 * into frames, and an output queue with an end: to a peer that does not read, frames are lost, as at
 * any network card. Does not own: what is in a frame, or when it comes.
 */
import { createConnection, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from '../sim/failure.ts';
import { get32 } from '../wire/big-endian.ts';
import { listenOnStream, parseStreamAddress, type StreamAddress } from './stream-address.ts';

/** The longest frame that is taken for one: 64 KiB behind an Ethernet header with a VLAN tag. */
export const WIRE_MAX_FRAME_BYTES = 65_536 + 18;
/** Bytes that wait for a slow reader at most, by default. */
const QUEUE_BYTES = 4 * 2 ** 20;
const LENGTH_BYTES = 4;
/** How long `connectWire` tries, by default: the other side may start later. */
const CONNECT_TIMEOUT_MS = 10_000;
const CONNECT_RETRY_MS = 50;
const CLOSE_TIMEOUT_MS = 500;

/** What happened on the socket, as plain numbers. */
export interface WireCounters {
  frames_received: number;
  bytes_received: number;
  frames_sent: number;
  bytes_sent: number;
  /** Frames that found the output queue full, or nobody at the other end. */
  frames_dropped: number;
  peers_connected: number;
  /** Peers that came while there was one. */
  peers_refused: number;
  /** Peers that were sent away because what they sent is no stream of frames. */
  peers_expelled: number;
}

/** Who hears of what comes in. */
export interface WireListener {
  /** A frame; its bytes do not change later. */
  onFrame(bytes: Uint8Array): void;
  /** Somebody is at the other end now. */
  onPeer(name: string): void;
  /** Nobody is any more. E_PEER_LOST, or E_PEER_PROTOCOL when we sent the peer away. */
  onGone(reason: Failure): void;
  /** A second peer came and was refused. */
  onRefused(name: string): void;
}

export interface WireOptions {
  /** Bytes that wait for a slow reader at most. */
  readonly queueBytes?: number;
}

/** Cuts a stream of bytes into frames. */
export class FrameCutter {
  private readonly parts: Uint8Array[] = [];
  private waiting = 0;

  constructor(private readonly onFrame: (bytes: Uint8Array) => void) {}

  /** Bytes of a frame that has not come as a whole. */
  get pendingBytes(): number {
    return this.waiting;
  }

  /** Takes in bytes; returns the length that cannot be one, and nothing more can be made of them. */
  feed(chunk: Uint8Array): number | undefined {
    let bytes = plain(chunk);
    if (this.waiting > 0) {
      this.parts.push(bytes);
      this.waiting += bytes.length;
      if (this.waiting < this.wantedBytes()) return undefined;
      bytes = plain(Buffer.concat(this.parts));
      this.parts.length = 0;
    }
    let at = 0;
    while (bytes.length - at >= LENGTH_BYTES) {
      const length = get32(bytes, at);
      if (length > WIRE_MAX_FRAME_BYTES) return length;
      const end = at + LENGTH_BYTES + length;
      if (end > bytes.length) break;
      this.onFrame(bytes.subarray(at + LENGTH_BYTES, end));
      at = end;
    }
    this.waiting = bytes.length - at;
    if (this.waiting > 0) this.parts.push(bytes.subarray(at));
    return undefined;
  }

  /** Bytes that make the frame at the head whole, as far as is known. */
  private wantedBytes(): number {
    const first = this.parts[0];
    if (first.length >= LENGTH_BYTES) return LENGTH_BYTES + get32(first, 0);
    return LENGTH_BYTES;
  }
}

/** The same bytes as a Uint8Array, whose `slice` copies; that of a Buffer does not. */
function plain({ buffer, byteOffset, byteLength }: Uint8Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

export class EthernetSocket {
  readonly counters: WireCounters = {
    frames_received: 0,
    bytes_received: 0,
    frames_sent: 0,
    bytes_sent: 0,
    frames_dropped: 0,
    peers_connected: 0,
    peers_refused: 0,
    peers_expelled: 0,
  };
  private peer: Socket | undefined;
  private server: Server | undefined;
  private isClosed = false;
  private visitors = 0;

  constructor(
    private readonly address: StreamAddress,
    private readonly listener: WireListener,
    private readonly queueBytes: number,
  ) {}

  /** Whether somebody is at the other end. */
  get isConnected(): boolean {
    return this.peer !== undefined;
  }

  /** Sends a frame, or loses it; never blocks. */
  send(frame: Uint8Array): boolean {
    const { peer, counters } = this;
    const bytes = LENGTH_BYTES + frame.length;
    if (!peer?.writable || peer.writableLength + bytes > this.queueBytes) {
      counters.frames_dropped++;
      return false;
    }
    const out = Buffer.allocUnsafe(bytes);
    out.writeUInt32BE(frame.length);
    out.set(frame, LENGTH_BYTES);
    peer.write(out);
    counters.frames_sent++;
    counters.bytes_sent += frame.length;
    return true;
  }

  /** Lets go of the peer and the address; nothing is called any more. */
  close(): void {
    this.isClosed = true;
    this.server?.close();
    const { peer } = this;
    this.peer = undefined;
    // What was sent goes out, unless the peer does not read.
    peer?.end(() => peer.destroy());
    setTimeout(() => peer?.destroy(), CLOSE_TIMEOUT_MS).unref();
  }

  /** Takes whoever comes to `server`, one at a time. */
  serve(server: Server): void {
    this.server = server;
    server.on('connection', (socket) => {
      const name = `${this.address.text}#${++this.visitors}`;
      if (this.peer === undefined && !this.isClosed) return this.adopt(socket, name);
      socket.on('error', () => {});
      socket.destroy();
      this.counters.peers_refused++;
      if (!this.isClosed) this.listener.onRefused(name);
    });
  }

  /** Takes `socket` for the wire. */
  adopt(socket: Socket, name: string): void {
    const { counters, listener } = this;
    this.peer = socket;
    counters.peers_connected++;
    socket.setNoDelay(true);
    const cutter = new FrameCutter((bytes) => {
      counters.frames_received++;
      counters.bytes_received += bytes.length;
      if (!this.isClosed) listener.onFrame(bytes);
    });
    socket.on('data', (chunk: Buffer) => {
      if (this.peer !== socket) return;
      const length = cutter.feed(chunk);
      if (length === undefined) return;
      counters.peers_expelled++;
      const expected = `at most ${WIRE_MAX_FRAME_BYTES}`;
      const problem = `a frame of ${length} bytes is announced`;
      this.leave(socket, new Failure('E_PEER_PROTOCOL', problem, name, expected));
    });
    let reset = '';
    socket.on('error', (error) => {
      reset = ` (${error.message})`;
    });
    socket.on('close', () => {
      const where =
        cutter.pendingBytes > 0 ? `${cutter.pendingBytes} bytes into a frame` : 'between frames';
      const problem = `the peer disconnected ${where}${reset}`;
      this.leave(socket, new Failure('E_PEER_LOST', problem, name));
    });
    listener.onPeer(name);
  }

  private leave(socket: Socket, reason: Failure): void {
    socket.destroy();
    if (this.peer !== socket) return;
    this.peer = undefined;
    this.listener.onGone(reason);
  }
}

/** A wire at which one peer at a time may arrive. @throws Failure E_ADDRESS, E_LISTEN. */
export async function listenOnWire(
  text: string,
  listener: WireListener,
  { queueBytes = QUEUE_BYTES }: WireOptions = {},
): Promise<EthernetSocket> {
  const address = parseStreamAddress(text);
  const wire = new EthernetSocket(address, listener, queueBytes);
  wire.serve(await listenOnStream(address));
  return wire;
}

/**
 * A wire to whoever listens at `text`; tries again and again for a while.
 * @throws Failure E_ADDRESS, E_CONNECT, or the signal's reason
 */
export async function connectToWire(
  text: string,
  listener: WireListener,
  {
    queueBytes = QUEUE_BYTES,
    timeoutMs = CONNECT_TIMEOUT_MS,
    signal,
  }: WireOptions & { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
): Promise<EthernetSocket> {
  const address = parseStreamAddress(text);
  const untilMs = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const socket = await tryConnect(address);
    if (!(socket instanceof Error)) {
      const wire = new EthernetSocket(address, listener, queueBytes);
      wire.adopt(socket, address.text);
      return wire;
    }
    if (performance.now() + CONNECT_RETRY_MS >= untilMs) {
      throw new Failure('E_CONNECT', socket.message, text);
    }
    await sleep(CONNECT_RETRY_MS);
  }
}

function tryConnect(address: StreamAddress): Promise<Socket | Error> {
  return new Promise((resolve) => {
    const socket = createConnection(address.endpoint);
    socket.once('error', resolve);
    socket.once('connect', () => {
      socket.off('error', resolve);
      resolve(socket);
    });
  });
}
