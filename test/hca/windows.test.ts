/** Memory windows of type 2B: who may bind, use and invalidate them, and what that stops. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MkeyTable, type Region } from '../../hca/memory/region.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_MW_BIND,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_ZERO_BASED,
  CMD_ALLOC_MW,
  CMD_BUSY,
  CMD_DEALLOC_MW,
  CMD_DESTROY_MKEY,
  CMD_OK,
  CQE_WITH_INVALIDATE,
  EVENT_QP_ACCESS_ERR,
  US,
  WC_MW_BIND_ERR,
  WC_REM_ACCESS_ERR,
  WC_SUCCESS,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_BIND_MW,
  WR_LOCAL_INV,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND_WITH_INV,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair } from '../fixtures/pair.ts';

const QPN = 0x11;
const REMOTE = ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ | ACCESS_REMOTE_ATOMIC;
/** No remote rights: the window alone gives some. */
const BINDABLE = ACCESS_LOCAL_WRITE | ACCESS_MW_BIND;
/** Key of the window that B allocates behind its region, and the next two of the same window. */
const WINDOW = (2 << 8) | 1;
const BOUND = (2 << 8) | 2;
const AGAIN = (2 << 8) | 3;

const user = { pd: { number: 1 } };
const stranger = { pd: { number: 1 } };
const foreigner = { pd: { number: 2 } };

function newTable(access = BINDABLE): { table: MkeyTable; region: Region; window: number } {
  const table = new MkeyTable();
  const region = table.create(1, access, 7, 10_000, 5000);
  return { table, region, window: table.createWindow(1) };
}

describe('the key table', () => {
  it.each<[string, number, [number, number, number], typeof user]>([
    ['a region without MW_BIND', ACCESS_LOCAL_WRITE, [10_000, 10, REMOTE], user],
    [
      'a window that changes a region the host may only read',
      ACCESS_MW_BIND,
      [10_000, 10, ACCESS_REMOTE_WRITE],
      user,
    ],
    ['an atomic window on such a region', ACCESS_MW_BIND, [10_000, 10, ACCESS_REMOTE_ATOMIC], user],
    ['a range before the region', BINDABLE, [9999, 10, REMOTE], user],
    ['a range behind it', BINDABLE, [14_991, 10, REMOTE], user],
    ['a range of nothing', BINDABLE, [10_000, 0, REMOTE], user],
    ['a local right', BINDABLE, [10_000, 10, ACCESS_LOCAL_WRITE], user],
    ['a zero-based region', BINDABLE | ACCESS_ZERO_BASED, [0, 10, REMOTE], user],
    ['a queue pair of another domain', BINDABLE, [10_000, 10, REMOTE], foreigner],
  ])('does not bind %s', (_, access, [address, length, rights], who) => {
    const { table, region, window } = newTable(access);
    expect(table.bindWindow(who, window + 1, region.key, address, length, rights)).toBe(
      WC_MW_BIND_ERR,
    );
    expect(table.findBinding(window + 1)).toBe(undefined);
    expect(table.hasWindows(region)).toBe(false);
  });

  it('does not bind what is bound, with a wrong lkey, or a region as a window', () => {
    const { table, region, window } = newTable();
    const bind = (key: number, lkey: number): number =>
      table.bindWindow(user, key, lkey, 10_000, 10, REMOTE);
    expect(bind(window, region.key + 1)).toBe(WC_MW_BIND_ERR);
    expect(bind(window, window)).toBe(WC_MW_BIND_ERR);
    expect(bind(region.key, region.key)).toBe(WC_MW_BIND_ERR);
    expect(bind(0x99_00, region.key)).toBe(WC_MW_BIND_ERR);
    expect(bind(window + 1, region.key)).toBe(WC_SUCCESS);
    expect(bind(window + 2, region.key)).toBe(WC_MW_BIND_ERR);
    expect(table.invalidateLocal(user, window + 1)).toBe(WC_SUCCESS);
    expect(bind(window + 2, region.key)).toBe(WC_SUCCESS);
  });

  it('knows a window by its newest key only, and only its queue pair may invalidate it', () => {
    const { table, region, window } = newTable();
    table.bindWindow(user, window + 1, region.key, 10_000, 10, REMOTE);
    const binding = table.findBinding(window + 1);
    expect(table.findBinding(window)).toBe(undefined);
    expect(table.find(window + 1)).toBe(undefined);
    expect(table.invalidateLocal(user, window)).toBe(WC_MW_BIND_ERR);
    expect(table.invalidateLocal(stranger, window + 1)).toBe(WC_MW_BIND_ERR);
    expect(table.invalidateRemote(stranger, window + 1)).toBe(false);
    expect(table.invalidateLocal(user, region.key)).toBe(WC_MW_BIND_ERR);
    expect(table.invalidateRemote(user, region.key)).toBe(false);
    expect(binding?.alive).toBe(true);
    expect(table.invalidateRemote(user, window + 1)).toBe(true);
    expect(binding?.alive).toBe(false);
    expect(table.invalidateRemote(user, window + 1)).toBe(false);
    expect(table.invalidateLocal(stranger, window + 1)).toBe(WC_SUCCESS);
    expect(table.invalidateLocal(foreigner, window + 1)).toBe(WC_MW_BIND_ERR);
  });

  it('gives rows of windows and regions to either, never with a key that was there before', () => {
    const { table, region, window } = newTable();
    table.bindWindow(user, window + 1, region.key, 10_000, 10, REMOTE);
    expect(table.destroyWindow(window)).toBe(false);
    expect(table.destroyWindow(window + 1)).toBe(true);
    expect(table.hasWindows(region)).toBe(false);
    const next = table.createWindow(1);
    expect(next).toBe(window + 2);
    table.destroyWindow(next);
    table.destroy(region);
    const other = table.create(2, 0, 9, 0, 10);
    expect(table.find(other.key)).toBe(other);
    expect(table.isUsed(1)).toBe(false);
    expect(table.isUsed(2)).toBe(true);
  });

  it('counts the windows of a region whatever happens to them', () => {
    const step = fc.record({
      what: fc.constantFrom('bind', 'local', 'remote', 'destroy', 'create'),
      at: fc.nat(3),
      variant: fc.nat(3),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { table, region } = newTable();
        const keys = new Map<number, number>();
        for (const { what, at, variant } of steps) {
          const key = keys.get(at) ?? 0x7700;
          if (what === 'create' && !keys.has(at)) keys.set(at, table.createWindow(1));
          if (what === 'destroy' && table.destroyWindow(key)) keys.delete(at);
          if (what === 'local') table.invalidateLocal(user, key);
          if (what === 'remote') table.invalidateRemote(user, key);
          const newKey = (key & ~0xff) | variant;
          const isBound =
            what === 'bind' &&
            table.bindWindow(user, newKey, region.key, 10_000, 10, REMOTE) === WC_SUCCESS;
          if (isBound) keys.set(at, newKey);
        }
        const bound = [...keys.values()].filter((key) => table.findBinding(key)?.alive).length;
        expect(region.windows).toBe(bound);
      }),
    );
  });
});

describe('through a window the peer', () => {
  const range = { lkey: REGION_KEY, address: BASE + 8192, length: 4096 };
  const bind = (changes: object = {}): object => ({
    opcode: WR_BIND_MW,
    rkey: BOUND,
    immediate: REMOTE,
    ...range,
    ...changes,
  });
  const from = { lkey: REGION_KEY, address: BASE, length: 100, rkey: BOUND };

  /** B allocates a window and binds it; A's region is open, B's only through windows. */
  function newPair(bindings: readonly object[] = [bind()], queuePairs = 1): Pair {
    const pair = new Pair({ setUpA: { queuePairs }, setUpB: { access: BINDABLE, queuePairs } });
    pair.a.fill(BASE, 8192, 1);
    pair.b.at(READY_PS / 2, () => pair.b.command(CMD_ALLOC_MW, [1]));
    pair.b.at(READY_PS / 2 + 10 * US, () => {
      for (const work of bindings)
        pair.b.postSend(QPN, work as Parameters<typeof pair.b.postSend>[1]);
    });
    return pair;
  }

  it('writes, reads and adds', () => {
    const pair = newPair();
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...from, opcode: WR_RDMA_WRITE, remote: range.address + 50 });
      pair.a.postSend(QPN, {
        ...from,
        opcode: WR_RDMA_READ,
        address: BASE + 4096,
        remote: range.address + 50,
      });
      pair.a.postSend(QPN, {
        ...from,
        opcode: WR_ATOMIC_FETCH_AND_ADD,
        address: BASE + 6000,
        length: 8,
        remote: range.address + 4088,
        compareAdd: 6n,
      });
    });
    pair.drive();
    expect(pair.b.completions.map((c) => c.status)).toEqual([WC_SUCCESS]);
    expect(pair.a.completions.map((c) => c.status)).toEqual([0, 0, 0]);
    expect(pair.b.read(range.address + 50, 100)).toEqual(pair.a.read(BASE, 100));
    expect(pair.a.read(BASE + 4096, 100)).toEqual(pair.a.read(BASE, 100));
    expect(pair.b.read(range.address + 4088, 1)).toEqual(Uint8Array.of(6));
  });

  it('reaches a zero-based one by offset', () => {
    const pair = newPair([
      bind({ immediate: REMOTE | ACCESS_ZERO_BASED, address: range.address + 3 }),
    ]);
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...from, opcode: WR_RDMA_WRITE, remote: 4000, length: 96 });
      pair.a.postSend(QPN, {
        ...from,
        opcode: WR_RDMA_READ,
        remote: 4000,
        length: 96,
        address: BASE + 4096,
      });
      pair.a.postSend(QPN, { ...from, opcode: WR_RDMA_WRITE, remote: 4001, length: 96 });
    });
    pair.drive();
    expect(pair.a.completions.map((c) => c.status)).toEqual([0, 0, WC_REM_ACCESS_ERR]);
    expect(pair.b.read(range.address + 4003, 96)).toEqual(pair.a.read(BASE, 96));
    expect(pair.a.read(BASE + 4096, 96)).toEqual(pair.a.read(BASE, 96));
  });

  it.each([
    ['before its range', { remote: range.address - 1 }, [bind()]],
    ['behind its range', { remote: range.address + 3997 }, [bind()]],
    ['without the right', {}, [bind({ immediate: ACCESS_REMOTE_READ })]],
    ['with the key it had before', { rkey: WINDOW }, [bind()]],
    ['with the key of the region', { rkey: REGION_KEY }, [bind()]],
    ['once it is invalidated', {}, [bind(), { opcode: WR_LOCAL_INV, rkey: BOUND }]],
    [
      'with the key of the bind before the last',
      {},
      [bind(), { opcode: WR_LOCAL_INV, rkey: BOUND }, bind({ rkey: AGAIN })],
    ],
  ])('does not write %s', (_, change, bindings) => {
    const pair = newPair(bindings);
    const write = { ...from, opcode: WR_RDMA_WRITE, remote: range.address, ...change };
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, write));
    pair.drive();
    expect(pair.b.completions.slice(0, bindings.length).every((c) => c.status === WC_SUCCESS)).toBe(
      true,
    );
    expect(pair.a.completions.map((c) => c.status)).toEqual([WC_REM_ACCESS_ERR]);
    expect(pair.b.asyncEvents).toEqual([EVENT_QP_ACCESS_ERR]);
    expect(pair.b.read(BASE, 16_384).every((byte) => byte === 0)).toBe(true);
  });

  it('of another queue pair of the same domain does not write', () => {
    const pair = newPair([bind()], 2);
    const write = { ...from, opcode: WR_RDMA_WRITE, remote: range.address };
    pair.a.at(READY_PS, () => pair.a.postSend(QPN + 1, write));
    pair.drive();
    expect(pair.a.completions.map((c) => c.status)).toEqual([WC_REM_ACCESS_ERR]);
  });

  it('may take the leave back with a SEND, and loses it', () => {
    const pair = newPair();
    const { b } = pair;
    b.at(READY_PS / 2, () => b.postReceive(QPN, 5, REGION_KEY, BASE, 100));
    pair.a.at(READY_PS, () => {
      const write = { ...from, opcode: WR_RDMA_WRITE, remote: range.address };
      pair.a.postSend(QPN, write);
      pair.a.postSend(QPN, { ...from, opcode: WR_SEND_WITH_INV, immediate: BOUND });
      pair.a.postSend(QPN, write);
    });
    pair.drive();
    expect(pair.a.completions.map((c) => c.status)).toEqual([0, 0, WC_REM_ACCESS_ERR]);
    expect(b.completions.map((c) => [c.wrId, c.status, c.flags, c.immediate])).toEqual([
      [0, WC_SUCCESS, 0, 0],
      [5, WC_SUCCESS, 1 | CQE_WITH_INVALIDATE, BOUND],
    ]);
  });

  it('is stopped in the middle of a message when the leave is taken back', () => {
    const pair = newPair([bind({ length: 1 << 18 })]);
    const long = { ...from, remote: range.address, length: 1 << 18 };
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, { ...long, opcode: WR_RDMA_WRITE }));
    pair.b.at(READY_PS + 10 * US, () =>
      pair.b.postSend(QPN, { opcode: WR_LOCAL_INV, rkey: BOUND }),
    );
    pair.drive();
    expect(pair.a.completions.map((c) => c.status)).toEqual([WC_REM_ACCESS_ERR]);
    expect(pair.b.asyncEvents).toEqual([EVENT_QP_ACCESS_ERR]);
    const landed = pair.b.read(range.address, 1 << 18);
    expect(landed.subarray(-1024).every((byte) => byte === 0)).toBe(true);
    expect(pair.pool.framesInUse).toBe(0);
  });

  it('is stopped in the middle of a READ, too', () => {
    const pair = newPair([bind({ length: 1 << 19 })]);
    const long = { ...from, remote: range.address, length: 1 << 19 };
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, { ...long, opcode: WR_RDMA_READ }));
    pair.b.at(READY_PS + 10 * US, () => pair.b.command(CMD_DEALLOC_MW, [BOUND]));
    pair.drive();
    expect(pair.a.completions.map((c) => c.status)).toEqual([WC_REM_ACCESS_ERR]);
    expect(pair.pool.burstsInUse).toBe(0);
  });

  it('keeps the region from being destroyed', () => {
    const pair = newPair();
    const { b } = pair;
    const tags: number[] = [];
    b.at(READY_PS, () => {
      tags.push(b.command(CMD_DESTROY_MKEY, [REGION_KEY]));
      tags.push(b.command(CMD_DEALLOC_MW, [BOUND]));
      tags.push(b.command(CMD_DESTROY_MKEY, [REGION_KEY]));
    });
    pair.drive();
    expect(tags.map((tag) => b.results.get(tag)?.status)).toEqual([CMD_BUSY, CMD_OK, CMD_OK]);
  });
});
