/**
 * Atomics, ATOMIC WRITE and FLUSH at the responder: what they do to memory, what is answered, that
 * they are done once however often they are asked for, and what becomes of them without a page.
 */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_READ,
  ACCESS_WRITE,
  ACCESS_ZERO_BASED,
  BUS_DMA_READ,
  BUS_DMA_READ_DATA,
  BUS_MAX_BYTES,
  decodeBus,
  encodeBus,
  FAULT_AT_RESPONDER,
  FLUSH_GLOBAL,
  FLUSH_MR,
  FLUSH_RANGE,
  FRAME_WORDS,
  FramePool,
  MS,
  NS,
  RC_ACKNOWLEDGE,
  RC_ATOMIC_ACKNOWLEDGE,
  RC_ATOMIC_WRITE,
  RC_COMPARE_SWAP,
  RC_FETCH_ADD,
  RC_FLUSH,
  RC_READ_REQUEST,
  RC_READ_RESPONSE_FIRST,
  RC_READ_RESPONSE_LAST,
  RC_READ_RESPONSE_MIDDLE,
  RC_READ_RESPONSE_ONLY,
  RC_WRITE_ONLY,
  US,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter, type PlainPacket, type SeenPacket } from '../fixtures/wire-peer.ts';

const ASK = 2;
const ACK = 0x1f;
const EVERYTHING = 15 | ACCESS_FLUSH_GLOBAL;
const here = { rkey: REGION_KEY, address: BASE };
const add = { ...here, opcode: RC_FETCH_ADD, swapAdd: 5n };
const flush = { ...here, opcode: RC_FLUSH, dmaBytes: 64, immediate: FLUSH_GLOBAL };
const write = { ...here, opcode: RC_WRITE_ONLY, flags: ASK };
const read = { ...here, opcode: RC_READ_REQUEST, flags: ASK };

const bytesOf = (value: bigint): Uint8Array => {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, value, true);
  return out;
};
const atomicWrite = {
  ...here,
  opcode: RC_ATOMIC_WRITE,
  dmaBytes: 8,
  payload: bytesOf(0x1122334455667788n),
};
const valueAt = ({ host }: LoneAdapter, address = BASE): bigint =>
  new DataView(host.read(address, 8).buffer).getBigUint64(0, true);
const shape = (p: SeenPacket): number[] => [p.opcode, p.psn, p.syndrome, p.msn];

function newAdapter(options: ConstructorParameters<typeof LoneAdapter>[0] = {}): LoneAdapter {
  const setUp = { access: EVERYTHING, qpAccess: EVERYTHING, ...options.setUp };
  return new LoneAdapter({ bytes: 1 << 16, ...options, setUp });
}

/** Sends packets one after another, `spacing` apart, with PSNs from 100 on unless they have one. */
function sendAll(
  { peer }: LoneAdapter,
  packets: readonly (Omit<PlainPacket, 'psn'> & { psn?: number })[],
  spacing = 1,
): void {
  packets.forEach((packet, i) => {
    peer.at(READY_PS + i * spacing, () => peer.send({ psn: 100 + i, ...packet }));
  });
}

describe('atomics', () => {
  it('add, and swap where the comparison holds, over all 64 bits', () => {
    const lone = newAdapter();
    sendAll(lone, [
      { ...add, swapAdd: 0xffffffffffffffffn },
      { ...add, swapAdd: 3n },
      { ...add, opcode: RC_COMPARE_SWAP, compare: 2n, swapAdd: 0x8000000000000001n },
      { ...add, opcode: RC_COMPARE_SWAP, compare: 2n, swapAdd: 7n },
      { ...add, swapAdd: 0x7fffffffffffffffn },
    ]);
    lone.drive();
    expect(lone.peer.seen.map((p) => [...shape(p), p.original])).toEqual([
      [RC_ATOMIC_ACKNOWLEDGE, 100, ACK, 1, 0n],
      [RC_ATOMIC_ACKNOWLEDGE, 101, ACK, 2, 0xffffffffffffffffn],
      [RC_ATOMIC_ACKNOWLEDGE, 102, ACK, 3, 2n],
      [RC_ATOMIC_ACKNOWLEDGE, 103, ACK, 4, 0x8000000000000001n],
      [RC_ATOMIC_ACKNOWLEDGE, 104, ACK, 5, 0x8000000000000001n],
    ]);
    expect(valueAt(lone)).toBe(0n);
    expect(lone.hca.report().counters.rx_atomic_requests).toBe(5);
    lone.hca.checkLeaks();
  });

  it('keep their place among writes, reads and their acknowledgements', () => {
    const lone = newAdapter();
    sendAll(lone, [
      { ...write, dmaBytes: 8, payload: bytesOf(40n) },
      { ...add, swapAdd: 2n },
      { ...read, dmaBytes: 8 },
      { ...write, dmaBytes: 8, payload: bytesOf(7n) },
      { ...add, swapAdd: 1n },
      atomicWrite,
      { ...read, dmaBytes: 8 },
      flush,
      { ...write, dmaBytes: 0 },
    ]);
    lone.drive();
    expect(lone.peer.seen.map(shape)).toEqual([
      [RC_ACKNOWLEDGE, 100, ACK, 1],
      [RC_ATOMIC_ACKNOWLEDGE, 101, ACK, 2],
      [RC_READ_RESPONSE_ONLY, 102, ACK, 3],
      [RC_ACKNOWLEDGE, 103, ACK, 4],
      [RC_ATOMIC_ACKNOWLEDGE, 104, ACK, 5],
      [RC_READ_RESPONSE_ONLY, 105, ACK, 6],
      [RC_READ_RESPONSE_ONLY, 106, ACK, 7],
      [RC_READ_RESPONSE_ONLY, 107, ACK, 8],
      [RC_ACKNOWLEDGE, 108, ACK, 9],
    ]);
    const [, first, second, , third, written, last] = lone.peer.seen;
    expect(first?.original).toBe(40n);
    expect(second?.payload).toEqual(bytesOf(42n));
    expect(third?.original).toBe(7n);
    expect(written?.payload.length).toBe(0);
    expect(last?.payload).toEqual(atomicWrite.payload);
  });

  it('reach a zero-based region by its offset', () => {
    const access = EVERYTHING | ACCESS_ZERO_BASED;
    const lone = newAdapter({ setUp: { access } });
    sendAll(lone, [
      { ...add, address: 8 },
      { ...write, address: 4090, dmaBytes: 12, payload: new Uint8Array(12).fill(9) },
      { ...read, address: 4090, dmaBytes: 12 },
    ]);
    lone.drive();
    expect(valueAt(lone, BASE + 8)).toBe(5n);
    expect(lone.host.read(BASE + 4090, 12)).toEqual(new Uint8Array(12).fill(9));
    expect(lone.peer.seen[2]?.payload).toEqual(new Uint8Array(12).fill(9));
  });
});

describe('a flush', () => {
  it('is answered when what was written before it is in memory', () => {
    const lone = newAdapter();
    const payload = new Uint8Array(1024).fill(3);
    let atFlush = -1;
    let written = -1;
    sendAll(lone, [{ ...write, flags: 0, dmaBytes: 1024, payload }, flush]);
    lone.peer.onPacket = () => {
      atFlush = lone.host.read(BASE, 1)[0] as number;
    };
    lone.host.at(READY_PS + 10 * US, () => {
      written = lone.host.read(BASE, 1)[0] as number;
    });
    lone.drive();
    expect(atFlush).toBe(3);
    expect(written).toBe(3);
    // There and back over the bus, on top of the way of the packets.
    const [answer] = lone.peer.seen;
    expect((answer?.timePs ?? 0) - READY_PS).toBeGreaterThan(2 * 1000 * NS + 2 * 250 * NS);
    lone.hca.checkLeaks();
  });

  it('asks memory for nothing, and that crosses the bus between processes too', () => {
    const pool = new FramePool();
    const bytes = new Uint8Array(BUS_MAX_BYTES);
    for (const type of [BUS_DMA_READ, BUS_DMA_READ_DATA]) {
      const frame = pool.allocate();
      pool.words[frame * FRAME_WORDS] = type;
      pool.words[frame * FRAME_WORDS + 1] = 77;
      const copy = decodeBus(pool, bytes, 0, encodeBus(pool, frame, bytes, 0));
      expect(copy).toBeGreaterThanOrEqual(0);
      expect([...pool.words.slice(copy * FRAME_WORDS, copy * FRAME_WORDS + 12)]).toEqual([
        ...pool.words.slice(frame * FRAME_WORDS, frame * FRAME_WORDS + 12),
      ]);
      pool.release(frame);
      pool.release(copy);
    }
    expect([pool.framesInUse, pool.burstsInUse]).toEqual([0, 0]);
  });

  it.each([
    ['of a range of nothing', { dmaBytes: 0 }, FLUSH_RANGE],
    ['of the region, whatever range it names', { address: 1, dmaBytes: 2 ** 31 }, FLUSH_MR],
  ])('%s is good', (_, change, level) => {
    const lone = newAdapter();
    sendAll(lone, [{ ...flush, ...change, immediate: FLUSH_GLOBAL | (level << 4) }]);
    lone.drive();
    expect(lone.peer.seen.map(shape)).toEqual([[RC_READ_RESPONSE_ONLY, 100, ACK, 1]]);
  });
});

describe('what is asked for again', () => {
  it('is answered from what was saved, and not done again', () => {
    const lone = newAdapter();
    const first = [
      add,
      { ...add, opcode: RC_COMPARE_SWAP, compare: 5n, swapAdd: 9n },
      atomicWrite,
      flush,
    ];
    sendAll(
      lone,
      [...first, ...[...first, ...first].map((packet, i) => ({ ...packet, psn: 100 + (i % 4) }))],
      5 * US,
    );
    // What stands there since then must stay.
    lone.host.at(READY_PS + 17 * US, () => lone.host.fill(BASE, 8, 1));
    lone.drive();
    const answers = [
      [RC_ATOMIC_ACKNOWLEDGE, 100, 0n],
      [RC_ATOMIC_ACKNOWLEDGE, 101, 5n],
      [RC_READ_RESPONSE_ONLY, 102, 0n],
      [RC_READ_RESPONSE_ONLY, 103, 0n],
    ];
    const seen = lone.peer.seen.map((p) => [
      p.opcode,
      p.psn,
      p.opcode === RC_ATOMIC_ACKNOWLEDGE ? p.original : 0n,
    ]);
    expect(seen).toEqual([...answers, ...answers, ...answers]);
    // A repeated answer says where the responder is now.
    expect(lone.peer.seen.map((p) => p.msn)).toEqual([1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4]);
    const after = lone.host.read(BASE, 8);
    lone.host.fill(BASE, 8, 1);
    expect(after).toEqual(lone.host.read(BASE, 8));
    expect(lone.hca.report().counters.duplicate_request).toBe(8);
  });

  it('while it is still on its way is answered once', () => {
    const lone = newAdapter();
    sendAll(lone, [
      add,
      { ...add, psn: 100 },
      { ...add, psn: 100 },
      { ...flush, psn: 101 },
      { ...flush, psn: 101 },
    ]);
    lone.drive();
    expect(lone.peer.seen.map((p) => [p.opcode, p.psn])).toEqual([
      [RC_ATOMIC_ACKNOWLEDGE, 100],
      [RC_READ_RESPONSE_ONLY, 101],
    ]);
    expect(valueAt(lone)).toBe(5n);
  });

  it('is remembered max_dest_rd_atomic operations back, and dropped beyond', () => {
    const lone = newAdapter({ setUp: { maxDestRdAtomic: 3 } });
    const five = [add, add, add, add, add];
    sendAll(lone, [...five, ...five.map((packet, i) => ({ ...packet, psn: 100 + i }))], 5 * US);
    lone.drive();
    expect(lone.peer.seen.map((p) => p.psn)).toEqual([100, 101, 102, 103, 104, 102, 103, 104]);
    expect(lone.peer.seen.map((p) => p.original)).toEqual([0n, 5n, 10n, 15n, 20n, 10n, 15n, 20n]);
    expect(valueAt(lone)).toBe(25n);
  });

  it('as something else is dropped', () => {
    const lone = newAdapter();
    sendAll(
      lone,
      [
        add,
        { ...read, psn: 101, dmaBytes: 3000 },
        { ...read, psn: 100, dmaBytes: 8 },
        { ...flush, psn: 100 },
        { ...add, psn: 101 },
        // READs that are no part of the one that was answered.
        { ...read, psn: 101, dmaBytes: 3001 },
        { ...read, psn: 101, address: BASE - 8, dmaBytes: 8 },
        { ...read, psn: 103, dmaBytes: 3000 },
        { ...read, psn: 101, rkey: 0x777, dmaBytes: 3000 },
        { ...read, psn: 101, dmaBytes: 0 },
        // A reserved opcode.
        { opcode: 0x1f, psn: 100 },
      ],
      5 * US,
    );
    lone.drive();
    expect(lone.peer.seen.map((p) => [p.opcode, p.psn])).toEqual([
      [RC_ATOMIC_ACKNOWLEDGE, 100],
      [RC_READ_RESPONSE_FIRST, 101],
      [RC_READ_RESPONSE_MIDDLE, 102],
      [RC_READ_RESPONSE_LAST, 103],
    ]);
  });

  it('a part of a READ is read from memory anew, and only that part', () => {
    const lone = newAdapter();
    const payload = (value: number): Uint8Array => new Uint8Array(1024).fill(value);
    sendAll(
      lone,
      [
        { ...read, dmaBytes: 4096 },
        { ...write, psn: 104, address: BASE + 1024, dmaBytes: 1024, payload: payload(8) },
        { ...read, psn: 101, address: BASE + 1024, dmaBytes: 2048 },
      ],
      20 * US,
    );
    lone.drive();
    expect(lone.peer.seen.slice(5).map((p) => [p.opcode, p.psn, p.payload[0]])).toEqual([
      [RC_READ_RESPONSE_FIRST, 101, 8],
      [RC_READ_RESPONSE_LAST, 102, 0],
    ]);
  });

  it('by a copy that the network made disturbs nothing that is under way', () => {
    const lone = newAdapter({ bytes: 1 << 20 });
    const long = { ...read, dmaBytes: 1 << 18 };
    sendAll(lone, [
      { ...read, dmaBytes: 8 },
      long,
      // Copies of both, while the second is answered, and what comes behind them.
      { ...read, psn: 100, dmaBytes: 8 },
      { ...long, psn: 101 },
      { ...write, psn: 101 + 256, dmaBytes: 0 },
    ]);
    lone.drive();
    const psns = lone.peer.seen.map((p) => p.psn);
    for (let i = 0; i < 256; i++) expect(psns.filter((psn) => psn === 101 + i)).toEqual([101 + i]);
    expect(psns.at(-1)).toBe(101 + 256);
  });

  it('while a READ is answered, for a part that is still to come, changes nothing', () => {
    const lone = newAdapter({ bytes: 1 << 20 });
    sendAll(lone, [{ ...read, dmaBytes: 1 << 18 }]);
    const part = { ...read, psn: 300, address: BASE + 200 * 1024, dmaBytes: 10 * 1024 };
    lone.peer.at(READY_PS + 9 * US, () => {
      expect(lone.peer.seen.at(-1)?.psn).toBeLessThan(200);
      lone.peer.send(part);
    });
    lone.drive();
    expect(lone.peer.seen.map((p) => p.psn)).toEqual(
      Array.from({ length: 256 }, (_, i) => 100 + i),
    );
  });

  it('more than max_dest_rd_atomic at once is refused behind the answers that are due', () => {
    const lone = newAdapter({ setUp: { maxDestRdAtomic: 2 } });
    sendAll(lone, [add, { ...read, dmaBytes: 8 }, add, add]);
    lone.drive();
    expect(lone.peer.seen.map(shape)).toEqual([
      [RC_ATOMIC_ACKNOWLEDGE, 100, ACK, 1],
      [RC_READ_RESPONSE_ONLY, 101, ACK, 2],
      [RC_ACKNOWLEDGE, 102, 0x61, 2],
    ]);
    expect(valueAt(lone)).toBe(5n);
    lone.hca.checkLeaks();
  });
});

describe('without its page', () => {
  const need = { write: FAULT_AT_RESPONDER | ACCESS_WRITE, read: FAULT_AT_RESPONDER | ACCESS_READ };
  it.each([
    ['an atomic', add, need.write, RC_ATOMIC_ACKNOWLEDGE],
    ['an atomic write', atomicWrite, need.write, RC_READ_RESPONSE_ONLY],
    ['a flush', flush, need.read, RC_READ_RESPONSE_ONLY],
    ['a read', { ...read, dmaBytes: 64 }, need.read, RC_READ_RESPONSE_ONLY],
  ])('%s is told to come again, and done once', (_, packet, access, answer) => {
    const lone = newAdapter({ setUp: { present: false } });
    const { host, peer } = lone;
    sendAll(lone, [packet]);
    host.onFault = ({ token }) => {
      host.at(host.node.now + 50 * US, () => {
        host.table(REGION_KEY, 0, 1, () => ((BASE / 4096) << 2) | 3);
        host.resumeFault(token);
      });
    };
    // The peer comes again too early, and once more.
    for (const at of [10 * US, MS])
      peer.at(READY_PS + at, () => peer.send({ ...packet, psn: 100 }));
    lone.drive();
    expect(peer.seen.map((p) => [p.opcode, p.psn, p.syndrome])).toEqual([
      [RC_ACKNOWLEDGE, 100, 0x20 | 12],
      [RC_ACKNOWLEDGE, 100, 0x20 | 12],
      [answer, 100, ACK],
    ]);
    expect(host.faults.map((f) => [f.access, f.address])).toEqual([[access, BASE]]);
    if (packet === add) expect(valueAt(lone)).toBe(5n);
    if (packet === atomicWrite) expect(host.read(BASE, 8)).toEqual(atomicWrite.payload);
    lone.hca.checkLeaks();
  });

  it('a flush of the whole region needs none', () => {
    const lone = newAdapter({ setUp: { present: false } });
    sendAll(lone, [{ ...flush, immediate: FLUSH_GLOBAL | (FLUSH_MR << 4) }]);
    lone.drive();
    expect(lone.peer.seen.map(shape)).toEqual([[RC_READ_RESPONSE_ONLY, 100, ACK, 1]]);
  });

  it('an atomic whose page cannot be had ends the connection', () => {
    const lone = newAdapter({ setUp: { present: false } });
    const { host, peer } = lone;
    sendAll(lone, [add, { ...add, psn: 100 }], MS);
    host.onFault = ({ token }) => host.resumeFault(token, 1);
    lone.drive();
    expect(peer.seen.map((p) => p.syndrome)).toEqual([0x2c, 0x63]);
    expect(host.read(BASE, 8)).toEqual(bytesOf(0n));
  });
});
