/**
 * Every way in which a peer can misuse a reliable connection: the answer, the completion, the event,
 * and that no byte of memory changes.
 */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_LOCAL_WRITE,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_ZERO_BASED,
  BUS_RECV_DOORBELL,
  CMD_ALLOC_PD,
  CMD_CREATE_MKEY,
  EVENT_QP_ACCESS_ERR,
  EVENT_QP_REQ_ERR,
  FLUSH_GLOBAL,
  FLUSH_MR,
  FLUSH_PERSISTENT,
  RC_ACKNOWLEDGE,
  RC_ATOMIC_WRITE,
  RC_COMPARE_SWAP,
  RC_FETCH_ADD,
  RC_FLUSH,
  RC_READ_REQUEST,
  RC_SEND_FIRST,
  RC_SEND_LAST,
  RC_SEND_LAST_IMM,
  RC_SEND_MIDDLE,
  RC_SEND_ONLY,
  RC_SEND_ONLY_INV,
  RC_WRITE_FIRST,
  RC_WRITE_LAST,
  RC_WRITE_LAST_IMM,
  RC_WRITE_MIDDLE,
  RC_WRITE_ONLY,
  RC_WRITE_ONLY_IMM,
  WC_LOC_ACCESS_ERR,
  WC_LOC_LEN_ERR,
  WC_LOC_PROT_ERR,
  WC_LOC_QP_OP_ERR,
  WC_REM_INV_REQ_ERR,
  WC_WR_FLUSH_ERR,
} from '../../transport/index.ts';
import { type BareSge, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter, type PlainPacket } from '../fixtures/wire-peer.ts';

const QPN = 0x11;
const SIZE = 1 << 17;
const MTU = 1024;
const ACK = 0x1f;
const INVALID = 0x61;
const ACCESS = 0x62;
const OPERATION = 0x63;
/** Regions of the host besides REGION_KEY: of another domain, and without this or that right. */
const FOREIGN = (2 << 8) | 7;
const READ_ONLY = (3 << 8) | 7;
const WRITE_ONLY = (4 << 8) | 7;
const ZERO_BASED = (5 << 8) | 7;
const EVERYTHING =
  ACCESS_LOCAL_WRITE |
  ACCESS_REMOTE_WRITE |
  ACCESS_REMOTE_READ |
  ACCESS_REMOTE_ATOMIC |
  ACCESS_FLUSH_GLOBAL;

const bytes = (length: number, value = 0xee): Uint8Array => new Uint8Array(length).fill(value);
const full = bytes(MTU);
const here = { rkey: REGION_KEY, address: BASE };
const write = { ...here, opcode: RC_WRITE_ONLY, dmaBytes: 8, payload: bytes(8) };
const read = { ...here, opcode: RC_READ_REQUEST, dmaBytes: 8 };
const add = { ...here, opcode: RC_FETCH_ADD, swapAdd: 1n };
const atomicWrite = { ...here, opcode: RC_ATOMIC_WRITE, dmaBytes: 8, payload: bytes(8) };
const flush = { ...here, opcode: RC_FLUSH, dmaBytes: 8, immediate: FLUSH_GLOBAL };
const send = { opcode: RC_SEND_ONLY, payload: bytes(8) };

interface Case {
  /** Packets in sequence; the last one is the one that is misused. */
  packets: readonly Omit<PlainPacket, 'psn'>[];
  /** Syndrome of the only answer, and the packet that it is for (the last). */
  syndrome: number;
  /** Statuses of the receives, in order; wr_ids count from 1. */
  receives?: readonly number[];
  events?: readonly number[];
  /** Entries of each posted receive. */
  posted?: readonly (readonly BareSge[])[];
  qpAccess?: number;
  maxDestRdAtomic?: number;
  /** Offsets from BASE that the packets before the last may change. */
  changed?: readonly [number, number];
}

const invalid = { syndrome: INVALID, events: [EVENT_QP_REQ_ERR] };
const denied = { syndrome: ACCESS, events: [EVENT_QP_ACCESS_ERR] };
const room = [{ address: BASE + 32_768, length: 8192, lkey: REGION_KEY }];

const cases: Record<string, Case> = {
  // Keys, ranges, rights, protection domains.
  'a write with a key that is not there': {
    packets: [{ ...write, rkey: (99 << 8) | 7 }],
    ...denied,
  },
  'a write with another variant of a key': {
    packets: [{ ...write, rkey: REGION_KEY + 1 }],
    ...denied,
  },
  'a write to another domain': { packets: [{ ...write, rkey: FOREIGN }], ...denied },
  'a write before the region': { packets: [{ ...write, address: BASE - 1 }], ...denied },
  'a write behind the region': { packets: [{ ...write, address: BASE + SIZE - 7 }], ...denied },
  'a write that wraps around the address space': {
    packets: [{ ...write, address: 2 ** 64 - 4 }],
    ...denied,
  },
  'a write to a region for reading': { packets: [{ ...write, rkey: READ_ONLY }], ...denied },
  'a long write whose end is outside, at its first packet': {
    packets: [
      {
        ...write,
        opcode: RC_WRITE_FIRST,
        address: BASE + SIZE - 2047,
        dmaBytes: 2048,
        payload: full,
      },
    ],
    ...denied,
  },
  'a read with a key that is not there': { packets: [{ ...read, rkey: 1 }], ...denied },
  'a read of a region for writing': { packets: [{ ...read, rkey: WRITE_ONLY }], ...denied },
  'a read that ends behind the region': {
    packets: [{ ...read, dmaBytes: SIZE + 1 }],
    ...denied,
  },
  'an atomic on a region without the right': { packets: [{ ...add, rkey: READ_ONLY }], ...denied },
  'an atomic on another domain': { packets: [{ ...add, rkey: FOREIGN }], ...denied },
  'an atomic at the end of the region': {
    packets: [{ ...add, address: BASE + SIZE }],
    ...denied,
  },
  'an atomic write to a region for reading': {
    packets: [{ ...atomicWrite, rkey: READ_ONLY }],
    ...denied,
  },
  'a flush of a region without the right': { packets: [{ ...flush, rkey: READ_ONLY }], ...denied },
  'a flush that asks for persistence, which the region does not give': {
    packets: [{ ...flush, immediate: FLUSH_GLOBAL | FLUSH_PERSISTENT }],
    ...denied,
    qpAccess: 0x3ff,
  },
  'a flush of a whole region with a wrong key': {
    packets: [{ ...flush, rkey: 1, immediate: FLUSH_GLOBAL | (FLUSH_MR << 4) }],
    ...denied,
  },
  'a write by the real address to a zero-based region': {
    packets: [{ ...write, rkey: ZERO_BASED, address: BASE + SIZE - 8 }],
    ...denied,
  },
  'a write with immediate and a wrong key, which uses up its receive': {
    packets: [{ ...write, opcode: RC_WRITE_ONLY_IMM, rkey: 1 }],
    syndrome: ACCESS,
    receives: [WC_LOC_ACCESS_ERR, WC_WR_FLUSH_ERR],
    posted: [room, room],
  },

  // What the queue pair does not do.
  'a write through a queue pair that takes none': {
    packets: [write],
    ...invalid,
    qpAccess: ACCESS_REMOTE_READ,
  },
  'a write of nothing through a queue pair that takes none': {
    packets: [{ ...write, dmaBytes: 0, payload: bytes(0) }],
    ...invalid,
    qpAccess: ACCESS_REMOTE_READ,
  },
  'a read through a queue pair that answers none': {
    packets: [read],
    ...invalid,
    qpAccess: ACCESS_REMOTE_WRITE,
  },
  'an atomic through a queue pair that takes none': {
    packets: [add],
    ...invalid,
    qpAccess: ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ,
  },
  'a flush through a queue pair that takes none': { packets: [flush], ...invalid, qpAccess: 15 },
  'a read where none may be outstanding': { packets: [read], ...invalid, maxDestRdAtomic: 0 },
  'an atomic where none may be outstanding': { packets: [add], ...invalid, maxDestRdAtomic: 0 },
  'an atomic write where none may be outstanding': {
    packets: [atomicWrite],
    ...invalid,
    maxDestRdAtomic: 0,
  },

  // Alignment.
  'an atomic that is not aligned': { packets: [{ ...add, address: BASE + 4 }], ...invalid },
  'a compare and swap that is not aligned': {
    packets: [{ ...add, opcode: RC_COMPARE_SWAP, address: BASE + 1 }],
    ...invalid,
  },
  'an atomic write that is not aligned': {
    packets: [{ ...atomicWrite, address: BASE + 4 }],
    ...invalid,
  },
  'an atomic whose zero-based address hides that it is not aligned': {
    packets: [{ ...add, rkey: ZERO_BASED, address: 0 }],
    ...invalid,
  },

  // Lengths.
  'an atomic write of seven bytes': {
    packets: [{ ...atomicWrite, dmaBytes: 7, payload: bytes(7) }],
    ...invalid,
  },
  'an atomic write whose header says more': {
    packets: [{ ...atomicWrite, dmaBytes: 16 }],
    ...invalid,
  },
  'a write that is longer than its header says': {
    packets: [{ ...write, payload: bytes(9) }],
    ...invalid,
  },
  'a write that is shorter than its header says': {
    packets: [{ ...write, payload: bytes(7) }],
    ...invalid,
  },
  'a write whose header says more than 2^31': {
    packets: [{ ...write, dmaBytes: 2 ** 31 + 1 }],
    ...invalid,
  },
  'a read of more than 2^31': { packets: [{ ...read, dmaBytes: 2 ** 32 - 1 }], ...invalid },
  'an ONLY packet above the MTU': {
    packets: [{ ...write, dmaBytes: MTU + 4, payload: bytes(MTU + 4) }],
    ...invalid,
  },
  'a FIRST packet below the MTU': {
    packets: [{ ...write, opcode: RC_WRITE_FIRST, dmaBytes: 3000, payload: bytes(MTU - 4) }],
    ...invalid,
  },
  'a FIRST packet that is already the whole message': {
    packets: [{ ...write, opcode: RC_WRITE_FIRST, dmaBytes: MTU, payload: full }],
    ...invalid,
  },
  'a MIDDLE packet below the MTU': {
    packets: [
      { ...write, opcode: RC_WRITE_FIRST, dmaBytes: 4000, payload: full },
      { opcode: RC_WRITE_MIDDLE, payload: bytes(8) },
    ],
    ...invalid,
    changed: [0, MTU],
  },
  'a LAST packet without a byte': {
    packets: [
      { ...write, opcode: RC_WRITE_FIRST, dmaBytes: 2000, payload: full },
      { opcode: RC_WRITE_LAST },
    ],
    ...invalid,
    changed: [0, MTU],
  },
  'a LAST packet that ends a write early': {
    packets: [
      { ...write, opcode: RC_WRITE_FIRST, dmaBytes: 2000, payload: full },
      { opcode: RC_WRITE_LAST, payload: bytes(8) },
    ],
    ...invalid,
    changed: [0, MTU],
  },
  'a LAST packet with immediate that ends a write early, which uses up a receive': {
    packets: [
      { ...write, opcode: RC_WRITE_FIRST, dmaBytes: 2000, payload: full },
      { opcode: RC_WRITE_LAST_IMM, payload: bytes(8) },
    ],
    syndrome: INVALID,
    receives: [WC_REM_INV_REQ_ERR],
    posted: [room],
    changed: [0, MTU],
  },
  'a send whose FIRST packet is short': {
    packets: [{ ...send, opcode: RC_SEND_FIRST, payload: bytes(8) }],
    syndrome: INVALID,
    receives: [WC_REM_INV_REQ_ERR, WC_WR_FLUSH_ERR],
    posted: [room, room],
  },

  // Receives.
  'a send that is longer than its receive': {
    packets: [{ ...send, payload: bytes(9) }],
    syndrome: INVALID,
    receives: [WC_LOC_LEN_ERR, WC_WR_FLUSH_ERR],
    posted: [[{ address: BASE, length: 8, lkey: REGION_KEY }], room],
  },
  'a send that outgrows its receive in the middle': {
    packets: [
      { ...send, opcode: RC_SEND_FIRST, payload: full },
      { opcode: RC_SEND_MIDDLE, payload: full },
    ],
    syndrome: INVALID,
    receives: [WC_LOC_LEN_ERR],
    posted: [[{ address: BASE, length: 2000, lkey: REGION_KEY }]],
    changed: [0, MTU],
  },
  'a send that outgrows the entries of its receive': {
    packets: [{ ...send, payload: bytes(17) }],
    syndrome: INVALID,
    receives: [WC_LOC_LEN_ERR],
    posted: [
      [
        { address: BASE, length: 8, lkey: REGION_KEY },
        { address: BASE + 100, length: 8, lkey: REGION_KEY },
      ],
    ],
  },
  'a send into a receive with a wrong key': {
    packets: [send],
    syndrome: OPERATION,
    receives: [WC_LOC_PROT_ERR, WC_WR_FLUSH_ERR],
    posted: [[{ address: BASE, length: 64, lkey: 0x9999 }], room],
  },
  'a send into a receive that may only be read': {
    packets: [send],
    syndrome: OPERATION,
    receives: [WC_LOC_PROT_ERR],
    posted: [[{ address: BASE, length: 64, lkey: READ_ONLY }]],
  },
  'a send into a receive of another domain': {
    packets: [send],
    syndrome: OPERATION,
    receives: [WC_LOC_PROT_ERR],
    posted: [[{ address: BASE, length: 64, lkey: FOREIGN }]],
  },
  'a send into a receive that reaches outside its region': {
    packets: [send],
    syndrome: OPERATION,
    receives: [WC_LOC_PROT_ERR],
    posted: [[{ address: BASE + SIZE - 8, length: 64, lkey: REGION_KEY }]],
  },
  'a send whose second entry has a wrong key: nothing of the packet lands': {
    packets: [send],
    syndrome: OPERATION,
    receives: [WC_LOC_PROT_ERR],
    posted: [
      [
        { address: BASE, length: 4, lkey: REGION_KEY },
        { address: BASE + 100, length: 4, lkey: 0x9999 },
      ],
    ],
  },
  'a send into a receive with more entries than there can be': {
    packets: [send],
    syndrome: OPERATION,
    receives: [WC_LOC_QP_OP_ERR],
    posted: [Array.from({ length: 17 }, () => ({ address: BASE, length: 8, lkey: REGION_KEY }))],
  },

  // Order of opcodes.
  'a MIDDLE packet of no message': {
    packets: [{ opcode: RC_WRITE_MIDDLE, payload: full }],
    ...invalid,
  },
  'a LAST packet of no message': { packets: [{ opcode: RC_SEND_LAST, payload: full }], ...invalid },
  'a send that goes on as a write': {
    packets: [
      { ...send, opcode: RC_SEND_FIRST, payload: full },
      { opcode: RC_WRITE_MIDDLE, payload: full },
    ],
    syndrome: INVALID,
    receives: [WC_REM_INV_REQ_ERR, WC_WR_FLUSH_ERR],
    posted: [room, room],
    changed: [32_768, 32_768 + MTU],
  },
  'a write that goes on as a send': {
    packets: [
      { ...write, opcode: RC_WRITE_FIRST, dmaBytes: 3000, payload: full },
      { opcode: RC_SEND_LAST_IMM, payload: full },
    ],
    ...invalid,
    receives: [WC_WR_FLUSH_ERR],
    posted: [room],
    changed: [0, MTU],
  },
  'a read inside a write': {
    packets: [{ ...write, opcode: RC_WRITE_FIRST, dmaBytes: 3000, payload: full }, read],
    ...invalid,
    changed: [0, MTU],
  },
  'a write inside a send': {
    packets: [{ ...send, opcode: RC_SEND_FIRST, payload: full }, write],
    syndrome: INVALID,
    receives: [WC_REM_INV_REQ_ERR],
    posted: [room],
    changed: [32_768, 32_768 + MTU],
  },
  'a send inside a send': {
    packets: [{ ...send, opcode: RC_SEND_FIRST, payload: full }, send],
    syndrome: INVALID,
    receives: [WC_REM_INV_REQ_ERR],
    posted: [room],
    changed: [32_768, 32_768 + MTU],
  },

  // Opcodes that are none, and a flush that is none.
  'a reserved opcode': { packets: [{ opcode: 0x1f, payload: bytes(8) }], ...invalid },
  'the RESYNC opcode of reliable datagrams': { packets: [{ opcode: 0x15 }], ...invalid },
  'a reserved opcode inside a send': {
    packets: [
      { ...send, opcode: RC_SEND_FIRST, payload: full },
      { opcode: 0x18, payload: full },
    ],
    syndrome: INVALID,
    receives: [WC_REM_INV_REQ_ERR],
    posted: [room],
    changed: [32_768, 32_768 + MTU],
  },
  'a flush of no placement type': { packets: [{ ...flush, immediate: 0 }], ...invalid },
  'a flush of a reserved placement type': {
    packets: [{ ...flush, immediate: FLUSH_GLOBAL | 8 }],
    ...invalid,
  },
  'a flush of a reserved level': {
    packets: [{ ...flush, immediate: FLUSH_GLOBAL | (2 << 4) }],
    ...invalid,
  },
};

describe('the responder of a reliable connection refuses', () => {
  it.each(Object.entries(cases))('%s', (_, test) => {
    const lone = run(test);
    lone.drive();
    const { host, peer } = lone;
    const last = 100 + test.packets.length - 1;
    expect(peer.seen.map((p) => [p.opcode, p.psn, p.syndrome, p.msn])).toEqual([
      [RC_ACKNOWLEDGE, last, test.syndrome, 0],
      // The connection has ended: the good write that follows is not answered.
    ]);
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual(
      (test.receives ?? []).map((status, i) => [i + 1, status]),
    );
    expect(host.asyncEvents).toEqual(test.events ?? []);
    const [from, to] = test.changed ?? [0, 0];
    host.read(BASE - 4096, SIZE + 8192).forEach((byte, i) => {
      const at = i - 4096;
      if (byte !== 0x55 && (at < from || at >= to)) throw new Error(`byte ${at} has changed`);
    });
  });
});

/** Sends the packets of a case, then a good write, to a queue pair in RTS. */
function run(test: Case): LoneAdapter {
  const lone = new LoneAdapter({
    bytes: SIZE,
    setUp: {
      access: EVERYTHING,
      mtu: MTU,
      qpAccess: test.qpAccess ?? EVERYTHING,
      maxDestRdAtomic: test.maxDestRdAtomic ?? 16,
    },
  });
  const { host, peer } = lone;
  host.at(READY_PS / 2, () => {
    for (let i = 0; i < SIZE + 8192; i += 4096) {
      const page = (BASE - 4096 + i) / 4096;
      const burst = lone.pool.burstFromBytes(bytes(4096, 0x55), 0, 4096);
      host.land(burst, 0, 4096, page, 0);
      lone.pool.releaseBurst(burst);
    }
    host.command(CMD_ALLOC_PD);
    host.command(CMD_CREATE_MKEY, [2, EVERYTHING, 7], [BASE, SIZE]);
    host.command(CMD_CREATE_MKEY, [1, ACCESS_REMOTE_READ, 7], [BASE, SIZE]);
    host.command(CMD_CREATE_MKEY, [1, ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE, 7], [BASE, SIZE]);
    host.command(CMD_CREATE_MKEY, [1, EVERYTHING | ACCESS_ZERO_BASED, 7], [BASE + 4, SIZE - 4]);
    for (const key of [FOREIGN, READ_ONLY, WRITE_ONLY, ZERO_BASED]) {
      host.table(key, 0, SIZE / 4096, (i) => ((BASE / 4096 + i) << 2) | 3);
    }
    test.posted?.forEach((sges, i) => {
      host.postBuffer(BUS_RECV_DOORBELL, QPN, i + 1, sges);
    });
  });
  peer.at(READY_PS, () => {
    let psn = 100;
    for (const packet of test.packets) peer.send({ ...packet, psn: psn++ });
    peer.send({ ...write, flags: 2, address: BASE + 65_536, psn });
  });
  return lone;
}

it('a SEND that may not invalidate what it names is acknowledged, and ends the connection', () => {
  const lone = run({
    packets: [{ ...send, opcode: RC_SEND_ONLY_INV, flags: 2, immediate: 0x777 }],
    syndrome: ACK,
    posted: [room, room],
  });
  lone.drive();
  const { host, peer } = lone;
  expect(peer.seen.map((p) => [p.opcode, p.psn, p.syndrome, p.msn])).toEqual([
    [RC_ACKNOWLEDGE, 100, ACK, 0],
  ]);
  expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
    [1, WC_REM_INV_REQ_ERR],
    [2, WC_WR_FLUSH_ERR],
  ]);
  expect(host.asyncEvents).toEqual([]);
  expect(host.read(BASE + 32_768, 8)).toEqual(bytes(8));
});
