/** The responder of the unreliable connection: what is lost, what is not, and that it says nothing. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_REMOTE_READ,
  BUS_RECV_DOORBELL,
  BUS_SRQ_DOORBELL,
  EVENT_COMM_EST,
  EVENT_QP_LAST_WQE_REACHED,
  MS,
  QPS_INIT,
  QPS_RTR,
  QPT_UC,
  UC_SEND_FIRST,
  UC_SEND_LAST,
  UC_SEND_LAST_IMM,
  UC_SEND_MIDDLE,
  UC_SEND_ONLY,
  UC_WRITE_FIRST,
  UC_WRITE_LAST,
  UC_WRITE_LAST_IMM,
  UC_WRITE_MIDDLE,
  UC_WRITE_ONLY,
  UC_WRITE_ONLY_IMM,
  WC_LOC_PROT_ERR,
  WC_REM_INV_REQ_ERR,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
} from '../../transport/index.ts';
import { type BareSge, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter, type PlainPacket } from '../fixtures/wire-peer.ts';

const QPN = 0x11;
const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);
const full = (value: number): { payload: Uint8Array } => ({ payload: bytes(1024, value) });
const here = { rkey: REGION_KEY, address: BASE };
const first = { ...here, opcode: UC_WRITE_FIRST, dmaBytes: 3000 };
const last = { opcode: UC_WRITE_LAST, payload: bytes(952, 9) };
const send = { opcode: UC_SEND_ONLY, payload: bytes(8, 7) };
/** Receive number i (from 1) goes to this address. */
const bufferOf = (i: number): number => BASE + 8192 * i;

interface Options {
  setUp?: ConstructorParameters<typeof LoneAdapter>[0] extends infer T
    ? T extends { setUp?: infer S }
      ? S
      : never
    : never;
  receives?: number | readonly (readonly BareSge[])[];
}

/** Sends packets with PSNs from 100 on, unless they have one. */
function run(
  packets: readonly (Omit<PlainPacket, 'psn'> & { psn?: number })[],
  { setUp = {}, receives = 0 }: Options = {},
): LoneAdapter {
  const lone = new LoneAdapter({ bytes: 1 << 16, setUp: { type: QPT_UC, ...setUp } });
  const { host, peer } = lone;
  const posted =
    typeof receives === 'number'
      ? Array.from({ length: receives }, (_, i) => [
          { address: bufferOf(i + 1), length: 4096, lkey: REGION_KEY },
        ])
      : receives;
  const isShared = setUp.srqEntries !== undefined;
  host.at(READY_PS / 2, () => {
    posted.forEach((sges, i) => {
      if (isShared) host.postBuffer(BUS_SRQ_DOORBELL, 1, i + 1, sges);
      else host.postBuffer(BUS_RECV_DOORBELL, QPN, i + 1, sges);
    });
  });
  peer.at(READY_PS, () => {
    packets.forEach((packet, i) => {
      peer.send({ psn: 100 + i, ...packet });
    });
  });
  return lone;
}

const received = ({ host }: LoneAdapter): number[][] =>
  host.completions.map((c) => [c.wrId, c.status, c.bytes, c.immediate]);
const drops = ({ hca }: LoneAdapter): number => hca.report().counters.unreliable_drops as number;

describe('the responder of an unreliable connection', () => {
  it('takes messages of every kind and says nothing', () => {
    const lone = run(
      [
        { ...first, ...full(1) },
        { opcode: UC_WRITE_MIDDLE, ...full(2) },
        last,
        { opcode: UC_SEND_FIRST, ...full(3) },
        { opcode: UC_SEND_MIDDLE, ...full(4) },
        { opcode: UC_SEND_LAST_IMM, payload: bytes(5, 5), immediate: 77 },
        { ...here, opcode: UC_WRITE_ONLY_IMM, dmaBytes: 0, immediate: 78 },
        {
          ...here,
          opcode: UC_WRITE_ONLY,
          address: BASE + 4000,
          dmaBytes: 200,
          payload: bytes(200, 6),
        },
        { ...send, flags: 3 },
      ],
      { receives: 3 },
    );
    lone.drive();
    const { host, peer } = lone;
    expect(peer.seen).toEqual([]);
    expect(received(lone)).toEqual([
      [1, WC_SUCCESS, 2053, 77],
      [2, WC_SUCCESS, 0, 78],
      [3, WC_SUCCESS, 8, 0],
    ]);
    expect(host.completions.map((c) => c.flags)).toEqual([1 | 2, 1 | 2, 1 | 16]);
    expect([...host.read(BASE, 3000)].map((b) => b)).toEqual([
      ...bytes(1024, 1),
      ...bytes(1024, 2),
      ...bytes(952, 9),
    ]);
    expect(host.read(bufferOf(1) + 2047, 7)).toEqual(Uint8Array.of(4, 5, 5, 5, 5, 5, 0));
    expect(host.read(BASE + 4000, 201)).toEqual(Uint8Array.of(...bytes(200, 6), 0));
    expect(drops(lone)).toBe(0);
  });

  it.each([
    ['the first packet of a send', [UC_SEND_MIDDLE, UC_SEND_LAST], [101, 102]],
    ['a middle one', [UC_SEND_FIRST, UC_SEND_LAST], [100, 102]],
    ['the last one', [UC_SEND_FIRST, UC_SEND_MIDDLE], [100, 101]],
  ])(
    'that misses %s loses that message, and takes the next into the same receive',
    (_, opcodes, psns) => {
      const lone = run(
        [
          ...opcodes.map((opcode, i) => ({ opcode, psn: psns[i] as number, ...full(1) })),
          { ...send, psn: 103 },
          { ...send, psn: 104 },
        ],
        { receives: 2 },
      );
      lone.drive();
      expect(received(lone)).toEqual([
        [1, WC_SUCCESS, 8, 0],
        [2, WC_SUCCESS, 8, 0],
      ]);
      expect(lone.host.read(bufferOf(1), 8)).toEqual(send.payload);
      expect(lone.hca.report().counters.out_of_sequence).toBe(1);
    },
  );

  it('takes up again at any first packet, whatever its PSN, also around the wrap', () => {
    const lone = run(
      [
        { ...send, psn: 0xfffffe },
        { ...send, psn: 0 },
        { ...send, psn: 5 },
        { ...send, psn: 4 },
        { opcode: UC_SEND_FIRST, psn: 0xffffff, ...full(1) },
        { opcode: UC_SEND_LAST, psn: 0, payload: bytes(4, 2) },
      ],
      { receives: 5, setUp: { receivePsn: 0xfffffe } },
    );
    lone.drive();
    expect(received(lone).map(([id, status, length]) => [id, status, length])).toEqual([
      [1, WC_SUCCESS, 8],
      [2, WC_SUCCESS, 8],
      [3, WC_SUCCESS, 8],
      [4, WC_SUCCESS, 8],
      [5, WC_SUCCESS, 1028],
    ]);
  });

  it('begins a message that comes in the middle of another, which is lost', () => {
    const lone = run(
      [
        { opcode: UC_SEND_FIRST, ...full(1) },
        { ...first, address: BASE + 1, dmaBytes: 1025, ...full(2) },
        { opcode: UC_WRITE_LAST, payload: bytes(1, 3) },
        { opcode: UC_SEND_FIRST, ...full(4) },
        { opcode: UC_SEND_LAST, payload: bytes(1, 5) },
      ],
      { receives: 2 },
    );
    lone.drive();
    expect(received(lone)).toEqual([[1, WC_SUCCESS, 1025, 0]]);
    expect(lone.host.read(BASE + 1, 1026)).toEqual(Uint8Array.of(...bytes(1024, 2), 3, 0));
  });

  const dropped: [string, readonly Omit<PlainPacket, 'psn'>[], object?][] = [
    [
      'a key that is not there',
      [{ ...here, opcode: UC_WRITE_ONLY, rkey: 1, dmaBytes: 8, payload: bytes(8, 1) }],
    ],
    [
      'a range outside the region',
      [{ ...here, opcode: UC_WRITE_ONLY, address: BASE - 1, dmaBytes: 8, payload: bytes(8, 1) }],
    ],
    [
      'a right that the queue pair does not give',
      [{ ...here, opcode: UC_WRITE_ONLY, dmaBytes: 8, payload: bytes(8, 1) }],
      { qpAccess: ACCESS_REMOTE_READ },
    ],
    ['a wrong length', [{ ...here, opcode: UC_WRITE_ONLY, dmaBytes: 8, payload: bytes(9, 1) }]],
    ['a short first packet', [{ ...first, payload: bytes(8, 1) }]],
    ['an ONLY packet above the MTU', [{ ...send, payload: bytes(1028, 1) }]],
    ['a middle packet of nothing', [{ opcode: UC_SEND_MIDDLE, ...full(1) }]],
    ['an opcode that UC does not have', [{ ...here, opcode: 0x2c, dmaBytes: 8 }]],
    ['an opcode that nobody has', [{ opcode: 0x3f }]],
  ];
  it.each(dropped)('drops %s and goes on', (_, packets, setUp = {}) => {
    const lone = run([...packets, send], { setUp, receives: 1 });
    lone.drive();
    expect(lone.peer.seen).toEqual([]);
    expect(received(lone)).toEqual([[1, WC_SUCCESS, 8, 0]]);
    expect(lone.host.asyncEvents).toEqual([]);
    expect(lone.host.read(BASE - 64, 4096).every((byte) => byte === 0)).toBe(true);
    expect(drops(lone)).toBe(1);
  });

  it('drops a send that is too long for its receive, which the next one gets', () => {
    const lone = run([{ ...send, ...full(1) }, send], {
      receives: [[{ address: BASE, length: 100, lkey: REGION_KEY }]],
    });
    lone.drive();
    expect(received(lone)).toEqual([[1, WC_SUCCESS, 8, 0]]);
    expect(lone.hca.report().counters.resp_local_length_error).toBe(1);
  });

  it('drops what finds no receive, the immediate of a write too', () => {
    const lone = run([
      send,
      { ...first, dmaBytes: 1025, ...full(1) },
      { opcode: UC_WRITE_LAST_IMM, payload: bytes(1, 1) },
    ]);
    lone.drive();
    expect(received(lone)).toEqual([]);
    expect(lone.hca.report().counters.out_of_buffer).toBe(2);
    expect(lone.host.asyncEvents).toEqual([]);
  });

  it('ends with a receive that may not be written: that is its own host', () => {
    const lone = run([send, send], {
      receives: [
        [{ address: BASE, length: 100, lkey: 0x999 }],
        [{ address: BASE, length: 100, lkey: REGION_KEY }],
      ],
    });
    lone.drive();
    expect(received(lone).map(([id, status]) => [id, status])).toEqual([
      [1, WC_LOC_PROT_ERR],
      [2, WC_WR_FLUSH_ERR],
    ]);
    expect(lone.peer.seen).toEqual([]);
  });

  it.each([
    [
      'a gap',
      [
        { opcode: UC_SEND_LAST, psn: 102, payload: bytes(1, 1) },
        { ...send, psn: 103 },
      ],
    ],
    ['another message', [{ ...send, psn: 101 }]],
    [
      'a wrong opcode',
      [
        { opcode: UC_WRITE_LAST, psn: 101, payload: bytes(1, 1) },
        { ...send, psn: 102 },
      ],
    ],
    [
      'a wrong length',
      [
        { opcode: UC_SEND_LAST, psn: 101 },
        { ...send, psn: 102 },
      ],
    ],
  ])(
    'completes a receive of a shared queue with an error where its message is lost by %s',
    (_, then) => {
      const packets = [{ opcode: UC_SEND_FIRST, ...full(1) }, ...then];
      const lone = run(packets, { receives: 2, setUp: { srqEntries: 8 } });
      lone.drive();
      expect(received(lone).map(([id, status]) => [id, status])).toEqual([
        [1, WC_REM_INV_REQ_ERR],
        [2, WC_SUCCESS],
      ]);
      expect(lone.host.asyncEvents).not.toContain(EVENT_QP_LAST_WQE_REACHED);
    },
  );

  it.each([
    ['its own receives', {}],
    ['a shared receive queue', { srqEntries: 8 }],
  ])('drops what meets a missing page, asks for it, and uses the receive later (%s)', (_, more) => {
    const lone = run(
      [
        { opcode: UC_SEND_FIRST, ...full(1) },
        { opcode: UC_SEND_LAST, payload: bytes(1, 1) },
      ],
      {
        receives: 1,
        setUp: { present: false, ...more },
      },
    );
    const { host, peer } = lone;
    host.onFault = ({ token }) => {
      host.table(REGION_KEY, 0, 16, (i) => ((BASE / 4096 + i) << 2) | 3);
      host.resumeFault(token);
    };
    peer.at(READY_PS + MS, () => peer.send({ ...send, psn: 102 }));
    lone.drive();
    expect(host.faults.length).toBe(1);
    expect(lone.hca.report().counters.page_fault_drops).toBe(1);
    expect(received(lone)).toEqual([[1, WC_SUCCESS, 8, 0]]);
    lone.hca.checkLeaks();
  });

  it('says once that the peer is there while it is not ready to send itself', () => {
    const lone = run([send, send], { receives: 2, setUp: { states: [QPS_INIT, QPS_RTR] } });
    lone.drive();
    expect(lone.host.asyncEvents).toEqual([EVENT_COMM_EST]);
  });
});
