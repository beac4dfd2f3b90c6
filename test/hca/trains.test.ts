/**
 * A train is only a faster way to do the same: packet by packet and train by train, every node sees
 * the same things at the same times.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  FLUSH_GLOBAL,
  QPT_RC,
  QPT_UC,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_FLUSH,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { type BareWork, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair } from '../fixtures/pair.ts';
import { ALL } from '../fixtures/work.ts';

type Kind = 'write' | 'list' | 'send' | 'read' | 'atomic' | 'flush';

const work = fc.record({
  host: fc.constantFrom<'a' | 'b'>('a', 'b'),
  qpn: fc.constantFrom(0x11, 0x12),
  kind: fc.constantFrom<Kind>('write', 'write', 'write', 'list', 'send', 'read', 'atomic', 'flush'),
  atPs: fc.integer({ min: 0, max: 40_000_000 }),
  address: fc.integer({ min: 0, max: 100_000 }),
  remote: fc.integer({ min: 200_000, max: 300_000 }),
  length: fc.integer({ min: 1, max: 200_000 }),
});

/** The work request of a kind; UC does what it can of it. */
function workOf(kind: Kind, type: number, work: Required<Pick<BareWork, Plain>>): BareWork {
  if (kind === 'send') return { ...work, opcode: WR_SEND };
  if (kind === 'list') {
    const { address, length } = work;
    const half = length >> 1;
    const sges = [
      { address, length: half, lkey: REGION_KEY },
      { address: address + half + 3, length: length - half, lkey: REGION_KEY },
    ];
    return { ...work, opcode: WR_RDMA_WRITE, sges };
  }
  if (kind === 'write' || type !== QPT_RC) return { ...work, opcode: WR_RDMA_WRITE };
  if (kind === 'read') return { ...work, opcode: WR_RDMA_READ };
  if (kind === 'flush') return { ...work, opcode: WR_FLUSH, immediate: FLUSH_GLOBAL };
  const remote = work.remote & ~7;
  return { ...work, remote, opcode: WR_ATOMIC_FETCH_AND_ADD, length: 8, compareAdd: 1n };
}
type Plain = 'wrId' | 'lkey' | 'rkey' | 'address' | 'remote' | 'length';

it('gives the same digests with trains and without', () => {
  let trains = 0;
  fc.assert(
    fc.property(
      fc.array(work, { minLength: 1, maxLength: 12 }),
      fc.constantFrom(100, 400),
      fc.constantFrom(256, 1024, 4096),
      fc.constantFrom(1, 16),
      fc.constantFrom(QPT_RC, QPT_RC, QPT_RC, QPT_UC),
      fc.boolean(),
      (works, rateGbps, mtu, ackRequestPackets, type, endToEndCredits) => {
        const run = (withTrains: boolean): string[] => {
          const shape = { mtu, queuePairs: 2, type, access: ALL, qpAccess: ALL };
          const pair = new Pair({
            trains: withTrains,
            rateGbps,
            profile: { ackRequestPackets, endToEndCredits },
            setUpA: shape,
            setUpB: shape,
          });
          pair.a.fill(BASE, 300_000, 1);
          pair.b.fill(BASE, 300_000, 2);
          for (const host of [pair.a, pair.b]) {
            host.at(READY_PS - 20_000_000, () => {
              for (let i = 0; i < 24; i++) {
                host.postReceive(0x11 + (i & 1), 100, REGION_KEY, BASE + 600_000, 200_000);
              }
            });
          }
          works.forEach((w, wrId) => {
            const host = pair[w.host];
            host.at(READY_PS + w.atPs, () =>
              host.postSend(
                w.qpn,
                workOf(w.kind, type, {
                  wrId,
                  lkey: REGION_KEY,
                  rkey: REGION_KEY,
                  address: BASE + w.address,
                  remote: BASE + w.remote,
                  length: w.length,
                }),
              ),
            );
          });
          pair.drive();
          const done = [...pair.a.completions, ...pair.b.completions];
          expect(done.filter(({ flags }) => (flags & 1) === 0).length).toBe(works.length);
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
