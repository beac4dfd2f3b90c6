/**
 * A train is only a faster way to do the same: packet by packet and train by train, every node sees
 * the same things at the same times.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { WR_RDMA_READ, WR_RDMA_WRITE } from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair } from '../fixtures/pair.ts';

const work = fc.record({
  host: fc.constantFrom<'a' | 'b'>('a', 'b'),
  qpn: fc.constantFrom(0x11, 0x12),
  opcode: fc.constantFrom(WR_RDMA_WRITE, WR_RDMA_WRITE, WR_RDMA_WRITE, WR_RDMA_READ),
  atPs: fc.integer({ min: 0, max: 40_000_000 }),
  address: fc.integer({ min: 0, max: 100_000 }),
  remote: fc.integer({ min: 200_000, max: 300_000 }),
  length: fc.integer({ min: 1, max: 200_000 }),
});

it('gives the same digests with trains and without', () => {
  let trains = 0;
  fc.assert(
    fc.property(
      fc.array(work, { minLength: 1, maxLength: 12 }),
      fc.constantFrom(100, 400),
      fc.constantFrom(256, 1024, 4096),
      fc.constantFrom(1, 16),
      (works, rateGbps, mtu, ackRequestPackets) => {
        const run = (withTrains: boolean): string[] => {
          const shape = { mtu, queuePairs: 2 };
          const pair = new Pair({
            trains: withTrains,
            rateGbps,
            profile: { ackRequestPackets },
            setUpA: shape,
            setUpB: shape,
          });
          pair.a.fill(BASE, 300_000, 1);
          pair.b.fill(BASE, 300_000, 2);
          works.forEach((w, wrId) => {
            const host = pair[w.host];
            host.at(READY_PS + w.atPs, () =>
              host.postSend(w.qpn, {
                opcode: w.opcode,
                wrId,
                lkey: REGION_KEY,
                rkey: REGION_KEY,
                address: BASE + w.address,
                remote: BASE + w.remote,
                length: w.length,
              }),
            );
          });
          pair.drive();
          expect(pair.a.completions.length + pair.b.completions.length).toBe(works.length);
          trains += pair.hcaA.trainsSent + pair.hcaB.trainsSent;
          return pair.digests();
        };
        expect(run(true)).toEqual(run(false));
      },
    ),
    { numRuns: 60, seed: 7 },
  );
  // The property says nothing unless trains really ran.
  expect(trains).toBeGreaterThan(1000);
});
