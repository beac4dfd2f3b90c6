/** What a queue pair does in each state: draining, send errors, flushing, and a fresh start. */
import { describe, expect, it } from 'vitest';
import {
  BUS_RECV_DOORBELL,
  CMD_BAD_PARAMETER,
  CMD_OK,
  CMD_QUERY_QP,
  EVENT_QP_FATAL,
  EVENT_QP_LAST_WQE_REACHED,
  EVENT_SQ_DRAINED,
  EVENT_SRQ_ERR,
  MS,
  NS,
  QP_EN_SQD_ASYNC_NOTIFY,
  QP_STATE,
  QPA_EN_SQD_ASYNC_NOTIFY,
  QPA_SQ_PSN,
  QPA_STATE,
  QPS_ERR,
  QPS_INIT,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  QPS_SQE,
  QPT_UC,
  QPT_UD,
  RC_ACKNOWLEDGE,
  US,
  WC_LOC_LEN_ERR,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { type BareHost, modify, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';
import { local, newPair, QPN, REMOTE, statuses, UD } from '../fixtures/work.ts';

const write = { ...local, opcode: WR_RDMA_WRITE, length: 3000 };
const ack = { opcode: RC_ACKNOWLEDGE, syndrome: 0x1f };

function toState(host: BareHost, state: number, notify = false): number {
  const mask = QP_STATE | (notify ? QP_EN_SQD_ASYNC_NOTIFY : 0);
  return host.modifyQp(QPN, mask, { [QPA_STATE]: state, [QPA_EN_SQD_ASYNC_NOTIFY]: 1 });
}

/** State, PSN of the next packet, and sq_draining at the end of a run. */
function queried(host: BareHost, tag: number): number[] {
  const result = host.results.get(tag);
  return [
    result?.mailbox[QPA_STATE] ?? -1,
    result?.mailbox[QPA_SQ_PSN] ?? -1,
    result?.result ?? -1,
  ];
}

describe('SQD', () => {
  it('finishes what has begun, begins nothing, says so, and goes on in RTS', () => {
    const lone = new LoneAdapter({ setUp: { mtu: 256 } });
    const { host, peer } = lone;
    const tags: number[] = [];
    host.at(READY_PS, () => {
      host.postSend(QPN, { ...write, length: 100_000, wrId: 1 });
      host.postSend(QPN, { ...write, length: 100, wrId: 2 });
    });
    // 391 packets; the window of 256 stops sending in the middle of the message.
    host.at(READY_PS + 100 * US, () => {
      tags.push(toState(host, QPS_SQD, true));
      tags.push(host.command(CMD_QUERY_QP, [QPN]));
      // Attributes cannot be changed, nor sending be taken up again, before it is drained.
      tags.push(toState(host, QPS_RTS), toState(host, QPS_SQD));
      host.postSend(QPN, { ...write, length: 100, wrId: 3 });
    });
    peer.at(READY_PS + 200 * US, () => {
      expect(peer.seen.length).toBe(256);
      expect(host.events).toEqual([]);
      peer.send({ ...ack, psn: 100 + 255 });
      peer.onPacket = ({ psn, flags }) => {
        if ((flags & 2) !== 0) peer.send({ ...ack, psn });
      };
    });
    host.at(READY_PS + 300 * US, () => {
      expect(peer.seen.length).toBe(391);
      expect(host.completions.map((c) => c.wrId)).toEqual([1]);
      expect(host.events).toMatchObject([{ event: EVENT_SQ_DRAINED, number: QPN }]);
      expect(host.events[0].timePs).toBeGreaterThan(host.completions[0].timePs);
      tags.push(host.command(CMD_QUERY_QP, [QPN]), toState(host, QPS_RTS));
    });
    lone.drive();
    expect(queried(host, tags[1])).toEqual([QPS_SQD, 100 + 256, 1]);
    expect(tags.slice(2, 4).map((tag) => host.results.get(tag)?.status)).toEqual([
      CMD_BAD_PARAMETER,
      CMD_BAD_PARAMETER,
    ]);
    expect(queried(host, tags[4])).toEqual([QPS_SQD, 100 + 391, 0]);
    expect(host.results.get(tags[5])?.status).toBe(CMD_OK);
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [2, WC_SUCCESS],
      [3, WC_SUCCESS],
    ]);
    expect(host.events.length).toBe(1);
  });

  it('with nothing to drain is drained at once; without being asked says nothing', () => {
    for (const notify of [true, false]) {
      const lone = new LoneAdapter();
      lone.host.at(READY_PS, () => toState(lone.host, QPS_SQD, notify));
      lone.drive();
      expect(lone.host.asyncEvents).toEqual(notify ? [EVENT_SQ_DRAINED] : []);
    }
  });

  it('drains messages that were lost and are sent again', () => {
    const lone = new LoneAdapter({
      profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
      setUp: { timeout: 5 },
    });
    const { host, peer } = lone;
    host.at(READY_PS, () => {
      for (const wrId of [1, 2]) host.postSend(QPN, { ...write, wrId });
      host.postSend(QPN, { ...local, opcode: WR_RDMA_READ, length: 10, wrId: 3 });
    });
    host.at(READY_PS + 20 * US, () => toState(host, QPS_SQD, true));
    host.at(READY_PS + 40 * US, () => host.postSend(QPN, { ...write, wrId: 4 }));
    peer.onPacket = ({ psn }) => {
      const copies = peer.seen.filter((p) => p.psn === psn).length;
      if (copies < 2) return;
      if (psn === 105) peer.send({ ...ack, psn });
      if (psn === 106) peer.send({ ...ack, opcode: 0x10, psn, payload: new Uint8Array(10) });
    };
    lone.drive();
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [2, WC_SUCCESS],
      [3, WC_SUCCESS],
    ]);
    expect(host.asyncEvents).toEqual([EVENT_SQ_DRAINED]);
    expect(peer.seen.some((p) => p.psn === 107)).toBe(false);
  });

  it('begun while sending goes back drains all that was sent before', () => {
    for (let delay = 0; delay < 30; delay++) {
      const lone = new LoneAdapter({
        profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1, commandPs: 1 },
        setUp: { timeout: 5 },
        limitPs: READY_PS + 50 * MS,
      });
      const { host, peer } = lone;
      host.at(READY_PS, () => {
        for (const wrId of [1, 2, 3]) host.postSend(QPN, { ...write, length: 100, wrId });
      });
      // The time-out is 131 us after the first packet; data are read again before any is sent.
      host.at(READY_PS + 130 * US + delay * 100 * NS, () => toState(host, QPS_SQD, true));
      host.at(READY_PS + 300 * US, () => {
        peer.onPacket = ({ psn }) => peer.send({ ...ack, psn });
      });
      lone.drive();
      expect(host.completions.map((c) => c.wrId)).toEqual([1, 2, 3]);
      expect(host.asyncEvents).toEqual([EVENT_SQ_DRAINED]);
    }
  });

  it('goes to ERR while it drains: everything is flushed', () => {
    const lone = new LoneAdapter();
    const { host } = lone;
    host.at(READY_PS, () => {
      for (const wrId of [1, 2]) host.postSend(QPN, { ...write, wrId });
    });
    host.at(READY_PS + 50 * US, () => {
      toState(host, QPS_SQD, true);
      toState(host, QPS_ERR);
    });
    lone.drive();
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_WR_FLUSH_ERR],
      [2, WC_WR_FLUSH_ERR],
    ]);
    expect(host.asyncEvents).toEqual([]);
  });

  it('still receives', () => {
    const pair = newPair();
    pair.b.at(READY_PS - 20 * US, () => {
      toState(pair.b, QPS_SQD);
      pair.b.postReceive(QPN, 7, REGION_KEY, REMOTE, 100);
    });
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, { ...local, opcode: WR_SEND, length: 100 }));
    pair.drive();
    expect(pair.b.completions).toMatchObject([{ wrId: 7, status: WC_SUCCESS }]);
  });
});

describe('SQE', () => {
  it.each([
    ['UC', QPT_UC],
    ['UD', QPT_UD],
  ])('of %s flushes sends, still receives, and is left for RTS', (_, type) => {
    const pair = newPair({ setUpA: { type }, setUpB: { type } });
    const { a, b } = pair;
    const send = { ...local, opcode: WR_SEND, length: 10, ud: UD };
    let query = 0;
    b.at(READY_PS - 20 * US, () => {
      for (const wrId of [1, 2]) b.postReceive(QPN, wrId, REGION_KEY, REMOTE, 100);
    });
    a.at(READY_PS, () => {
      a.postReceive(QPN, 50, REGION_KEY, BASE + 8192, 100);
      a.postSend(QPN, { ...send, wrId: 1 });
      a.postSend(QPN, { ...send, length: type === QPT_UC ? 2 ** 30 + 1 : 5000, wrId: 2 });
      a.postSend(QPN, { ...send, wrId: 3 });
    });
    b.at(READY_PS + 50 * US, () => b.postSend(QPN, { ...send, ud: { ...UD, dlid: 1 }, wrId: 9 }));
    a.at(READY_PS + 100 * US, () => {
      query = a.command(CMD_QUERY_QP, [QPN]);
      a.postSend(QPN, { ...send, wrId: 4 });
      toState(a, QPS_RTS);
    });
    a.at(READY_PS + 200 * US, () => a.postSend(QPN, { ...send, wrId: 5 }));
    pair.drive();
    expect(a.results.get(query)?.mailbox[QPA_STATE]).toBe(QPS_SQE);
    expect(statuses(pair)).toEqual([
      [1, WC_SUCCESS],
      [2, WC_LOC_LEN_ERR],
      [3, WC_WR_FLUSH_ERR],
      [50, WC_SUCCESS],
      [4, WC_WR_FLUSH_ERR],
      [5, WC_SUCCESS],
    ]);
    // The PSNs of what was flushed were not used up: the last SEND followed the first.
    expect(b.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [9, WC_SUCCESS],
      [2, WC_SUCCESS],
    ]);
  });
});

describe('ERR', () => {
  it('flushes each queue in its order, and what is posted later', () => {
    const lone = new LoneAdapter();
    const { host } = lone;
    host.at(READY_PS, () => {
      for (const wrId of [1, 2, 3]) host.postSend(QPN, { ...write, wrId });
      for (const wrId of [11, 12]) host.postReceive(QPN, wrId, REGION_KEY, BASE, 100);
    });
    host.at(READY_PS + 50 * US, () => toState(host, QPS_ERR));
    host.at(READY_PS + 100 * US, () => {
      host.postSend(QPN, { ...write, wrId: 4 });
      host.postReceive(QPN, 13, REGION_KEY, BASE, 100);
      host.postSend(QPN, { ...write, wrId: 5 });
    });
    lone.drive();
    expect(host.completions.map((c) => c.status)).toEqual(Array(8).fill(WC_WR_FLUSH_ERR));
    expect(host.completions.map((c) => c.wrId)).toEqual([1, 2, 3, 11, 12, 4, 13, 5]);
  });

  it('with a shared receive queue leaves its receives, and says that it takes no more', () => {
    const lone = new LoneAdapter({ setUp: { srqEntries: 4 } });
    const { host } = lone;
    host.at(READY_PS, () => {
      for (const wrId of [11, 12]) {
        host.postBuffer(11, 1, wrId, [{ address: BASE, length: 100, lkey: REGION_KEY }]);
      }
      toState(host, QPS_ERR);
      toState(host, QPS_ERR);
    });
    lone.drive();
    expect(host.completions).toEqual([]);
    expect(host.events).toMatchObject([{ event: EVENT_QP_LAST_WQE_REACHED, number: QPN }]);
  });
});

describe('RESET', () => {
  it.each([QPS_RTR, QPS_RTS, QPS_SQD, QPS_ERR])(
    'from state %i forgets everything, and the queue pair can start anew',
    (state) => {
      const pair = newPair({ setUpA: { states: [QPS_INIT, QPS_RTR] } });
      const { a, b } = pair;
      const options = { address: BASE, length: 1, access: 0, qpAccess: 15 };
      a.at(READY_PS, () => {
        if (state !== QPS_RTR) modify(a, QPN, { ...options, peerLid: 2 }, [QPS_RTS]);
      });
      a.at(READY_PS + 20 * US, () => {
        for (const wrId of [1, 2]) {
          a.postSend(QPN, { ...write, length: 200_000, wrId });
          a.postReceive(QPN, 10 + wrId, REGION_KEY, BASE, 100);
        }
      });
      a.at(READY_PS + 25 * US, () => {
        if (state >= QPS_SQD) toState(a, state);
        toState(a, QPS_RESET);
      });
      b.at(READY_PS + 25 * US, () => toState(b, QPS_RESET));
      const later = READY_PS + MS;
      const ways = [QPS_INIT, QPS_RTR, QPS_RTS];
      a.at(later, () => {
        a.completions.length = 0;
        modify(a, QPN, { ...options, peerLid: 2, sendPsn: 0xfffffe }, ways);
      });
      b.at(later, () => {
        modify(b, QPN, { ...options, peerLid: 1, receivePsn: 0xfffffe }, ways);
        b.postReceive(QPN, 20, REGION_KEY, REMOTE, 5000);
      });
      a.fill(BASE, 5000, 3);
      b.at(later + 100 * US, () => b.postReceive(QPN, 21, REGION_KEY, REMOTE, 5000));
      a.at(later + 150 * US, () => {
        a.postSend(QPN, { ...local, opcode: WR_SEND, length: 5000, wrId: 3 });
      });
      pair.drive();
      expect(statuses(pair)).toEqual([[3, WC_SUCCESS]]);
      expect(b.completions).toMatchObject([{ wrId: 21, status: WC_SUCCESS, bytes: 5000 }]);
      expect(b.read(REMOTE, 5000)).toEqual(a.read(BASE, 5000));
      expect(pair.pool.burstsInUse).toBe(0);
      pair.hcaA.checkLeaks();
    },
  );

  it('while a page fault of its requester is out: the fault belongs to nobody', () => {
    const pair = newPair();
    const { a } = pair;
    const options = { address: BASE, length: 1, access: 0, qpAccess: 15, peerLid: 2 };
    a.at(READY_PS - 20 * US, () => a.table(REGION_KEY, 0, 1, () => 0));
    a.at(READY_PS, () => a.postSend(QPN, { ...write, wrId: 1 }));
    a.at(READY_PS + 50 * US, () => {
      toState(a, QPS_RESET);
      modify(a, QPN, { ...options, sendPsn: 100 }, [QPS_INIT, QPS_RTR, QPS_RTS]);
    });
    a.at(READY_PS + MS, () => {
      a.postSend(QPN, { ...write, address: BASE + 8192, wrId: 2 });
      a.resumeFault(a.faults[0].token, 1);
    });
    pair.drive();
    expect(statuses(pair)).toEqual([[2, WC_SUCCESS]]);
  });
});

describe('a full queue', () => {
  it('of sends: the queue pair fails, and everything is flushed', () => {
    const lone = new LoneAdapter({ setUp: { entries: 4 } });
    const { host } = lone;
    host.at(READY_PS, () => {
      for (let wrId = 1; wrId <= 5; wrId++) host.postSend(QPN, { ...write, wrId });
    });
    lone.drive();
    expect(host.events).toMatchObject([{ event: EVENT_QP_FATAL, number: QPN }]);
    expect(host.completions.map((c) => c.wrId)).toEqual([1, 2, 3, 4]);
    expect(host.completions.every((c) => c.status === WC_WR_FLUSH_ERR)).toBe(true);
  });

  it('of receives: the same', () => {
    const lone = new LoneAdapter({ setUp: { entries: 4 } });
    const { host } = lone;
    host.at(READY_PS, () => {
      for (let wrId = 1; wrId <= 5; wrId++) host.postReceive(QPN, wrId, REGION_KEY, BASE, 10);
    });
    lone.drive();
    expect(host.events).toMatchObject([{ event: EVENT_QP_FATAL, number: QPN }]);
    expect(host.completions.map((c) => c.wrId)).toEqual([1, 2, 3, 4]);
  });

  it('of shared receives: an event of the queue', () => {
    const lone = new LoneAdapter({ setUp: { srqEntries: 2 } });
    const { host } = lone;
    host.at(READY_PS, () => {
      for (let wrId = 1; wrId <= 3; wrId++) {
        host.postBuffer(11, 1, wrId, [{ address: BASE, length: 10, lkey: REGION_KEY }]);
      }
    });
    lone.drive();
    expect(host.events).toMatchObject([{ event: EVENT_SRQ_ERR, number: 1 }]);
  });
});

describe('a receive posted', () => {
  it.each([
    ['in RESET is ignored', []],
    ['in INIT is kept', [QPS_INIT]],
    ['in RTR is kept', [QPS_INIT, QPS_RTR]],
  ])('%s', (_, states) => {
    const pair = newPair({ setUpB: { states } });
    const { a, b } = pair;
    const rest = [QPS_INIT, QPS_RTR, QPS_RTS].slice(states.length);
    b.at(READY_PS, () => b.postReceive(QPN, 1, REGION_KEY, REMOTE, 100));
    const options = { address: BASE, length: 1, access: 0, qpAccess: 15, peerLid: 1 };
    b.at(READY_PS + 10 * US, () => modify(b, QPN, options, rest));
    b.at(READY_PS + 50 * US, () => b.postReceive(QPN, 2, REGION_KEY, REMOTE, 100));
    a.at(READY_PS + 100 * US, () => {
      a.postSend(QPN, { ...local, opcode: WR_SEND, length: 1, wrId: 1 });
    });
    pair.drive();
    expect(b.completions.map((c) => c.wrId)).toEqual([states.length === 0 ? 2 : 1]);
  });

  it('to a queue pair with a shared queue is ignored', () => {
    const lone = new LoneAdapter({ setUp: { srqEntries: 2 } });
    const { host } = lone;
    host.at(READY_PS, () => {
      host.postBuffer(BUS_RECV_DOORBELL, QPN, 1, [{ address: BASE, length: 10, lkey: REGION_KEY }]);
      toState(host, QPS_ERR);
    });
    lone.drive();
    expect(host.completions).toEqual([]);
  });
});
