/** Everything that can go wrong between two processes, and with which code it ends. */
import { createConnection } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import type { Channel } from '../../transport/channel/channel.ts';
import { handshake, makeHello, type RunIdentity } from '../../transport/channel/handshake.ts';
import { inProcessPair } from '../../transport/channel/in-process.ts';
import { runSwitchboard } from '../../transport/channel/switchboard.ts';
import { connect, type Listener, listen } from '../../transport/channel/websocket.ts';
import { Failure } from '../../transport/index.ts';
import { decodeSession, encodeSession, SESSION_PROTOCOL } from '../../transport/wire/session.ts';
import { ToyProcess, toyIdentity } from '../fixtures/toy-run.ts';
import { makeToyWorld, type ToyWorld } from '../fixtures/toy-world.ts';

const world = makeToyWorld(7);
const everyone = world.names.map((_, i) => i);
const [firstHalf, secondHalf] = [everyone.slice(0, 1), everyone.slice(1)];

/** The code with which a promise fails. */
async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'none';
  } catch (error) {
    return error instanceof Failure ? error.code : String(error);
  }
}

/** A peer that shakes hands for the second half and then does what it is told. */
async function puppet(channel: Channel): Promise<void> {
  await handshake(
    channel,
    makeHello(
      toyIdentity(world),
      secondHalf.map((i) => world.names[i]),
    ),
  );
}

describe('handshake', () => {
  const run = toyIdentity(world);
  const names = [...world.names];
  const others: [string, Partial<RunIdentity> & { role?: string[] }][] = [
    ['scenario', { scenario: 'another' }],
    ['seed', { seed: 8 }],
    ['mode', { mode: 'pinned' }],
    ['nodes', { nodes: [...names, 'more'] }],
    ['latencies', { latencies: run.latencies.map((ps) => ps + 1) }],
    ['role', { role: names }],
    ['role', { role: [] }],
  ];
  it.each(others)('refuses another %s on both sides', async (field, change) => {
    const [left, right] = inProcessPair();
    const { role = names.slice(1), ...rest } = change;
    const results = await Promise.allSettled([
      handshake(left, makeHello(run, [names[0]])),
      handshake(right, makeHello({ ...run, ...rest }, role)),
    ]);
    for (const result of results) {
      const failure = (result as PromiseRejectedResult).reason as Failure;
      expect([failure.code, failure.place]).toEqual(['E_HANDSHAKE', field]);
    }
  });

  it('refuses another protocol, whatever else its hello says', async () => {
    const [left, right] = inProcessPair();
    const hello = { type: 'hello', protocol: SESSION_PROTOCOL + 1, novelty: 1 };
    // A message that our own types do not allow.
    right.send(encodeSession(hello as unknown as Parameters<typeof encodeSession>[0]));
    await expect(handshake(left, makeHello(run, names))).rejects.toMatchObject({
      code: 'E_HANDSHAKE',
      place: 'protocol',
    });
  });

  it('waits for hello only so long', async () => {
    const [left] = inProcessPair();
    const hello = makeHello(run, [names[0]]);
    expect(await codeOf(handshake(left, hello, { peerTimeoutMs: 80 }))).toBe('E_PEER_SILENT');
  });

  it('can be interrupted', async () => {
    const [left] = inProcessPair();
    const controller = new AbortController();
    const reason = new Error('interrupted');
    setTimeout(() => controller.abort(reason), 10);
    const shaking = handshake(left, makeHello(run, [names[0]]), { signal: controller.signal });
    await expect(shaking).rejects.toBe(reason);
  });
});

describe('a session message', () => {
  it('is refused when it claims more than it has', () => {
    const bombs = [
      [2, 0xdd, 0x01, 0xc9, 0xc3, 0x80, 0xdd, 0x01, 0xc9, 0xc3, 0x80],
      [2, 0xdb, 0xff, 0xff, 0xff, 0xff],
      [2, ...new Array(100).fill(0x91), 0xc0],
      [2, 0xd4, 0x72, 0x40],
      [2, 0xc0, 0xc0],
      [2],
      [2, 0xc0],
    ];
    for (const bomb of bombs) {
      expect(() => decodeSession(Uint8Array.from(bomb))).toThrow('not a session message');
    }
  });
});

describe('a peer in a run', () => {
  const junk: [string, Uint8Array, string][] = [
    ['an unknown type', Uint8Array.of(9, 9, 9), 'E_PEER_PROTOCOL'],
    ['nothing', new Uint8Array(0), 'E_PEER_PROTOCOL'],
    ['half a window', Uint8Array.of(1, 0), 'E_PEER_PROTOCOL'],
    ['a broken session message', Uint8Array.of(2, 0xc1), 'E_PEER_PROTOCOL'],
    ['ready again', encodeSession({ type: 'ready' }), 'E_PEER_PROTOCOL'],
    ['bye too early', encodeSession({ type: 'bye', reports: [] }), 'E_PEER_PROTOCOL'],
    [
      'its own failure',
      encodeSession({ type: 'error', code: 'E_X', message: 'x' }),
      'E_PEER_FAILED',
    ],
  ];
  it.each(junk)('that sends %s', async (_, bytes, code) => {
    const [left, right] = inProcessPair();
    const ours = new ToyProcess(world, firstHalf).join(left);
    await puppet(right);
    const heard: Uint8Array[] = [];
    right.attach({ onMessage: (message) => heard.push(message), onClose: () => {} });
    right.send(bytes);
    expect(await codeOf(ours)).toBe(code);
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (code === 'E_PEER_PROTOCOL') {
      expect(decodeSession(heard[heard.length - 1])).toMatchObject({ type: 'error', code });
    }
  });

  it('that is silent, but not while it says it is busy', async () => {
    const [left, right] = inProcessPair();
    const start = performance.now();
    const ours = new ToyProcess(world, firstHalf).join(left, 120);
    await puppet(right);
    for (let i = 0; i < 8; i++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      right.send(encodeSession({ type: 'busy' }));
    }
    expect(await codeOf(ours)).toBe('E_PEER_SILENT');
    expect(performance.now() - start).toBeGreaterThan(400);
  });

  it('that computes for long says so by itself', async () => {
    const [left, right] = inProcessPair();
    const slow = new ToyProcess(world, firstHalf);
    const { node } = slow.toys[0];
    let eventsLeft = 8000;
    const slot = node.addEngine({
      fire: (now) => {
        const start = performance.now();
        while (performance.now() - start < 0.2);
        node.queue.arm(slot, --eventsLeft > 0 ? now : Number.POSITIVE_INFINITY);
      },
    });
    node.queue.arm(slot, 0);
    await Promise.all([slow.join(left, 1200), new ToyProcess(world, secondHalf).join(right, 1200)]);
    expect(eventsLeft).toBe(0);
  });

  it('that disconnects, is noticed at once', async () => {
    const server = await listen('ws://127.0.0.1:0');
    const [left, right] = await Promise.all([server.accept(), connect(server.url)]);
    const ours = new ToyProcess(world, firstHalf).join(left);
    await puppet(right);
    const start = performance.now();
    right.close();
    expect(await codeOf(ours)).toBe('E_PEER_LOST');
    expect(performance.now() - start).toBeLessThan(1000);
    server.close();
  });

  it('hears of our own failure, which stays what it is', async () => {
    const [left, right] = inProcessPair();
    const broken = new ToyProcess(world, firstHalf);
    broken.toys[0].mind.onEngine = () => {
      throw new RangeError('broken');
    };
    const results = await Promise.allSettled([
      broken.join(left),
      new ToyProcess(world, secondHalf).join(right),
    ]);
    const [ours, theirs] = results.map((result) => (result as PromiseRejectedResult).reason);
    expect(ours).toBeInstanceOf(RangeError);
    expect(theirs).toMatchObject({ code: 'E_PEER_FAILED', message: 'E_BUG: broken' });
  });
});

describe('a switchboard', () => {
  const spread: ToyWorld = { ...world, limitPs: Number.POSITIVE_INFINITY };
  function hubOf(channels: Channel[], peerTimeoutMs = 20_000) {
    return runSwitchboard({
      run: toyIdentity(spread),
      channels: spread.channels,
      participantCount: channels.length,
      accept: () => Promise.resolve(channels.shift() as Channel),
      peerTimeoutMs,
    });
  }

  it('says who was lost, and tells the others', async () => {
    const pairs = everyone.map(() => inProcessPair());
    const hub = hubOf(pairs.map(([end]) => end));
    const survivors = everyone
      .slice(1)
      .map((i) => codeOf(new ToyProcess(spread, [i]).join(pairs[i][1])));
    await handshake(pairs[0][1], makeHello(toyIdentity(spread), [spread.names[0]]));
    pairs[0][1].close();
    await expect(hub).rejects.toMatchObject({ code: 'E_PEER_LOST', place: spread.names[0] });
    for (const code of await Promise.all(survivors)) expect(code).toBe('E_PEER_FAILED');
  });

  it('alone judges who is silent', async () => {
    const pairs = everyone.map(() => inProcessPair());
    const hub = hubOf(
      pairs.map(([end]) => end),
      300,
    );
    const survivors = everyone
      .slice(1)
      .map((i) => codeOf(new ToyProcess(spread, [i]).join(pairs[i][1], 200)));
    await handshake(pairs[0][1], makeHello(toyIdentity(spread), [spread.names[0]]));
    await expect(hub).rejects.toMatchObject({ code: 'E_PEER_SILENT', place: spread.names[0] });
    for (const code of await Promise.all(survivors)) expect(code).toBe('E_PEER_FAILED');
  });

  it('refuses two that run the same node', async () => {
    const pairs = [inProcessPair(), inProcessPair()];
    const hub = codeOf(hubOf(pairs.map(([end]) => end)));
    const codes = await Promise.all([
      codeOf(new ToyProcess(spread, firstHalf).join(pairs[0][1])),
      codeOf(new ToyProcess(spread, firstHalf).join(pairs[1][1])),
      hub,
    ]);
    expect(codes).toEqual(['E_PEER_FAILED', 'E_HANDSHAKE', 'E_HANDSHAKE']);
  });
});

describe('a WebSocket server', () => {
  let server: Listener | undefined;
  afterEach(() => server?.close());

  it('asks for a token beyond loopback, before it listens', async () => {
    expect(await codeOf(listen('ws://0.0.0.0:0'))).toBe('E_TOKEN_REQUIRED');
  });

  it.each(['nonsense', 'http://x:1', 'ws://', 'ws://u:p@h:1', 'ws://h:1/x', 'ws+unix:x'])(
    'does not take %s for an address',
    async (url) => {
      expect(await codeOf(listen(url))).toBe('E_ADDRESS');
      expect(await codeOf(connect(url))).toBe('E_ADDRESS');
    },
  );

  it('says so when the port is taken', async () => {
    server = await listen('ws://127.0.0.1:0');
    expect(await codeOf(listen(server.url))).toBe('E_LISTEN');
  });

  it('refuses a missing and a wrong token', async () => {
    server = await listen('ws://127.0.0.1:0', { token: 'right' });
    expect(await codeOf(connect(server.url))).toBe('E_REFUSED');
    expect(await codeOf(connect(server.url, { token: 'wrong' }))).toBe('E_REFUSED');
    (await connect(server.url, { token: 'right' })).close();
  });

  it('refuses browsers', async () => {
    server = await listen('ws://127.0.0.1:0');
    const socket = new WebSocket(server.url, { origin: server.url.replace('ws', 'http') });
    const status = await new Promise((resolve) => {
      socket.on('error', () => {});
      socket.on('unexpected-response', (_request, response) => resolve(response.statusCode));
    });
    expect(status).toBe(403);
  });

  it('refuses a second client and leaves the first alone', async () => {
    server = await listen('ws://127.0.0.1:0');
    const [left, right] = await Promise.all([server.accept(), connect(server.url)]);
    const run = Promise.all([
      new ToyProcess(world, firstHalf).join(left),
      new ToyProcess(world, secondHalf).join(right),
    ]);
    expect(await codeOf(connect(server.url))).toBe('E_REFUSED');
    await run;
  });

  const raw: [string, (socket: WebSocket) => void][] = [
    ['text', (socket) => socket.send('hello')],
    ['a message beyond the limit', (socket) => socket.send(new Uint8Array(64 * 1024 * 1024 + 1))],
  ];
  it.each(raw)('takes %s for a breach of protocol', async (_, send) => {
    server = await listen('ws://127.0.0.1:0');
    const socket = new WebSocket(server.url);
    socket.on('error', () => {});
    socket.on('open', () => send(socket));
    const ours = new ToyProcess(world, firstHalf).join(await server.accept());
    expect(await codeOf(ours)).toBe('E_PEER_PROTOCOL');
  });

  it('survives bytes that are no HTTP at all', async () => {
    server = await listen('ws://127.0.0.1:0');
    const socket = createConnection(Number(new URL(server.url).port), '127.0.0.1');
    socket.on('error', () => {});
    socket.resume();
    socket.end('\u0001\u0002 no request at all\r\n\r\n');
    await new Promise((resolve) => socket.on('close', resolve));
    (await connect(server.url)).close();
  });

  it('is waited for, but not for ever', async () => {
    server = await listen('ws://127.0.0.1:0');
    const { url } = server;
    server.close();
    expect(await codeOf(connect(url, { timeoutMs: 150 }))).toBe('E_CONNECT');
    const late = connect(url, { timeoutMs: 5000 });
    await new Promise((resolve) => setTimeout(resolve, 120));
    server = await listen(url);
    (await late).close();
  });
});
