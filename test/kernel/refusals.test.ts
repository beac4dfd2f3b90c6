/** What verbs refuse, with which errno, and that nothing has happened then. */
import { describe, expect, it } from 'vitest';
import {
  type Errno,
  type QueuePairAttributes,
  type SendRequest,
  type Sim,
  VerbsError,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_WRITE,
  ADVICE_PREFETCH_WRITE,
  ADVISE_FLUSH,
  QPS_ERR,
  QPS_INIT,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  QPT_UC,
  QPT_UD,
  SEND_INLINE,
  SEND_SIGNALED,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_BIND_MW,
  WR_LOCAL_INV,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { BASE, buffer, HostPair, open, PAGE, type Program, QKEY } from '../fixtures/host-pair.ts';

interface Refusal {
  readonly what: string;
  readonly errno: Errno;
  readonly type?: number;
  readonly attempt: (program: Program) => Sim<unknown>;
}

const post = (
  { host, qp }: Program,
  request: Partial<SendRequest> & { opcode: number },
): Sim<number> => host.verbs.postSend(qp, { wrId: 1, flags: SEND_SIGNALED, ...request });

/** A datagram's address. */
const datagram = ({ host, pd }: Program) => ({
  datagram: { ah: host.verbs.createAh(pd, 2), remoteQpn: 17, remoteQkey: QKEY },
});

/** Posts receives until the queue is full, and then one more. */
function* overfill({ host, qp }: Program): Sim<void> {
  for (let i = 0; i <= 64; i++) yield* host.verbs.postRecv(qp, { wrId: i });
}

const refusals: readonly Refusal[] = [
  // Resources.
  { what: 'a CQ of no entries', errno: 'EINVAL', attempt: ({ host }) => host.verbs.createCq(0) },
  {
    what: 'a CQ larger than the adapter has',
    errno: 'EINVAL',
    attempt: ({ host }) => host.verbs.createCq(1 << 20),
  },
  {
    what: 'a CQ in use, destroyed',
    errno: 'EBUSY',
    attempt: ({ host, cq }) => host.verbs.destroyCq(cq),
  },
  {
    what: 'a PD in use, deallocated',
    errno: 'EBUSY',
    attempt: ({ host, pd }) => host.verbs.deallocPd(pd),
  },
  { what: 'an unknown PD', errno: 'EINVAL', attempt: ({ host }) => host.verbs.deallocPd(77) },
  {
    what: 'a QP without a send queue',
    errno: 'EINVAL',
    attempt: ({ host, pd, cq }) =>
      host.verbs.createQp(pd, { sendCq: cq, recvCq: cq, maxSendWr: 0, maxRecvWr: 1 }),
  },
  {
    what: 'a QP with too many scatter entries',
    errno: 'EINVAL',
    attempt: ({ host, pd, cq }) =>
      host.verbs.createQp(pd, {
        sendCq: cq,
        recvCq: cq,
        maxSendWr: 1,
        maxRecvWr: 1,
        maxSendSge: 17,
      }),
  },
  {
    what: 'a QP with too much inline data',
    errno: 'EINVAL',
    attempt: ({ host, pd, cq }) =>
      host.verbs.createQp(pd, {
        sendCq: cq,
        recvCq: cq,
        maxSendWr: 1,
        maxRecvWr: 1,
        maxInline: 257,
      }),
  },
  {
    what: 'a QP of a service there is not',
    errno: 'EINVAL',
    attempt: ({ host, pd, cq }) =>
      host.verbs.createQp(pd, { sendCq: cq, recvCq: cq, maxSendWr: 1, maxRecvWr: 1, type: 9 }),
  },
  {
    what: 'an SRQ whose limit it can never reach',
    errno: 'EINVAL',
    attempt: ({ host, pd }) => host.verbs.createSrq(pd, 4, 5),
  },
  {
    what: 'a window of an unknown PD',
    errno: 'EINVAL',
    attempt: ({ host }) => host.verbs.allocMw(77),
  },
  // Memory.
  {
    what: 'a region of nothing',
    errno: 'EINVAL',
    attempt: ({ host, pd }) => host.verbs.regMr(pd, BASE, 0, 0),
  },
  {
    what: 'a region beyond the address space',
    errno: 'EINVAL',
    attempt: ({ host, pd }) => host.verbs.regMr(pd, 2 ** 47 - PAGE, 2 * PAGE, ACCESS_ON_DEMAND),
  },
  {
    what: 'remote rights without local ones',
    errno: 'EINVAL',
    attempt: ({ host, pd }) => host.verbs.regMr(pd, BASE, PAGE, ACCESS_REMOTE_WRITE),
  },
  {
    what: 'a region of nothing mapped',
    errno: 'EFAULT',
    attempt: ({ host, pd }) => host.verbs.regMr(pd, 0x1000, PAGE, ACCESS_LOCAL_WRITE),
  },
  {
    what: 'a prefetch of pinned memory',
    errno: 'EINVAL',
    attempt: ({ host, mr }) =>
      host.verbs.adviseMr(mr.pd, ADVICE_PREFETCH_WRITE, ADVISE_FLUSH, [
        { address: BASE, length: PAGE, lkey: mr.lkey },
      ]),
  },
  // The send queue.
  {
    what: 'a READ on an unreliable connection',
    errno: 'EINVAL',
    type: QPT_UC,
    attempt: (p) => post(p, { opcode: WR_RDMA_READ }),
  },
  {
    what: 'a WRITE of a datagram queue pair',
    errno: 'EINVAL',
    type: QPT_UD,
    attempt: (p) => post(p, { opcode: WR_RDMA_WRITE, ...datagram(p) }),
  },
  {
    what: 'a datagram to nowhere',
    errno: 'EINVAL',
    type: QPT_UD,
    attempt: (p) => post(p, { opcode: WR_SEND }),
  },
  {
    what: 'a datagram with the address handle of another PD',
    errno: 'EINVAL',
    type: QPT_UD,
    attempt: (p) =>
      post(p, {
        opcode: WR_SEND,
        datagram: { ...datagram(p).datagram, ah: p.host.verbs.createAh(99, 2) },
      }),
  },
  {
    what: 'an address on a connection',
    errno: 'EINVAL',
    attempt: (p) => post(p, { opcode: WR_SEND, ...datagram(p) }),
  },
  {
    what: 'an opcode there is not',
    errno: 'EINVAL',
    attempt: (p) => post(p, { opcode: 77 }),
  },
  {
    what: 'too many buffers',
    errno: 'EINVAL',
    attempt: (p) =>
      post(p, { opcode: WR_SEND, sges: Array.from({ length: 17 }, () => buffer(p, 0, 1)) }),
  },
  {
    what: 'a length that is none',
    errno: 'EINVAL',
    attempt: (p) => post(p, { opcode: WR_SEND, sges: [buffer(p, 0, -1)] }),
  },
  {
    what: 'more than 4 GiB',
    errno: 'EINVAL',
    attempt: (p) =>
      post(p, { opcode: WR_SEND, sges: [buffer(p, 0, 2 ** 31), buffer(p, 0, 2 ** 31)] }),
  },
  {
    what: 'too much inline data',
    errno: 'EINVAL',
    attempt: (p) =>
      post(p, { opcode: WR_SEND, flags: SEND_INLINE, sges: [buffer(p, 0, 200), buffer(p, 0, 57)] }),
  },
  {
    what: 'inline data to read into',
    errno: 'EINVAL',
    attempt: (p) => post(p, { opcode: WR_RDMA_READ, flags: SEND_INLINE, sges: [buffer(p, 0, 8)] }),
  },
  {
    what: 'one request more than the send queue holds',
    errno: 'ENOMEM',
    *attempt(p) {
      // They wait for ever: their peer has no receive posted and never gets one.
      for (let i = 0; i <= 64; i++) yield* post(p, { opcode: WR_SEND });
    },
  },
  {
    what: 'a request before the queue pair is ready to send',
    errno: 'EINVAL',
    *attempt(p) {
      yield* p.host.verbs.modifyQp(p.qp, { state: QPS_RESET });
      yield* p.host.verbs.modifyQp(p.qp, { state: QPS_INIT, pkeyIndex: 0, port: 1, access: 0 });
      yield* post(p, { opcode: WR_SEND });
    },
  },
  // The receive queue.
  { what: 'one receive more than the queue holds', errno: 'ENOMEM', attempt: overfill },
  {
    what: 'a receive with too many buffers',
    errno: 'EINVAL',
    attempt: (p) =>
      p.host.verbs.postRecv(p.qp, {
        wrId: 1,
        sges: Array.from({ length: 17 }, () => buffer(p, 0, 1)),
      }),
  },
  {
    what: 'a receive in RESET',
    errno: 'EINVAL',
    *attempt({ host, qp }) {
      yield* host.verbs.modifyQp(qp, { state: QPS_RESET });
      yield* host.verbs.postRecv(qp, { wrId: 1 });
    },
  },
  {
    what: 'a receive of its own for a queue pair that shares',
    errno: 'EINVAL',
    *attempt({ host, pd, cq }) {
      const srq = yield* host.verbs.createSrq(pd, 4);
      const plan = { sendCq: cq, recvCq: cq, maxSendWr: 1, maxRecvWr: 0, srq };
      yield* host.verbs.postRecv(yield* host.verbs.createQp(pd, plan), { wrId: 1 });
    },
  },
  {
    what: 'one receive more than a shared queue holds',
    errno: 'ENOMEM',
    *attempt({ host, pd }) {
      const srq = yield* host.verbs.createSrq(pd, 2);
      for (let wrId = 0; wrId < 3; wrId++) yield* host.verbs.postSrqRecv(srq, { wrId });
    },
  },
  {
    what: 'a shared receive queue in use, destroyed',
    errno: 'EBUSY',
    *attempt({ host, pd, cq }) {
      const srq = yield* host.verbs.createSrq(pd, 2);
      yield* host.verbs.createQp(pd, { sendCq: cq, recvCq: cq, maxSendWr: 1, maxRecvWr: 0, srq });
      yield* host.verbs.destroySrq(srq);
    },
  },
  {
    what: 'a region with a window bound to it, deregistered',
    errno: 'EBUSY',
    *attempt(p) {
      const window = yield* p.host.verbs.allocMw(p.pd);
      const rkey = window.rkey + 1;
      yield* post(p, { opcode: WR_BIND_MW, rkey, sges: [buffer(p, 0, PAGE)], bindAccess: 2 });
      expect((yield* p.cq.next()).status).toBe(0);
      yield* p.host.verbs.deregMr(p.mr);
    },
  },
  // Attributes: the table of transitions itself is the adapter's.
  ...(
    [
      ['a state that cannot follow', { state: QPS_RTR }],
      ['an attribute that a transition does not take', { state: QPS_SQD, retryCnt: 3 }],
      ['an attribute out of range', { state: QPS_RTS, minRnrTimer: 32 }],
      ['a wrong current state', { state: QPS_RTS, currentState: QPS_SQD }],
      ['attributes on the way to ERR', { state: QPS_ERR, retryCnt: 1 }],
    ] satisfies [string, Partial<QueuePairAttributes>][]
  ).map(
    ([what, changes]): Refusal => ({
      what,
      errno: 'EINVAL',
      attempt: ({ host, qp }) => host.verbs.modifyQp(qp, changes),
    }),
  ),
];

describe('verbs refuse', () => {
  it.each(refusals)('$what: $errno', ({ errno, type, attempt }) => {
    const pair = new HostPair();
    let caught: unknown;
    let isStillUsable = false;
    pair.run(
      (function* (): Sim<void> {
        const program = yield* open(pair.a, type === undefined ? {} : { type });
        const before = pair.a.report();
        try {
          yield* attempt(program);
        } catch (error) {
          caught = error;
        }
        expect(pair.a.report().regions).toHaveLength(before.regions.length);
        expect(program.mr.registered).toBe(true);
        yield* program.host.verbs.queryQp(program.qp);
        isStillUsable = true;
      })(),
      (function* (): Sim<void> {
        yield* open(pair.b, type === undefined ? {} : { type });
      })(),
      1e10,
    );
    expect(caught).toBeInstanceOf(VerbsError);
    expect((caught as VerbsError).errno).toBe(errno);
    expect(isStillUsable).toBe(true);
  });
});

describe('message numbers', () => {
  it('do not count what stays on the host: LOCAL_INV and BIND_MW', () => {
    const pair = new HostPair();
    const numbers: number[] = [];
    pair.run(
      (function* (): Sim<void> {
        const program = yield* open(pair.a);
        const window = yield* pair.a.verbs.allocMw(program.pd);
        const sges = [buffer(program, 0, PAGE)];
        const rkey = window.rkey + 1;
        numbers.push(yield* post(program, { opcode: WR_RDMA_WRITE }));
        numbers.push(yield* post(program, { opcode: WR_BIND_MW, rkey, sges, bindAccess: 2 }));
        numbers.push(yield* post(program, { opcode: WR_LOCAL_INV, invalidateRkey: rkey }));
        numbers.push(
          yield* post(program, { opcode: WR_ATOMIC_FETCH_AND_ADD, sges: [buffer(program, 0, 8)] }),
        );
      })(),
      (function* (): Sim<void> {
        yield* open(pair.b);
      })(),
      1e10,
    );
    expect(numbers).toEqual([1, 0, 0, 2]);
  });
});
