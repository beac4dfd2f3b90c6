/** What an adapter checks of a packet before its operation: addresses, partition, version, service. */
import { describe, expect, it } from 'vitest';
import {
  BTH_TVER_SHIFT,
  CNP_INFINIBAND,
  CNP_ROCE,
  linkCountedBytes,
  linkOverheadBytes,
  packetDataWords,
  packetWireBytes,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  RC_SEND_ONLY,
  UC_SEND_ONLY,
  UD_SEND_ONLY,
  US,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { LoneAdapter, type PlainPacket } from '../fixtures/wire-peer.ts';
import { local, newPair, QPN, REMOTE, UD } from '../fixtures/work.ts';

const opcodes = { [QPT_RC]: RC_SEND_ONLY, [QPT_UC]: UC_SEND_ONLY, [QPT_UD]: UD_SEND_ONLY };

/** Gives one packet to a queue pair with a receive; returns how many receives completed, and counters. */
function give(
  packet: Partial<PlainPacket>,
  options: ConstructorParameters<typeof LoneAdapter>[0] = {},
): [number, Record<string, number>] {
  const lone = new LoneAdapter(options);
  const { host, peer } = lone;
  const type = options.setUp?.type ?? QPT_RC;
  host.at(READY_PS - 20 * US, () => host.postReceive(QPN, 1, REGION_KEY, REMOTE, 100));
  // A datagram's rkey is its Q_Key.
  const opcode = opcodes[type as keyof typeof opcodes];
  peer.at(READY_PS, () => peer.send({ opcode, psn: 100, rkey: 0x1234, ...packet }));
  lone.drive();
  return [host.completions.length, lone.hca.report().counters];
}

describe('addresses', () => {
  it.each([
    ['RC', QPT_RC],
    ['UC', QPT_UC],
    ['UD', QPT_UD],
  ])('of a packet to %s: ours, and of its peer if it is connected', (_, type) => {
    const setUp = { type };
    expect(give({}, { setUp })[0]).toBe(1);
    // From another port: a datagram may come from anywhere.
    const [done, counters] = give({ lids: (3 << 16) | 1 }, { setUp });
    expect([done, counters.header_drops]).toEqual(type === QPT_UD ? [1, 0] : [0, 1]);
    expect(give({ lids: (2 << 16) | 5 }, { setUp })[1].header_drops).toBe(1);
  });

  it('a queue pair that does not exist', () => {
    expect(give({ qpn: 0x99 })[1].state_drops).toBe(1);
  });
});

describe('the partition', () => {
  const cases: [string, number, readonly number[], boolean][] = [
    ['full and full', 0xffff, [0xffff], true],
    ['limited and full', 0x7fff, [0xffff], true],
    ['full and limited', 0xffff, [0x7fff], true],
    ['limited and limited', 0x7fff, [0x7fff], false],
    ['another one', 0x8001, [0xffff], false],
    ['the invalid one', 0x8000, [0x8000], false],
    ['the other entry of the table', 0x8002, [0xffff, 0x8002], false],
  ];
  it.each(cases)('%s', (_, pkey, pkeys, isTaken) => {
    const [done, counters] = give({ pkey }, { pkeys });
    expect([done, counters.bad_pkey_cntr]).toEqual(isTaken ? [1, 0] : [0, 1]);
  });

  it('is the entry of the table that the queue pair names, in both directions', () => {
    const pkeys = [0xffff, 0x8005];
    expect(give({ pkey: 0x8005 }, { pkeys, setUp: { pkeyIndex: 1 } })[0]).toBe(1);
    const lone = new LoneAdapter({ pkeys, setUp: { pkeyIndex: 1, timeout: 0 } });
    lone.host.at(READY_PS, () => lone.host.postSend(QPN, { ...local, opcode: WR_SEND }));
    lone.drive();
    expect(lone.peer.seen).toMatchObject([{ pkey: 0x8005 }]);
  });
});

describe('the rest of the BTH', () => {
  it('a transport version that is not 0 drops the packet', () => {
    expect(give({ flags: 1 << BTH_TVER_SHIFT })[1].header_drops).toBe(1);
  });

  it.each([
    [QPT_RC, [UC_SEND_ONLY, UD_SEND_ONLY, 0x44, 0xc0]],
    [QPT_UC, [RC_SEND_ONLY, UD_SEND_ONLY, 0x11]],
    [QPT_UD, [RC_SEND_ONLY, UC_SEND_ONLY, 0xe0]],
  ])('an opcode of another service than that of type %i drops it', (type, others) => {
    for (const opcode of others) {
      const [done, counters] = give({ opcode }, { setUp: { type } });
      expect([done, counters.header_drops]).toEqual([0, 1]);
    }
  });

  it.each([CNP_INFINIBAND, CNP_ROCE])('a CNP (%i) is counted, and means nothing yet', (opcode) => {
    for (const type of [QPT_RC, QPT_UC, QPT_UD]) {
      const [done, counters] = give({ opcode }, { setUp: { type } });
      expect([done, counters.rp_cnp_ignored, counters.header_drops]).toEqual([0, 1, 0]);
    }
  });
});

describe('the link layer', () => {
  it('decides how long a packet takes, and what counters say of it', () => {
    const arrivals = (['InfiniBand', 'Ethernet'] as const).map((linkLayer) => {
      const lone = new LoneAdapter({ linkLayer, setUp: { timeout: 0 } });
      const { host, peer } = lone;
      host.at(READY_PS, () => {
        for (let i = 0; i < 2; i++) {
          host.postSend(QPN, { ...local, opcode: WR_RDMA_WRITE, length: 1024 });
        }
      });
      lone.drive();
      const spacing = peer.seen[1].timePs - peer.seen[0].timePs;
      // 100 Gb/s: 80 ps a byte.
      expect(spacing).toBe(80 * packetWireBytes(0x0a, 1024, linkOverheadBytes[linkLayer]));
      const { port_xmit_data } = lone.hca.report().counters;
      expect(port_xmit_data).toBe(2 * packetDataWords(0x0a, 1024, linkCountedBytes[linkLayer]));
      return spacing;
    });
    expect(arrivals[1]).toBeGreaterThan(arrivals[0]);
  });
});

describe('packets of UC and UD', () => {
  it('ask for no ACK, wait for none, and are never sent again', () => {
    for (const type of [QPT_UC, QPT_UD]) {
      const lone = new LoneAdapter({ setUp: { type, mtu: 256, sendPsn: 0xffffff } });
      const { host, peer } = lone;
      host.at(READY_PS, () => {
        for (let wrId = 0; wrId < 4; wrId++) {
          host.postSend(QPN, { ...local, opcode: WR_SEND, length: 700, wrId, ud: UD });
        }
      });
      lone.drive();
      const packets = type === QPT_UC ? 12 : 4;
      expect(peer.seen.map((p) => p.psn)).toEqual(
        Array.from({ length: packets }, (_, i) => (0xffffff + i) & 0xffffff),
      );
      expect(peer.seen.every((p) => p.flags === 0)).toBe(true);
      expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
        [0, 0],
        [1, 0],
        [2, 0],
        [3, 0],
      ]);
    }
  });

  it('UC loses what the wire loses, and completes it all the same', () => {
    const pair = newPair({ lossPpm: 200_000, setUpA: { type: QPT_UC }, setUpB: { type: QPT_UC } });
    pair.b.at(READY_PS - 20 * US, () => {
      for (let i = 0; i < 100; i++) pair.b.postReceive(QPN, i, REGION_KEY, REMOTE, 5000);
    });
    pair.a.at(READY_PS, () => {
      for (let wrId = 0; wrId < 100; wrId++) {
        pair.a.postSend(QPN, { ...local, opcode: WR_SEND, length: 3000, wrId });
      }
    });
    pair.drive();
    expect(pair.a.completions.length).toBe(100);
    expect(pair.b.completions.length).toBeGreaterThan(20);
    expect(pair.b.completions.length).toBeLessThan(80);
    expect(pair.b.completions.every((c) => c.bytes === 3000 && c.status === 0)).toBe(true);
    expect(pair.hcaA.report().counters.retransmitted_packets).toBe(0);
  });

  it('a long UC message does not stop at the window of RC', () => {
    const pair = newPair({
      trains: true,
      setUpA: { type: QPT_UC, mtu: 256 },
      setUpB: { type: QPT_UC, mtu: 256 },
    });
    pair.a.fill(local.address as number, 130_000, 3);
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { ...local, opcode: WR_RDMA_WRITE, length: 130_000, wrId: 1 }),
    );
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ wrId: 1, status: 0 }]);
    expect(pair.b.read(REMOTE, 130_000)).toEqual(pair.a.read(local.address as number, 130_000));
  });
});
