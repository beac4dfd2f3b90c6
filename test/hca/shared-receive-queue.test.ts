/** Shared receive queues: receives go to whoever needs one, once each, and the limit warns once. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BUS_SRQ_DOORBELL,
  CMD_MODIFY_SRQ,
  EVENT_QP_LAST_WQE_REACHED,
  EVENT_SRQ_ERR,
  EVENT_SRQ_LIMIT_REACHED,
  MS,
  QP_STATE,
  QPA_STATE,
  QPS_ERR,
  RC_ACKNOWLEDGE,
  RC_SEND_FIRST,
  RC_SEND_LAST,
  RC_SEND_MIDDLE,
  RC_SEND_ONLY,
  RC_WRITE_ONLY_IMM,
  US,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_SEND,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair } from '../fixtures/pair.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';

const A = 0x11;
const B = 0x12;
const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);
const send = { opcode: RC_SEND_ONLY, flags: 2, payload: bytes(8, 1) };
const bufferOf = (i: number): number => BASE + 4096 * i;

function newAdapter(posted: number, options: object = {}): LoneAdapter {
  const lone = new LoneAdapter({
    bytes: 1 << 16,
    setUp: { srqEntries: 8, queuePairs: 2, ...options },
  });
  lone.host.at(READY_PS / 2, () => post(lone, 1, posted));
  return lone;
}

function post({ host }: LoneAdapter, first: number, count: number): void {
  for (let i = first; i < first + count; i++) {
    const entry = { address: bufferOf(i), length: 4096, lkey: REGION_KEY };
    host.postBuffer(BUS_SRQ_DOORBELL, 1, i, [entry]);
  }
}

describe('a shared receive queue', () => {
  it('gives each queue pair a receive for the whole of its message', () => {
    const lone = newAdapter(3);
    const { host, peer } = lone;
    peer.at(READY_PS, () => {
      const middle = { opcode: RC_SEND_MIDDLE };
      peer.send({ opcode: RC_SEND_FIRST, qpn: A, psn: 100, payload: bytes(1024, 1) });
      peer.send({ opcode: RC_SEND_FIRST, qpn: B, psn: 100, payload: bytes(1024, 2) });
      peer.send({ ...middle, qpn: B, psn: 101, payload: bytes(1024, 4) });
      peer.send({ ...middle, qpn: A, psn: 101, payload: bytes(1024, 3) });
      peer.send({ opcode: RC_SEND_LAST, qpn: B, psn: 102, payload: bytes(2, 6) });
      peer.send({ ...send, qpn: B, psn: 103 });
      peer.send({ opcode: RC_SEND_LAST, qpn: A, psn: 102, payload: bytes(1, 5) });
    });
    lone.drive();
    expect(host.completions.map((c) => [c.qpn, c.wrId, c.status, c.bytes])).toEqual([
      [B, 2, WC_SUCCESS, 2050],
      [B, 3, WC_SUCCESS, 8],
      [A, 1, WC_SUCCESS, 2049],
    ]);
    expect(host.read(bufferOf(1), 2049)).toEqual(
      Uint8Array.of(...bytes(1024, 1), ...bytes(1024, 3), 5),
    );
    expect(host.read(bufferOf(2), 2050)).toEqual(
      Uint8Array.of(...bytes(1024, 2), ...bytes(1024, 4), 6, 6),
    );
  });

  it('that is empty makes the peer wait, and the one that waits first need not be served first', () => {
    const lone = newAdapter(0);
    const { host, peer } = lone;
    for (const [at, qpn] of [
      [0, A],
      [1, B],
      [MS, B],
      [MS + 50 * US, A],
    ]) {
      peer.at(READY_PS + (at as number), () =>
        peer.send({ ...send, qpn: qpn as number, psn: 100 }),
      );
    }
    host.at(READY_PS + MS / 2, () => post(lone, 1, 2));
    lone.drive();
    expect(peer.seen.map((p) => [p.qpn, p.syndrome])).toEqual([
      [A, 0x2c],
      [B, 0x2c],
      [B, 0x1f],
      [A, 0x1f],
    ]);
    expect(host.completions.map((c) => [c.qpn, c.wrId])).toEqual([
      [B, 1],
      [A, 2],
    ]);
  });

  it('warns once each time it is armed', () => {
    const lone = newAdapter(6, { srqLimit: 5 });
    const { host, peer } = lone;
    const warnings = (): number =>
      host.asyncEvents.filter((event) => event === EVENT_SRQ_LIMIT_REACHED).length;
    const counts: number[] = [];
    for (let i = 0; i < 5; i++) {
      peer.at(READY_PS + i * 100 * US, () => peer.send({ ...send, qpn: A, psn: 100 + i }));
      host.at(READY_PS + (i * 100 + 50) * US, () => counts.push(warnings()));
    }
    host.at(READY_PS + 260 * US, () => host.command(CMD_MODIFY_SRQ, [1, 2]));
    lone.drive();
    // Six were posted: the second message leaves four, the fifth one.
    expect(counts).toEqual([0, 1, 1, 1, 2]);
    expect(host.events.find((e) => e.event === EVENT_SRQ_LIMIT_REACHED)?.number).toBe(1);
  });

  it('takes the immediate of a write too', () => {
    const lone = newAdapter(1);
    const { host, peer } = lone;
    peer.at(READY_PS, () =>
      peer.send({ opcode: RC_WRITE_ONLY_IMM, qpn: B, psn: 100, immediate: 3 }),
    );
    lone.drive();
    expect(host.completions.map((c) => [c.qpn, c.wrId, c.immediate])).toEqual([[B, 1, 3]]);
  });

  it('loses to a queue pair in error only the receive that it had begun', () => {
    const lone = newAdapter(2);
    const { host, peer } = lone;
    peer.at(READY_PS, () =>
      peer.send({ opcode: RC_SEND_FIRST, qpn: A, psn: 100, payload: bytes(1024, 1) }),
    );
    host.at(READY_PS + 50 * US, () => host.modifyQp(A, QP_STATE, { [QPA_STATE]: QPS_ERR }));
    peer.at(READY_PS + 100 * US, () => peer.send({ ...send, qpn: B, psn: 100 }));
    lone.drive();
    expect(host.completions.map((c) => [c.qpn, c.wrId, c.status])).toEqual([
      [A, 1, WC_WR_FLUSH_ERR],
      [B, 2, WC_SUCCESS],
    ]);
    expect(host.events.map((e) => [e.event, e.number])).toEqual([[EVENT_QP_LAST_WQE_REACHED, A]]);
  });

  it('that is full says so and takes no more', () => {
    const lone = newAdapter(9);
    const { host, peer } = lone;
    peer.at(READY_PS, () => peer.send({ ...send, qpn: A, psn: 100 }));
    lone.drive();
    expect(host.asyncEvents).toEqual([EVENT_SRQ_ERR]);
    expect(peer.seen.map((p) => [p.opcode, p.syndrome])).toEqual([[RC_ACKNOWLEDGE, 0x1f]]);
  });

  it('serves messages of many queue pairs once each, whatever their order', () => {
    const message = fc.record({ qp: fc.nat(3), length: fc.nat(5000), at: fc.nat(40) });
    fc.assert(
      fc.property(fc.array(message, { minLength: 1, maxLength: 20 }), (messages) => {
        const pair = new Pair({
          profile: { rnrWaitPercent: 100, rnrWaitMinPs: 0 },
          bytes: 1 << 18,
          setUpA: { queuePairs: 4 },
          setUpB: { queuePairs: 4, srqEntries: 32, minRnrTimer: 1 },
        });
        const { a, b } = pair;
        a.fill(BASE, 5000, 5);
        messages.forEach(({ qp, length, at }, i) => {
          const work = { opcode: WR_SEND, lkey: REGION_KEY, address: BASE, length, wrId: i };
          a.at(READY_PS + at * US, () => a.postSend(A + qp, work));
          const entry = { address: BASE + 8192 * (i + 1), length: 8192, lkey: REGION_KEY };
          b.at(READY_PS + (messages.length - i) * 3 * US, () =>
            b.postBuffer(BUS_SRQ_DOORBELL, 1, i, [entry]),
          );
        });
        pair.drive();
        expect(a.completions.map((c) => c.status)).toEqual(messages.map(() => WC_SUCCESS));
        const ids = b.completions.map((c) => c.wrId);
        expect([...ids].sort((x, y) => x - y)).toEqual(messages.map((_, i) => i));
        const sent = a.read(BASE, 5000);
        for (const { wrId, bytes: length } of b.completions) {
          expect(b.read(BASE + 8192 * (wrId + 1), length)).toEqual(sent.slice(0, length));
        }
      }),
      { numRuns: 15 },
    );
  });
});
