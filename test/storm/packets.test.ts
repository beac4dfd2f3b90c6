/**
 * A fuzzer on the wire: packets in sequence, mutated, scrambled and plain random, thrown at queue
 * pairs in every state. Nothing throws or hangs, memory changes only where the peer may write,
 * nothing leaves that it may not read, and nothing stays behind.
 *
 * SEED is the first seed and PACKETS how many packets there are, about.
 */
import { expect, it } from 'vitest';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_READ,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_WRITE,
  BlockPool,
  CMD_ALLOC_PD,
  CMD_CREATE_MKEY,
  CMD_CREATE_QP,
  CMD_DESTROY_QP,
  CMD_MODIFY_QP,
  FramePool,
  MS,
  QPS_ERR,
  QPS_INIT,
  QPS_RTR,
  QPS_RTS,
  RandomStream,
  RC_ACKNOWLEDGE,
  SEC,
  US,
  WR_RDMA_READ,
  WR_SEND_WITH_IMM,
} from '../../transport/index.ts';
import { modify } from '../fixtures/bare-host.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';
import { PacketSource, type Target } from './packet-source.ts';

const FIRST = Number(process.env.SEED ?? 1);
const PACKETS = Number(process.env.PACKETS ?? 60_000);
const PER_WORLD = 300;
/** When everything is set up, ps. */
const START_PS = 400 * US;

const PAGE = 4096;
const PAGES = 64;
/** Bytes below 0x80 may be read by the peer; the others never leave. */
const SECRET = 0xa5;

/** Regions: pages from `first` on, who may do what, and in which domain. */
const regions = [
  {
    first: 16,
    count: 12,
    pd: 1,
    access: ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ | ACCESS_LOCAL_WRITE,
  },
  { first: 30, count: 4, pd: 1, access: ACCESS_REMOTE_READ },
  { first: 36, count: 4, pd: 1, access: ACCESS_REMOTE_WRITE | ACCESS_LOCAL_WRITE },
  { first: 42, count: 4, pd: 1, access: ACCESS_LOCAL_WRITE },
  {
    first: 48,
    count: 4,
    pd: 2,
    access: ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ | ACCESS_LOCAL_WRITE,
  },
  { first: 54, count: 4, pd: 1, access: ACCESS_LOCAL_WRITE },
] as const;
/** What the host sends: it must stay as it is. */
const OUT = 5;
/** Receives and READs of the host itself go here: a key that the peer has no rights with. */
const LOCAL = 3;
const keyOf = (region: number): number => ((region + 1) << 8) | 7;
const mayWrite = (region: (typeof regions)[number]): boolean =>
  region.pd === 1 && (region.access & ACCESS_REMOTE_WRITE) !== 0;
const mayRead = (region: (typeof regions)[number]): boolean =>
  region.pd === 1 && (region.access & ACCESS_REMOTE_READ) !== 0;

/** Queue pairs from 0x11 on, one after another: what becomes of each. */
const states = ['rts', 'rts', 'rts', 'rts', 'rts', 'rtr', 'rtr', 'init', 'reset', 'err', 'gone'];
const QPNS = states.map((_, i) => 0x11 + i);

interface World {
  digest: string;
  packets: number;
  accepted: number;
}

function runWorld(seed: number): World {
  const chance = new RandomStream(seed, 'test', 'packets');
  const mtu = [256, 1024, 4096][chance.below(3)] as number;
  const firstPsn = [0, 0xfffff0, 0x7ffff0][chance.below(3)] as number;
  const lone = new LoneAdapter({
    profile: {
      ackTimeoutMinExponent: 0,
      ackTimeoutFactor: 1,
      rnrWaitPercent: 100,
      rnrWaitMinPs: 0,
    },
    bytes: PAGES * PAGE,
    pool: new FramePool(new BlockPool(1024), 8192, 2048),
    limitPs: 20 * SEC,
    setUp: {
      address: 16 * PAGE,
      length: 12 * PAGE,
      access: regions[0].access,
      mtu,
      sendPsn: firstPsn,
      receivePsn: firstPsn,
      timeout: 8,
      retryCnt: 2,
      queuePairs: 0,
      present: false,
    },
  });
  const { host, peer, pool, hca } = lone;
  fill(lone);
  const before = host.read(0, PAGES * PAGE);
  host.at(2000, () => setUpHost(lone));
  const posted = disturb(lone, chance);
  host.onFault = ({ token, mkey, address, bytes }) => {
    const at = host.node.now + 1 + chance.below(MS);
    host.at(at, () => {
      const region = regions[(mkey >>> 8) - 1];
      if (region === undefined || chance.below(10) === 0) return host.resumeFault(token, 1);
      const first = Math.floor(address / PAGE) - region.first;
      const last = Math.floor((address + Math.max(bytes, 1) - 1) / PAGE) - region.first;
      for (let i = first; i <= last; i++) {
        if (chance.below(4) > 0) host.table(mkey, i, 1, () => entry(region.first + i));
      }
      return host.resumeFault(token);
    });
  };

  const targets = regions.map(
    (region, i): Target => ({
      rkey: keyOf(i),
      address: region.first * PAGE,
      length: region.count * PAGE,
      mayWrite: mayWrite(region),
      mayRead: mayRead(region),
    }),
  );
  const badPermille = [10, 50, 300][chance.below(3)] as number;
  const source = new PacketSource(seed, QPNS, firstPsn, mtu, targets, badPermille);
  let packets = 0;
  peer.onPacket = (packet) => {
    source.hear(packet);
    // What it carries is nobody's secret, and only connected queue pairs say anything.
    expect(packet.payload.includes(SECRET)).toBe(false);
    expect(['rts', 'rtr']).toContain(states[packet.qpn - 0x11]);
  };
  let at = START_PS;
  for (let i = 0; i < PER_WORLD; i++) {
    at += chance.below(4) === 0 ? chance.below(30 * US) : 1;
    peer.at(at, () => {
      packets++;
      peer.send(source.next());
      if (chance.below(1000) >= badPermille) return;
      const plain = peer.frameOf(source.next());
      const frame = source.scrambled(pool, plain);
      pool.release(plain);
      if (frame >= 0) peer.sendFrame(frame);
    });
  }
  for (let budget = 200; lone.partition.advance(10_000); budget--) {
    if (budget === 0) throw new Error('it does not come to an end');
  }

  expectUntouched(before, host.read(0, PAGES * PAGE));
  expect(host.completions.map((c) => c.wrId).sort((x, y) => x - y)).toEqual(posted);
  expect(pool.framesInUse).toBe(0);
  expect(pool.burstsInUse).toBe(0);
  expect(pool.blocks.blocksInUse).toBe(
    new Set(host.blocks).size - (host.blocks.includes(0) ? 1 : 0),
  );
  hca.checkLeaks();
  const { counters } = hca.report();
  expect(counters.port_xmit_packets).toBe(peer.seen.length);
  const accepted = peer.seen.filter((p) => p.opcode !== RC_ACKNOWLEDGE || p.syndrome < 0x20).length;
  const nodes = [hca.node, host.node, peer.node];
  return { digest: nodes.map((node) => node.digest.toString()).join(), packets, accepted };
}

const entry = (page: number): number => (page << 2) | ACCESS_WRITE | ACCESS_READ;

/** Secrets everywhere but where the peer may read. */
function fill({ host, pool }: LoneAdapter): void {
  for (let page = 0; page < PAGES; page++) {
    const isOpen = regions.some(
      (r) => (mayRead(r) || r === regions[OUT]) && page >= r.first && page < r.first + r.count,
    );
    const burst = pool.burstFromBytes(new Uint8Array(PAGE).fill(isOpen ? page : SECRET), 0, PAGE);
    host.land(burst, 0, PAGE, page, 0);
    pool.releaseBurst(burst);
  }
}

/** The other regions, half their pages mapped, and queue pairs in every state. */
function setUpHost(lone: LoneAdapter): void {
  const { host } = lone;
  host.command(CMD_ALLOC_PD);
  regions.forEach(({ first, count, pd, access }, i) => {
    if (i > 0) host.command(CMD_CREATE_MKEY, [pd, access, 7], [first * PAGE, count * PAGE]);
    for (let page = 0; page < count; page += 2) {
      host.table(keyOf(i), page, 1, () => entry(first + page));
    }
  });
  const path: Record<string, readonly number[]> = {
    rts: [QPS_INIT, QPS_RTR, QPS_RTS],
    rtr: [QPS_INIT, QPS_RTR],
    init: [QPS_INIT],
    reset: [],
    err: [QPS_INIT, QPS_RTR, QPS_RTS, QPS_ERR],
    gone: [QPS_INIT, QPS_RTR, QPS_RTS],
  };
  states.forEach((state, i) => {
    host.command(CMD_CREATE_QP, [1, 64, 64, 1, 1]);
    modify(host, QPNS[i] as number, lone.setUp, path[state] ?? []);
    if (state === 'gone') host.command(CMD_DESTROY_QP, [QPNS[i] as number]);
  });
}

/** Work of the host itself, so that answers mean something; and queue pairs that end. */
function disturb({ host }: LoneAdapter, chance: RandomStream): number[] {
  const ids: number[] = [];
  const local = regions[LOCAL];
  states.forEach((state, i) => {
    const qpn = QPNS[i] as number;
    if (state !== 'rts' && state !== 'rtr') return;
    for (let k = 0; k < 8; k++) {
      const wrId = ids.push(ids.length);
      const address = local.first * PAGE + chance.below(2 * PAGE);
      const length = chance.below(2 * PAGE);
      host.at(START_PS - 50 * US, () => host.postReceive(qpn, wrId, keyOf(LOCAL), address, length));
    }
    for (let k = chance.below(6); state === 'rts' && k > 0; k--) {
      const wrId = ids.push(ids.length);
      const opcode = chance.below(WR_RDMA_READ + 1);
      const isSent = opcode <= WR_SEND_WITH_IMM;
      const region = isSent ? regions[OUT] : local;
      const work = {
        opcode,
        wrId,
        lkey: keyOf(isSent ? OUT : LOCAL),
        address: region.first * PAGE + chance.below(PAGE),
        length: chance.below(3 * PAGE),
        rkey: 1,
        remote: 1,
      };
      host.at(START_PS + chance.below(500 * US), () => host.postSend(qpn, work));
    }
    // What nothing else ends is ended here, so that every receive completes.
    host.at(START_PS + 10 * SEC, () => host.command(CMD_MODIFY_QP, [qpn, QPS_ERR]));
    if (chance.below(6) === 0) {
      host.at(START_PS + chance.below(MS), () => host.command(CMD_MODIFY_QP, [qpn, QPS_ERR]));
    }
  });
  return ids.map((_, i) => i + 1);
}

/** Only regions that the peer may write, and the host's own buffers, may have changed. */
function expectUntouched(before: Uint8Array, after: Uint8Array): void {
  for (let page = 0; page < PAGES; page++) {
    const region = regions.find((r) => page >= r.first && page < r.first + r.count);
    if (region !== undefined && (mayWrite(region) || region === regions[LOCAL])) continue;
    const [was, is] = [before, after].map((b) => b.subarray(page * PAGE, page * PAGE + PAGE));
    if (Buffer.compare(was as Uint8Array, is as Uint8Array) !== 0)
      throw new Error(`page ${page}, which the peer may not write, has changed`);
  }
}

it(
  `${PACKETS} packets from seed ${FIRST} on do no harm`,
  () => {
    let packets = 0;
    let accepted = 0;
    for (let seed = FIRST; packets < PACKETS; seed++) {
      const again = `SEED=${seed} PACKETS=1 npx vitest run test/storm/packets.test.ts`;
      try {
        const world = runWorld(seed);
        packets += world.packets;
        accepted += world.accepted;
        if (seed % 10 === 0) expect(runWorld(seed).digest).toBe(world.digest);
      } catch (error) {
        process.stderr.write(`fuzzing with seed ${seed} failed; to reproduce: ${again}\n`);
        throw error;
      }
    }
    if (process.env.PACKETS !== undefined)
      process.stderr.write(`${packets} packets, ${accepted} answers to them\n`);
    // Packets that are all refused would show little.
    expect(accepted).toBeGreaterThan(PACKETS / 6);
  },
  60_000 + PACKETS,
);
