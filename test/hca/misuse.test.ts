/** Requests that must be refused: the right NAK, the right completion, and no byte of memory touched. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  CMD_ALLOC_PD,
  CMD_CREATE_MKEY,
  EVENT_QP_ACCESS_ERR,
  EVENT_QP_REQ_ERR,
  WC_LOC_LEN_ERR,
  WC_LOC_PROT_ERR,
  WC_REM_ACCESS_ERR,
  WC_REM_INV_REQ_ERR,
  WC_WR_FLUSH_ERR,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair } from '../fixtures/pair.ts';

const QPN = 0x11;
const SIZE = 1 << 20;
const good = {
  opcode: WR_RDMA_WRITE,
  lkey: REGION_KEY,
  rkey: REGION_KEY,
  address: BASE,
  remote: BASE,
  length: 3000,
};

describe('the responder refuses', () => {
  const cases: [string, Partial<typeof good>, number][] = [
    [
      'a key whose index is not in use',
      { rkey: (99 << 8) | 7 },
      ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE,
    ],
    [
      'a key with another variant',
      { rkey: (1 << 8) | 8 },
      ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE,
    ],
    ['a range that ends behind the region', { remote: BASE + SIZE - 2999 }, 15],
    ['a range that starts before the region', { remote: BASE - 1 }, 15],
    ['a write to a region without REMOTE_WRITE', {}, ACCESS_LOCAL_WRITE | ACCESS_REMOTE_READ],
    [
      'a read of a region without REMOTE_READ',
      { opcode: WR_RDMA_READ },
      ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE,
    ],
    ['a key of another protection domain', { rkey: (2 << 8) | 7 }, 15],
  ];
  it.each(cases)('%s', (_, change, access) => {
    const pair = new Pair({ setUpB: { access } });
    // A second region over the same memory in a second protection domain.
    pair.b.at(READY_PS / 2, () => {
      pair.b.command(CMD_ALLOC_PD);
      pair.b.command(CMD_CREATE_MKEY, [2, 15, 7], [BASE, SIZE]);
      pair.b.table((2 << 8) | 7, 0, SIZE / 4096, (i) => ((BASE / 4096 + i) << 2) | 3);
    });
    pair.a.fill(BASE, 3000, 1);
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...good, ...change, wrId: 1 });
      pair.a.postSend(QPN, { ...good, wrId: 2 });
    });
    pair.drive();
    expect(pair.a.completions).toMatchObject([
      { wrId: 1, status: WC_REM_ACCESS_ERR },
      { wrId: 2, status: WC_WR_FLUSH_ERR },
    ]);
    expect(pair.b.asyncEvents).toEqual([EVENT_QP_ACCESS_ERR]);
    expect(pair.b.read(BASE - 4096, SIZE + 8192).every((byte) => byte === 0)).toBe(true);
    expect(pair.pool.framesInUse).toBe(0);
  });

  it.each([
    ['a write', {}, ACCESS_REMOTE_READ],
    ['a READ', { opcode: WR_RDMA_READ }, ACCESS_REMOTE_WRITE],
  ])(
    '%s through a queue pair that allows none, whatever the region says',
    (_, change, qpAccess) => {
      const pair = new Pair({ setUpB: { qpAccess } });
      pair.a.at(READY_PS, () => pair.a.postSend(QPN, { ...good, ...change }));
      pair.drive();
      expect(pair.a.completions).toMatchObject([{ status: WC_REM_INV_REQ_ERR }]);
      expect(pair.b.asyncEvents).toEqual([EVENT_QP_REQ_ERR]);
    },
  );

  it('a SEND that is longer than the receive', () => {
    const pair = new Pair();
    pair.b.at(READY_PS / 2, () => pair.b.postReceive(QPN, 4, REGION_KEY, BASE, 2999));
    pair.a.fill(BASE, 3000, 1);
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, { ...good, opcode: WR_SEND }));
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_REM_INV_REQ_ERR }]);
    expect(pair.b.completions).toMatchObject([{ wrId: 4, status: WC_LOC_LEN_ERR }]);
    // The completion tells of it, so no event does (C9-222.1).
    expect(pair.b.asyncEvents).toEqual([]);
  });
});

describe('the requester refuses', () => {
  it.each([
    ['a local key that does not exist', { lkey: 0x4242 }],
    ['a local range outside the region', { address: BASE + SIZE - 100 }],
  ])('%s, after finishing what was posted before', (_, change) => {
    const pair = new Pair();
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...good, wrId: 1 });
      pair.a.postSend(QPN, { ...good, ...change, wrId: 2 });
      pair.a.postSend(QPN, { ...good, wrId: 3 });
    });
    pair.drive();
    expect(pair.a.completions).toMatchObject([
      { wrId: 1, status: 0 },
      { wrId: 2, status: WC_LOC_PROT_ERR },
      { wrId: 3, status: WC_WR_FLUSH_ERR },
    ]);
  });
});
