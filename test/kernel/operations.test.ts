/** Every operation of verbs between two hosts: what arrives, and what both completions say. */
import { describe, expect, it } from 'vitest';
import { nextRkey, type SendRequest, type Sim, type WorkCompletion } from '../../kernel/index.ts';
import {
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  CQE_RECEIVE,
  CQE_SOLICITED,
  CQE_WITH_IMMEDIATE,
  CQE_WITH_INVALIDATE,
  FLUSH_PERSISTENT,
  FLUSH_RANGE,
  MS,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  SEND_FENCE,
  SEND_INLINE,
  SEND_SIGNALED,
  SEND_SOLICITED,
  US,
  WC_ATOMIC_WRITE,
  WC_BIND_MW,
  WC_COMP_SWAP,
  WC_FETCH_ADD,
  WC_FLUSH,
  WC_LOCAL_INV,
  WC_RDMA_READ,
  WC_RDMA_WRITE,
  WC_RECV,
  WC_RECV_RDMA_WITH_IMM,
  WC_REM_ACCESS_ERR,
  WC_SEND,
  WC_SUCCESS,
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
import { BASE, buffer, HostPair, open, type Program, QKEY, QPN } from '../fixtures/host-pair.ts';

/** When both programs have connected. */
const READY_PS = 2 * MS;
/** Offset of the bytes that an operation moves, at both ends. */
const AT = 5000;

interface Case {
  readonly what: string;
  readonly type?: number;
  /** The work request; b's key is known to a. */
  readonly request: (a: Program, rkey: number) => Omit<SendRequest, 'wrId'>;
  /** Bytes that arrive at b: [offset at b, offset at a, length]. */
  readonly moved?: readonly [to: number, from: number, length: number];
  /** Bytes that a gets: [offset at a, offset at b, length]. */
  readonly fetched?: readonly [to: number, from: number, length: number];
  readonly sent: Partial<WorkCompletion>;
  readonly received?: Partial<WorkCompletion>;
}

const remote = (rkey: number) => ({ rkey, remoteAddress: BASE + AT });
const ok = { wrId: 7, status: WC_SUCCESS, qpn: QPN };
const receivedOk = { wrId: 70, status: WC_SUCCESS, qpn: QPN };

const cases: readonly Case[] = [
  {
    what: 'SEND of several buffers into several',
    request: (a) => ({
      opcode: WR_SEND,
      flags: SEND_SIGNALED | SEND_SOLICITED,
      sges: [buffer(a, AT, 1), buffer(a, AT + 1, 3000), buffer(a, AT + 3001, 999)],
    }),
    moved: [AT, AT, 4000],
    sent: { ...ok, opcode: WC_SEND },
    received: {
      ...receivedOk,
      opcode: WC_RECV,
      byteLen: 4000,
      flags: CQE_RECEIVE | CQE_SOLICITED,
    },
  },
  {
    what: 'SEND with immediate data, inline',
    request: (a) => ({
      opcode: WR_SEND_WITH_IMM,
      flags: SEND_SIGNALED | SEND_INLINE,
      // Inline data need no region: the program itself copies them.
      sges: [
        { ...buffer(a, AT, 100), lkey: 0 },
        { ...buffer(a, AT + 100, 100), lkey: 0 },
      ],
      immediate: 0xfeedf00d,
    }),
    moved: [AT, AT, 200],
    sent: { ...ok, opcode: WC_SEND },
    received: {
      ...receivedOk,
      opcode: WC_RECV,
      byteLen: 200,
      immediate: 0xfeedf00d,
      flags: CQE_RECEIVE | CQE_WITH_IMMEDIATE,
    },
  },
  {
    what: 'RDMA WRITE with immediate data',
    request: (a, rkey) => ({
      opcode: WR_RDMA_WRITE_WITH_IMM,
      flags: SEND_SIGNALED | SEND_FENCE,
      sges: [buffer(a, AT, 3000), buffer(a, AT + 3000, 2000)],
      immediate: 9,
      ...remote(rkey),
    }),
    moved: [AT, AT, 5000],
    sent: { ...ok, opcode: WC_RDMA_WRITE },
    received: {
      ...receivedOk,
      opcode: WC_RECV_RDMA_WITH_IMM,
      byteLen: 5000,
      immediate: 9,
      flags: CQE_RECEIVE | CQE_WITH_IMMEDIATE,
    },
  },
  {
    what: 'RDMA WRITE, inline',
    request: (a, rkey) => ({
      opcode: WR_RDMA_WRITE,
      flags: SEND_SIGNALED | SEND_INLINE,
      sges: [{ ...buffer(a, AT, 256), lkey: 0 }],
      ...remote(rkey),
    }),
    moved: [AT, AT, 256],
    sent: { ...ok, opcode: WC_RDMA_WRITE },
  },
  {
    what: 'RDMA WRITE of nothing, without a key',
    request: () => ({ opcode: WR_RDMA_WRITE, flags: SEND_SIGNALED, rkey: 0xbad }),
    sent: { ...ok, opcode: WC_RDMA_WRITE },
  },
  {
    what: 'RDMA READ into several buffers',
    request: (a, rkey) => ({
      opcode: WR_RDMA_READ,
      flags: SEND_SIGNALED,
      sges: [buffer(a, AT, 1001), buffer(a, AT + 1001, 6999)],
      ...remote(rkey),
    }),
    fetched: [AT, AT, 8000],
    sent: { ...ok, opcode: WC_RDMA_READ, byteLen: 8000 },
  },
  {
    what: 'ATOMIC WRITE',
    request: (a, rkey) => ({
      opcode: WR_ATOMIC_WRITE,
      flags: SEND_SIGNALED,
      sges: [buffer(a, AT, 8)],
      ...remote(rkey),
    }),
    moved: [AT, AT, 8],
    sent: { ...ok, opcode: WC_ATOMIC_WRITE },
  },
  {
    what: 'FLUSH',
    request: (_a, rkey) => ({
      opcode: WR_FLUSH,
      flags: SEND_SIGNALED,
      flush: { length: 4000, placement: FLUSH_PERSISTENT, selectivity: FLUSH_RANGE },
      ...remote(rkey),
    }),
    sent: { ...ok, opcode: WC_FLUSH },
  },
  {
    what: 'SEND on an unreliable connection',
    type: QPT_UC,
    request: (a) => ({ opcode: WR_SEND, flags: SEND_SIGNALED, sges: [buffer(a, AT, 4000)] }),
    moved: [AT, AT, 4000],
    sent: { ...ok, opcode: WC_SEND },
    received: { ...receivedOk, opcode: WC_RECV, byteLen: 4000, flags: CQE_RECEIVE },
  },
  {
    what: 'RDMA WRITE on an unreliable connection',
    type: QPT_UC,
    request: (a, rkey) => ({
      opcode: WR_RDMA_WRITE,
      flags: SEND_SIGNALED,
      sges: [buffer(a, AT, 4000)],
      ...remote(rkey),
    }),
    moved: [AT, AT, 4000],
    sent: { ...ok, opcode: WC_RDMA_WRITE },
  },
  {
    what: 'a datagram with immediate data',
    type: QPT_UD,
    request: (a) => ({
      opcode: WR_SEND_WITH_IMM,
      flags: SEND_SIGNALED,
      sges: [buffer(a, AT, 500), buffer(a, AT + 500, 300)],
      immediate: 3,
      datagram: { ah: a.host.verbs.createAh(a.pd, 2), remoteQpn: QPN, remoteQkey: QKEY },
    }),
    moved: [AT + 40, AT, 800],
    sent: { ...ok, opcode: WC_SEND },
    received: {
      ...receivedOk,
      opcode: WC_RECV,
      byteLen: 840,
      srcQp: QPN,
      slid: 1,
      immediate: 3,
      flags: CQE_RECEIVE | CQE_WITH_IMMEDIATE,
    },
  },
];

describe.each([false, true])('on demand: %s', (onDemand) => {
  it.each(cases)('$what', ({ type = QPT_RC, request, moved, fetched, sent, received }) => {
    const pair = new HostPair();
    const options = { type, onDemand };
    let rkey = 0;
    let before: Uint8Array = new Uint8Array();
    let after: Uint8Array = new Uint8Array();
    const done = pair.run(
      (function* (): Sim<void> {
        const a = yield* open(pair.a, options);
        yield* pair.a.sleep(READY_PS - pair.a.node.now);
        yield* pair.a.verbs.postSend(a.qp, { wrId: 7, ...request(a, rkey) });
        expect(yield* a.cq.next()).toMatchObject(sent);
        if (fetched) after = pair.a.mm.read(BASE + fetched[0], fetched[2]);
        if (moved) before = pair.a.mm.read(BASE + moved[1], moved[2]);
      })(),
      (function* (): Sim<void> {
        const b = yield* open(pair.b, options);
        rkey = b.mr.rkey;
        if (fetched) before = pair.b.mm.read(BASE + fetched[1], fetched[2]);
        if (received) {
          const pieces = [buffer(b, AT, 2), buffer(b, AT + 2, 2998), buffer(b, AT + 3000, 2000)];
          yield* pair.b.verbs.postRecv(b.qp, { wrId: 70, sges: pieces });
          expect(yield* b.cq.next()).toMatchObject(received);
        } else yield* pair.b.sleep(READY_PS + 50 * MS);
        if (moved) after = pair.b.mm.read(BASE + moved[0], moved[2]);
      })(),
    );
    expect(done).toBe(true);
    expect(after).toEqual(before);
    expect(after.length).toBe(moved?.[2] ?? fetched?.[2] ?? 0);
    pair.checkLeaks();
    const messages = [...pair.a.report().messages, ...pair.b.report().messages];
    expect(messages).toHaveLength(after.length > 0 ? 2 : 0);
    expect(new Set(messages.map(({ hash, bytes }) => `${hash} ${bytes}`)).size).toBeLessThan(2);
  });

  it('FETCH_AND_ADD and CMP_AND_SWP: the word, the results and the log', () => {
    const pair = new HostPair();
    let rkey = 0;
    const word = BASE + 4096 + 64;
    const values: bigint[] = [];
    const value = (host: typeof pair.a, address: number): bigint =>
      new DataView(host.mm.read(address, 8).buffer).getBigUint64(0, true);
    const done = pair.run(
      (function* (): Sim<void> {
        const a = yield* open(pair.a, { onDemand });
        yield* pair.a.sleep(READY_PS - pair.a.node.now);
        const common = { wrId: 1, flags: SEND_SIGNALED, rkey, remoteAddress: word };
        const requests: Omit<SendRequest, 'wrId' | 'flags' | 'sges'>[] = [
          { opcode: WR_ATOMIC_FETCH_AND_ADD, compareAdd: [0, 0xffffffff] },
          { opcode: WR_ATOMIC_FETCH_AND_ADD, compareAdd: [0xffffffff, 0xffffffff] }, // minus one
          { opcode: WR_ATOMIC_CMP_AND_SWP, compareAdd: [0, 0xfffffffe], swap: [5, 6] },
          { opcode: WR_ATOMIC_CMP_AND_SWP, compareAdd: [0, 0xfffffffe], swap: [7, 8] },
        ];
        const opcodes = [WC_FETCH_ADD, WC_FETCH_ADD, WC_COMP_SWAP, WC_COMP_SWAP];
        for (const [i, request] of requests.entries()) {
          // The result may go into two buffers, too.
          const sges = [buffer(a, 8 * i, 3), buffer(a, 8 * i + 3, 5)];
          yield* pair.a.verbs.postSend(a.qp, { ...common, ...request, sges });
          const completion = yield* a.cq.next();
          expect(completion).toMatchObject({ status: WC_SUCCESS, byteLen: 8, opcode: opcodes[i] });
          values.push(value(pair.a, BASE + 8 * i));
        }
      })(),
      (function* (): Sim<void> {
        const b = yield* open(pair.b, { onDemand });
        yield* pair.b.mm.write(word, new Uint8Array(8));
        rkey = b.mr.rkey;
      })(),
    );
    expect(done).toBe(true);
    expect(values).toEqual([0n, 0xffffffffn, 0xfffffffen, 0x5_0000_0006n]);
    expect(value(pair.b, word)).toBe(0x5_0000_0006n);
    const [initiator, target] = [pair.a.report(), pair.b.report()];
    expect(target.dma.dma_atomics).toBe(4);
    expect(initiator.atomics.map(({ values, address }) => ({ values, address }))).toEqual(
      target.atomics.map(({ values, address }) => ({ values, address })),
    );
    pair.checkLeaks();
  });
});

describe('memory windows', () => {
  it('give rights by their own key until they are invalidated, here or by the peer', () => {
    const pair = new HostPair();
    const keys: number[] = [];
    const statuses: number[] = [];
    const done = pair.run(
      (function* (): Sim<void> {
        const a = yield* open(pair.a);
        yield* pair.a.sleep(READY_PS - pair.a.node.now);
        const write = { opcode: WR_RDMA_WRITE, flags: SEND_SIGNALED, wrId: 1 };
        const post = function* (request: Omit<SendRequest, 'flags' | 'wrId'>): Sim<void> {
          yield* pair.a.verbs.postSend(a.qp, { ...write, ...request });
          statuses.push((yield* a.cq.next()).status);
        };
        const sges = [buffer(a, AT, 3000)];
        yield* post({ opcode: WR_RDMA_WRITE, sges, ...remote(keys[0] as number) });
        yield* post({ opcode: WR_SEND_WITH_INV, invalidateRkey: keys[0] as number });
        yield* pair.a.sleep(100 * US);
        yield* post({ opcode: WR_RDMA_READ, sges, ...remote(keys[1] as number) });
        // The first binding is gone for good.
        yield* pair.a.sleep(MS);
        yield* post({ opcode: WR_RDMA_WRITE, sges, ...remote(keys[0] as number) });
      })(),
      (function* (): Sim<void> {
        const b = yield* open(pair.b);
        const { verbs } = pair.b;
        const window = yield* verbs.allocMw(b.pd);
        const bind = function* (bindAccess: number): Sim<void> {
          const rkey = nextRkey(window.rkey);
          const sges = [buffer(b, AT, 3000)];
          const request = { opcode: WR_BIND_MW, wrId: 2, flags: SEND_SIGNALED };
          yield* verbs.postSend(b.qp, { ...request, rkey, sges, bindAccess });
          expect(yield* b.cq.next()).toMatchObject({ status: WC_SUCCESS, opcode: WC_BIND_MW });
          window.rkey = rkey;
          keys.push(rkey);
        };
        yield* verbs.postRecv(b.qp, { wrId: 3 });
        yield* bind(ACCESS_REMOTE_WRITE);
        expect(yield* b.cq.next()).toMatchObject({
          opcode: WC_RECV,
          immediate: keys[0],
          flags: CQE_RECEIVE | CQE_WITH_INVALIDATE,
        });
        yield* bind(ACCESS_REMOTE_READ);
        yield* pair.b.sleep(400 * US);
        yield* verbs.postSend(b.qp, {
          opcode: WR_LOCAL_INV,
          wrId: 4,
          flags: SEND_SIGNALED,
          invalidateRkey: window.rkey,
        });
        expect(yield* b.cq.next()).toMatchObject({ wrId: 4, opcode: WC_LOCAL_INV });
        yield* verbs.deallocMw(window);
      })(),
    );
    expect(done).toBe(true);
    expect(statuses).toEqual([WC_SUCCESS, WC_SUCCESS, WC_SUCCESS, WC_REM_ACCESS_ERR]);
    expect(keys[1]).toBe(nextRkey(keys[0] as number));
  });
});

describe('inline data', () => {
  it('are what they were when posted, and verified as such', () => {
    const pair = new HostPair();
    let rkey = 0;
    let arrived: Uint8Array = new Uint8Array();
    const done = pair.run(
      (function* (): Sim<void> {
        const a = yield* open(pair.a);
        yield* pair.a.sleep(READY_PS - pair.a.node.now);
        yield* pair.a.mm.write(BASE + AT, Uint8Array.of(1, 2, 3));
        const flags = SEND_SIGNALED | SEND_INLINE;
        const sges = [buffer(a, AT, 3)];
        const request = { opcode: WR_RDMA_WRITE, wrId: 1, flags, sges, ...remote(rkey) };
        yield* pair.a.verbs.postSend(a.qp, request);
        yield* pair.a.mm.write(BASE + AT, Uint8Array.of(4, 5, 6));
        expect((yield* a.cq.next()).status).toBe(WC_SUCCESS);
      })(),
      (function* (): Sim<void> {
        rkey = (yield* open(pair.b)).mr.rkey;
        yield* pair.b.sleep(READY_PS);
        arrived = pair.b.mm.read(BASE + AT, 3);
      })(),
    );
    expect(done).toBe(true);
    expect([...arrived]).toEqual([1, 2, 3]);
    const messages = [...pair.a.report().messages, ...pair.b.report().messages];
    expect(new Set(messages.map(({ hash }) => hash)).size).toBe(1);
  });

  it('of an address that is not mapped end the program, as a copy does', () => {
    const pair = new HostPair();
    const run = () =>
      pair.run(
        (function* (): Sim<void> {
          const a = yield* open(pair.a);
          const sges = [{ address: 0x1000, length: 8, lkey: 0 }];
          const flags = SEND_SIGNALED | SEND_INLINE;
          yield* pair.a.verbs.postSend(a.qp, { opcode: WR_SEND, wrId: 1, flags, sges });
        })(),
      );
    expect(run).toThrow('segmentation fault');
  });
});

describe('whoever stands outside', () => {
  it('starts computations at a time and gets what they return or throw', () => {
    const pair = new HostPair();
    const { a } = pair;
    const times: number[] = [];
    const note = function* (): Sim<number> {
      times.push(a.node.now);
      return yield* a.verbs.allocPd();
    };
    const results = [
      a.start('pd', 5 * US, note()),
      a.start('nothing mapped', 6 * US, a.verbs.regMr(1, BASE, 4096, 1)),
      a.start('a crash', 7 * US, a.mm.write(BASE, Uint8Array.of(1))),
    ];
    pair.run((function* (): Sim<void> {})());
    // At that time, or when the CPU has switched to it.
    expect(times[0]).toBeGreaterThanOrEqual(5 * US);
    expect(times[0]).toBeLessThanOrEqual(6 * US);
    expect(results[0]?.value).toEqual({ value: 1 });
    expect(results[1]?.value).toMatchObject({ error: { errno: 'EFAULT' } });
    expect(results[2]?.value).toMatchObject({ error: { code: 'E_OPERATION' } });
  });
});
