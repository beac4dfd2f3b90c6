/** The wire: frames out of a stream however it is cut, one peer at a time, and nothing that stalls. */
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  connectToWire,
  type EthernetSocket,
  type Failure,
  FrameCutter,
  listenOnWire,
  WIRE_MAX_FRAME_BYTES,
  type WireOptions,
} from '../../transport/index.ts';
import { temporaryFolder, until } from '../harness/fixtures.ts';
import { connectTo } from './fixtures.ts';

/** A frame behind its length. */
function framed(bytes: Uint8Array): Buffer {
  const out = Buffer.alloc(4 + bytes.length);
  out.writeUInt32BE(bytes.length);
  out.set(bytes, 4);
  return out;
}

interface Heard {
  readonly frames: Buffer[];
  readonly peers: string[];
  readonly gone: Failure[];
  readonly refused: string[];
}

function ears(): { heard: Heard; listener: Parameters<typeof listenOnWire>[1] } {
  const heard: Heard = { frames: [], peers: [], gone: [], refused: [] };
  const listener = {
    onFrame: (bytes: Uint8Array) => heard.frames.push(Buffer.from(bytes)),
    onPeer: (name: string) => heard.peers.push(name),
    onGone: (reason: Failure) => heard.gone.push(reason),
    onRefused: (name: string) => heard.refused.push(name),
  };
  return { heard, listener: listener as unknown as Parameters<typeof listenOnWire>[1] };
}

async function listening(
  options: WireOptions = {},
): Promise<{ path: string; wire: EthernetSocket; heard: Heard }> {
  const path = join(temporaryFolder(), 'wire');
  const { heard, listener } = ears();
  const wire = await listenOnWire(`unix:${path}`, listener, options);
  onTestFinished(() => wire.close());
  return { path, wire, heard };
}

describe('a stream of frames', () => {
  it('gives the same frames however it is cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 20 }),
        (frames, cuts) => {
          const stream = Buffer.concat(frames.map(framed));
          const found: Buffer[] = [];
          const cutter = new FrameCutter((bytes) => found.push(Buffer.from(bytes)));
          for (let at = 0, i = 0; at < stream.length; i++) {
            const size = cuts[i % cuts.length] as number;
            expect(cutter.feed(stream.subarray(at, at + size))).toBeUndefined();
            at += size;
          }
          expect(cutter.pendingBytes).toBe(0);
          expect(found.map(String)).toEqual(frames.map((frame) => String(Buffer.from(frame))));
        },
      ),
    );
  });

  it('ends at a length that no frame has', () => {
    const found: number[] = [];
    const cutter = new FrameCutter((bytes) => found.push(bytes.length));
    expect(cutter.feed(framed(new Uint8Array(WIRE_MAX_FRAME_BYTES)))).toBeUndefined();
    const wrong = Buffer.alloc(4);
    wrong.writeUInt32BE(WIRE_MAX_FRAME_BYTES + 1);
    expect(cutter.feed(Buffer.concat([framed(new Uint8Array(60)), wrong]))).toBe(
      WIRE_MAX_FRAME_BYTES + 1,
    );
    expect(found).toEqual([WIRE_MAX_FRAME_BYTES, 60]);
  });
});

describe('a wire that listens', () => {
  it('takes frames and sends them, one peer at a time, one after the other', async () => {
    const { path, wire, heard } = await listening();
    expect(wire.send(new Uint8Array(60))).toBe(false);
    const first = await connectTo(path);
    await until(() => wire.isConnected);
    const second = await connectTo(path);
    const closed = new Promise((resolve) => second.once('close', resolve));
    second.resume();
    second.once('end', () => second.end());
    await closed;
    first.write(framed(Buffer.from('one frame')));
    await until(() => heard.frames.length === 1);
    const back = new Promise<Buffer>((resolve) => first.once('data', resolve));
    expect(wire.send(Buffer.from('another'))).toBe(true);
    expect(await back).toEqual(framed(Buffer.from('another')));
    first.end();
    await until(() => heard.gone.length === 1);
    expect(heard.gone[0]?.code).toBe('E_PEER_LOST');
    expect(heard.gone[0]?.message).toContain('between frames');
    const third = await connectTo(path);
    third.write(framed(Buffer.from('again')));
    await until(() => heard.frames.length === 2);
    expect(heard.peers.length).toBe(2);
    expect(heard.refused.length).toBe(1);
    expect(wire.counters).toMatchObject({
      frames_received: 2,
      frames_sent: 1,
      frames_dropped: 1,
      peers_connected: 2,
      peers_refused: 1,
      peers_expelled: 0,
    });
  });

  it('says how far into a frame its peer was lost', async () => {
    const { path, heard } = await listening();
    const peer = await connectTo(path);
    peer.end(framed(new Uint8Array(100)).subarray(0, 50));
    await until(() => heard.gone.length === 1);
    expect(heard.gone[0]?.message).toContain('50 bytes into a frame');
  });

  for (const [what, bytes] of [
    ['text', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['a length of all ones', Buffer.alloc(4, 0xff)],
  ] as const) {
    it(`sends a peer away that says ${what}, and takes the next`, async () => {
      const { path, wire, heard } = await listening();
      const peer = await connectTo(path);
      const closed = new Promise((resolve) => peer.once('close', resolve));
      peer.resume();
      peer.once('end', () => peer.end());
      peer.write(bytes);
      await closed;
      expect(heard.gone[0]?.code).toBe('E_PEER_PROTOCOL');
      expect(heard.gone[0]?.exitStatus).toBe(3);
      expect(wire.counters.peers_expelled).toBe(1);
      const next = await connectTo(path);
      next.write(framed(Buffer.from('frame')));
      await until(() => heard.frames.length === 1);
    });
  }

  it('loses frames to a peer that does not read, and no more than that', async () => {
    const { path, wire } = await listening({ queueBytes: 100_000 });
    const peer = await connectTo(path);
    peer.pause();
    await until(() => wire.isConnected);
    let sent = 0;
    // The kernel takes some; the queue takes 100 kB; the rest is lost without waiting for anybody.
    for (let i = 0; i < 2000; i++) if (wire.send(new Uint8Array(1000))) sent++;
    expect(sent).toBeLessThan(2000);
    expect(wire.counters.frames_dropped).toBe(2000 - sent);
    let received = 0;
    const cutter = new FrameCutter((bytes) => {
      expect(bytes.length).toBe(1000);
      received++;
    });
    peer.on('data', (chunk: Buffer) => cutter.feed(chunk));
    peer.resume();
    await until(() => received === sent);
    expect(wire.send(new Uint8Array(1000))).toBe(true);
    await until(() => received === sent + 1);
  });

  it('takes the place of a socket that nobody serves, and of no other', async () => {
    const path = join(temporaryFolder(), 'wire');
    const { listener } = ears();
    // A process that is killed leaves its socket behind.
    const listenAndDie = `require('node:net').createServer().listen(${JSON.stringify(path)}, () =>
      process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', listenAndDie]);
    expect(existsSync(path)).toBe(true);
    const wire = await listenOnWire(`unix:${path}`, listener);
    onTestFinished(() => wire.close());
    await expect(listenOnWire(`unix:${path}`, listener)).rejects.toMatchObject({
      code: 'E_LISTEN',
    });
    const file = join(temporaryFolder(), 'file');
    writeFileSync(file, 'not a socket');
    await expect(listenOnWire(`unix:${file}`, listener)).rejects.toMatchObject({
      code: 'E_LISTEN',
    });
    expect(existsSync(file)).toBe(true);
  });
});

describe('a wire that connects', () => {
  it('tries until somebody listens', async () => {
    const path = join(temporaryFolder(), 'wire');
    const { heard, listener } = ears();
    const connecting = connectToWire(`unix:${path}`, listener);
    await new Promise((resolve) => setTimeout(resolve, 120));
    const accepted = new Promise<Socket>((resolve) => {
      void serve(path, resolve);
    });
    const wire = await connecting;
    onTestFinished(() => wire.close());
    const peer = await accepted;
    expect(heard.peers).toEqual([`unix:${path}`]);
    wire.send(Buffer.from('hello'));
    expect(await new Promise((resolve) => peer.once('data', resolve))).toEqual(
      framed(Buffer.from('hello')),
    );
    peer.destroy();
    await until(() => heard.gone.length === 1);
    expect(wire.isConnected).toBe(false);
  });

  it('gives up in the end', async () => {
    const address = `unix:${join(temporaryFolder(), 'nobody')}`;
    await expect(connectToWire(address, ears().listener, { timeoutMs: 150 })).rejects.toMatchObject(
      { code: 'E_CONNECT', place: address },
    );
  });
});

describe('an address', () => {
  const { listener } = ears();
  for (const [text, part] of [
    ['', 'not an address'],
    ['wire', 'not an address'],
    ['unix:', 'no path'],
    [`unix:/${'x'.repeat(200)}`, 'a path of 201 bytes'],
    ['tcp:localhost', 'not HOST:PORT'],
    ['tcp::1234', 'not HOST:PORT'],
    ['tcp:localhost:65536', 'not HOST:PORT'],
    ['tcp:0.0.0.0:0', 'anyone could connect'],
    ['tcp:[::]:0', 'anyone could connect'],
    ['tcp:192.0.2.1:4791', 'anyone could connect'],
  ] as const) {
    it(`'${text.slice(0, 30)}' is refused`, async () => {
      const failure = listenOnWire(text, listener);
      await expect(failure).rejects.toMatchObject({ code: 'E_ADDRESS', place: text });
      await expect(failure).rejects.toThrow(part);
    });
  }

  it('of loopback over TCP is as good as a unix socket', async () => {
    for (const host of ['127.0.0.1', '[::1]']) {
      const { heard, listener } = ears();
      const port = 20_000 + Math.floor(process.pid % 20_000) + (host === '[::1]' ? 1 : 0);
      const wire = await listenOnWire(`tcp:${host}:${port}`, listener);
      onTestFinished(() => wire.close());
      const other = await connectToWire(`tcp:${host}:${port}`, ears().listener);
      other.send(Buffer.from('frame'));
      await until(() => heard.frames.length === 1);
      other.close();
    }
  });
});

/** Listens on a unix socket until the end of the test. */
function serve(path: string, onSocket: (socket: Socket) => void = () => {}): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    onSocket(socket);
  });
  onTestFinished(() => {
    server.close();
  });
  return new Promise((resolve) => server.listen(path, () => resolve(server)));
}
