/** Scatter/gather lists and inline data: every byte goes where its entry says, and no other. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BUS_RECV_DOORBELL,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  US,
  WC_LOC_PROT_ERR,
  WC_SUCCESS,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { type BareSge, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, type Pair } from '../fixtures/pair.ts';
import { local, newPair, QPN, REMOTE, run, statuses, UD } from '../fixtures/work.ts';

describe('scatter/gather', () => {
  const sge = fc.record({
    offset: fc.nat({ max: 30_000 }),
    length: fc.oneof(fc.nat({ max: 20 }), fc.nat({ max: 5000 })),
  });
  const lists = fc.array(sge, { minLength: 1, maxLength: 16 });
  const mtus = fc.constantFrom(256, 512, 1024, 2048, 4096);

  /** The entries with addresses of their own, so that none overlaps another. */
  function placed(list: readonly { offset: number; length: number }[]): BareSge[] {
    return list.map(({ offset, length }, i) => ({
      address: BASE + i * 40_000 + offset,
      length,
      lkey: REGION_KEY,
    }));
  }

  function gathered(host: Pair['a'], sges: readonly BareSge[]): Uint8Array {
    return Uint8Array.from(sges.flatMap((s) => [...host.read(s.address, s.length)]));
  }

  /** Takes every page of A's region away; each comes back when it is asked for. */
  function takeAway({ a }: Pair): void {
    a.at(READY_PS - 20 * US, () => a.table(REGION_KEY, 0, 256, () => 0));
    a.onFault = ({ token, address }) => {
      const page = Math.floor(address / 4096);
      a.table(REGION_KEY, page - BASE / 4096, 1, () => (page << 2) | 3);
      a.resumeFault(token);
    };
  }

  it.each([
    ['SEND', WR_SEND, QPT_RC],
    ['WRITE', WR_RDMA_WRITE, QPT_RC],
    ['WRITE on UC', WR_RDMA_WRITE, QPT_UC],
  ])('%s gathers any list of entries', (_, opcode, type) => {
    fc.assert(
      fc.property(lists, mtus, fc.boolean(), (list, mtu, isMissing) => {
        const pair = newPair({ setUpA: { mtu, type }, setUpB: { mtu, type } });
        const sges = placed(list);
        if (isMissing) takeAway(pair);
        sges.forEach((s, i) => {
          pair.a.fill(s.address, s.length, i);
        });
        run(pair, [{ ...local, opcode, sges, wrId: 1 }]);
        const expected = gathered(pair.a, sges);
        expect(statuses(pair)).toEqual([[1, WC_SUCCESS]]);
        expect(pair.b.read(REMOTE, expected.length)).toEqual(expected);
      }),
      { numRuns: 25 },
    );
  });

  it('READ scatters to any list of entries', () => {
    fc.assert(
      fc.property(lists, mtus, fc.boolean(), (list, mtu, isMissing) => {
        const pair = newPair({ setUpA: { mtu }, setUpB: { mtu } });
        const sges = placed(list);
        if (isMissing) takeAway(pair);
        const total = sges.reduce((sum, s) => sum + s.length, 0);
        pair.b.fill(REMOTE, total, 3);
        run(pair, [{ ...local, opcode: WR_RDMA_READ, sges, wrId: 1 }]);
        expect(statuses(pair)).toEqual([[1, WC_SUCCESS]]);
        expect(gathered(pair.a, sges)).toEqual(pair.b.read(REMOTE, total));
        // Nothing beside the entries was touched.
        for (const s of sges) {
          expect(pair.a.read(s.address - 1, 1)[0]).toBe(0);
          expect(pair.a.read(s.address + s.length, 1)[0]).toBe(0);
        }
      }),
      { numRuns: 25 },
    );
  });

  it('a message of several bursts crosses entries anywhere', () => {
    const pair = newPair({ bytes: 1 << 21 });
    const sges = [70_001, 1, 65_536, 3, 100_000].map((length, i) => ({
      address: BASE + i * 120_000 + 17,
      length,
      lkey: REGION_KEY,
    }));
    sges.forEach((s, i) => {
      pair.a.fill(s.address, s.length, i);
    });
    const remote = BASE + 700_000;
    run(pair, [{ ...local, opcode: WR_RDMA_WRITE, sges, remote, wrId: 1 }]);
    expect(statuses(pair)).toEqual([[1, WC_SUCCESS]]);
    expect(pair.b.read(remote, 235_541)).toEqual(gathered(pair.a, sges));
  });

  it('a datagram gathers too', () => {
    const pair = newPair({ setUpA: { type: QPT_UD }, setUpB: { type: QPT_UD } });
    const sges = placed([
      { offset: 4090, length: 100 },
      { offset: 1, length: 3 },
    ]);
    sges.forEach((s, i) => {
      pair.a.fill(s.address, s.length, i);
    });
    run(pair, [{ opcode: WR_SEND, sges, ud: UD, wrId: 1 }]);
    expect(pair.b.read(REMOTE + 40, 103)).toEqual(gathered(pair.a, sges));
  });

  it('the result of an atomic may lie in several entries', () => {
    const pair = newPair();
    pair.b.fill(REMOTE, 8, 9);
    const before = pair.b.read(REMOTE, 8);
    const sges = placed([
      { offset: 4093, length: 3 },
      { offset: 0, length: 0 },
      { offset: 1, length: 5 },
    ]);
    run(pair, [
      { ...local, opcode: WR_ATOMIC_FETCH_AND_ADD, sges, length: 8, compareAdd: 1n, wrId: 1 },
    ]);
    expect(statuses(pair)).toEqual([[1, WC_SUCCESS]]);
    expect(gathered(pair.a, sges)).toEqual(before);
  });

  it.each([
    ['a bad key in one entry', { lkey: 0x4242 }, WC_LOC_PROT_ERR],
    ['an entry beyond the region', { address: BASE + (1 << 20) - 10 }, WC_LOC_PROT_ERR],
  ])('%s fails the work request, and nothing of it is sent', (_, change, status) => {
    const pair = newPair();
    const sges = placed([
      { offset: 0, length: 3000 },
      { offset: 0, length: 300 },
      { offset: 0, length: 20 },
    ]);
    sges[1] = { ...sges[1], ...change };
    run(pair, [{ ...local, opcode: WR_RDMA_WRITE, sges, wrId: 1 }]);
    expect(statuses(pair)).toEqual([[1, status]]);
    expect(pair.hcaA.report().counters.port_xmit_packets).toBe(0);
  });

  it('a result entry that may not be written fails the READ', () => {
    const pair = newPair();
    const sges = placed([
      { offset: 0, length: 100 },
      { offset: 0, length: 100 },
    ]);
    sges[1].lkey = 0x4242;
    pair.b.fill(REMOTE, 200, 3);
    run(pair, [{ ...local, opcode: WR_RDMA_READ, sges, wrId: 1 }]);
    expect(statuses(pair)).toEqual([[1, WC_LOC_PROT_ERR]]);
    expect(pair.a.read(sges[0].address, 100).every((byte) => byte === 0)).toBe(true);
  });
});

describe('a missing page under one of several entries', () => {
  const sges = [
    { address: BASE + 100, length: 3000, lkey: REGION_KEY },
    { address: BASE + 0x5000 + 4000, length: 3000, lkey: REGION_KEY },
    { address: BASE + 0x9000, length: 1000, lkey: REGION_KEY },
  ];
  /** Takes the second page of the second entry away; gives it back as the fault asks. */
  function withFault(pair: Pair, opcode: number): void {
    const page = (BASE + 0x6000) / 4096;
    pair.a.at(READY_PS - 20 * US, () => pair.a.table(REGION_KEY, 6, 1, () => 0));
    pair.a.onFault = ({ token, address, bytes }) => {
      expect([address, bytes]).toEqual([BASE + 0x6000, 2904]);
      pair.a.table(REGION_KEY, 6, 1, () => (page << 2) | 3);
      pair.a.resumeFault(token);
    };
    run(pair, [{ ...local, opcode, sges, wrId: 1 }]);
    expect(statuses(pair)).toEqual([[1, WC_SUCCESS]]);
    expect(pair.a.faults.length).toBe(1);
  }

  it('holds a WRITE up, and nothing of it is sent before', () => {
    const pair = newPair();
    sges.forEach((s, i) => {
      pair.a.fill(s.address, s.length, i);
    });
    withFault(pair, WR_RDMA_WRITE);
    const sent = sges.flatMap((s) => [...pair.a.read(s.address, s.length)]);
    expect([...pair.b.read(REMOTE, 7000)]).toEqual(sent);
    expect(pair.hcaA.report().counters.retransmitted_packets).toBe(0);
  });

  it('has a READ asked for again from there', () => {
    const pair = newPair();
    pair.b.fill(REMOTE, 7000, 4);
    withFault(pair, WR_RDMA_READ);
    const came = sges.flatMap((s) => [...pair.a.read(s.address, s.length)]);
    expect(came).toEqual([...pair.b.read(REMOTE, 7000)]);
    expect(pair.hcaA.report().counters.read_responses_discarded).toBeGreaterThan(0);
  });

  it('that cannot be had fails it', () => {
    const pair = newPair();
    pair.a.at(READY_PS - 20 * US, () => pair.a.table(REGION_KEY, 6, 1, () => 0));
    pair.a.onFault = ({ token }) => pair.a.resumeFault(token, 1);
    run(pair, [{ ...local, opcode: WR_RDMA_WRITE, sges, wrId: 1 }]);
    expect(statuses(pair)).toEqual([[1, WC_LOC_PROT_ERR]]);
  });
});

describe('inline data', () => {
  it('are those of the time of posting, and need no key', () => {
    for (const type of [QPT_RC, QPT_UC]) {
      for (const length of [0, 1, 7, 256]) {
        const pair = newPair({ setUpA: { type, mtu: 256 }, setUpB: { type, mtu: 256 } });
        const inline = Uint8Array.from({ length }, (_, i) => i * 3 + 1);
        const work = { opcode: WR_SEND, inline, lkey: 0x4242, address: 0 };
        run(pair, [
          { ...work, wrId: 1 },
          { ...work, inline: inline.map((byte) => byte + 1), wrId: 2 },
        ]);
        expect(statuses(pair)).toEqual([
          [1, WC_SUCCESS],
          [2, WC_SUCCESS],
        ]);
        expect(pair.b.completions.map((c) => c.bytes)).toEqual([length, length]);
        expect(pair.b.read(REMOTE, length)).toEqual(inline.map((byte) => byte + 1));
      }
    }
  });

  it('are sent again after a loss', () => {
    const pair = newPair({ lossPpm: 300_000, setUpA: { timeout: 1 } });
    const works = Array.from({ length: 30 }, (_, i) => ({
      ...local,
      opcode: WR_RDMA_WRITE,
      inline: Uint8Array.of(i, i + 1, i + 2),
      remote: REMOTE + 3 * i,
      wrId: i,
    }));
    run(pair, works);
    expect(statuses(pair)).toEqual(works.map((_, i) => [i, WC_SUCCESS]));
    for (const { inline, remote } of works) expect(pair.b.read(remote, 3)).toEqual(inline);
  });
});

describe('a receive of several entries', () => {
  it('takes what several entries send', () => {
    const pair = newPair();
    const { a, b } = pair;
    const from = [500, 1, 2000].map((length, i) => ({
      address: BASE + 9000 * i + 3,
      length,
      lkey: REGION_KEY,
    }));
    const to = [7, 1500, 994].map((length, i) => ({
      address: REMOTE + 9000 * i + 4090,
      length,
      lkey: REGION_KEY,
    }));
    from.forEach((s, i) => {
      a.fill(s.address, s.length, i);
    });
    b.at(READY_PS - 20 * US, () => b.postBuffer(BUS_RECV_DOORBELL, QPN, 5, to));
    a.at(READY_PS, () => a.postSend(QPN, { opcode: WR_SEND, sges: from }));
    pair.drive();
    const read = (host: Pair['a'], sges: readonly BareSge[]): number[] =>
      sges.flatMap((s) => [...host.read(s.address, s.length)]);
    expect(b.completions).toMatchObject([{ wrId: 5, status: WC_SUCCESS, bytes: 2501 }]);
    expect(read(b, to)).toEqual(read(a, from));
  });
});
