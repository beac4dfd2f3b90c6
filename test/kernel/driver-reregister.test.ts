/** ibv_rereg_mr: the stories of rdma-core's tests/test_mr.py, and what is refused. */
import { describe, expect, it } from 'vitest';
import {
  type Errno,
  type MemoryRegion,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  VerbsError,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_WRITE,
  SEND_SIGNALED,
  WC_REM_ACCESS_ERR,
  WC_REM_OP_ERR,
  WC_SUCCESS,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_BIND_MW,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { ALL_RIGHTS, BASE, HostPair, PAGE } from '../fixtures/host-pair.ts';
import { type Endpoint, endpoint, join } from '../fixtures/loopback.ts';

const RW = PROT_READ | PROT_WRITE;
const BYTES = 4 * PAGE;
/** Mapped beside the region, and not part of it. */
const ELSEWHERE = BASE + 16 * PAGE;

interface Stage {
  readonly pair: HostPair;
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly source: MemoryRegion;
  readonly target: MemoryRegion;
}

function tell(story: (stage: Stage) => Sim<void>): void {
  const pair = new HostPair();
  const { a } = pair;
  const done = pair.run(
    (function* (): Sim<void> {
      const ends: Endpoint[] = [];
      const regions: MemoryRegion[] = [];
      for (const process of [a.createProcess('from'), a.createProcess('to')]) {
        const end = yield* endpoint(process);
        for (const at of [BASE, ELSEWHERE]) {
          yield* process.mm.mmap(at, BYTES, RW);
          yield* process.mm.fill(at, BYTES, at === BASE ? end.pd : 10 + end.pd);
        }
        ends.push(end);
        regions.push(yield* process.verbs.regMr(end.pd, BASE, BYTES, ALL_RIGHTS));
      }
      const [from, to] = ends as [Endpoint, Endpoint];
      const [source, target] = regions as [MemoryRegion, MemoryRegion];
      yield* join(from, to, 1);
      yield* story({ pair, from, to, source, target });
      for (const { process } of ends) yield* process.exit();
    })(),
  );
  expect(done).toBe(true);
  pair.checkLeaks();
}

function* act({ from, source, target }: Stage, opcode: number, remote = BASE): Sim<number> {
  const isAtomic = opcode === WR_ATOMIC_FETCH_AND_ADD;
  yield* from.process.verbs.postSend(from.qp, {
    opcode,
    wrId: 1,
    flags: SEND_SIGNALED,
    sges: [{ address: BASE, length: isAtomic ? 8 : PAGE, lkey: source.lkey }],
    remoteAddress: remote,
    rkey: target.rkey,
    compareAdd: [0, 1],
  });
  return (yield* from.cq.next()).status;
}

describe('re-registration', () => {
  it('to another range: what was posted for the old one fails, the new one works by the same key', () => {
    tell(function* (stage): Sim<void> {
      const { to, target } = stage;
      const { verbs, mm } = to.process;
      const key = target.lkey;
      yield* verbs.postRecv(to.qp, {
        wrId: 5,
        sges: [{ address: BASE, length: PAGE, lkey: key }],
      });
      yield* verbs.reregMr(target, { range: { address: ELSEWHERE, length: BYTES } });
      expect([target.lkey, target.address, mm.pinnedBytes]).toEqual([key, ELSEWHERE, BYTES]);
      expect(yield* act(stage, WR_SEND)).toBe(WC_REM_OP_ERR);
    });
    tell(function* (stage): Sim<void> {
      const { from, to, target } = stage;
      yield* to.process.verbs.reregMr(target, { range: { address: ELSEWHERE, length: BYTES } });
      const before = to.process.mm.hash(BASE, BYTES);
      expect(yield* act(stage, WR_RDMA_WRITE, ELSEWHERE)).toBe(WC_SUCCESS);
      expect(to.process.mm.hash(ELSEWHERE, PAGE)).toBe(from.process.mm.hash(BASE, PAGE));
      expect(to.process.mm.hash(BASE, BYTES)).toBe(before);
      expect(yield* act(stage, WR_RDMA_WRITE, BASE)).toBe(WC_REM_ACCESS_ERR);
    });
  });

  it.each([
    ['atomics', ACCESS_REMOTE_ATOMIC, WR_ATOMIC_FETCH_AND_ADD],
    ['writing', ACCESS_REMOTE_WRITE, WR_RDMA_WRITE],
  ])('takes away and gives the right of %s', (_what, right, opcode) => {
    tell(function* (stage): Sim<void> {
      const { verbs } = stage.to.process;
      yield* verbs.reregMr(stage.target, { access: ALL_RIGHTS & ~right });
      yield* verbs.reregMr(stage.target, { access: ALL_RIGHTS });
      expect(yield* act(stage, opcode)).toBe(WC_SUCCESS);
      yield* verbs.reregMr(stage.target, { access: ALL_RIGHTS & ~right });
      expect(yield* act(stage, opcode)).toBe(WC_REM_ACCESS_ERR);
    });
  });

  it('to another domain and back', () => {
    tell(function* (stage): Sim<void> {
      const { to, target } = stage;
      const { verbs } = to.process;
      const pd = yield* verbs.allocPd();
      yield* verbs.reregMr(target, { pd });
      yield* verbs.reregMr(target, { pd: to.pd });
      expect(yield* act(stage, WR_RDMA_WRITE)).toBe(WC_SUCCESS);
      yield* verbs.reregMr(target, { pd });
      yield* verbs.postRecv(to.qp, {
        wrId: 5,
        sges: [{ address: BASE, length: PAGE, lkey: target.lkey }],
      });
      expect(yield* act(stage, WR_SEND)).toBe(WC_REM_OP_ERR);
    });
  });

  it('makes read-only memory writable only by pinning it again', () => {
    tell(function* (stage): Sim<void> {
      const { to } = stage;
      const { verbs, mm } = to.process;
      yield* mm.mmap(ELSEWHERE, BYTES, PROT_READ);
      const mr = yield* verbs.regMr(to.pd, ELSEWHERE, BYTES, 0);
      let errno = '';
      try {
        yield* verbs.reregMr(mr, { access: ACCESS_LOCAL_WRITE });
      } catch (error) {
        errno = (error as VerbsError).errno;
      }
      expect([errno, mr.access, mm.pinnedBytes]).toEqual(['EFAULT', 0, 2 * BYTES]);
    });
  });

  const refusals: { what: string; errno: Errno; attempt: (stage: Stage) => Sim<unknown> }[] = [
    {
      what: 'nothing to change',
      errno: 'EINVAL',
      attempt: ({ to, target }) => to.process.verbs.reregMr(target, {}),
    },
    {
      what: 'remote rights without local ones',
      errno: 'EINVAL',
      attempt: ({ to, target }) =>
        to.process.verbs.reregMr(target, { access: ACCESS_REMOTE_WRITE }),
    },
    {
      what: 'no bytes',
      errno: 'EINVAL',
      attempt: ({ to, target }) =>
        to.process.verbs.reregMr(target, { range: { address: BASE, length: 0 } }),
    },
    {
      what: 'a range that is not mapped',
      errno: 'EFAULT',
      attempt: ({ to, target }) =>
        to.process.verbs.reregMr(target, { range: { address: 0x1000, length: PAGE } }),
    },
    {
      what: 'a domain that there is not',
      errno: 'EINVAL',
      attempt: ({ to, target }) => to.process.verbs.reregMr(target, { pd: 99 }),
    },
    {
      what: 'pinned memory on demand',
      errno: 'EOPNOTSUPP',
      attempt: ({ to, target }) =>
        to.process.verbs.reregMr(target, { access: ALL_RIGHTS | ACCESS_ON_DEMAND }),
    },
    {
      what: 'a region on demand',
      errno: 'EOPNOTSUPP',
      *attempt({ to }) {
        const access = ALL_RIGHTS | ACCESS_ON_DEMAND;
        const mr = yield* to.process.verbs.regMr(to.pd, BASE, BYTES, access);
        yield* to.process.verbs.reregMr(mr, { access: ACCESS_LOCAL_WRITE });
      },
    },
    {
      what: 'a region that a window is bound to',
      errno: 'EBUSY',
      *attempt({ from, source }) {
        const { verbs } = from.process;
        const window = yield* verbs.allocMw(from.pd);
        yield* verbs.postSend(from.qp, {
          opcode: WR_BIND_MW,
          wrId: 2,
          flags: SEND_SIGNALED,
          sges: [{ address: BASE, length: PAGE, lkey: source.lkey }],
          rkey: window.rkey + 1,
          bindAccess: ACCESS_REMOTE_WRITE,
        });
        window.rkey++;
        yield* from.cq.next();
        yield* verbs.reregMr(source, { access: ACCESS_LOCAL_WRITE });
      },
    },
  ];

  it.each(refusals)('is refused and changes nothing: $what', ({ errno, attempt }) => {
    tell(function* (stage): Sim<void> {
      let thrown: unknown;
      try {
        yield* attempt(stage);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(VerbsError);
      expect((thrown as VerbsError).errno).toBe(errno);
      expect(stage.to.process.mm.pinnedBytes).toBe(BYTES);
      expect(yield* act(stage, WR_RDMA_WRITE)).toBe(WC_SUCCESS);
    });
  });
});
