/** End-to-end credits (IBTA 9.7.7.2): how the requester obeys a peer that counts its receives. */
import { describe, expect, it } from 'vitest';
import {
  MS,
  RC_ACKNOWLEDGE,
  RC_SEND_FIRST,
  US,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { Pair } from '../fixtures/pair.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';
import { local, QPN, REMOTE } from '../fixtures/work.ts';

const AckReq = 2;
const send = { ...local, opcode: WR_SEND, length: 10 };
const credits = (psn: number, msn: number, code: number) => ({
  opcode: RC_ACKNOWLEDGE,
  psn,
  msn,
  syndrome: code,
});

/** An adapter whose time-outs never come, and a peer that answers by hand. */
function newLone(): LoneAdapter {
  return new LoneAdapter({ setUp: { timeout: 0 }, limitPs: READY_PS + 10 * MS });
}

/** PSNs that were sent by some time, in microseconds after the start. */
const sentBy = (lone: LoneAdapter, us: number): number[] =>
  lone.peer.seen.filter((p) => p.timePs < READY_PS + us * US).map((p) => p.psn);

describe('a peer that gives no credits', () => {
  it('limits nothing, nor does one that has said nothing yet', () => {
    const lone = newLone();
    const { host, peer } = lone;
    host.at(READY_PS, () => {
      for (let i = 0; i < 20; i++) host.postSend(QPN, send);
    });
    peer.at(READY_PS + 50 * US, () => peer.send(credits(101, 2, 31)));
    host.at(READY_PS + 60 * US, () => host.postSend(QPN, send));
    lone.drive();
    expect(lone.peer.seen.length).toBe(21);
  });
});

describe('a peer that counts its receives', () => {
  it('has as many messages sent as it has receives, and one that asks', () => {
    const lone = newLone();
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, send));
    // One message is done, and three receives wait: messages 2, 3, 4, and 5 to ask.
    peer.at(READY_PS + 20 * US, () => peer.send(credits(100, 1, 3)));
    host.at(READY_PS + 30 * US, () => {
      for (let i = 0; i < 6; i++) host.postSend(QPN, send);
    });
    peer.at(READY_PS + 60 * US, () => peer.send(credits(103, 4, 0)));
    peer.at(READY_PS + 80 * US, () => peer.send(credits(104, 5, 1)));
    peer.at(READY_PS + 100 * US, () => peer.send(credits(106, 7, 31)));
    lone.drive();
    expect(sentBy(lone, 60)).toEqual([100, 101, 102, 103, 104]);
    expect(sentBy(lone, 80)).toEqual([100, 101, 102, 103, 104]);
    expect(sentBy(lone, 100)).toEqual([100, 101, 102, 103, 104, 105, 106]);
    expect(host.completions.length).toBe(7);
  });

  it('sees one packet of a long message that has no receive, and all of it once it was taken', () => {
    const lone = newLone();
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, send));
    peer.at(READY_PS + 20 * US, () => peer.send(credits(100, 1, 0)));
    host.at(READY_PS + 30 * US, () => host.postSend(QPN, { ...send, length: 3000 }));
    peer.at(READY_PS + 60 * US, () => peer.send(credits(101, 1, 0)));
    lone.drive();
    expect(sentBy(lone, 60)).toEqual([100, 101]);
    expect(lone.peer.seen[1]).toMatchObject({ opcode: RC_SEND_FIRST, flags: AckReq });
    expect(sentBy(lone, 100)).toEqual([100, 101, 102, 103]);
  });

  it('counts writes and READs among the messages, but they need no receive', () => {
    const lone = newLone();
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, send));
    peer.at(READY_PS + 20 * US, () => peer.send(credits(100, 1, 0)));
    host.at(READY_PS + 30 * US, () => {
      for (const opcode of [WR_RDMA_WRITE, WR_RDMA_READ, WR_RDMA_WRITE, WR_RDMA_WRITE_WITH_IMM]) {
        host.postSend(QPN, { ...send, opcode });
      }
    });
    lone.drive();
    // The write with immediate is message 5, and the limit is 1.
    expect(sentBy(lone, 100)).toEqual([100, 101, 102, 103]);
  });

  it('may send more credits with an ACK that acknowledges nothing new', () => {
    const lone = newLone();
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, send));
    peer.at(READY_PS + 20 * US, () => peer.send(credits(100, 1, 0)));
    host.at(READY_PS + 30 * US, () => {
      for (let i = 0; i < 3; i++) host.postSend(QPN, send);
    });
    peer.at(READY_PS + 60 * US, () => peer.send(credits(100, 1, 8)));
    // An old one, late, takes nothing back; one from before that is a ghost.
    peer.at(READY_PS + 61 * US, () => peer.send(credits(100, 1, 0)));
    peer.at(READY_PS + 62 * US, () => peer.send(credits(99, 0, 31)));
    host.at(READY_PS + 70 * US, () => {
      for (let i = 0; i < 20; i++) host.postSend(QPN, send);
    });
    lone.drive();
    expect(sentBy(lone, 60)).toEqual([100, 101]);
    // Code 8 is 16 receives: messages up to 17, and one that asks.
    expect(lone.peer.seen.length).toBe(18);
  });

  it('is asked again after an RNR NAK', () => {
    const lone = newLone();
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, send));
    peer.at(READY_PS + 20 * US, () => peer.send(credits(100, 1, 0)));
    host.at(READY_PS + 30 * US, () => {
      for (let i = 0; i < 3; i++) host.postSend(QPN, send);
    });
    peer.at(READY_PS + 60 * US, () => peer.send(credits(101, 1, 0x21)));
    peer.at(READY_PS + 2 * MS, () => peer.send(credits(101, 2, 2)));
    lone.drive();
    expect(lone.peer.seen.map((p) => p.psn)).toEqual([100, 101, 101, 102, 103]);
  });
});

describe('two of our adapters with credits', () => {
  it('bring every message across, though receives are posted late and singly', () => {
    const profile = { endToEndCredits: true, rnrWaitPercent: 100, rnrWaitMinPs: 0 };
    const pair = new Pair({ profile, setUpA: { minRnrTimer: 1 }, setUpB: { minRnrTimer: 1 } });
    const { a, b } = pair;
    a.fill(local.address as number, 5000, 3);
    a.at(READY_PS, () => {
      for (let wrId = 0; wrId < 40; wrId++) a.postSend(QPN, { ...send, length: 5000, wrId });
    });
    for (let wrId = 0; wrId < 40; wrId++) {
      b.at(READY_PS + wrId * 7 * US, () => b.postReceive(QPN, wrId, REGION_KEY, REMOTE, 5000));
    }
    pair.drive();
    expect(a.completions.map((c) => [c.wrId, c.status])).toEqual(
      Array.from({ length: 40 }, (_, i) => [i, WC_SUCCESS]),
    );
    expect(b.completions.map((c) => [c.wrId, c.status, c.bytes])).toEqual(
      Array.from({ length: 40 }, (_, i) => [i, WC_SUCCESS, 5000]),
    );
    // Credits keep it from sending whole messages that nobody can take.
    const { rnr_naks_sent } = pair.hcaB.report().counters;
    expect(rnr_naks_sent).toBeLessThan(40);
  });
});
