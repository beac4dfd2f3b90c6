import { READY_PS, REGION_KEY } from './fixtures/bare-host.ts';
import { BASE, Pair } from './fixtures/pair.ts';

const trains = process.argv[2] === 't';
const digest = process.argv[3] === 'd';
const p = new Pair({
  bytes: 16 << 20,
  trains,
  digest,
  profile: { ackRequestPackets: 1 },
  setUpA: { mtu: 4096 },
  setUpB: { mtu: 4096 },
});
for (let i = 0; i < 4096; i++) p.a.blocks[16 + i] = p.pool.blocks.allocate();
for (let i = 0; i < 4096; i++) p.b.blocks[16 + i] = p.pool.blocks.allocate();
let posted = 0,
  done = 0;
const N = Number(process.argv[4] ?? 2000),
  M = 1 << 20;
const post = () => {
  if (posted < N) {
    const off = (posted % 16) * M;
    p.a.postSend(0x11, {
      opcode: 0,
      lkey: REGION_KEY,
      address: BASE + off,
      length: M,
      rkey: REGION_KEY,
      remote: BASE + off,
    });
    posted++;
  }
};
p.a.onCompletion = () => {
  done++;
  post();
};
p.a.at(READY_PS, () => {
  for (let i = 0; i < 8; i++) post();
});
const t = process.cpuUsage();
p.drive();
const u = process.cpuUsage(t);
const cpu = (u.user + u.system) / 1e6;
const pk = N * 256;
console.log({
  trains,
  digest,
  done,
  cpu,
  pps: Math.round(pk / cpu),
  simGbps: (pk * 4096 * 8) / ((p.a.node.now - READY_PS) / 1000),
});
console.log(
  p.hcaA.report().counters.port_xmit_packets,
  p.hcaB.report().counters.port_xmit_packets,
  p.digests(),
);
