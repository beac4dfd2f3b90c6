import { fork } from 'node:child_process';
import { WebSocket, WebSocketServer } from 'ws';
import { BURST, FRAME_WORDS, FramePool, Node, PAYLOAD_BYTES, Partition, RC_SEND_ONLY, W_OPCODE } from '../transport/index.ts';
import { connect, listen } from '../transport/channel/websocket.ts';
import { runLockstep } from '../transport/channel/lockstep.ts';
import { WindowWriter } from '../transport/wire/window.ts';
const L = 1000000;
const ROUNDS = 15000;
const unix = process.env.UNIX === '1';
async function world(me: number, channel: any, frames: number, payload: number, rounds: number) {
  const pool = new FramePool(undefined, 8192, 8192);
  const src = new Uint8Array(4096).fill(7);
  const node = new Node('n' + me, 1);
  const port = node.addPort(L, { onFrame(f) { port.take(); pool.release(f); } });
  const slot = node.addEngine({ fire(now) {
    for (let i = 0; i < frames; i++) {
      const f = pool.allocate();
      pool.words[f * FRAME_WORDS + W_OPCODE] = RC_SEND_ONLY;
      pool.words[f * FRAME_WORDS + PAYLOAD_BYTES] = payload;
      if (payload) pool.words[f * FRAME_WORDS + BURST] = pool.burstFromBytes(src, 0, payload);
      port.send(now + L, f);
    }
    node.queue.arm(slot, now + L);
  } });
  node.queue.arm(slot, 0);
  const nodes = me === 0 ? [node, undefined] : [undefined, node];
  const channels = [{ a: 0, aPort: 0, b: 1, bPort: 0, latencyPs: L, kind: 'wire' as const }];
  const writer = new WindowWriter(pool, 2, channels, [me]);
  const partition = new Partition(nodes, channels, writer, rounds * L);
  const t = performance.now();
  const r = await runLockstep({ partition, nodes, channels, pool, writer, channel, report: () => 0 });
  return { rounds: r.rounds, ms: performance.now() - t, bytes: channel.sentBytes / r.rounds, cpu: process.cpuUsage() };
}
const cases = [[0, 0], [1, 64], [1, 1024], [1, 4096], [8, 4096], [16, 4096]];
const rr = (f: number, p: number) => f * p > 20000 ? 3000 : ROUNDS;
const bare = { perMessageDeflate: false } as const;
if (process.argv[2] === 'child') {
  for (const [f, p] of cases) {
    const ch = await connect(process.argv[3]);
    await world(1, ch, f, p, rr(f, p));
    for (const mask of [0, 1]) {
      const c = await (async () => { for (;;) { const w = new WebSocket(process.argv[4], { ...bare, ...(mask ? {} : { generateMask: (m: Buffer) => { m.fill(0); } }) }); const ok = await new Promise((res) => { w.on('open', () => res(true)); w.on('error', () => res(false)); }); if (ok) return w; await new Promise((r) => setTimeout(r, 20)); } })();
      c.on('message', (d: Buffer) => c.send(d));
      await new Promise((r) => c.on('close', r));
    }
  }
  process.exit(0);
} else {
  const url = unix ? 'ws+unix:/tmp/zzb.sock' : 'ws://127.0.0.1:47811';
  const url2 = unix ? 'ws+unix:/tmp/zzb2.sock' : 'ws://127.0.0.1:47812';
  const server = await listen(url);
  const { createServer } = await import('node:http');
  const hs = createServer();
  await new Promise<void>((r) => unix ? hs.listen('/tmp/zzb2.sock', r) : hs.listen(47812, '127.0.0.1', r));
  const wss = new WebSocketServer({ server: hs, perMessageDeflate: false });
  const q: WebSocket[] = []; wss.on('connection', (c) => q.push(c));
  fork(new URL(import.meta.url).pathname, ['child', url, url2], { execArgv: ['--import', 'tsx'] });
  for (const [f, p] of cases) {
    const ch = await server.accept();
    const r = await world(0, ch, f, p, rr(f, p));
    const size = Math.round(r.bytes);
    const out = [];
    for (const mask of [0, 1]) {
      while (!q.length) await new Promise((r) => setTimeout(r, 5)); const c = q.shift()!;
      const N = rr(f, p); let n = 0; const buf = Buffer.alloc(size, 1);
      const t = performance.now();
      c.send(buf);
      await new Promise<void>((res) => c.on('message', () => { if (++n === N) res(); else c.send(buf); }));
      out.push(N / ((performance.now() - t) / 1000));
      c.close();
      await new Promise((r) => c.on('close', r));
    }
    const rate = r.rounds / (r.ms / 1000);
    console.log(`${f}x${p} bytes/window ${size} rounds ${r.rounds} windows/s ${rate.toFixed(0)} bare(zero mask) ${out[0].toFixed(0)} bare(default) ${out[1].toFixed(0)} ratio ${(rate / out[0]).toFixed(2)} / ${(rate / out[1]).toFixed(2)}`);
  }
  process.exit(0);
}
