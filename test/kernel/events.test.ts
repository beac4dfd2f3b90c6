/** Completion events, asynchronous events, and completion queues that overflow or must not. */
import { describe, expect, it } from 'vitest';
import { CompletionChannel } from '../../kernel/driver/completion-channel.ts';
import type { SharedReceiveQueue, Sim } from '../../kernel/index.ts';
import {
  EVENT_CQ_ERR,
  EVENT_QP_LAST_WQE_REACHED,
  EVENT_SQ_DRAINED,
  EVENT_SRQ_LIMIT_REACHED,
  MS,
  NS,
  QPS_ERR,
  QPS_RESET,
  QPS_RTS,
  QPS_SQD,
  SEND_SIGNALED,
  SEND_SOLICITED,
  type TimePs,
  US,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { buffer, connect, HostPair, open, type Program, QPN } from '../fixtures/host-pair.ts';

const READY_PS = 2 * MS;

function* ready(program: Program): Sim<void> {
  const { host } = program;
  yield* host.sleep(READY_PS - host.node.now);
}

/** Writes of nothing: they complete and leave no trace. */
function* postWrites({ host, qp }: Program, count: number, flags = SEND_SIGNALED): Sim<void> {
  for (let wrId = 1; wrId <= count; wrId++) {
    yield* host.verbs.postSend(qp, { opcode: WR_RDMA_WRITE, wrId, flags });
  }
}

describe('a completion channel', () => {
  it('wakes once for each time that its queue was armed', () => {
    const pair = new HostPair();
    const channel = new CompletionChannel();
    const polled: number[] = [];
    let events = 0;
    const done = pair.run(
      (function* (): Sim<void> {
        const a = yield* open(pair.a, { channel });
        yield* ready(a);
        const drain = (): void => {
          for (let entry = a.cq.poll(); entry; entry = a.cq.poll()) polled.push(entry.wrId);
        };
        for (let round = 0; round < 3; round++) {
          yield* pair.a.verbs.reqNotifyCq(a.cq);
          yield* postWrites(a, 4);
          expect(yield* channel.next()).toBe(a.cq);
          events++;
          yield* pair.a.sleep(20 * US);
          drain();
        }
        yield* postWrites(a, 4); // not armed: nobody is woken
        yield* pair.a.sleep(50 * US);
        const waiter = pair.a.spawn('waiter', channel.next() as Sim<unknown> as Sim<void>);
        yield* pair.a.sleep(50 * US);
        expect(waiter.done.done).toBe(false);
        // Armed with entries that were not taken: the adapter says so at once.
        yield* pair.a.verbs.reqNotifyCq(a.cq);
        yield waiter.done;
        drain();
      })(),
      (function* (): Sim<void> {
        yield* open(pair.b);
      })(),
    );
    expect(done).toBe(true);
    expect(events).toBe(3);
    expect(polled).toHaveLength(16);
    pair.checkLeaks();
  });

  it('wakes for solicited messages alone where only those are asked for', () => {
    const pair = new HostPair();
    const channel = new CompletionChannel();
    let wokenPs = 0;
    let solicitedPs = 0;
    const done = pair.run(
      (function* (): Sim<void> {
        const a = yield* open(pair.a);
        yield* ready(a);
        for (const flags of [0, 0, SEND_SOLICITED]) {
          yield* pair.a.sleep(50 * US);
          if (flags !== 0) solicitedPs = pair.a.node.now;
          const request = { opcode: WR_SEND, wrId: 1, flags: SEND_SIGNALED | flags };
          yield* pair.a.verbs.postSend(a.qp, request);
        }
      })(),
      (function* (): Sim<void> {
        const b = yield* open(pair.b, { channel });
        for (let wrId = 0; wrId < 3; wrId++) yield* pair.b.verbs.postRecv(b.qp, { wrId });
        yield* pair.b.verbs.reqNotifyCq(b.cq, true);
        yield* channel.next();
        wokenPs = pair.b.node.now;
        expect(b.cq.length).toBe(3);
      })(),
    );
    expect(done).toBe(true);
    expect(wokenPs).toBeGreaterThan(solicitedPs);
    expect(wokenPs).toBeLessThan(solicitedPs + 10 * US);
  });

  it('never misses an entry that was on its way when the queue was armed', () => {
    // The completion comes at a time that moves, in small steps, over that of arming the queue.
    for (let leadNs = 0; leadNs < 6000; leadNs += 50) {
      const pair = new HostPair();
      const channel = new CompletionChannel();
      const done = pair.run(
        (function* (): Sim<void> {
          const a = yield* open(pair.a, { channel });
          yield* ready(a);
          yield* postWrites(a, 1);
          yield* pair.a.sleep(leadNs * NS);
          expect((yield* a.cq.nextByEvent()).status).toBe(WC_SUCCESS);
        })(),
        (function* (): Sim<void> {
          yield* open(pair.b);
        })(),
      );
      expect([leadNs, done]).toEqual([leadNs, true]);
    }
  });

  it('wakes for so many completions, or so long after the first of fewer', () => {
    const pair = new HostPair();
    const channel = new CompletionChannel();
    const lengths: number[] = [];
    const waits: TimePs[] = [];
    const done = pair.run(
      (function* (): Sim<void> {
        const a = yield* open(pair.a, { channel });
        yield* pair.a.verbs.modifyCq(a.cq, 8, 100);
        yield* ready(a);
        for (const count of [8, 3]) {
          yield* pair.a.verbs.reqNotifyCq(a.cq);
          const startPs = pair.a.node.now;
          yield* postWrites(a, count);
          yield* channel.next();
          waits.push(pair.a.node.now - startPs);
          lengths.push(a.cq.length);
          while (a.cq.poll());
        }
      })(),
      (function* (): Sim<void> {
        yield* open(pair.b);
      })(),
    );
    expect(done).toBe(true);
    expect(lengths).toEqual([8, 3]);
    expect(waits[0]).toBeLessThan(20 * US);
    expect(waits[1]).toBeGreaterThan(100 * US);
    expect(waits[1]).toBeLessThan(120 * US);
  });
});

describe('a completion queue', () => {
  it.each([1, 2, 16, 200])('of %i entries overflows with one more, and only then', (entries) => {
    for (const excess of [0, 1]) {
      const pair = new HostPair();
      const plan = { maxSendWr: 256 };
      let polled = 0;
      const done = pair.run(
        (function* (): Sim<void> {
          const a = yield* open(pair.a, { cqEntries: entries, plan });
          yield* ready(a);
          // Taken entries make room again, whether the adapter has heard of it yet or not.
          for (let round = 0; round < 3; round++) {
            yield* postWrites(a, entries);
            yield* pair.a.sleep(200 * US);
            for (let i = 0; i < entries; i++) expect(a.cq.poll()?.status).toBe(WC_SUCCESS);
          }
          expect(pair.a.verbs.asyncEvents).toEqual([]);
          yield* postWrites(a, entries + excess);
          yield* pair.a.sleep(200 * US);
          if (excess > 0) {
            const { state } = yield* pair.a.verbs.queryQp(a.qp);
            expect(state).toBe(QPS_ERR);
            expect(yield* pair.a.verbs.nextAsyncEvent()).toMatchObject({
              event: EVENT_CQ_ERR,
              number: a.cq.cqn,
            });
          }
          while (a.cq.poll()) polled++;
        })(),
        (function* (): Sim<void> {
          yield* open(pair.b);
        })(),
      );
      expect(done).toBe(true);
      expect(polled).toBe(entries);
      if (excess === 0) expect(pair.a.verbs.asyncEvents).toEqual([]);
    }
  });

  it('does not overflow while its program keeps up, at any pace', () => {
    for (const entries of [2, 5, 40, 300]) {
      const pair = new HostPair();
      let seen = 0;
      const done = pair.run(
        (function* (): Sim<void> {
          const a = yield* open(pair.a, { cqEntries: entries });
          yield* ready(a);
          const outstanding = Math.min(entries, 64);
          let posted = 0;
          while (seen < 2000) {
            while (posted < 2000 && posted - seen < outstanding) {
              posted++;
              yield* postWrites(a, 1);
            }
            expect((yield* a.cq.next()).status).toBe(WC_SUCCESS);
            seen++;
            if (seen % 7 === 0) yield* pair.a.sleep(3 * US);
          }
        })(),
        (function* (): Sim<void> {
          yield* open(pair.b);
        })(),
      );
      expect(done).toBe(true);
      expect(pair.a.verbs.asyncEvents).toEqual([]);
    }
  });
});

describe('a shared receive queue', () => {
  it('serves several queue pairs, says when few receives are left, and when a queue pair is empty', () => {
    const pair = new HostPair();
    const events: { event: number; number: number }[] = [];
    let srq: SharedReceiveQueue | undefined;
    const qpns: number[] = [];
    const done = pair.run(
      (function* (): Sim<void> {
        const a = yield* open(pair.a);
        const second = yield* openSecond(a);
        yield* ready(a);
        for (const qp of [a.qp, second, a.qp, second, second]) {
          const sges = [buffer(a, 0, 100)];
          const request = { opcode: WR_SEND, wrId: 1, flags: SEND_SIGNALED, sges };
          yield* pair.a.verbs.postSend(qp, request);
          expect((yield* a.cq.next()).status).toBe(WC_SUCCESS);
        }
      })(),
      (function* (): Sim<void> {
        const { verbs } = pair.b;
        const pd = yield* verbs.allocPd();
        srq = yield* verbs.createSrq(pd, 8);
        pair.b.verbs.asyncEvents$.subscribe(({ event, number }) => events.push({ event, number }));
        const b = yield* open(pair.b, { plan: { srq, maxRecvWr: 0 } });
        yield* openSecond(b, srq);
        const pieces = [buffer(b, 0, 40), buffer(b, 8192, 60)];
        for (let wrId = 0; wrId < 6; wrId++) yield* verbs.postSrqRecv(srq, { wrId, sges: pieces });
        yield* verbs.modifySrq(srq, 3);
        for (let k = 0; k < 5; k++) {
          const completion = yield* b.cq.next();
          expect(completion).toMatchObject({ wrId: k, status: WC_SUCCESS, byteLen: 100 });
          qpns.push(completion.qpn);
        }
        yield* pair.b.sleep(100 * US);
        yield* verbs.modifyQp(b.qp, { state: QPS_ERR });
        yield* pair.b.sleep(100 * US);
        // What no message has used stays in the queue.
        expect(srq.receives.outstanding).toBe(1);
        expect(b.cq.poll()).toBeUndefined();
      })(),
    );
    expect(done).toBe(true);
    expect(qpns).toEqual([QPN, QPN + 1, QPN, QPN + 1, QPN + 1]);
    expect(events).toEqual([
      { event: EVENT_SRQ_LIMIT_REACHED, number: srq?.srqn },
      { event: EVENT_QP_LAST_WQE_REACHED, number: QPN },
    ]);
    const messages = [...pair.a.report().messages, ...pair.b.report().messages];
    expect(messages).toHaveLength(10);
    expect(new Set(messages.map(({ hash }) => hash)).size).toBe(1);
    pair.checkLeaks();
  });

  function* openSecond({ host, pd, cq }: Program, srq?: SharedReceiveQueue) {
    const qp = yield* host.verbs.createQp(pd, {
      sendCq: cq,
      recvCq: cq,
      maxSendWr: 8,
      maxRecvWr: srq ? 0 : 8,
      ...(srq ? { srq } : {}),
    });
    yield* connect(host, qp);
    return qp;
  }
});

describe('the state of a queue pair', () => {
  it('drains in SQD and says so, goes on in RTS, flushes in ERR, and starts over after RESET', () => {
    const pair = new HostPair();
    const statuses: number[] = [];
    const done = pair.run(
      (function* (): Sim<void> {
        const { verbs } = pair.a;
        const a = yield* open(pair.a);
        yield* ready(a);
        yield* postWrites(a, 3);
        yield* verbs.modifyQp(a.qp, { state: QPS_SQD, drainedEvent: 1 });
        expect(yield* verbs.nextAsyncEvent()).toMatchObject({
          event: EVENT_SQ_DRAINED,
          number: QPN,
        });
        yield* postWrites(a, 2); // they wait
        yield* pair.a.sleep(50 * US);
        expect(a.cq.length).toBe(3);
        yield* verbs.modifyQp(a.qp, { state: QPS_RTS });
        for (let i = 0; i < 5; i++) statuses.push((yield* a.cq.next()).status);
        expect((yield* verbs.queryQp(a.qp)).state).toBe(QPS_RTS);
        yield* verbs.postRecv(a.qp, { wrId: 9 });
        yield* verbs.modifyQp(a.qp, { state: QPS_ERR });
        yield* postWrites(a, 1, 0); // not signalled, and flushed all the same
        for (let i = 0; i < 2; i++) statuses.push((yield* a.cq.next()).status);
        expect(a.qp.sendsOutstanding + a.qp.receives.outstanding).toBe(0);
        yield* verbs.modifyQp(a.qp, { state: QPS_RESET });
        expect((yield* verbs.queryQp(a.qp)).state).toBe(QPS_RESET);
        expect(a.qp.messageCount).toBe(0);
        yield* verbs.destroyQp(a.qp);
        yield* verbs.destroyCq(a.cq);
      })(),
      (function* (): Sim<void> {
        yield* open(pair.b);
      })(),
    );
    expect(done).toBe(true);
    expect(statuses).toEqual([...new Array(5).fill(WC_SUCCESS), WC_WR_FLUSH_ERR, WC_WR_FLUSH_ERR]);
    const [counters] = pair.a.report().queuePairs.map((qp) => qp.counters);
    expect(counters).toEqual({
      send_requests: 6,
      receive_requests: 1,
      completions: 7,
      failed_completions: 2,
    });
    pair.checkLeaks();
  });
});
