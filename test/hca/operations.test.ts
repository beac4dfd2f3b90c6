/** Work requests of every kind: what arrives, what completes, and what a signal changes. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_REMOTE_WRITE,
  BTH_SOLICITED,
  CMD_ALLOC_MW,
  FLUSH_GLOBAL,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  SEND_SIGNALED,
  SEND_SOLICITED,
  US,
  WC_ATOMIC_WRITE,
  WC_BIND_MW,
  WC_COMP_SWAP,
  WC_FETCH_ADD,
  WC_FLUSH,
  WC_LOC_PROT_ERR,
  WC_LOCAL_INV,
  WC_RDMA_WRITE,
  WC_RECV,
  WC_RECV_RDMA_WITH_IMM,
  WC_SEND,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_BIND_MW,
  WR_FLUSH,
  WR_LOCAL_INV,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
  WR_SEND_WITH_INV,
} from '../../transport/index.ts';
import { type BareWork, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';
import { local, newPair, QPN, REMOTE, run, statuses, UD } from '../fixtures/work.ts';

describe('every operation', () => {
  const data: [string, number, BareWork, number, number | undefined][] = [
    ['SEND', QPT_RC, { opcode: WR_SEND }, WC_SEND, WC_RECV],
    ['SEND with immediate', QPT_RC, { opcode: WR_SEND_WITH_IMM }, WC_SEND, WC_RECV],
    ['WRITE', QPT_RC, { opcode: WR_RDMA_WRITE }, WC_RDMA_WRITE, undefined],
    [
      'WRITE with immediate',
      QPT_RC,
      { opcode: WR_RDMA_WRITE_WITH_IMM },
      WC_RDMA_WRITE,
      WC_RECV_RDMA_WITH_IMM,
    ],
    ['SEND on UC', QPT_UC, { opcode: WR_SEND }, WC_SEND, WC_RECV],
    ['SEND with immediate on UC', QPT_UC, { opcode: WR_SEND_WITH_IMM }, WC_SEND, WC_RECV],
    ['WRITE on UC', QPT_UC, { opcode: WR_RDMA_WRITE }, WC_RDMA_WRITE, undefined],
    [
      'WRITE with immediate on UC',
      QPT_UC,
      { opcode: WR_RDMA_WRITE_WITH_IMM },
      WC_RDMA_WRITE,
      WC_RECV_RDMA_WITH_IMM,
    ],
  ];
  it.each(data)('%s brings its bytes', (_, type, work, wcOpcode, receiveOpcode) => {
    for (const length of [0, 1, 1023, 1024, 1025, 70_001]) {
      const pair = newPair({ setUpA: { type }, setUpB: { type } });
      pair.a.fill(BASE, length, 5);
      run(pair, [{ ...local, ...work, length, wrId: 7, immediate: 0xabcd }]);
      expect(pair.a.completions).toMatchObject([
        { wrId: 7, status: WC_SUCCESS, opcode: wcOpcode, bytes: length },
      ]);
      expect(pair.b.read(REMOTE, length)).toEqual(pair.a.read(BASE, length));
      expect(pair.b.completions.map((c) => c.opcode)).toEqual(
        receiveOpcode === undefined ? [] : [receiveOpcode],
      );
      if (work.opcode === WR_SEND_WITH_IMM) {
        expect(pair.b.completions).toMatchObject([{ immediate: 0xabcd, bytes: length }]);
      }
    }
  });

  it('a datagram goes to the queue pair that its work request names', () => {
    const pair = newPair({
      setUpA: { type: QPT_UD },
      setUpB: { type: QPT_UD, queuePairs: 2, qkey: 0x7777 },
    });
    pair.a.fill(BASE, 4096, 5);
    pair.b.at(READY_PS - 20 * US, () => {
      pair.b.postReceive(QPN + 1, 100, REGION_KEY, REMOTE, 5000);
      pair.b.postReceive(QPN + 1, 101, REGION_KEY, REMOTE + 8192, 5000);
    });
    const ud = { qpn: QPN + 1, qkey: 0x7777, dlid: 2 };
    const work = { ...local, opcode: WR_SEND_WITH_IMM, ud, immediate: 3 };
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...work, length: 4096, wrId: 1 });
      pair.a.postSend(QPN, { ...work, opcode: WR_SEND, length: 0, wrId: 2 });
    });
    pair.drive();
    expect(pair.a.completions).toMatchObject([
      { wrId: 1, status: WC_SUCCESS, opcode: WC_SEND, bytes: 4096 },
      { wrId: 2, status: WC_SUCCESS },
    ]);
    // The first 40 bytes are for a routing header.
    expect(pair.b.completions).toMatchObject([
      { wrId: 100, qpn: QPN + 1, sourceQpn: QPN, immediate: 3, bytes: 4136 },
      { wrId: 101, qpn: QPN + 1, sourceQpn: QPN, bytes: 40 },
    ]);
    expect(pair.b.read(REMOTE + 40, 4096)).toEqual(pair.a.read(BASE, 4096));
  });

  it('a datagram whose Q_Key has its high bit set carries that of the queue pair', () => {
    const type = QPT_UD;
    const pair = newPair({ setUpA: { type, qkey: 0x55 }, setUpB: { type, qkey: 0x55 } });
    const ud = { ...UD, qkey: 0x80001234 };
    run(pair, [{ ...local, opcode: WR_SEND, length: 10, ud }]);
    expect(pair.b.completions).toMatchObject([{ status: WC_SUCCESS, bytes: 50 }]);
  });

  it('compare-and-swap and fetch-and-add bring back what was there', () => {
    const pair = newPair();
    const set = 0x0123456789abcdefn;
    const atomic = { ...local, length: 8 };
    run(pair, [
      { ...atomic, opcode: WR_ATOMIC_FETCH_AND_ADD, compareAdd: set, wrId: 1 },
      // A sum that carries from one half to the other, and over the end.
      {
        ...atomic,
        opcode: WR_ATOMIC_FETCH_AND_ADD,
        compareAdd: 0xfedcba9876543211n,
        address: BASE + 8,
        wrId: 2,
      },
      {
        ...atomic,
        opcode: WR_ATOMIC_CMP_AND_SWP,
        compareAdd: 0n,
        swap: 77n,
        address: BASE + 16,
        wrId: 3,
      },
      {
        ...atomic,
        opcode: WR_ATOMIC_CMP_AND_SWP,
        compareAdd: 0n,
        swap: 88n,
        address: BASE + 24,
        wrId: 4,
      },
    ]);
    expect(pair.a.completions.map((c) => [c.wrId, c.status, c.opcode, c.bytes])).toEqual([
      [1, WC_SUCCESS, WC_FETCH_ADD, 8],
      [2, WC_SUCCESS, WC_FETCH_ADD, 8],
      [3, WC_SUCCESS, WC_COMP_SWAP, 8],
      [4, WC_SUCCESS, WC_COMP_SWAP, 8],
    ]);
    const original = (at: number): bigint =>
      new DataView(pair.a.read(BASE + at, 8).buffer).getBigUint64(0, true);
    expect([0, 8, 16, 24].map(original)).toEqual([0n, set, 0n, 77n]);
    expect(new DataView(pair.b.read(REMOTE, 8).buffer).getBigUint64(0, true)).toBe(77n);
  });

  it('ATOMIC WRITE and FLUSH', () => {
    const pair = newPair();
    pair.a.fill(BASE, 8, 5);
    const inline = Uint8Array.of(8, 7, 6, 5, 4, 3, 2, 1);
    const flush = { ...local, opcode: WR_FLUSH, length: 100_000, immediate: FLUSH_GLOBAL };
    run(pair, [
      { ...local, opcode: WR_ATOMIC_WRITE, length: 8, wrId: 1 },
      { ...local, opcode: WR_ATOMIC_WRITE, inline, remote: REMOTE + 8, wrId: 2 },
      { ...flush, wrId: 3 },
    ]);
    expect(pair.a.completions.map((c) => [c.wrId, c.status, c.opcode])).toEqual([
      [1, WC_SUCCESS, WC_ATOMIC_WRITE],
      [2, WC_SUCCESS, WC_ATOMIC_WRITE],
      [3, WC_SUCCESS, WC_FLUSH],
    ]);
    expect(pair.b.read(REMOTE, 8)).toEqual(pair.a.read(BASE, 8));
    expect(pair.b.read(REMOTE + 8, 8)).toEqual(inline);
  });

  it('windows are bound, used, invalidated here and from afar', () => {
    const pair = newPair();
    const { a, b } = pair;
    let mw = 0;
    b.at(READY_PS - 50 * US, () => {
      mw = b.command(CMD_ALLOC_MW, [1]);
    });
    const key = (): number => b.results.get(mw)?.result as number;
    const bind = (rkey: number, wrId: number): BareWork => ({
      opcode: WR_BIND_MW,
      rkey,
      lkey: REGION_KEY,
      address: REMOTE,
      length: 4096,
      immediate: ACCESS_REMOTE_WRITE,
      wrId,
    });
    const writeTo = (rkey: number, wrId: number): void =>
      a.postSend(QPN, { ...local, opcode: WR_RDMA_WRITE, rkey, length: 4096, wrId });
    a.fill(BASE, 4096, 5);
    b.at(READY_PS, () => {
      b.postSend(QPN, bind(key() + 1, 1));
      b.postReceive(QPN, 100, REGION_KEY, BASE, 100);
    });
    a.at(READY_PS + 20 * US, () => {
      writeTo(key() + 1, 11);
      a.postSend(QPN, { opcode: WR_SEND_WITH_INV, immediate: key() + 1, wrId: 12 });
    });
    b.at(READY_PS + 60 * US, () => {
      b.postSend(QPN, bind(key() + 2, 2));
      b.postSend(QPN, { opcode: WR_LOCAL_INV, rkey: key() + 2, wrId: 3 });
    });
    a.at(READY_PS + 90 * US, () => writeTo(key() + 2, 13));
    pair.drive();
    expect(b.completions.slice(0, 4).map((c) => [c.wrId, c.status, c.opcode])).toEqual([
      [1, WC_SUCCESS, WC_BIND_MW],
      [100, WC_SUCCESS, WC_RECV],
      [2, WC_SUCCESS, WC_BIND_MW],
      [3, WC_SUCCESS, WC_LOCAL_INV],
    ]);
    expect(b.completions[1]).toMatchObject({ immediate: key() + 1, flags: 1 | 4 });
    expect(a.completions.map((c) => [c.wrId, c.status])).toEqual([
      [11, WC_SUCCESS],
      [12, WC_SUCCESS],
      [13, 10],
    ]);
    expect(b.read(REMOTE, 4096)).toEqual(a.read(BASE, 4096));
  });
});

describe('a signal', () => {
  const works: BareWork[] = [
    { ...local, opcode: WR_RDMA_WRITE, length: 10 },
    { ...local, opcode: WR_RDMA_READ, length: 10 },
    { ...local, opcode: WR_ATOMIC_FETCH_AND_ADD, length: 8, compareAdd: 1n },
    { ...local, opcode: WR_FLUSH, length: 10, immediate: FLUSH_GLOBAL },
    { ...local, opcode: WR_SEND, length: 10 },
  ];
  it.each([
    ['for some work requests', false, [0, 2, 4]],
    ['for all of them with sq_sig_all', true, [0, 1, 2, 3, 4]],
  ])('%s', (_, signalsAll, expected) => {
    const pair = newPair({ setUpA: { signalsAll } });
    const flags = (i: number): number => (i % 2 === 0 ? SEND_SIGNALED : 0);
    run(
      pair,
      works.map((work, i) => ({ ...work, wrId: i, flags: flags(i) })),
    );
    expect(pair.a.completions.map((c) => c.wrId)).toEqual(expected);
  });

  it('is not needed to hear of a failure, or of what is flushed behind it', () => {
    const pair = newPair();
    run(pair, [
      { ...works[0], wrId: 1, flags: 0 },
      { ...works[0], wrId: 2, flags: 0, lkey: 0x4242 },
      { ...works[0], wrId: 3, flags: 0 },
    ]);
    expect(statuses(pair)).toEqual([
      [2, WC_LOC_PROT_ERR],
      [3, WC_WR_FLUSH_ERR],
    ]);
  });
});

describe('a solicited event', () => {
  it.each([
    ['SEND', WR_SEND, true],
    ['SEND with immediate', WR_SEND_WITH_IMM, true],
    ['WRITE with immediate', WR_RDMA_WRITE_WITH_IMM, true],
    ['WRITE', WR_RDMA_WRITE, false],
    ['READ', WR_RDMA_READ, false],
  ])('of %s is asked for by its last packet, if it takes a receive', (_, opcode, isAsked) => {
    const lone = new LoneAdapter({ setUp: { timeout: 0 } });
    lone.host.at(READY_PS, () =>
      lone.host.postSend(QPN, { ...local, opcode, length: 2000, flags: SEND_SOLICITED }),
    );
    lone.drive();
    const asked = lone.peer.seen.map(({ flags }) => (flags & BTH_SOLICITED) !== 0);
    expect(asked.slice(0, -1)).not.toContain(true);
    expect(asked.pop()).toBe(isAsked);
  });
});

describe('max_rd_atomic', () => {
  it('holds READs, atomics, FLUSHes and ATOMIC WRITEs together', () => {
    for (const maxRdAtomic of [1, 3]) {
      const pair = newPair({ setUpA: { maxRdAtomic }, setUpB: { maxDestRdAtomic: maxRdAtomic } });
      const works: BareWork[] = [
        { ...local, opcode: WR_RDMA_READ, length: 5000 },
        { ...local, opcode: WR_ATOMIC_FETCH_AND_ADD, length: 8, compareAdd: 1n },
        { ...local, opcode: WR_FLUSH, length: 8, immediate: FLUSH_GLOBAL },
        { ...local, opcode: WR_ATOMIC_WRITE, length: 8 },
        { ...local, opcode: WR_RDMA_WRITE, length: 8 },
      ];
      const all = [...works, ...works, ...works].map((work, wrId) => ({ ...work, wrId }));
      run(pair, all);
      // The peer refuses what is beyond its own limit.
      expect(statuses(pair)).toEqual(all.map(({ wrId }) => [wrId, WC_SUCCESS]));
    }
  });
});

describe('over the end of the PSN circle, with losses', () => {
  it.each([1, 2, 3])('every kind of work is done once and in order (seed %i)', (seed) => {
    const psn = { sendPsn: 0xffff80, receivePsn: 0xffff80, timeout: 1 };
    const pair = newPair({
      seed,
      lossPpm: 50_000,
      profile: {
        ackTimeoutMinExponent: 0,
        ackTimeoutFactor: 1,
        rnrWaitPercent: 100,
        rnrWaitMinPs: 0,
      },
      setUpA: { ...psn, minRnrTimer: 1 },
      setUpB: { ...psn, minRnrTimer: 1 },
    });
    const counter = REMOTE + 0x40000;
    pair.a.fill(BASE, 20_000, 3);
    const round = (i: number): BareWork[] => [
      { ...local, opcode: WR_RDMA_WRITE, length: 5000, remote: REMOTE + 5000 * (i % 4) },
      {
        ...local,
        opcode: WR_ATOMIC_FETCH_AND_ADD,
        length: 8,
        compareAdd: 1n,
        remote: counter,
        address: BASE + 30_000 + 8 * i,
      },
      { ...local, opcode: WR_SEND, length: 1500 },
      { ...local, opcode: WR_RDMA_READ, length: 3000, address: BASE + 0x10000 },
      { ...local, opcode: WR_FLUSH, length: 100, immediate: FLUSH_GLOBAL },
      { ...local, opcode: WR_ATOMIC_WRITE, length: 8, remote: counter + 8 },
    ];
    const works = Array.from({ length: 40 }, (_, i) => round(i)).flat();
    run(
      pair,
      works.map((work, wrId) => ({ ...work, wrId })),
      2000,
    );
    expect(statuses(pair)).toEqual(works.map((_, wrId) => [wrId, WC_SUCCESS]));
    expect(pair.b.completions.map((c) => c.wrId)).toEqual(
      Array.from({ length: 40 }, (_, i) => 100 + i),
    );
    // Each fetch-and-add was executed once: it found what the one before it had left.
    const found = Array.from({ length: 40 }, (_, i) =>
      Number(new DataView(pair.a.read(BASE + 30_000 + 8 * i, 8).buffer).getBigUint64(0, true)),
    );
    expect(found).toEqual(Array.from({ length: 40 }, (_, i) => i));
    expect(pair.hcaA.report().counters.retransmitted_packets).toBeGreaterThan(10);
  });
});
