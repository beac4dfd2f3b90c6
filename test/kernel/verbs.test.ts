import { describe, expect, it } from 'vitest';
import {
  PROT_READ,
  PROT_WRITE,
  type Sim,
  VerbsError,
  type WorkCompletion,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  QPS_RTS,
  SEND_SIGNALED,
  US,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;

function story(verify: boolean): {
  digest: string;
  completions: WorkCompletion[];
  messages: object[];
} {
  const { host, run } = makeBench({ verify });
  const { mm, verbs } = host;
  const completions: WorkCompletion[] = [];
  const done = run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, 4 * PAGE, RW);
      yield* mm.fill(BASE, 4 * PAGE, 1);
      const pd = yield* verbs.allocPd();
      const cq = yield* verbs.createCq(16);
      const qp = yield* verbs.createQp(pd, { sendCq: cq, recvCq: cq, maxSendWr: 2, maxRecvWr: 1 });
      yield* verbs.modifyQp(qp, { state: QPS_RTS, destQpn: 77, destLid: 2 });
      const mr = yield* verbs.regMr(pd, BASE, 4 * PAGE, ACCESS_LOCAL_WRITE);
      for (let i = 1; i <= 3; i++) {
        const message = yield* verbs.postSend(qp, {
          opcode: WR_RDMA_WRITE,
          wrId: i,
          sges: [{ address: BASE + i, length: i * 1000, lkey: mr.lkey }],
          rkey: 1,
          remoteAddress: BASE,
          flags: SEND_SIGNALED,
        });
        expect(message).toBe(i);
        completions.push(yield* cq.next());
      }
      expect(cq.poll()).toBeUndefined();
      yield* verbs.postRecv(qp, { wrId: 1 });
      try {
        yield* verbs.postRecv(qp, { wrId: 2 });
        expect.unreachable();
      } catch (error) {
        expect(error).toBeInstanceOf(VerbsError);
      }
      yield* verbs.suspendPd(pd);
      yield* verbs.resumePd(pd);
      yield* verbs.deregMr(mr);
      yield* host.sleep(1 * US);
    })(),
  );
  expect(done).toBe(true);
  host.checkLeaks();
  return {
    digest: host.node.digest.toString(),
    completions,
    messages: [...host.report().messages],
  };
}

describe('verbs', () => {
  it('post, complete and log each message at the initiator', () => {
    const { completions, messages } = story(true);
    expect(completions.map((c) => c.wrId)).toEqual([1, 2, 3]);
    expect(messages).toMatchObject([
      { side: 'initiator', qpn: 77, lid: 2, message: 1, bytes: 1000 },
      { side: 'initiator', qpn: 77, lid: 2, message: 2, bytes: 2000 },
      { side: 'initiator', qpn: 77, lid: 2, message: 3, bytes: 3000 },
    ]);
  });

  it('give the same digest every time, and log nothing without verification', () => {
    expect(story(true).digest).toBe(story(true).digest);
    expect(story(false).messages).toEqual([]);
  });
});
