/**
 * Windows per second over a WebSocket between two processes, against bare `ws` ping-pong of the same
 * message sizes.
 *
 * A window is a round of `runLockstep`: both processes run their nodes, encode what leaves, send one
 * message, and read and check the other's. The bare ping-pong has the same two sizes, the same socket
 * options (TCP on loopback, no compression, no masking) and the same two processes, and does nothing
 * else. Both are counted in rounds per second of wall clock, turn about.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { type WebSocket, WebSocketServer } from 'ws';
import { type Channel, listen } from '../../transport/index.ts';
import { runPart } from '../run.ts';
import { validateScenario } from '../scenario/validate.ts';

const launcher = fileURLToPath(new URL('../launch.mjs', import.meta.url));
const PEER_TIMEOUT_MS = 30_000;

/** Small SENDs both ways: windows that carry next to nothing, so that what is measured is the window. */
export const windowScenario = validateScenario({
  name: 'windows',
  summary: 'benchmark',
  hosts: [{ name: 'a' }, { name: 'b' }],
  links: [{ between: ['a', 'b'] }],
  queuePairs: [
    { name: 'there', between: ['a', 'b'] },
    { name: 'back', between: ['b', 'a'] },
  ],
  regions: ['a', 'b'].flatMap((host) =>
    ['out', 'in'].map((name) => ({ name: `${host}-${name}`, host, size: '64KiB', prefault: true })),
  ),
  operations: [
    ['there', 'a', 'b'],
    ['back', 'b', 'a'],
  ].map(([queuePair, from, to]) => ({
    kind: 'send',
    from,
    queuePair,
    source: { region: `${from}-out` },
    target: { region: `${to}-in` },
    size: '256B',
    count: 4_000,
  })),
});

export interface WindowRun {
  readonly roundsPerSecond: number;
  /** Mean bytes of a message, to and from the other process. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

/** Runs the scenario with the other host in a child process. */
export async function windowRun(): Promise<WindowRun> {
  const listener = await listen('ws://127.0.0.1:0');
  const child = startPeer('world', listener.url);
  let channel: Channel | undefined;
  let startMs = 0;
  let startRound = 0;
  let sent = 0;
  let received = 0;
  let round = 0;
  const local = ['a.hca', 'a.host'];
  const outcome = await runPart(
    { scenario: windowScenario, mode: 'pinned', seed: 1, local, peerTimeoutMs: PEER_TIMEOUT_MS },
    async () => {
      channel = await listener.accept();
      return channel;
    },
    {
      onProgress: () => {
        round++;
        if (round !== 1000 || !channel) return;
        // The first rounds warm both processes up.
        startMs = performance.now();
        startRound = round;
        sent = channel.sentBytes;
        received = channel.receivedBytes;
      },
    },
  );
  const seconds = (performance.now() - startMs) / 1000;
  listener.close();
  await ended(child);
  if (outcome.error !== undefined || !channel) throw outcome.error;
  const rounds = round - startRound;
  return {
    roundsPerSecond: rounds / seconds,
    sentBytes: Math.round((channel.sentBytes - sent) / rounds),
    receivedBytes: Math.round((channel.receivedBytes - received) / rounds),
  };
}

/** Round trips per second of bare ws with messages of these sizes. */
export async function bareRun(sentBytes: number, receivedBytes: number): Promise<number> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const child = startPeer('echo', `ws://127.0.0.1:${port}`, String(receivedBytes));
  const [socket] = (await once(server, 'connection')) as [WebSocket];
  const message = Buffer.alloc(sentBytes);
  const rate = await new Promise<number>((resolve) => {
    const warm = 1_000;
    const rounds = 20_000;
    let round = 0;
    let startMs = 0;
    socket.on('message', () => {
      if (++round === warm) startMs = performance.now();
      if (round === warm + rounds) resolve(rounds / ((performance.now() - startMs) / 1000));
      else socket.send(message);
    });
    socket.send(message);
  });
  socket.close();
  server.close();
  await ended(child);
  return rate;
}

function startPeer(...args: string[]): ChildProcess {
  return spawn(process.execPath, [launcher, 'bench', 'peer', ...args], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}
