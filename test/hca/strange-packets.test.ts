/** Packets that a peer should not send, or sends late: what the adapter makes of each. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  MS,
  RC_ACKNOWLEDGE,
  RC_READ_REQUEST,
  RC_READ_RESPONSE_ONLY,
  RC_WRITE_FIRST,
  RC_WRITE_LAST,
  RC_WRITE_MIDDLE,
  RC_WRITE_ONLY,
  US,
  WC_BAD_RESP_ERR,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter, type PlainPacket } from '../fixtures/wire-peer.ts';

const QPN = 0x11;
const INVALID_REQUEST = 0x61;
const ACK = 0x1f;
const write = { opcode: WR_RDMA_WRITE, lkey: REGION_KEY, rkey: REGION_KEY, address: BASE };
const request = { psn: 100, rkey: REGION_KEY, address: BASE, flags: 2 };
const present = (page: number): number => (page << 2) | ACCESS_WRITE | ACCESS_READ;
const bytesOf = (length: number): Uint8Array => new Uint8Array(length).fill(7);

describe('answers that mean nothing', () => {
  it.each([
    ['an ACKNOWLEDGE with a reserved syndrome 0x40', { opcode: RC_ACKNOWLEDGE, syndrome: 0x5f }],
    ['an ACKNOWLEDGE with a reserved syndrome 0x80', { opcode: RC_ACKNOWLEDGE, syndrome: 0x9f }],
    ['an ACK of a PSN that was not sent', { opcode: RC_ACKNOWLEDGE, syndrome: ACK, psn: 103 }],
    ['a NAK of a PSN from before', { opcode: RC_ACKNOWLEDGE, syndrome: 0x62, psn: 99 }],
  ])('%s', (_, packet: Partial<PlainPacket> & { opcode: number }) => {
    const lone = new LoneAdapter();
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, length: 3000, remote: BASE }));
    peer.at(READY_PS + 100 * US, () => peer.send({ psn: 102, ...packet }));
    host.at(READY_PS + MS, () => expect(host.completions).toEqual([]));
    peer.at(READY_PS + MS, () => peer.send({ opcode: RC_ACKNOWLEDGE, psn: 102, syndrome: ACK }));
    lone.drive();
    expect(host.completions).toMatchObject([{ status: WC_SUCCESS }]);
    expect(peer.seen.length).toBe(3);
  });
});

describe('READ responses that are not what was asked for', () => {
  it('of the wrong size: the READ fails, and nothing is written', () => {
    const lone = new LoneAdapter();
    const { host, peer } = lone;
    const read = { ...write, opcode: WR_RDMA_READ, length: 3000, remote: BASE };
    host.at(READY_PS, () => host.postSend(QPN, read));
    peer.onPacket = () =>
      peer.send({ opcode: RC_READ_RESPONSE_ONLY, psn: 100, payload: bytesOf(1023) });
    lone.drive();
    expect(host.completions).toMatchObject([{ status: WC_BAD_RESP_ERR }]);
    expect(host.read(BASE, 4096).every((byte) => byte === 0)).toBe(true);
  });

  it('to a write: it fails, and nothing is written', () => {
    const lone = new LoneAdapter();
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, length: 3000, remote: BASE }));
    peer.onPacket = ({ psn }) => {
      if (psn !== 102) return;
      peer.send({ opcode: RC_READ_RESPONSE_ONLY, psn: 100, payload: bytesOf(1024) });
      peer.send({ opcode: RC_ACKNOWLEDGE, psn: 102, syndrome: ACK });
    };
    lone.drive();
    expect(host.completions).toMatchObject([{ status: WC_BAD_RESP_ERR }]);
    expect(host.read(BASE, 4096).every((byte) => byte === 0)).toBe(true);
  });
});

describe('requests that break the rules of a message', () => {
  const first = { ...request, opcode: RC_WRITE_FIRST, dmaBytes: 3000, payload: bytesOf(1024) };
  const cases: [string, PlainPacket[]][] = [
    ['a MIDDLE without a FIRST', [{ ...request, opcode: RC_WRITE_MIDDLE, payload: bytesOf(1024) }]],
    ['a FIRST inside a message', [first, { ...first, psn: 101 }]],
    ['a FIRST that is not full', [{ ...first, payload: bytesOf(1023) }]],
    ['a FIRST of a message of one packet', [{ ...first, dmaBytes: 1024 }]],
    [
      'a LAST that is too short',
      [first, { ...request, psn: 101, opcode: RC_WRITE_LAST, payload: bytesOf(1000) }],
    ],
    ['a LAST of nothing', [first, { ...request, psn: 101, opcode: RC_WRITE_LAST }]],
    [
      'an ONLY longer than it says',
      [{ ...request, opcode: RC_WRITE_ONLY, dmaBytes: 5, payload: bytesOf(6) }],
    ],
    [
      'an ONLY longer than the MTU',
      [{ ...request, opcode: RC_WRITE_ONLY, dmaBytes: 1025, payload: bytesOf(1025) }],
    ],
    [
      'a READ inside a message',
      [first, { ...request, psn: 101, opcode: RC_READ_REQUEST, dmaBytes: 5 }],
    ],
    ['a READ above 1 GiB', [{ ...request, opcode: RC_READ_REQUEST, dmaBytes: 2 ** 30 + 1 }]],
    ['a WRITE above 1 GiB', [{ ...first, dmaBytes: 2 ** 32 - 1 }]],
  ];
  it.each(cases)('%s is an invalid request', (_, packets) => {
    const lone = new LoneAdapter();
    const { host, peer } = lone;
    peer.at(READY_PS, () => {
      for (const packet of packets) peer.send(packet);
    });
    lone.drive();
    expect(peer.seen.at(-1)).toMatchObject({ opcode: RC_ACKNOWLEDGE, syndrome: INVALID_REQUEST });
    expect(host.asyncEvents.length).toBe(1);
    // At most the FIRST packet has landed.
    expect(host.read(BASE + 1024, 4096).every((byte) => byte === 0)).toBe(true);
    expect(lone.pool.framesInUse).toBe(0);
    expect(lone.pool.burstsInUse).toBe(0);
  });
});

describe('after a request that is refused', () => {
  it('nothing more is taken, though its NAK waits behind the answer to a READ', () => {
    const lone = new LoneAdapter();
    const { host, peer } = lone;
    const only = { ...request, opcode: RC_WRITE_ONLY, dmaBytes: 10, payload: bytesOf(10) };
    peer.at(READY_PS, () => {
      peer.send({ ...request, opcode: RC_READ_REQUEST, address: BASE + 8192, dmaBytes: 100_000 });
      peer.send({ ...only, psn: 198, rkey: 1 });
      peer.send({ ...only, psn: 198 });
      peer.send({ ...only, psn: 199 });
      peer.send({ ...request, opcode: RC_READ_REQUEST, address: BASE + 8192, dmaBytes: 100_000 });
    });
    lone.drive();
    expect(peer.seen.length).toBe(99);
    expect(peer.seen.map((p) => p.psn)).toEqual(Array.from({ length: 99 }, (_, i) => 100 + i));
    expect(peer.seen.at(-1)).toMatchObject({ opcode: RC_ACKNOWLEDGE, syndrome: 0x62 });
    expect(host.asyncEvents.length).toBe(1);
    expect(host.read(BASE, 4096).every((byte) => byte === 0)).toBe(true);
  });
});

describe('PSNs', () => {
  it('a first PSN above 24 bits is taken modulo 2^24', () => {
    const lone = new LoneAdapter({ setUp: { sendPsn: 0x5000064, receivePsn: -156 } });
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, length: 10, remote: BASE }));
    peer.at(READY_PS + MS, () => {
      peer.send({ ...request, opcode: RC_WRITE_ONLY, psn: 0xffff64, dmaBytes: 0 });
      // One too far ahead: the NAK names the PSN that is expected.
      peer.send({ ...request, opcode: RC_WRITE_ONLY, psn: 0xffff67, dmaBytes: 0 });
      peer.send({ opcode: RC_ACKNOWLEDGE, psn: 100, syndrome: ACK });
    });
    lone.drive();
    expect(peer.seen.map((p) => [p.psn, p.syndrome])).toEqual([
      [100, 0],
      [0xffff64, ACK],
      [0xffff65, 0x60],
    ]);
    expect(host.completions).toMatchObject([{ status: WC_SUCCESS }]);
  });
});

describe('a fault of the responder', () => {
  it('that cannot be served, of a message that arrived all the same, fails nobody', () => {
    const lone = new LoneAdapter();
    const { host, peer } = lone;
    const only = { ...request, opcode: RC_WRITE_ONLY, dmaBytes: 10, payload: bytesOf(10) };
    host.at(READY_PS - 5 * US, () => host.table(REGION_KEY, 0, 1, () => 0));
    peer.at(READY_PS, () => peer.send(only));
    // The page comes by itself before the driver refuses the fault.
    host.at(READY_PS + MS, () => host.table(REGION_KEY, 0, 1, () => present(BASE / 4096)));
    peer.at(READY_PS + 2 * MS, () => peer.send(only));
    host.at(READY_PS + 3 * MS, () => host.resumeFault(host.faults[0].token, 1));
    peer.at(READY_PS + 4 * MS, () => peer.send({ ...only, psn: 101 }));
    lone.drive();
    expect(peer.seen.map((p) => [p.psn, p.syndrome])).toEqual([
      [100, 0x20 | 12],
      [100, ACK],
      [101, ACK],
    ]);
  });

  it('is answered once: a second resume of its token is a bug of the driver', () => {
    const lone = new LoneAdapter();
    const { host, peer } = lone;
    host.at(READY_PS - 5 * US, () => host.table(REGION_KEY, 0, 1, () => 0));
    peer.at(READY_PS, () =>
      peer.send({ ...request, opcode: RC_WRITE_ONLY, dmaBytes: 10, payload: bytesOf(10) }),
    );
    host.at(READY_PS + MS, () => {
      host.resumeFault(host.faults[0].token);
      host.resumeFault(host.faults[0].token);
    });
    expect(() => lone.drive()).toThrow('not in flight');
  });
});
