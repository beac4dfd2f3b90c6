/** Regions and queue pairs that go while something of theirs is on its way. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  CMD_BAD_PARAMETER,
  CMD_CREATE_MKEY,
  CMD_DESTROY_MKEY,
  CMD_DESTROY_QP,
  MS,
  QP_STATE,
  QPA_STATE,
  QPS_ERR,
  US,
  WC_LOC_PROT_ERR,
  WC_REM_ACCESS_ERR,
  WC_REM_OP_ERR,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { type BareHost, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair } from '../fixtures/pair.ts';

const QPN = 0x11;
const SIZE = 1 << 20;
const LENGTH = 500_000;
const write = {
  opcode: WR_RDMA_WRITE,
  lkey: REGION_KEY,
  rkey: REGION_KEY,
  address: BASE,
  remote: BASE,
  length: LENGTH,
};
const present = (page: number): number => (page << 2) | ACCESS_WRITE | ACCESS_READ;

/** Everything is given back, whatever happened. */
function expectClean(pair: Pair): void {
  expect(pair.pool.framesInUse).toBe(0);
  expect(pair.pool.burstsInUse).toBe(0);
  pair.hcaA.checkLeaks();
  pair.hcaB.checkLeaks();
}

describe('a region destroyed while a message arrives in it', () => {
  it('RDMA WRITE: a remote access error, and nothing lands after the answer to the command', () => {
    const pair = new Pair();
    pair.a.fill(BASE, LENGTH, 1);
    let tag = 0;
    let frozen: Uint8Array | undefined;
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, write));
    pair.b.at(READY_PS + 20 * US, () => {
      tag = pair.b.command(CMD_DESTROY_MKEY, [REGION_KEY]);
    });
    for (let at = 21; at < 60; at++) {
      pair.b.at(READY_PS + at * US, () => {
        if (pair.b.results.has(tag)) frozen ??= pair.b.read(BASE, LENGTH);
      });
    }
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_REM_ACCESS_ERR }]);
    expect(pair.b.read(BASE, LENGTH)).toEqual(frozen);
    expectClean(pair);
  });

  it('RDMA WRITE: a new region under the same key does not take the rest', () => {
    const pair = new Pair();
    pair.a.fill(BASE, LENGTH, 1);
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, write));
    const spare = SIZE / 4096 + BASE / 4096;
    pair.b.at(READY_PS + 10 * US, () => {
      pair.b.command(CMD_DESTROY_MKEY, [REGION_KEY]);
      pair.b.command(CMD_CREATE_MKEY, [1, 15, 7], [BASE, SIZE]);
      pair.b.table(REGION_KEY, 0, 16, (i) => present(spare + i));
    });
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_REM_ACCESS_ERR }]);
    expect(pair.b.read(spare * 4096, 16 * 4096).every((byte) => byte === 0)).toBe(true);
    expectClean(pair);
  });

  it('SEND: the receive fails as a local one, and the peer hears of a remote operation error', () => {
    const pair = new Pair();
    pair.b.at(READY_PS - 5 * US, () => {
      pair.b.postReceive(QPN, 1, REGION_KEY, BASE, LENGTH);
      pair.b.postReceive(QPN, 2, REGION_KEY, BASE, LENGTH);
    });
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, { ...write, opcode: WR_SEND }));
    pair.b.at(READY_PS + 20 * US, () => pair.b.command(CMD_DESTROY_MKEY, [REGION_KEY]));
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_REM_OP_ERR }]);
    expect(pair.b.completions).toMatchObject([
      { wrId: 1, status: WC_LOC_PROT_ERR },
      { wrId: 2, status: WC_WR_FLUSH_ERR },
    ]);
    expectClean(pair);
  });

  it('READ into it: the READ fails as a local one', () => {
    const pair = new Pair();
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, { ...write, opcode: WR_RDMA_READ }));
    pair.a.at(READY_PS + 20 * US, () => pair.a.command(CMD_DESTROY_MKEY, [REGION_KEY]));
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_LOC_PROT_ERR }]);
    expectClean(pair);
  });

  it('at the sender: the message that is being read fails, those before it complete', () => {
    const pair = new Pair();
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...write, wrId: 1, length: 1000 });
      pair.a.postSend(QPN, { ...write, wrId: 2 });
    });
    pair.a.at(READY_PS + 10 * US, () => pair.a.command(CMD_DESTROY_MKEY, [REGION_KEY]));
    pair.drive();
    expect(pair.a.completions).toMatchObject([
      { wrId: 1, status: WC_SUCCESS },
      { wrId: 2, status: WC_LOC_PROT_ERR },
    ]);
    expectClean(pair);
  });
});

describe('a queue pair that goes', () => {
  const toErr = (host: BareHost): number => host.modifyQp(QPN, QP_STATE, { [QPA_STATE]: QPS_ERR });
  const kinds: [string, (host: BareHost) => number][] = [
    ['to ERR', toErr],
    ['away', (host) => host.command(CMD_DESTROY_QP, [QPN])],
  ];
  const works: [string, number][] = [
    ['writes', WR_RDMA_WRITE],
    ['READs', WR_RDMA_READ],
    ['SENDs', WR_SEND],
  ];
  const cases = kinds.flatMap(([how, command]) =>
    works.map(([what, opcode]) => ({ how, command, what, opcode })),
  );
  it.each(cases)('$how at any time of its $what leaves nothing behind', ({ command, opcode }) => {
    for (let at = 0; at < 60; at += 3) {
      for (const side of ['a', 'b'] as const) {
        const pair = new Pair({
          profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
          setUpA: { timeout: 5, retryCnt: 1 },
        });
        pair.b.at(READY_PS - 5 * US, () => {
          for (let wrId = 0; wrId < 4; wrId++)
            pair.b.postReceive(QPN, 100 + wrId, REGION_KEY, BASE, LENGTH);
        });
        pair.a.at(READY_PS, () => {
          for (let wrId = 0; wrId < 4; wrId++)
            pair.a.postSend(QPN, { ...write, opcode, wrId, length: 100_000 });
        });
        pair[side].at(READY_PS + at * US, () => command(pair[side]));
        pair.drive();
        const ids = pair.a.completions.map((c) => c.wrId);
        expect(ids).toEqual([0, 1, 2, 3]);
        const firstBad = pair.a.completions.findIndex((c) => c.status !== WC_SUCCESS);
        for (const c of pair.a.completions.slice(firstBad + 1)) {
          if (firstBad >= 0) expect(c.status).toBe(WC_WR_FLUSH_ERR);
        }
        if (side === 'b') {
          expect(pair.b.completions.map((c) => c.wrId)).toEqual([100, 101, 102, 103]);
        }
        expectClean(pair);
      }
    }
  });

  it('while its responder fault is out lets others that wait for the page go on', () => {
    const shape = { queuePairs: 3 };
    const pair = new Pair({
      profile: { rnrWaitPercent: 100, rnrWaitMinPs: 0 },
      setUpA: shape,
      setUpB: shape,
    });
    pair.a.fill(BASE, 3000, 3);
    pair.b.at(READY_PS - 5 * US, () => pair.b.table(REGION_KEY, 0, 1, () => 0));
    pair.a.at(READY_PS, () => {
      for (const qpn of [0x11, 0x12, 0x13])
        pair.a.postSend(qpn, { ...write, wrId: qpn, length: 1000 });
    });
    // The one whose name is on the event is destroyed; the two that joined it are served.
    pair.b.at(READY_PS + MS / 2, () => {
      expect(pair.b.faults.length).toBe(1);
      pair.b.command(CMD_DESTROY_QP, [pair.b.faults[0].qpn]);
      pair.b.table(REGION_KEY, 0, 1, () => present(BASE / 4096));
      pair.b.resumeFault(pair.b.faults[0].token);
    });
    pair.a.at(READY_PS + 2 * MS, () => pair.a.command(CMD_DESTROY_QP, [0x11]));
    pair.drive();
    const good = pair.a.completions.filter((c) => c.status === WC_SUCCESS);
    expect(good.map((c) => c.qpn).sort()).toEqual([0x12, 0x13]);
    expect(pair.b.read(BASE, 1000)).toEqual(pair.a.read(BASE, 1000));
    expectClean(pair);
  });
});

describe('a table update', () => {
  it('of no pages, or of pages that the region has not, changes nothing and says so', () => {
    const pair = new Pair({ bytes: 8 * 4096 });
    const tags: number[] = [];
    pair.b.at(READY_PS, () => {
      tags.push(pair.b.table(REGION_KEY, 7, 2, () => 0));
      tags.push(pair.b.table(REGION_KEY, -1, 2, () => 0));
    });
    pair.drive();
    for (const tag of tags) expect(pair.b.results.get(tag)?.status).toBe(CMD_BAD_PARAMETER);
  });
});
