/** Completion queues: overflow, events when armed, moderation, and who may destroy one. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CMD_BAD_PARAMETER,
  CMD_BAD_RESOURCE,
  CMD_BUSY,
  CMD_CREATE_CQ,
  CMD_CREATE_QP,
  CMD_DESTROY_CQ,
  CMD_DESTROY_QP,
  CMD_MODIFY_CQ,
  CMD_OK,
  CQ_ARM_NEXT,
  CQ_ARM_SOLICITED,
  EVENT_CQ_ERR,
  EVENT_QP_FATAL,
  QPS_INIT,
  QPS_RTR,
  QPS_RTS,
  QPT_RC,
  SEND_SIGNALED,
  SEND_SOLICITED,
  US,
  WC_SUCCESS,
  WR_LOCAL_INV,
  WR_SEND,
} from '../../transport/index.ts';
import { type BareHost, modify, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { Pair } from '../fixtures/pair.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';
import { local, REMOTE } from '../fixtures/work.ts';

/** A queue pair of its own, with a completion queue of `entries`: CQ 2, queue pair 0x12. */
const QPN = 0x12;
function withQueue(entries: number): LoneAdapter {
  const lone = new LoneAdapter();
  const { host } = lone;
  host.at(READY_PS / 2, () => {
    host.command(CMD_CREATE_CQ, [entries]);
    host.command(CMD_CREATE_QP, [1, 256, 256, 2, 2, QPT_RC, 0, 0]);
    modify(host, QPN, lone.setUp, [QPS_INIT, QPS_RTR, QPS_RTS]);
  });
  return lone;
}

/** An empty SEND, which the peer acknowledges. */
const send = { opcode: WR_SEND, length: 0, flags: SEND_SIGNALED };

/** Lets the peer acknowledge everything. */
function acknowledgeAll(lone: LoneAdapter): void {
  lone.peer.onPacket = ({ psn }) => lone.peer.send({ opcode: 0x11, syndrome: 0x1f, psn, qpn: QPN });
}

describe('a completion queue that overflows', () => {
  it('says so, takes no more, and takes its queue pairs to ERR', () => {
    const lone = withQueue(4);
    const { host } = lone;
    acknowledgeAll(lone);
    host.at(READY_PS, () => {
      for (let wrId = 1; wrId <= 7; wrId++) host.postSend(QPN, { ...send, wrId });
    });
    lone.drive();
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [2, WC_SUCCESS],
      [3, WC_SUCCESS],
      [4, WC_SUCCESS],
    ]);
    expect(host.events).toMatchObject([
      { event: EVENT_CQ_ERR, number: 2 },
      { event: EVENT_QP_FATAL, number: QPN },
    ]);
    const states = lone.hca.report().queuePairs.map((qp) => qp.state);
    expect(states).toEqual([QPS_RTS, 6]);
  });

  it('in the middle of a flush', () => {
    const lone = withQueue(3);
    const { host } = lone;
    host.at(READY_PS, () => {
      for (let wrId = 1; wrId <= 7; wrId++) host.postSend(QPN, { ...send, wrId });
      host.postSend(QPN, { opcode: 99, wrId: 8 });
    });
    lone.peer.at(READY_PS + 50 * US, () =>
      lone.peer.send({ opcode: 0x11, syndrome: 0x61, psn: 100, qpn: QPN }),
    );
    lone.drive();
    expect(host.completions.map((c) => c.wrId)).toEqual([1, 2, 3]);
    expect(host.events.map((e) => e.event)).toEqual([EVENT_CQ_ERR, EVENT_QP_FATAL]);
  });

  it('never does while the host takes entries out, however many there are', () => {
    const lone = withQueue(4);
    const { host } = lone;
    acknowledgeAll(lone);
    let taken = 0;
    host.onCompletion = () => host.ringCq(2, ++taken, 0);
    for (let wrId = 0; wrId < 100; wrId++) {
      host.at(READY_PS + wrId * 5 * US, () => host.postSend(QPN, { ...send, wrId }));
    }
    lone.drive();
    expect(taken).toBe(100);
    expect(host.events).toEqual([]);
  });

  it('is not helped by a host that claims entries it cannot have taken', () => {
    for (const claim of [100, -1, 5]) {
      const lone = withQueue(4);
      const { host } = lone;
      acknowledgeAll(lone);
      host.at(READY_PS, () => {
        for (let wrId = 1; wrId <= 4; wrId++) host.postSend(QPN, { ...send, wrId });
      });
      host.at(READY_PS + 50 * US, () => host.ringCq(2, claim, 0));
      host.at(READY_PS + 60 * US, () => host.postSend(QPN, { ...send, wrId: 5 }));
      lone.drive();
      expect(host.completions.length).toBe(4);
      expect(host.events[0]).toMatchObject({ event: EVENT_CQ_ERR });
    }
  });
});

describe('an armed completion queue', () => {
  /** B receives SENDs, some of them solicited, and arms its queue as told. */
  function receive(arm: (host: BareHost) => void, sends: readonly number[]): Pair {
    const pair = new Pair();
    const { a, b } = pair;
    b.at(READY_PS - 20 * US, () => {
      for (let i = 0; i < sends.length; i++) b.postReceive(0x11, i, REGION_KEY, REMOTE, 100);
      arm(b);
    });
    sends.forEach((flags, i) => {
      a.at(READY_PS + i * 20 * US, () =>
        a.postSend(0x11, { ...local, opcode: WR_SEND, length: 10, flags }),
      );
    });
    pair.drive();
    return pair;
  }

  it('raises one event with the next entry, behind it', () => {
    const { b } = receive((host) => host.ringCq(1, 0, CQ_ARM_NEXT), [0, 0, SEND_SOLICITED]);
    expect(b.cqEvents).toMatchObject([{ cqn: 1 }]);
    expect(b.cqEvents[0].timePs).toBeGreaterThanOrEqual(b.completions[0].timePs);
    expect(b.cqEvents[0].timePs).toBeLessThan(b.completions[1].timePs);
  });

  it('for solicited entries lets others pass', () => {
    const { b } = receive((host) => host.ringCq(1, 0, CQ_ARM_SOLICITED), [0, SEND_SOLICITED, 0]);
    expect(b.cqEvents.length).toBe(1);
    expect(b.cqEvents[0].timePs).toBeGreaterThanOrEqual(b.completions[1].timePs);
    // 16: solicited.
    expect(b.completions.map((c) => c.flags & 16)).toEqual([0, 16, 0]);
  });

  it('for the next entry stays so when solicited ones are asked for as well', () => {
    const { b } = receive(
      (host) => {
        host.ringCq(1, 0, CQ_ARM_NEXT);
        host.ringCq(1, 0, CQ_ARM_SOLICITED);
      },
      [0, SEND_SOLICITED],
    );
    expect(b.cqEvents.length).toBe(1);
    expect(b.cqEvents[0].timePs).toBeLessThan(b.completions[1].timePs);
  });

  it('for solicited entries raises one for a failure too', () => {
    const lone = new LoneAdapter();
    const { host } = lone;
    host.at(READY_PS, () => {
      host.ringCq(1, 0, CQ_ARM_SOLICITED);
      host.postSend(0x11, { opcode: WR_LOCAL_INV, rkey: 0x999, wrId: 1 });
    });
    lone.drive();
    expect(host.cqEvents.length).toBe(1);
  });

  it('that is not armed raises none', () => {
    const { b } = receive(() => {}, [0, SEND_SOLICITED]);
    expect(b.cqEvents).toEqual([]);
  });
});

describe('moderation', () => {
  /** Entries at multiples of 20 us; returns when events came, in microseconds from the first. */
  function events(count: number, periodUs: number, sends: number): number[] {
    const lone = withQueue(256);
    const { host } = lone;
    acknowledgeAll(lone);
    host.at(READY_PS / 2, () => host.command(CMD_MODIFY_CQ, [2, count, periodUs]));
    host.at(READY_PS, () => host.ringCq(2, 0, CQ_ARM_NEXT));
    for (let wrId = 0; wrId < sends; wrId++) {
      host.at(READY_PS + (20 + wrId * 20) * US, () => host.postSend(QPN, { ...send, wrId }));
    }
    lone.drive();
    const first = host.completions[0].timePs;
    return host.cqEvents.map((e) => Math.floor((e.timePs - first) / US));
  }

  it.each([
    ['each entry', 0, 0, [0]],
    ['a count of one', 1, 500, [0]],
    ['four entries', 4, 0, [60]],
    ['four entries, or 30 us', 4, 30, [30]],
    ['30 us alone', 0, 30, [30]],
    ['more entries than come', 9, 0, []],
    ['more entries than come, or 1 ms', 9, 1000, [1000]],
  ])('after %s', (_, count, periodUs, expected) => {
    expect(events(count, periodUs, 6)).toEqual(expected);
  });

  it('starts anew when the queue is armed again', () => {
    const lone = withQueue(256);
    const { host } = lone;
    acknowledgeAll(lone);
    host.at(READY_PS / 2, () => host.command(CMD_MODIFY_CQ, [2, 2, 100]));
    host.at(READY_PS, () => host.ringCq(2, 0, CQ_ARM_NEXT));
    // The second entry raises the event, before the 100 us of the first are over.
    for (const at of [20, 30]) host.at(READY_PS + at * US, () => host.postSend(QPN, send));
    host.at(READY_PS + 60 * US, () => host.ringCq(2, 2, CQ_ARM_NEXT));
    host.at(READY_PS + 100 * US, () => host.postSend(QPN, send));
    lone.drive();
    const at = host.cqEvents.map((e) => Math.floor((e.timePs - READY_PS) / US / 10));
    expect(at).toEqual([3, 20]);
  });
});

describe('arming again', () => {
  it('while an event is due does not put it off', () => {
    const lone = withQueue(256);
    const { host } = lone;
    acknowledgeAll(lone);
    host.at(READY_PS / 2, () => host.command(CMD_MODIFY_CQ, [2, 9, 50]));
    host.at(READY_PS, () => host.ringCq(2, 0, CQ_ARM_NEXT));
    host.at(READY_PS + 20 * US, () => host.postSend(QPN, send));
    for (const at of [40, 60]) host.at(READY_PS + at * US, () => host.ringCq(2, 0, CQ_ARM_NEXT));
    lone.drive();
    expect(host.cqEvents.length).toBe(1);
    expect(host.cqEvents[0].timePs).toBeLessThan(READY_PS + 80 * US);
  });
});

describe('a completion queue', () => {
  it('is not destroyed while a queue pair uses it, and its number is then wrong', () => {
    const lone = withQueue(4);
    const { host } = lone;
    const tags: number[] = [];
    host.at(READY_PS, () => {
      tags.push(host.command(CMD_DESTROY_CQ, [2]));
      host.command(CMD_DESTROY_QP, [QPN]);
      tags.push(host.command(CMD_DESTROY_CQ, [2]));
      tags.push(host.command(CMD_DESTROY_CQ, [2]));
      tags.push(host.command(CMD_MODIFY_CQ, [2, 1, 1]));
      tags.push(host.command(CMD_CREATE_QP, [1, 4, 4, 2, 1, QPT_RC, 0, 0]));
      tags.push(host.command(CMD_MODIFY_CQ, [1, 0x10000, 1]));
      host.ringCq(2, 1, 1);
    });
    lone.drive();
    expect(tags.map((tag) => host.results.get(tag)?.status)).toEqual([
      CMD_BUSY,
      CMD_OK,
      CMD_BAD_RESOURCE,
      CMD_BAD_RESOURCE,
      CMD_BAD_RESOURCE,
      CMD_BAD_PARAMETER,
    ]);
  });

  it('posts each entry once, whatever the host does with its doorbell', () => {
    const step = fc.record({
      at: fc.nat({ max: 3000 }),
      taken: fc.integer({ min: -5, max: 60 }),
      arm: fc.nat({ max: 2 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), fc.nat({ max: 4 }), (steps, count) => {
        const lone = withQueue(256);
        const { host } = lone;
        acknowledgeAll(lone);
        host.at(READY_PS / 2, () => host.command(CMD_MODIFY_CQ, [2, count, 50]));
        for (let wrId = 0; wrId < 30; wrId++) {
          host.at(READY_PS + wrId * 100 * US, () => host.postSend(QPN, { ...send, wrId }));
        }
        let arms = 0;
        for (const { at, taken, arm } of steps) {
          if (arm !== 0) arms++;
          host.at(READY_PS + at * US, () => host.ringCq(2, taken, arm));
        }
        lone.drive();
        expect(host.completions.map((c) => c.wrId)).toEqual(
          Array.from({ length: 30 }, (_, i) => i),
        );
        expect(host.cqEvents.length).toBeLessThanOrEqual(arms);
      }),
      { numRuns: 30 },
    );
  });
});
