/**
 * The other process of a benchmark: of windows one host of the world (`world URL`), or a bare echo
 * (`echo URL BYTES`); of memory the one that is measured (`odp-memory`).
 */
import { WebSocket } from 'ws';
import { connect } from '../../transport/index.ts';
import { runPart } from '../run.ts';
import { measureOdpMemory } from './odp-memory.ts';
import { windowScenario } from './windows.ts';

/** Runs to the end of the world, or until the echo's peer hangs up. */
export async function runPeer([what, url, bytes]: readonly string[]): Promise<void> {
  if (what === 'odp-memory') {
    measureOdpMemory();
    return;
  }
  if (what === 'echo') {
    const answer = Buffer.alloc(Number(bytes));
    // As `transport/channel/websocket.ts` does on loopback: a zero mask, which ws skips.
    const generateMask = (mask: Buffer): void => void mask.fill(0);
    const socket = new WebSocket(url, { perMessageDeflate: false, generateMask });
    socket.on('message', () => socket.send(answer));
    return;
  }
  const local = ['b.hca', 'b.host'];
  const options = { scenario: windowScenario, mode: 'pinned', seed: 1, local } as const;
  const outcome = await runPart({ ...options, peerTimeoutMs: 30_000 }, () => connect(url));
  if (outcome.error !== undefined) throw outcome.error;
}
