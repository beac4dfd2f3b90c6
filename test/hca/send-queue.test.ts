/** Work requests that cannot be sent, and faults of the requester: who fails, and who must not. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  BUS_PD_RESUME,
  BUS_PD_SUSPEND,
  CMD_DESTROY_QP,
  MS,
  QPS_INIT,
  QPS_RTR,
  QPS_RTS,
  RC_ACKNOWLEDGE,
  US,
  WC_LOC_LEN_ERR,
  WC_LOC_PROT_ERR,
  WC_LOC_QP_OP_ERR,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { modify, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair } from '../fixtures/pair.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';

const QPN = 0x11;
const write = {
  opcode: WR_RDMA_WRITE,
  lkey: REGION_KEY,
  rkey: REGION_KEY,
  address: BASE,
  remote: BASE,
  length: 3000,
};
const ack = { opcode: RC_ACKNOWLEDGE, syndrome: 0x1f };
const present = (page: number): number => (page << 2) | ACCESS_WRITE | ACCESS_READ;
const statuses = (pair: Pair): number[][] => pair.a.completions.map((c) => [c.wrId, c.status]);

describe('a work request that cannot be sent', () => {
  it.each([
    ['an opcode that does not exist', { opcode: 77 }, WC_LOC_QP_OP_ERR],
    ['a message above 1 GiB', { length: 2 ** 30 + 1 }, WC_LOC_LEN_ERR],
    ['a READ above 1 GiB', { opcode: WR_RDMA_READ, length: -4096 }, WC_LOC_LEN_ERR],
  ])('%s fails when it is its turn, and flushes what is behind', (_, change, status) => {
    const pair = new Pair();
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...write, wrId: 1 });
      pair.a.postSend(QPN, { ...write, ...change, wrId: 2 });
      pair.a.postSend(QPN, { ...write, wrId: 3 });
    });
    pair.drive();
    expect(statuses(pair)).toEqual([
      [1, WC_SUCCESS],
      [2, status],
      [3, WC_WR_FLUSH_ERR],
    ]);
  });

  it('a READ from a queue pair that may have none outstanding fails', () => {
    const lone = new LoneAdapter({ setUp: { maxRdAtomic: 0 } });
    const { host } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, opcode: WR_RDMA_READ, length: 0 }));
    lone.drive();
    expect(host.completions).toMatchObject([{ status: WC_LOC_QP_OP_ERR }]);
  });

  it('two of them: the first decides, though the second was found out earlier', () => {
    const pair = new Pair();
    pair.a.at(READY_PS - 5 * US, () => pair.a.table(REGION_KEY, 0, 1, () => 0));
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...write, wrId: 1 });
      pair.a.postSend(QPN, { ...write, lkey: 0x4242, wrId: 2 });
      pair.a.postSend(QPN, { ...write, opcode: 77, wrId: 3 });
    });
    pair.a.at(READY_PS + MS, () => {
      pair.a.table(REGION_KEY, 0, 1, () => present(BASE / 4096));
      pair.a.resumeFault(pair.a.faults[0].token);
    });
    pair.drive();
    expect(statuses(pair)).toEqual([
      [1, WC_SUCCESS],
      [2, WC_LOC_PROT_ERR],
      [3, WC_WR_FLUSH_ERR],
    ]);
  });

  it('a fault that cannot be served fails its work request, not the one that sending went back to', () => {
    // The first message is lost once, so sending goes back to it while the second one's fault is out.
    const lone = new LoneAdapter({
      profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
      setUp: { timeout: 5 },
    });
    const { host, peer } = lone;
    host.at(READY_PS - 5 * US, () => host.table(REGION_KEY, 4, 1, () => 0));
    host.at(READY_PS, () => {
      host.postSend(QPN, { ...write, wrId: 1, length: 100 });
      host.postSend(QPN, { ...write, wrId: 2, length: 100, address: BASE + 4 * 4096 });
    });
    // The time-out is 131 us, the event comes after 130; it is refused after the time-out.
    host.at(READY_PS + 0.25 * MS, () => host.resumeFault(host.faults[0].token, 1));
    // Only the third copy of the first message is acknowledged.
    peer.onPacket = ({ psn }) => {
      const copies = peer.seen.filter((p) => p.psn === psn).length;
      if (copies === 3) peer.send({ ...ack, psn });
    };
    lone.drive();
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [2, WC_LOC_PROT_ERR],
    ]);
  });

  it('a fault of a message that was acknowledged meanwhile fails nobody', () => {
    const lone = new LoneAdapter({
      profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
      setUp: { timeout: 5 },
    });
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, wrId: 1, length: 100 }));
    // The page goes away after it was sent; the time-out at 131 us reads it again and faults.
    host.at(READY_PS + 50 * US, () => host.table(REGION_KEY, 0, 1, () => 0));
    peer.at(READY_PS + 200 * US, () => peer.send({ ...ack, psn: 100 }));
    host.at(READY_PS + 400 * US, () => {
      expect(host.completions).toMatchObject([{ wrId: 1, status: WC_SUCCESS }]);
      host.postSend(QPN, { ...write, wrId: 2, length: 100, address: BASE + 8192 });
      host.resumeFault(host.faults[0].token, 1);
    });
    peer.onPacket = ({ psn }) => {
      if (psn === 101) peer.send({ ...ack, psn });
    };
    lone.drive();
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [2, WC_SUCCESS],
    ]);
    expect(lone.pool.burstsInUse).toBe(0);
  });

  it('a fault that outlives its message does not hold up what takes its place in the queue', () => {
    const lone = new LoneAdapter({
      profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
      setUp: { timeout: 5 },
    });
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, wrId: 0, length: 100 }));
    // As above: read again after the time-out, it faults, and is acknowledged while the fault is out.
    host.at(READY_PS + 50 * US, () => host.table(REGION_KEY, 0, 1, () => 0));
    peer.at(READY_PS + 200 * US, () => peer.send({ ...ack, psn: 100 }));
    // Messages without data go on, until one with data stands in the row where reading stopped.
    for (let wrId = 1; wrId <= 257; wrId++) {
      const length = wrId === 257 ? 100 : 0;
      host.at(READY_PS + (200 + 10 * wrId) * US, () =>
        host.postSend(QPN, { ...write, wrId, length, address: BASE + 8192 }),
      );
    }
    peer.onPacket = ({ psn }) => {
      if (psn !== 100) peer.send({ ...ack, psn });
    };
    host.at(READY_PS + 5 * MS, () => {
      host.table(REGION_KEY, 0, 1, () => present(BASE / 4096));
      host.resumeFault(host.faults[0].token);
    });
    lone.drive();
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual(
      Array.from({ length: 258 }, (_, i) => [i, WC_SUCCESS]),
    );
    expect(lone.pool.burstsInUse).toBe(0);
  });
});

describe('a doorbell', () => {
  it('of a queue pair that is not ready to send is ignored, and what is posted later works', () => {
    const lone = new LoneAdapter({ setUp: { states: [QPS_INIT, QPS_RTR] } });
    const { host, peer } = lone;
    const send = { opcode: WR_SEND, lkey: 0, address: 0, length: 0 };
    host.at(READY_PS / 2, () => host.postSend(QPN, { ...send, wrId: 1 }));
    host.at(READY_PS - 10 * US, () => modify(host, QPN, lone.setUp, [QPS_RTS]));
    host.at(READY_PS, () => host.postSend(QPN, { ...send, wrId: 2 }));
    peer.onPacket = ({ psn }) => peer.send({ ...ack, psn });
    lone.drive();
    expect(peer.seen.map((p) => p.psn)).toEqual([100]);
    expect(host.completions).toMatchObject([{ wrId: 2, status: WC_SUCCESS }]);
  });

  it('of a queue pair that is gone is ignored, and its reads ahead end', () => {
    const pair = new Pair();
    pair.a.at(READY_PS - 5 * US, () => pair.a.table(REGION_KEY, 0, 1, () => 0));
    pair.a.at(READY_PS, () => {
      for (let wrId = 0; wrId < 8; wrId++) pair.a.postSend(QPN, { ...write, wrId });
    });
    // Destroyed while the fault of the first work request is out; the pages come all the same.
    pair.a.at(READY_PS + MS, () => pair.a.command(CMD_DESTROY_QP, [QPN]));
    pair.a.at(READY_PS + 2 * MS, () => {
      pair.a.table(REGION_KEY, 0, 1, () => present(BASE / 4096));
      pair.a.resumeFault(pair.a.faults[0].token);
      pair.a.postSend(QPN, { ...write, wrId: 9 });
    });
    pair.drive();
    expect(statuses(pair)).toEqual(Array.from({ length: 8 }, (_, i) => [i, WC_WR_FLUSH_ERR]));
    expect(pair.hcaA.report().counters.port_xmit_packets).toBe(0);
    expect(pair.pool.burstsInUse).toBe(0);
    pair.hcaA.checkLeaks();
  });
});

describe('the stall of a region', () => {
  it('does not count time in which there was nothing to send', () => {
    const pair = new Pair();
    pair.a.at(READY_PS, () => pair.a.protectionDomain(BUS_PD_SUSPEND, 1));
    pair.a.at(READY_PS + MS, () => pair.a.protectionDomain(BUS_PD_RESUME, 1));
    pair.a.at(READY_PS + 50 * MS, () => pair.a.postSend(QPN, { ...write, wrId: 1 }));
    pair.drive();
    expect(statuses(pair)).toEqual([[1, WC_SUCCESS]]);
    expect(pair.hcaA.report().regions[0].stall_ps).toBe(0);
  });

  it('counts from the post while the protection domain is suspended', () => {
    const pair = new Pair();
    pair.a.at(READY_PS, () => pair.a.protectionDomain(BUS_PD_SUSPEND, 1));
    pair.a.at(READY_PS + 2 * MS, () => pair.a.postSend(QPN, { ...write, wrId: 1 }));
    pair.a.at(READY_PS + 5 * MS, () => pair.a.protectionDomain(BUS_PD_RESUME, 1));
    pair.drive();
    const { stall_ps } = pair.hcaA.report().regions[0];
    expect(stall_ps).toBeGreaterThan(2.9 * MS);
    expect(stall_ps).toBeLessThan(3.1 * MS);
  });
});
