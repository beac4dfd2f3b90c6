/** The responder of datagrams: Q_Key, the header area, and what is dropped. */
import { describe, expect, it } from 'vitest';
import {
  BTH_SOLICITED,
  BTH_WITH_GRH,
  BUS_RECV_DOORBELL,
  BUS_SRQ_DOORBELL,
  MS,
  QPS_INIT,
  QPS_RTR,
  QPT_UD,
  UD_SEND_ONLY,
  UD_SEND_ONLY_IMM,
  WC_LOC_PROT_ERR,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
} from '../../transport/index.ts';
import { type BareSge, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter, type PlainPacket } from '../fixtures/wire-peer.ts';

const QPN = 0x11;
const QKEY = 0x8000_1234;
const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);
const header = Uint8Array.from({ length: 40 }, (_, i) => 0x80 + i);
const whole = (address: number, length: number): BareSge[] => [
  { address, length, lkey: REGION_KEY },
];
// The Q_Key and the source queue pair stand where other packets have a key and a length.
const datagram = {
  opcode: UD_SEND_ONLY,
  psn: 0,
  rkey: QKEY,
  dmaBytes: 0x4567,
  payload: bytes(100, 7),
};

function run(
  packets: readonly PlainPacket[],
  receives: readonly (readonly BareSge[])[],
  setUp: NonNullable<ConstructorParameters<typeof LoneAdapter>[0]>['setUp'] = {},
): LoneAdapter {
  const lone = new LoneAdapter({
    bytes: 1 << 16,
    setUp: { type: QPT_UD, qkey: QKEY, ...setUp },
  });
  const { host, peer } = lone;
  host.at(READY_PS / 2, () => {
    host.fill(BASE, 1 << 14, 3);
    const isShared = setUp.srqEntries !== undefined;
    receives.forEach((sges, i) => {
      if (isShared) host.postBuffer(BUS_SRQ_DOORBELL, 1, i + 1, sges);
      else host.postBuffer(BUS_RECV_DOORBELL, QPN, i + 1, sges);
    });
  });
  peer.at(READY_PS, () => {
    for (const packet of packets) peer.send(packet);
  });
  return lone;
}

/** What memory held before anything came. */
function before(length: number): Uint8Array {
  const lone = run([], []);
  lone.drive();
  return lone.host.read(BASE, length);
}

const received = ({ host }: LoneAdapter): number[][] =>
  host.completions.map((c) => [c.wrId, c.status, c.bytes]);

describe('the responder of datagrams', () => {
  it('leaves room for a header that did not come, and says who sent it', () => {
    const lone = run(
      [datagram, { ...datagram, opcode: UD_SEND_ONLY_IMM, immediate: 9, flags: BTH_SOLICITED }],
      [whole(BASE, 200), whole(BASE + 4096, 140)],
    );
    lone.drive();
    const { host } = lone;
    expect(lone.peer.seen).toEqual([]);
    expect(received(lone)).toEqual([
      [1, WC_SUCCESS, 140],
      [2, WC_SUCCESS, 140],
    ]);
    expect(host.completions.map((c) => [c.sourceQpn, c.slid, c.flags, c.immediate])).toEqual([
      [0x4567, 2, 1, 0],
      [0x4567, 2, 1 | 2 | 16, 9],
    ]);
    expect(host.messages.map((m) => [m.message, m.address, m.bytes, m.flags])).toEqual([
      [1, BASE + 40, 100, 1],
      [2, BASE + 4096 + 40, 100, 1],
    ]);
    const old = before(200);
    expect(host.read(BASE, 200)).toEqual(
      Uint8Array.from([...old.slice(0, 40), ...datagram.payload, ...old.slice(140)]),
    );
  });

  it('puts a header that came in front, whatever the entries of the receive', () => {
    const payload = Uint8Array.from([...header, ...datagram.payload]);
    const lone = run(
      [{ ...datagram, payload, flags: BTH_WITH_GRH }],
      [
        [
          { address: BASE + 10, length: 7, lkey: REGION_KEY },
          { address: BASE + 4090, length: 60, lkey: REGION_KEY },
          { address: BASE + 100, length: 0, lkey: 0x777 },
          { address: BASE + 200, length: 100, lkey: REGION_KEY },
        ],
      ],
    );
    lone.drive();
    expect(received(lone)).toEqual([[1, WC_SUCCESS, 140]]);
    expect(lone.host.completions[0]?.flags).toBe(1 | 8);
    const { host } = lone;
    // The host knows the entries by the receive's wr_id, and that 40 bytes are none of the message's.
    expect(host.messages).toEqual([{ qpn: QPN, message: 1, address: 1, bytes: 100, flags: 3 }]);
    expect([
      ...host.read(BASE + 10, 7),
      ...host.read(BASE + 4090, 60),
      ...host.read(BASE + 200, 73),
    ]).toEqual([...payload]);
  });

  it('takes the largest datagram with its header at the end of a page', () => {
    const payload = Uint8Array.from([...header, ...bytes(4096, 5)]);
    const lone = run(
      [
        { ...datagram, payload, flags: BTH_WITH_GRH },
        { ...datagram, payload: bytes(4096, 6) },
      ],
      [whole(BASE + 4095, 5000), whole(BASE + 16_384 + 4094, 4136)],
    );
    lone.drive();
    expect(received(lone)).toEqual([
      [1, WC_SUCCESS, 4136],
      [2, WC_SUCCESS, 4136],
    ]);
    expect(lone.host.read(BASE + 4095, 4136)).toEqual(payload);
    expect(lone.host.read(BASE + 16_384 + 4094 + 40, 4096)).toEqual(bytes(4096, 6));
  });

  it.each([
    ['another Q_Key', { rkey: QKEY + 1 }, 'qkey_viol_cntr'],
    ['more than a port can send', { payload: bytes(4100, 1) }, 'unreliable_drops'],
    ['more than its receive holds', { payload: bytes(200, 1) }, 'resp_local_length_error'],
    ['a reserved opcode', { opcode: 0x7f }, 'unreliable_drops'],
    ['the opcode of a longer message', { opcode: 0x60 }, 'unreliable_drops'],
  ])('drops %s and uses no receive for it', (_, change, counter) => {
    const lone = run([{ ...datagram, ...change }, datagram], [whole(BASE, 140)]);
    lone.drive();
    expect(lone.peer.seen).toEqual([]);
    expect(received(lone)).toEqual([[1, WC_SUCCESS, 140]]);
    expect(lone.host.asyncEvents).toEqual([]);
    expect(lone.hca.report().counters[counter]).toBe(1);
  });

  it('drops what finds no receive', () => {
    const lone = run([datagram], []);
    lone.drive();
    expect(lone.hca.report().counters.out_of_buffer).toBe(1);
    expect(received(lone)).toEqual([]);
  });

  it('ends with a receive that may not be written', () => {
    const lone = run([datagram], [[{ address: BASE, length: 200, lkey: 0x999 }], whole(BASE, 200)]);
    lone.drive();
    expect(received(lone).map(([id, status]) => [id, status])).toEqual([
      [1, WC_LOC_PROT_ERR],
      [2, WC_WR_FLUSH_ERR],
    ]);
  });

  it.each([
    ['its own receives', {}],
    ['a shared receive queue', { srqEntries: 4 }],
  ])('drops what meets a missing page, asks for it, and uses the receive later (%s)', (_, more) => {
    const lone = run([datagram, datagram], [whole(BASE, 140)], { present: false, ...more });
    const { host, peer } = lone;
    host.onFault = ({ token }) => {
      host.table(REGION_KEY, 0, 16, (i) => ((BASE / 4096 + i) << 2) | 3);
      host.resumeFault(token);
    };
    peer.at(READY_PS + MS, () => peer.send(datagram));
    lone.drive();
    expect(host.faults.length).toBe(1);
    expect(lone.hca.report().counters.page_fault_drops).toBe(2);
    expect(received(lone)).toEqual([[1, WC_SUCCESS, 140]]);
    expect(host.asyncEvents).toEqual([]);
  });

  it('takes datagrams before it may send any', () => {
    const lone = run([datagram], [whole(BASE, 140)], { states: [QPS_INIT, QPS_RTR] });
    lone.drive();
    expect(received(lone)).toEqual([[1, WC_SUCCESS, 140]]);
  });
});
