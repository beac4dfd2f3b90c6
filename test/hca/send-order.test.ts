/** Order in a send queue: fences, work inside the adapter, and work that cannot be done. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_REMOTE_WRITE,
  CMD_ALLOC_MW,
  MS,
  NS,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  RC_ACKNOWLEDGE,
  RC_READ_RESPONSE_ONLY,
  SEND_FENCE,
  SEND_INLINE,
  SEND_SIGNALED,
  US,
  WC_LOC_LEN_ERR,
  WC_LOC_QP_OP_ERR,
  WC_MW_BIND_ERR,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_BIND_MW,
  WR_LOCAL_INV,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
  WR_SEND_WITH_INV,
} from '../../transport/index.ts';
import { type BareWork, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';
import { local, newPair, QPN, REMOTE, run, statuses, UD } from '../fixtures/work.ts';

describe('a fence', () => {
  it.each([
    ['a SEND', WR_SEND],
    ['a WRITE', WR_RDMA_WRITE],
  ])('lets %s carry what the READ before it brought', (_, opcode) => {
    const pair = newPair({ bytes: 1 << 19 });
    const from = BASE + 0x40000;
    pair.b.fill(from, 50_000, 9);
    run(pair, [
      { ...local, opcode: WR_RDMA_READ, remote: from, length: 50_000, wrId: 1 },
      { ...local, opcode, length: 50_000, flags: SEND_SIGNALED | SEND_FENCE, wrId: 2 },
    ]);
    expect(statuses(pair)).toEqual([
      [1, WC_SUCCESS],
      [2, WC_SUCCESS],
    ]);
    expect(pair.b.read(REMOTE, 50_000)).toEqual(pair.b.read(from, 50_000));
  });

  it('waits for atomics, not for writes, and holds up what is behind it', () => {
    const pair = newPair();
    const fence = SEND_SIGNALED | SEND_FENCE;
    run(pair, [
      { ...local, opcode: WR_RDMA_WRITE, length: 8, flags: fence, wrId: 1 },
      { ...local, opcode: WR_ATOMIC_FETCH_AND_ADD, length: 8, compareAdd: 5n, wrId: 2 },
      {
        ...local,
        opcode: WR_RDMA_WRITE,
        length: 8,
        remote: REMOTE + 64,
        flags: fence,
        wrId: 3,
      },
      { ...local, opcode: WR_RDMA_WRITE, length: 8, remote: REMOTE + 72, wrId: 4 },
    ]);
    expect(statuses(pair).map(([wrId]) => wrId)).toEqual([1, 2, 3, 4]);
    // What the atomic found (zeros from the first write) is what the fenced write sent.
    expect(pair.b.read(REMOTE + 64, 8)).toEqual(pair.a.read(BASE, 8));
  });

  it.each([
    ['an empty SEND', { opcode: WR_SEND }],
    ['a READ', { opcode: WR_RDMA_READ, length: 5 }],
    ['an invalidation', { opcode: WR_LOCAL_INV, rkey: 0x777 }],
  ])('holds %s back until the READ before it is answered', (_, work) => {
    const lone = new LoneAdapter({ setUp: { timeout: 0 }, limitPs: READY_PS + MS });
    const { host, peer } = lone;
    const answerPs = READY_PS + 100 * US;
    host.at(READY_PS, () => {
      host.postSend(QPN, { ...local, opcode: WR_RDMA_READ, length: 5, wrId: 1 });
      host.postSend(QPN, { ...local, ...work, flags: SEND_SIGNALED | SEND_FENCE, wrId: 2 });
    });
    peer.at(answerPs, () => {
      expect(peer.seen.length).toBe(1);
      const payload = new Uint8Array(5);
      peer.send({ opcode: RC_READ_RESPONSE_ONLY, psn: 100, syndrome: 0x1f, payload });
    });
    lone.drive();
    if (work.opcode === WR_LOCAL_INV) {
      expect(host.completions.map((c) => c.status)).toEqual([WC_SUCCESS, WC_MW_BIND_ERR]);
    } else expect(peer.seen.map((p) => p.psn)).toEqual([100, 101]);
  });

  it('on an invalidation waits as well', () => {
    const pair = newPair();
    run(pair, [
      { ...local, opcode: WR_RDMA_READ, length: 5000, wrId: 1 },
      { opcode: WR_LOCAL_INV, rkey: 0x777, flags: SEND_SIGNALED | SEND_FENCE, wrId: 2 },
    ]);
    expect(statuses(pair)).toEqual([
      [1, WC_SUCCESS],
      [2, WC_MW_BIND_ERR],
    ]);
  });
});

describe('local work', () => {
  it('completes in its turn, and is done once though sending goes back over it', () => {
    // Of everything, a third is lost: sending goes back again and again.
    const pair = newPair({ lossPpm: 300_000, setUpA: { timeout: 1 } });
    let mw = 0;
    pair.a.at(READY_PS - 50 * US, () => {
      mw = pair.a.command(CMD_ALLOC_MW, [1]);
    });
    pair.a.at(READY_PS, () => {
      const key = pair.a.results.get(mw)?.result as number;
      const bind = {
        opcode: WR_BIND_MW,
        lkey: REGION_KEY,
        address: BASE,
        length: 64,
        immediate: ACCESS_REMOTE_WRITE,
      };
      const base = key & ~0xff;
      for (let i = 0; i < 20; i++) {
        const rkey = base | ((key + 1 + i) & 0xff);
        pair.a.postSend(QPN, { ...local, opcode: WR_RDMA_WRITE, length: 3000, wrId: 4 * i });
        pair.a.postSend(QPN, { ...bind, rkey, wrId: 4 * i + 1 });
        pair.a.postSend(QPN, { ...local, opcode: WR_RDMA_READ, length: 3000, wrId: 4 * i + 2 });
        pair.a.postSend(QPN, { opcode: WR_LOCAL_INV, rkey, wrId: 4 * i + 3 });
      }
    });
    pair.drive();
    expect(statuses(pair)).toEqual(Array.from({ length: 80 }, (_, i) => [i, WC_SUCCESS]));
  });

  it('behind a message whose ACK comes while sending goes back completes with it', () => {
    for (let delay = 0; delay < 60; delay++) {
      const lone = new LoneAdapter({
        profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
        setUp: { timeout: 5 },
        limitPs: READY_PS + 50 * MS,
      });
      const { host, peer } = lone;
      let mw = 0;
      host.at(READY_PS - 50 * US, () => {
        mw = host.command(CMD_ALLOC_MW, [1]);
      });
      host.at(READY_PS, () => {
        host.postSend(QPN, { ...local, opcode: WR_RDMA_WRITE, length: 100, wrId: 1 });
        host.postSend(QPN, { opcode: WR_LOCAL_INV, rkey: host.results.get(mw)?.result, wrId: 2 });
      });
      // The time-out comes 131 us after the packet; then its data are read again.
      const at = READY_PS + 130 * US + delay * 100 * NS;
      peer.at(at, () => peer.send({ opcode: RC_ACKNOWLEDGE, psn: 100, syndrome: 0x1f }));
      lone.drive();
      expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
        [1, WC_SUCCESS],
        [2, WC_SUCCESS],
      ]);
    }
  });

  it('alone in the queue completes without a packet', () => {
    const pair = newPair({ setUpA: { entries: 4096 } });
    let mw = 0;
    pair.a.at(READY_PS - 50 * US, () => {
      mw = pair.a.command(CMD_ALLOC_MW, [1]);
    });
    pair.a.at(READY_PS, () => {
      const rkey = pair.a.results.get(mw)?.result as number;
      for (let wrId = 0; wrId < 3000; wrId++) {
        pair.a.postSend(QPN, { opcode: WR_LOCAL_INV, rkey, wrId });
      }
    });
    pair.drive();
    expect(statuses(pair)).toEqual(Array.from({ length: 3000 }, (_, i) => [i, WC_SUCCESS]));
    expect(pair.hcaA.report().counters.port_xmit_packets).toBe(0);
  });
});

describe('a work request that cannot be done', () => {
  const plain = { ...local, length: 8 };
  const cases: [string, number, BareWork, number][] = [
    [
      'an atomic without operands',
      QPT_RC,
      { ...plain, opcode: WR_ATOMIC_FETCH_AND_ADD },
      WC_LOC_QP_OP_ERR,
    ],
    [
      'an atomic with a buffer of 7 bytes',
      QPT_RC,
      { ...plain, opcode: WR_ATOMIC_FETCH_AND_ADD, length: 7, compareAdd: 1n },
      WC_LOC_LEN_ERR,
    ],
    [
      'an ATOMIC WRITE of 4 bytes',
      QPT_RC,
      { ...plain, opcode: WR_ATOMIC_WRITE, length: 4 },
      WC_LOC_LEN_ERR,
    ],
    [
      'inline data of a READ',
      QPT_RC,
      { ...plain, opcode: WR_RDMA_READ, flags: SEND_INLINE },
      WC_LOC_QP_OP_ERR,
    ],
    [
      'inline data that are not there',
      QPT_RC,
      { ...plain, opcode: WR_SEND, flags: SEND_INLINE },
      WC_LOC_LEN_ERR,
    ],
    [
      '257 inline bytes',
      QPT_RC,
      { ...plain, opcode: WR_SEND, inline: new Uint8Array(257) },
      WC_LOC_LEN_ERR,
    ],
    ['a READ on UC', QPT_UC, { ...plain, opcode: WR_RDMA_READ }, WC_LOC_QP_OP_ERR],
    [
      'an atomic on UC',
      QPT_UC,
      { ...plain, opcode: WR_ATOMIC_FETCH_AND_ADD, compareAdd: 1n },
      WC_LOC_QP_OP_ERR,
    ],
    [
      'SEND with invalidate on UC',
      QPT_UC,
      { ...plain, opcode: WR_SEND_WITH_INV },
      WC_LOC_QP_OP_ERR,
    ],
    ['a WRITE on UD', QPT_UD, { ...plain, opcode: WR_RDMA_WRITE, ud: UD }, WC_LOC_QP_OP_ERR],
    ['a bind on UD', QPT_UD, { ...plain, opcode: WR_BIND_MW, ud: UD }, WC_LOC_QP_OP_ERR],
    ['a datagram without an address', QPT_UD, { ...plain, opcode: WR_SEND }, WC_LOC_QP_OP_ERR],
    [
      'a datagram above the MTU',
      QPT_UD,
      { ...plain, opcode: WR_SEND, length: 4097, ud: UD },
      WC_LOC_LEN_ERR,
    ],
    ['a window that does not exist', QPT_RC, { opcode: WR_BIND_MW, rkey: 0x999 }, WC_MW_BIND_ERR],
    ['a key that is no window', QPT_UC, { opcode: WR_LOCAL_INV, rkey: REGION_KEY }, WC_MW_BIND_ERR],
    [
      'more than 16 entries',
      QPT_RC,
      { opcode: WR_SEND, sges: Array.from({ length: 17 }, () => ({ ...plain })) },
      WC_LOC_QP_OP_ERR,
    ],
  ];
  it.each(cases)('%s', (_, type, work, status) => {
    const pair = newPair({ setUpA: { type }, setUpB: { type } });
    run(pair, [
      { ...plain, opcode: WR_SEND, ...(type === QPT_UD ? { ud: UD } : {}), wrId: 1 },
      { ...work, flags: (work.flags ?? 0) | SEND_SIGNALED, wrId: 2 },
      { ...plain, opcode: WR_SEND, ...(type === QPT_UD ? { ud: UD } : {}), wrId: 3 },
    ]);
    expect(statuses(pair)).toEqual([
      [1, WC_SUCCESS],
      [2, status],
      [3, WC_WR_FLUSH_ERR],
    ]);
  });
});
