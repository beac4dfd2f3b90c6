/** Indirect keys: one key over many children, and keys of an adapter whose regions cannot change. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_ON_DEMAND,
  ACCESS_READ,
  ACCESS_WRITE,
  CMD_BAD_PARAMETER,
  CMD_CREATE_MKEY,
  CMD_DESTROY_MKEY,
  CMD_NOT_SUPPORTED,
  CMD_OK,
  MKEY_CHILD,
  MKEY_INDIRECT,
  MKEY_PLAIN,
  MS,
  NS,
  US,
  WC_REM_ACCESS_ERR,
  WC_REM_OP_ERR,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { type BareHost, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair, type PairOptions } from '../fixtures/pair.ts';

const QPN = 0x11;
const PAGE = 4096;
/** Entries of 2 MiB keep the memory of the test small. */
const ENTRY_SHIFT = 21;
const ENTRY_BYTES = 2 ** ENTRY_SHIFT;
const RIGHTS = 15;
/** Keys in order of creation; key 1 is the region of the fixture. */
const PARENT = (2 << 8) | 1;
const CHILD_0 = (3 << 8) | 1;
const CHILD_1 = (4 << 8) | 1;

const present = (page: number): number => (page << 2) | ACCESS_WRITE | ACCESS_READ;

/** Host B has an indirect key over two entries; the first has a child with all of its pages. */
function indirectPair(options: PairOptions = {}): Pair {
  const pages = (2 * ENTRY_BYTES) / PAGE;
  const pair = new Pair({ pages, ...options });
  const { b } = pair;
  b.at(READY_PS / 2, () => {
    b.command(CMD_CREATE_MKEY, [1, RIGHTS, 1, MKEY_INDIRECT, ENTRY_SHIFT], [0, 2 ** 47]);
    addChild(b, CHILD_0, 0);
  });
  pair.a.fill(BASE, 8 * PAGE, 3);
  return pair;
}

function addChild(host: BareHost, key: number, index: number): void {
  const pages = ENTRY_BYTES / PAGE;
  host.command(CMD_CREATE_MKEY, [1, RIGHTS, 1, MKEY_CHILD], [index * ENTRY_BYTES, ENTRY_BYTES]);
  host.table(key, 0, pages, (page) => present(index * pages + page));
  host.table(PARENT, index, 1, () => key);
}

function write(pair: Pair, remote: number, bytes: number, wrId = 1): void {
  const work = { lkey: REGION_KEY, rkey: PARENT, address: BASE, remote, length: bytes, wrId };
  pair.a.postSend(QPN, { opcode: WR_RDMA_WRITE, ...work });
}

function statuses(pair: Pair): number[][] {
  expect(pair.pool.burstsInUse).toBe(0);
  pair.hcaA.checkLeaks();
  pair.hcaB.checkLeaks();
  return pair.a.completions.map(({ wrId, status }) => [wrId, status]);
}

describe('an indirect key', () => {
  it('faults where it has the null key, and goes on once a child is there', () => {
    const pair = indirectPair({ profile: { rnrWaitPercent: 100, rnrWaitMinPs: 0 } });
    const { a, b } = pair;
    const start = ENTRY_BYTES - 3 * PAGE;
    b.onFault = (fault) => {
      // Of the parent, at the first byte that nobody stands for, to the end of the message.
      expect([fault.mkey, fault.address, fault.bytes]).toEqual([PARENT, ENTRY_BYTES, 5 * PAGE]);
      addChild(b, CHILD_1, 1);
      b.resumeFault(fault.token);
    };
    a.at(READY_PS, () => write(pair, start, 8 * PAGE));
    pair.drive();
    expect(statuses(pair)).toEqual([[1, WC_SUCCESS]]);
    expect(b.faults.length).toBe(1);
    expect(b.read(start, 8 * PAGE)).toEqual(a.read(BASE, 8 * PAGE));
  });

  it('uses no older child once its table says so, nor one that is destroyed', () => {
    const pair = indirectPair();
    const { a, b } = pair;
    b.onFault = (fault) => b.resumeFault(fault.token, 1);
    a.at(READY_PS, () => write(pair, 0, PAGE, 1));
    // The driver's order: the parent forgets the child, then the child goes.
    b.at(READY_PS + 100 * US, () => {
      b.table(PARENT, 0, 1, () => 0);
      b.command(CMD_DESTROY_MKEY, [CHILD_0]);
    });
    a.at(READY_PS + 200 * US, () => write(pair, 0, PAGE, 2));
    pair.drive();
    expect(b.faults.map(({ mkey }) => mkey)).toEqual([PARENT]);
    expect(statuses(pair)).toEqual([
      [1, WC_SUCCESS],
      [2, WC_REM_OP_ERR],
    ]);
  });

  it('costs one more look-up than a plain key, in the cache one more place', () => {
    const translationMissPs = 20 * US;
    const time = (rkey: number): number[] => {
      const pair = indirectPair({ profile: { translationMissPs } });
      const { a } = pair;
      const work = { lkey: REGION_KEY, rkey, address: BASE, remote: BASE, length: 64 };
      for (const i of [0, 1]) {
        a.at(READY_PS + i * MS, () => a.postSend(QPN, { opcode: WR_RDMA_READ, wrId: i, ...work }));
      }
      pair.drive();
      return a.completions.map(({ timePs, wrId }) => timePs - READY_PS - wrId * MS);
    };
    const plain = time(REGION_KEY);
    const indirect = time(PARENT);
    expect(indirect[0] - plain[0]).toBe(translationMissPs);
    // Both look-ups are cached now.
    expect(Math.abs(indirect[1] - plain[1])).toBeLessThan(NS);
  });

  it('is no row of the report, but for the parent', () => {
    const pair = indirectPair();
    pair.drive();
    expect(pair.hcaB.report().regions.map(({ lkey }) => lkey)).toEqual([REGION_KEY, PARENT]);
  });

  it.each([
    ['an unknown kind', [1, RIGHTS, 1, 3, ENTRY_SHIFT], [0, 2 ** 30]],
    ['entries of less than 2 MiB', [1, RIGHTS, 1, MKEY_INDIRECT, 20], [0, 2 ** 30]],
    ['entries of more than 1 TiB', [1, RIGHTS, 1, MKEY_INDIRECT, 41], [0, 2 ** 47]],
    ['a start between two entries', [1, RIGHTS, 1, MKEY_INDIRECT, 30], [PAGE, 2 ** 30]],
    ['more than 47 bits of address', [1, RIGHTS, 1, MKEY_INDIRECT, 30], [0, 2 ** 48]],
  ])('refuses %s', (_what, parameters, range) => {
    const pair = new Pair();
    let tag = 0;
    pair.b.at(READY_PS, () => {
      tag = pair.b.command(CMD_CREATE_MKEY, parameters, range);
    });
    pair.drive();
    expect(pair.b.results.get(tag)?.status).toBe(CMD_BAD_PARAMETER);
  });
});

describe('an adapter whose regions cannot change', () => {
  const profile = { fixedRegions: true };

  it('refuses what would need holes, or a change', () => {
    const pair = new Pair({ profile, bytes: 4 * PAGE });
    const { b } = pair;
    const tags: number[] = [];
    b.at(READY_PS, () => {
      const onDemand = RIGHTS | ACCESS_ON_DEMAND;
      tags.push(b.command(CMD_CREATE_MKEY, [1, onDemand, 1, MKEY_PLAIN], [BASE, PAGE]));
      tags.push(b.command(CMD_CREATE_MKEY, [1, RIGHTS, 1, MKEY_INDIRECT, 30], [0, 2 ** 47]));
      // The fixture's region is complete: neither another page nor a hole may take a place in it.
      tags.push(b.table(REGION_KEY, 1, 1, () => present(9)));
      tags.push(b.table(REGION_KEY, 1, 1, () => 0));
    });
    pair.drive();
    const answers = tags.map((tag) => b.results.get(tag)?.status);
    expect(answers).toEqual(tags.map(() => CMD_NOT_SUPPORTED));
  });

  it('uses a region once the last of its pages is known, and not before', () => {
    const pair = new Pair({ profile, bytes: 4 * PAGE });
    const { a, b } = pair;
    const key = (2 << 8) | 1;
    const first = BASE / PAGE + 8;
    let tag = 0;
    b.at(READY_PS / 2, () => {
      b.command(CMD_CREATE_MKEY, [1, RIGHTS, 1], [first * PAGE, 2 * PAGE]);
      b.table(key, 0, 1, () => present(first));
    });
    const work = { lkey: REGION_KEY, rkey: key, address: BASE, remote: first * PAGE, length: 100 };
    const post = (wrId: number): void => a.postSend(QPN, { opcode: WR_RDMA_WRITE, wrId, ...work });
    b.at(READY_PS, () => {
      tag = b.table(key, 1, 1, () => present(first + 1));
    });
    a.at(READY_PS + 20 * US, () => post(1));
    pair.drive();
    expect(b.results.get(tag)?.status).toBe(CMD_OK);
    expect(statuses(pair)).toEqual([[1, WC_SUCCESS]]);

    const early = new Pair({ profile, bytes: 4 * PAGE });
    early.b.at(READY_PS / 2, () => {
      early.b.command(CMD_CREATE_MKEY, [1, RIGHTS, 1], [first * PAGE, 2 * PAGE]);
      early.b.table(key, 0, 1, () => present(first));
    });
    early.a.at(READY_PS, () => early.a.postSend(QPN, { opcode: WR_RDMA_WRITE, wrId: 1, ...work }));
    early.drive();
    expect(statuses(early)).toEqual([[1, WC_REM_ACCESS_ERR]]);
  });
});
