/** What every channel keeps, over each implementation. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { Channel } from '../../transport/channel/channel.ts';
import { inProcessPair } from '../../transport/channel/in-process.ts';
import { connect, listen } from '../../transport/channel/websocket.ts';
import type { Failure } from '../../transport/index.ts';
import { runPair, runTogether } from '../fixtures/toy-run.ts';
import { makeToyWorld } from '../fixtures/toy-world.ts';

const folder = mkdtempSync(join(tmpdir(), 'faultline-'));
afterAll(() => rmSync(folder, { recursive: true }));
let sockets = 0;

async function webSocketPair(url: string): Promise<[Channel, Channel]> {
  const server = await listen(url);
  const ends = await Promise.all([server.accept(), connect(server.url)]);
  server.close();
  return ends;
}

const implementations: Record<string, () => Promise<[Channel, Channel]>> = {
  'in-process': async () => inProcessPair(),
  'WebSocket over TCP': () => webSocketPair('ws://127.0.0.1:0'),
  'WebSocket over IPv6': () => webSocketPair('ws://[::1]:0'),
  'WebSocket over a Unix socket': () => webSocketPair(`ws+unix:${folder}/${sockets++}.sock`),
};

/** Collects what arrives at a channel. */
class Collector {
  readonly messages: Uint8Array[] = [];
  reason: Failure | undefined;
  private wake: () => void = () => {};

  constructor(channel: Channel) {
    channel.attach({
      onMessage: (bytes) => {
        this.messages.push(bytes);
        this.wake();
      },
      onClose: (reason) => {
        this.reason = reason;
        this.wake();
      },
    });
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => (this.wake = resolve));
  }
}

describe.each(Object.entries(implementations))('a channel: %s', (_, pair) => {
  it('carries messages of any size whole and in order, both ways', async () => {
    const [left, right] = await pair();
    const sizes = [0, 1, 125, 126, 65_535, 65_536, 3_000_000, 2];
    for (const [from, to] of [
      [left, right],
      [right, left],
    ]) {
      const collector = new Collector(to);
      const sent = sizes.map((size, i) => new Uint8Array(size).fill(i + 1));
      for (const bytes of sent) from.send(bytes);
      await collector.until(() => collector.messages.length === sizes.length);
      collector.messages.forEach((bytes, i) => {
        expect(Buffer.compare(bytes, sent[i])).toBe(0);
      });
      expect(from.sentBytes).toBe(sizes.reduce((sum, size) => sum + size));
      expect(to.receivedBytes).toBe(from.sentBytes);
    }
    left.close();
  });

  it('keeps messages and the end until somebody attaches', async () => {
    const [left, right] = await pair();
    left.send(Uint8Array.of(1));
    left.send(Uint8Array.of(2));
    left.close();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const collector = new Collector(right);
    await collector.until(() => collector.reason !== undefined);
    expect(collector.messages.map((bytes) => bytes[0])).toEqual([1, 2]);
    expect(collector.reason?.code).toBe('E_PEER_LOST');
  });

  it('hands messages over one handler at a time', async () => {
    const [left, right] = await pair();
    const first = new Collector(right);
    left.send(Uint8Array.of(1));
    await first.until(() => first.messages.length === 1);
    right.attach(undefined);
    left.send(Uint8Array.of(2));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const second = new Collector(right);
    await second.until(() => second.messages.length === 1);
    expect([first.messages.length, second.messages[0][0]]).toEqual([1, 2]);
    left.close();
  });

  it('says nothing after a close of its own, and sends into the void', async () => {
    const [left, right] = await pair();
    const collector = new Collector(left);
    right.send(Uint8Array.of(1));
    left.close();
    left.send(Uint8Array.of(1));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(collector.messages).toEqual([]);
    expect(collector.reason).toBeUndefined();
  });

  it('carries a run', async () => {
    const world = makeToyWorld(7);
    expect(await runPair(world, 1, await pair())).toEqual(runTogether(world));
  });
});
