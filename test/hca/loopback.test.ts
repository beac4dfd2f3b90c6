/**
 * What a port sends to itself: it brings the same bytes by the same rules, and is never on the link.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  QPS_INIT,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  QPT_RC,
  QPT_UD,
  US,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { type BareWork, modify, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair, type PairOptions } from '../fixtures/pair.ts';
import { ALL } from '../fixtures/work.ts';

const WIRE_QP = 0x11;
/** Connected to itself: what it sends comes to its own responder. */
const LOOP_QP = 0x12;
const OWN_LID = 1;
const READY = [QPS_RESET, QPS_INIT, QPS_RTR, QPS_RTS];
const keys = { lkey: REGION_KEY, rkey: REGION_KEY };

/** A pair whose second queue pair on host A is connected to its own port, after a reset. */
function loopPair(options: PairOptions = {}): Pair {
  const setUp = { queuePairs: 2, access: ALL, qpAccess: ALL, mtu: 1024, ...options.setUpA };
  const pair = new Pair({ ...options, setUpA: setUp, setUpB: { ...setUp, ...options.setUpB } });
  pair.a.at(READY_PS / 2, () => {
    modify(pair.a, LOOP_QP, { address: BASE, length: 0, ...setUp, peerLid: OWN_LID }, READY);
  });
  pair.a.fill(BASE, 300_000, 1);
  pair.b.fill(BASE, 300_000, 2);
  return pair;
}

function finish(pair: Pair): void {
  pair.drive();
  expect(pair.pool.burstsInUse).toBe(0);
  pair.hcaA.checkLeaks();
  pair.hcaB.checkLeaks();
}

const counters = (pair: Pair) => pair.hcaA.report().counters;

describe('loopback', () => {
  it('brings SENDs, WRITEs, READs and atomics, and none of it is on the link', () => {
    // A link that loses half of what it carries.
    const pair = loopPair({ lossPpm: 500_000 });
    const works: BareWork[] = [
      { ...keys, opcode: WR_SEND, address: BASE, length: 5_000 },
      { ...keys, opcode: WR_RDMA_WRITE, address: BASE, remote: BASE + 400_000, length: 70_000 },
      { ...keys, opcode: WR_RDMA_READ, address: BASE + 500_000, remote: BASE, length: 9_999 },
      {
        ...keys,
        opcode: WR_ATOMIC_FETCH_AND_ADD,
        address: BASE + 600_000,
        remote: BASE + 8,
        length: 8,
        compareAdd: 5n,
      },
    ];
    pair.a.at(READY_PS, () => {
      pair.a.postReceive(LOOP_QP, 99, REGION_KEY, BASE + 700_000, 5_000);
      for (const [wrId, work] of works.entries()) pair.a.postSend(LOOP_QP, { ...work, wrId });
    });
    const before = pair.a.read(BASE, 70_000);
    finish(pair);
    expect(pair.a.completions.map(({ wrId, status }) => [wrId, status])).toEqual([
      [99, 0],
      [0, 0],
      [1, 0],
      [2, 0],
      [3, 0],
    ]);
    expect(pair.a.read(BASE + 700_000, 5_000)).toEqual(before.subarray(0, 5_000));
    expect(pair.a.read(BASE + 400_000, 70_000)).toEqual(before);
    expect(pair.a.read(BASE + 500_000, 9_999)).toEqual(before.subarray(0, 9_999));
    expect(pair.a.read(BASE + 600_000, 8)).toEqual(before.subarray(8, 16));
    const { port_xmit_packets, port_rcv_packets, vport_loopback_packets, retransmitted_packets } =
      counters(pair);
    expect([port_xmit_packets, port_rcv_packets, retransmitted_packets]).toEqual([0, 0, 0]);
    // 5 + 69 + 10 + 1 packets of data, requests of READ and atomic, ACKs.
    expect(vport_loopback_packets).toBeGreaterThan(86);
    expect(pair.hcaB.report().counters.port_rcv_packets).toBe(0);
  });

  it('does not wait for a slow link, nor the link for it', () => {
    const time = (toItself: number, toPeer: number): Map<number, number> => {
      const pair = loopPair({ rateGbps: 1 });
      const work = { ...keys, opcode: WR_RDMA_WRITE, address: BASE, length: 100_000 };
      pair.a.at(READY_PS, () => {
        for (let i = 0; i < toPeer; i++)
          pair.a.postSend(WIRE_QP, { ...work, remote: BASE, wrId: 100 + i });
        for (let i = 0; i < toItself; i++)
          pair.a.postSend(LOOP_QP, { ...work, remote: BASE + 400_000, wrId: i });
      });
      finish(pair);
      return new Map(pair.a.completions.map(({ wrId, timePs }) => [wrId, timePs - READY_PS]));
    };
    const together = time(4, 1);
    // 0.8 ms on the link; 100 KB at 126 Gb/s, read and written over the bus meanwhile.
    expect(time(0, 1).get(100)).toBeGreaterThan(800 * US);
    expect((together.get(100) as number) - (time(0, 1).get(100) as number)).toBeLessThan(40 * US);
    expect(together.get(3)).toBeLessThan(100 * US);
  });

  it('datagrams of one queue pair go to either port, in order', () => {
    const pair = loopPair({ setUpA: { type: QPT_UD }, setUpB: { type: QPT_UD } });
    const lids = [1, 2, 2, 1, 1, 1, 2, 1, 2, 2];
    for (const host of [pair.a, pair.b]) {
      host.at(READY_PS - 20 * US, () => {
        for (let i = 0; i < lids.length; i++) {
          host.postReceive(WIRE_QP, 100 + i, REGION_KEY, BASE + 400_000 + 2048 * i, 2048);
        }
      });
    }
    pair.a.at(READY_PS, () => {
      for (const [wrId, dlid] of lids.entries()) {
        pair.a.postSend(WIRE_QP, {
          opcode: WR_SEND,
          lkey: REGION_KEY,
          wrId,
          address: BASE + 1000 * wrId,
          length: 1000,
          ud: { qpn: WIRE_QP, qkey: 0x1234, dlid },
        });
      }
    });
    finish(pair);
    const sent = pair.a.completions.filter(({ flags }) => (flags & 1) === 0);
    expect(sent.map(({ wrId, status }) => [wrId, status])).toEqual(lids.map((_, i) => [i, 0]));
    for (const [host, lid] of [
      [pair.a, 1],
      [pair.b, 2],
    ] as const) {
      const expected = lids.flatMap((dlid, i) => (dlid === lid ? [i] : []));
      const received = host.completions.filter(({ flags }) => (flags & 1) !== 0);
      expect(received.map(({ wrId }) => wrId)).toEqual(expected.map((_, i) => 100 + i));
      expected.forEach((i, place) => {
        expect(host.read(BASE + 400_000 + 2048 * place + 40, 1000)).toEqual(
          pair.a.read(BASE + 1000 * i, 1000),
        );
      });
    }
  });

  it('changes nothing about trains: the same digests with them and without', () => {
    let trains = 0;
    let looped = 0;
    const work = fc.record({
      host: fc.constantFrom<'a' | 'b'>('a', 'b'),
      qpn: fc.constantFrom(WIRE_QP, WIRE_QP, LOOP_QP),
      opcode: fc.constantFrom(WR_RDMA_WRITE, WR_RDMA_WRITE, WR_RDMA_READ),
      atPs: fc.integer({ min: 0, max: 30_000_000 }),
      address: fc.integer({ min: 0, max: 100_000 }),
      length: fc.integer({ min: 1, max: 200_000 }),
    });
    fc.assert(
      fc.property(
        fc.array(work, { minLength: 2, maxLength: 10 }),
        fc.constantFrom(256, 4096),
        fc.constantFrom(1, 16),
        fc.constantFrom(10, 400),
        (works, mtu, ackRequestPackets, loopbackRateGbps) => {
          const run = (withTrains: boolean): string[] => {
            const shape = { mtu, type: QPT_RC };
            const profile = { ackRequestPackets, loopbackRateGbps };
            const pair = loopPair({ trains: withTrains, profile, setUpA: shape, setUpB: shape });
            works.forEach(({ host, qpn, opcode, atPs, address, length }, wrId) => {
              // Only host A has a queue pair to itself.
              const number = host === 'b' ? WIRE_QP : qpn;
              pair[host].at(READY_PS + atPs, () =>
                pair[host].postSend(number, {
                  ...keys,
                  opcode,
                  wrId,
                  address: BASE + address,
                  remote: BASE + 400_000,
                  length,
                }),
              );
            });
            finish(pair);
            const done = [...pair.a.completions, ...pair.b.completions];
            expect(done.map(({ status }) => status)).toEqual(works.map(() => 0));
            trains += pair.hcaA.trainsSent;
            looped += counters(pair).vport_loopback_packets;
            return pair.digests();
          };
          expect(run(true)).toEqual(run(false));
        },
      ),
      { numRuns: 40, seed: 11 },
    );
    expect(trains).toBeGreaterThan(200);
    expect(looped).toBeGreaterThan(1000);
  });
});
