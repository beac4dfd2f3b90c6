/** The announced suspend of a protection domain: a peer that knows of it waits, one that does not retries. */
import { describe, expect, it } from 'vitest';
import {
  ANNOUNCE_PD_RESUME,
  ANNOUNCE_PD_SUSPEND,
  BUS_PD_RESUME,
  BUS_PD_SUSPEND,
  MS,
  QPT_UC,
  QPT_UD,
  RC_ACKNOWLEDGE,
  RC_READ_RESPONSE_ONLY,
  SEC,
  US,
  WC_RETRY_EXC_ERR,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import type { Pair, PairOptions } from '../fixtures/pair.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';
import { local, newPair, QPN, REMOTE, statuses } from '../fixtures/work.ts';

const write = { ...local, opcode: WR_RDMA_WRITE, length: 5000 };
/** Time-outs of 131 us, two retries: a silent peer is given up after half a millisecond. */
const impatient = {
  profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
  setUpA: { timeout: 5, retryCnt: 2 },
  setUpB: { timeout: 5, retryCnt: 2 },
};

/** A writes to B all the time while B's domain is suspended for 5 ms. */
function suspended(options: PairOptions): Pair {
  const pair = newPair({ ...impatient, ...options });
  const { a, b } = pair;
  for (let wrId = 0; wrId < 60; wrId++) {
    a.at(READY_PS + wrId * 100 * US, () => a.postSend(QPN, { ...write, wrId }));
  }
  a.fill(local.address as number, 5000, 3);
  b.at(READY_PS + 503 * US, () => b.protectionDomain(BUS_PD_SUSPEND, 1));
  b.at(READY_PS + 5500 * US, () => b.protectionDomain(BUS_PD_RESUME, 1));
  pair.drive();
  return pair;
}
const allDone = Array.from({ length: 60 }, (_, i) => [i, WC_SUCCESS]);

describe('a suspend', () => {
  it('that is silent costs the peer its retries', () => {
    const pair = suspended({});
    expect(statuses(pair).some(([, status]) => status === WC_RETRY_EXC_ERR)).toBe(true);
  });

  it('that is announced costs it nothing', () => {
    const pair = suspended({ pdSuspend: 'announced' });
    expect(statuses(pair)).toEqual(allDone);
    expect(pair.b.read(REMOTE, 5000)).toEqual(pair.a.read(local.address as number, 5000));
    const { queuePairs, counters } = pair.hcaA.report();
    expect(queuePairs[0].timeouts).toBe(0);
    expect(counters.req_transport_retries_exceeded).toBe(0);
    // The wait is a stall of the region.
    expect(pair.hcaA.report().regions[0].stall_ps).toBeGreaterThan(4.8 * MS);
  });

  it('leaves the same records with trains and without', () => {
    const digests = [false, true].map((trains) =>
      suspended({ trains, pdSuspend: 'announced' }).digests(),
    );
    expect(digests[1]).toEqual(digests[0]);
  });

  it('goes to the peer of each connected queue pair, and of no other', () => {
    for (const type of [QPT_UC, QPT_UD]) {
      const pair = newPair({ pdSuspend: 'announced', setUpA: { type }, setUpB: { type } });
      pair.b.at(READY_PS, () => pair.b.protectionDomain(BUS_PD_SUSPEND, 1));
      pair.drive();
      const sent = pair.hcaB.report().counters.port_xmit_packets;
      expect(sent).toBe(type === QPT_UC ? 1 : 0);
    }
  });
});

/** One adapter that knows of announcements; the test is its peer, which answers when it runs. */
function newLone(options: { announced?: boolean; timeout?: number; peerSuspendPs?: number } = {}) {
  return new LoneAdapter({
    profile: {
      ackTimeoutMinExponent: 0,
      ackTimeoutFactor: 1,
      peerSuspendPs: options.peerSuspendPs ?? SEC,
    },
    setUp: { timeout: options.timeout ?? 5, retryCnt: 2 },
    ...(options.announced === false ? {} : { pdSuspend: 'announced' as const }),
  });
}
const ack = { opcode: RC_ACKNOWLEDGE, syndrome: 0x1f };
const suspend = { opcode: ANNOUNCE_PD_SUSPEND, psn: 0 };
const resume = { opcode: ANNOUNCE_PD_RESUME, psn: 0 };

describe('a queue pair that was told', () => {
  it('sends nothing until the resume, and then what was dropped', () => {
    const lone = newLone();
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, length: 3000, wrId: 1 }));
    // Its packets are on their way while the announcement comes.
    peer.at(READY_PS + 1 * US, () => peer.send(suspend));
    host.at(READY_PS + MS, () => host.postSend(QPN, { ...write, length: 10, wrId: 2 }));
    peer.at(READY_PS + 8 * MS, () => {
      peer.send(resume);
      peer.onPacket = ({ psn, flags }) => {
        if ((flags & 2) !== 0) peer.send({ ...ack, psn });
      };
    });
    lone.drive();
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [2, WC_SUCCESS],
    ]);
    const after = peer.seen.filter((p) => p.timePs > READY_PS + 8 * MS).map((p) => p.psn);
    expect(after).toEqual([100, 101, 102, 103]);
    const between = peer.seen.filter(
      (p) => p.timePs > READY_PS + 10 * US && p.timePs < READY_PS + 8 * MS,
    );
    expect(between).toEqual([]);
    expect(lone.hca.report().queuePairs[0].timeouts).toBe(0);
  });

  it('takes answers that were on their way, and answers the peer', () => {
    const lone = newLone();
    const { host, peer } = lone;
    const read = { ...local, opcode: WR_RDMA_READ, length: 10 };
    host.at(READY_PS, () => {
      host.postSend(QPN, { ...read, wrId: 1 });
      host.postReceive(QPN, 7, REGION_KEY, REMOTE, 100);
    });
    peer.at(READY_PS + 20 * US, () => {
      peer.send(suspend);
      peer.send({ ...ack, opcode: RC_READ_RESPONSE_ONLY, psn: 100, payload: new Uint8Array(10) });
      peer.send({ opcode: 4, psn: 100, flags: 2 });
    });
    lone.drive();
    expect(host.completions).toMatchObject([
      { wrId: 1, status: WC_SUCCESS },
      { wrId: 7, status: WC_SUCCESS },
    ]);
    expect(peer.seen.map((p) => p.opcode)).toEqual([12, RC_ACKNOWLEDGE]);
  });

  it('asks again after a while when the resume was lost', () => {
    const lone = newLone({ peerSuspendPs: 20 * MS });
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, length: 10, wrId: 1 }));
    peer.at(READY_PS + 1 * US, () => peer.send(suspend));
    peer.at(READY_PS + 10 * MS, () => {
      peer.onPacket = ({ psn }) => peer.send({ ...ack, psn });
    });
    lone.drive();
    expect(host.completions).toMatchObject([{ wrId: 1, status: WC_SUCCESS }]);
    expect(host.completions[0].timePs).toBeGreaterThan(READY_PS + 20 * MS);
    expect(host.completions[0].timePs).toBeLessThan(READY_PS + 21 * MS);
  });

  it('is told again: the fall-back starts anew', () => {
    const lone = newLone({ peerSuspendPs: 20 * MS });
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, length: 10, wrId: 1 }));
    peer.at(READY_PS + 1 * US, () => peer.send(suspend));
    peer.at(READY_PS + 15 * MS, () => peer.send(suspend));
    peer.at(READY_PS + 34 * MS, () => {
      expect(peer.seen.length).toBe(1);
      peer.onPacket = ({ psn }) => peer.send({ ...ack, psn });
    });
    lone.drive();
    expect(host.completions[0].timePs).toBeGreaterThan(READY_PS + 35 * MS);
  });

  it('a resume without a suspend changes nothing', () => {
    const lone = newLone({ timeout: 0 });
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, length: 10 }));
    peer.at(READY_PS + 10 * US, () => peer.send(resume));
    lone.drive();
    expect(peer.seen.length).toBe(1);
  });
});

describe('an announcement that is lost', () => {
  it('leaves time-outs and retries, as with a silent suspend', () => {
    const lone = newLone();
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, length: 10 }));
    lone.drive();
    expect(host.completions).toMatchObject([{ status: WC_RETRY_EXC_ERR }]);
    expect(peer.seen.length).toBe(3);
  });

  it('is like one to an adapter that does not know the opcode', () => {
    const lone = newLone({ announced: false });
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...local, opcode: WR_SEND, length: 10 }));
    peer.at(READY_PS + 1 * US, () => peer.send(suspend));
    lone.drive();
    expect(host.completions).toMatchObject([{ status: WC_RETRY_EXC_ERR }]);
    expect(peer.seen.map((p) => p.opcode)).toEqual([4, 4, 4]);
    expect(lone.hca.report().counters.header_drops).toBe(1);
  });
});
