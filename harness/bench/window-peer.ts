/**
 * The other process of the window benchmark: one host of the world (`world URL`), or a bare echo
 * (`echo URL BYTES`).
 */
import { WebSocket } from 'ws';
import { connect } from '../../transport/index.ts';
import { runPart } from '../run.ts';
import { windowScenario } from './windows.ts';

const [what, url, bytes] = process.argv.slice(2);

if (what === 'echo') {
  const answer = Buffer.alloc(Number(bytes));
  // The same as `transport/channel/websocket.ts` does on loopback: a zero mask, which ws skips.
  const socket = new WebSocket(url, {
    perMessageDeflate: false,
    generateMask: (mask) => mask.fill(0),
  });
  socket.on('message', () => socket.send(answer));
} else {
  const local = ['b.hca', 'b.host'];
  const options = { scenario: windowScenario, mode: 'pinned', seed: 1, local } as const;
  const outcome = await runPart({ ...options, peerTimeoutMs: 30_000 }, () => connect(url));
  if (outcome.error !== undefined) throw outcome.error;
}
