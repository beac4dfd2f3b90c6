/** PD suspend and resume from the inside: what the suspended queue pair itself has out. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  BUS_PD_RESUME,
  BUS_PD_SUSPEND,
  MS,
  US,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair, type PairOptions } from '../fixtures/pair.ts';

const QPN = 0x11;
const SIZE = 120_000;
const read = {
  opcode: WR_RDMA_READ,
  lkey: REGION_KEY,
  rkey: REGION_KEY,
  address: BASE,
  remote: BASE,
  length: SIZE,
};
/** `toEqual` compares byte by byte, slowly. */
const isSame = (x: Uint8Array, y: Uint8Array): boolean => Buffer.compare(x, y) === 0;
const short: PairOptions['profile'] = { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 };

describe.each([
  ['without a time-out', { timeout: 0 }],
  ['with a short time-out and no retries', { timeout: 6, retryCnt: 0 }],
])('a READ whose responses came during the suspend is asked for again, %s', (_, setUpA) => {
  it.each([
    ['alone', 0, 3 * MS],
    ['alone, resumed at once', 0, 0],
    ['before a write', 5000, 3 * MS],
    ['before a write, resumed at once', 5000, 0],
  ])('%s', (__, writeBytes, spanPs) => {
    for (let at = 0; at < 16 * US; at += 2 * US) {
      const pair = new Pair({ profile: short, setUpA });
      pair.b.fill(BASE, SIZE, 1);
      pair.a.at(READY_PS, () => {
        pair.a.postSend(QPN, { ...read, wrId: 1 });
        const far = { address: BASE + SIZE, remote: BASE + SIZE, length: writeBytes };
        if (writeBytes > 0) pair.a.postSend(QPN, { ...read, ...far, opcode: WR_RDMA_WRITE });
      });
      pair.a.at(READY_PS + at, () => pair.a.protectionDomain(BUS_PD_SUSPEND, 1));
      pair.a.at(READY_PS + at + spanPs, () => pair.a.protectionDomain(BUS_PD_RESUME, 1));
      pair.drive();
      expect(pair.a.completions.map((c) => c.status)).toEqual(
        writeBytes > 0 ? [WC_SUCCESS, WC_SUCCESS] : [WC_SUCCESS],
      );
      expect(isSame(pair.a.read(BASE, SIZE), pair.b.read(BASE, SIZE))).toBe(true);
      expect(pair.hcaA.report().counters.local_ack_timeout_err).toBe(0);
      expect(pair.pool.burstsInUse).toBe(0);
    }
  });
});

it('what was lost on the wire before the suspend is sent again after it', () => {
  // Everything the first time: the timer that would have noticed ran out during the suspend.
  const pair = new Pair({ profile: short, setUpA: { timeout: 6, retryCnt: 1 } });
  pair.b.at(READY_PS - 10 * US, () => pair.b.protectionDomain(BUS_PD_SUSPEND, 1));
  pair.a.at(READY_PS, () =>
    pair.a.postSend(QPN, { ...read, opcode: WR_RDMA_WRITE, wrId: 1, length: 100 }),
  );
  pair.a.at(READY_PS + 100 * US, () => pair.a.protectionDomain(BUS_PD_SUSPEND, 1));
  pair.b.at(READY_PS + 2 * MS, () => pair.b.protectionDomain(BUS_PD_RESUME, 1));
  pair.a.at(READY_PS + 3 * MS, () => pair.a.protectionDomain(BUS_PD_RESUME, 1));
  pair.drive();
  expect(pair.a.completions).toMatchObject([{ wrId: 1, status: WC_SUCCESS }]);
  expect(pair.hcaA.report().counters.local_ack_timeout_err).toBe(1);
  // A whole time-out after the resume, not at once.
  expect(pair.a.completions[0].timePs).toBeGreaterThan(READY_PS + 3 * MS + 262 * US);
});

it('touches no memory between the answer to the suspend and the resume', () => {
  const pair = new Pair({ setUpA: { queuePairs: 3 }, setUpB: { queuePairs: 3 } });
  pair.a.fill(BASE, SIZE, 2);
  let tag = 0;
  let frozen: Uint8Array | undefined;
  pair.a.at(READY_PS, () => {
    for (const qpn of [0x11, 0x12, 0x13]) {
      const at = BASE + (qpn - 0x11) * 40_000;
      pair.a.postSend(qpn, {
        ...read,
        opcode: WR_RDMA_WRITE,
        address: at,
        remote: at,
        length: 39_000,
      });
    }
  });
  pair.b.at(READY_PS + 6 * US, () => {
    tag = pair.b.protectionDomain(BUS_PD_SUSPEND, 1);
  });
  for (let at = 8; at < 1000; at += 31) {
    pair.b.at(READY_PS + at * US, () => {
      if (!pair.b.results.has(tag)) return;
      const now = pair.b.read(BASE, SIZE);
      frozen ??= now;
      expect(isSame(now, frozen)).toBe(true);
    });
  }
  // The pages move while nothing runs: the old frames must stay as they are for ever.
  const spare = (page: number): number => ((300 + page) << 2) | ACCESS_WRITE | ACCESS_READ;
  pair.b.at(READY_PS + 500 * US, () => pair.b.table(REGION_KEY, 0, 20, spare));
  pair.b.at(READY_PS + MS, () => pair.b.protectionDomain(BUS_PD_RESUME, 1));
  pair.drive();
  expect(frozen?.some((byte) => byte !== 0)).toBe(true);
  expect(pair.a.completions.every((c) => c.status === WC_SUCCESS)).toBe(true);
  expect(frozen && isSame(pair.b.read(BASE, 20 * 4096), frozen.subarray(0, 20 * 4096))).toBe(true);
});

it.each([
  ['a READ that is being answered', WR_RDMA_READ, 'b'],
  ['a write that is being sent', WR_RDMA_WRITE, 'a'],
] as const)('%s reads no memory when its fault is resumed meanwhile', (_, opcode, side) => {
  const pair = new Pair();
  const source = pair[side];
  const target = side === 'a' ? pair.b : pair.a;
  const length = 600_000;
  const gone = 140;
  const spare = 300;
  const present = (frame: number): number => (frame << 2) | ACCESS_WRITE | ACCESS_READ;
  source.fill(BASE, length, 3);
  source.fill(spare * 4096, 4096, 4);
  pair.a.at(READY_PS, () => pair.a.postSend(QPN, { ...read, opcode, length }));
  // Behind what is read ahead when a READ is admitted.
  source.at(READY_PS + 3 * US, () => source.table(REGION_KEY, gone, 1, () => 0));
  source.at(READY_PS + MS, () => {
    source.protectionDomain(BUS_PD_SUSPEND, 1);
    source.table(REGION_KEY, gone, 1, () => present(BASE / 4096 + gone));
    source.resumeFault(source.faults[0].token);
  });
  source.at(READY_PS + 2 * MS, () => {
    // Nothing runs, so the page may have moved without a word.
    source.table(REGION_KEY, gone, 1, () => present(spare));
    source.protectionDomain(BUS_PD_RESUME, 1);
  });
  pair.drive();
  expect(pair.a.completions).toMatchObject([{ status: WC_SUCCESS }]);
  const moved = source.read(spare * 4096, 4096);
  expect(isSame(target.read(BASE + gone * 4096, 4096), moved)).toBe(true);
});
