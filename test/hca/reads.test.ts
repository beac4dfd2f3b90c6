/** RDMA READs that do not go straight: asked for again, refused half-way, mixed with other work. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  CMD_DESTROY_MKEY,
  EVENT_QP_ACCESS_ERR,
  EVENT_QP_REQ_ERR,
  MS,
  RC_ACKNOWLEDGE,
  RC_READ_REQUEST,
  RC_READ_RESPONSE_FIRST,
  RC_READ_RESPONSE_LAST,
  RC_READ_RESPONSE_MIDDLE,
  RC_READ_RESPONSE_ONLY,
  RC_WRITE_ONLY,
  US,
  WC_LOC_PROT_ERR,
  WC_REM_ACCESS_ERR,
  WC_REM_OP_ERR,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair } from '../fixtures/pair.ts';
import { LoneAdapter, type SeenPacket } from '../fixtures/wire-peer.ts';

const QPN = 0x11;
const read = {
  opcode: WR_RDMA_READ,
  lkey: REGION_KEY,
  rkey: REGION_KEY,
  address: BASE,
  remote: BASE,
  length: 3000,
};
const write = { ...read, opcode: WR_RDMA_WRITE };
const ack = { opcode: RC_ACKNOWLEDGE, syndrome: 0x1f };
const request = { opcode: RC_READ_REQUEST, rkey: REGION_KEY };
const present = (page: number): number => (page << 2) | ACCESS_WRITE | ACCESS_READ;
const bytesOf = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);
const shape = (p: SeenPacket): number[] => [p.opcode, p.psn];

describe('the requester', () => {
  it('a READ whose own buffer is missing uses up no retries, though later work is acknowledged', () => {
    const pair = new Pair({ setUpA: { retryCnt: 0 } });
    pair.b.fill(BASE, 3000, 1);
    pair.a.at(READY_PS - 5 * US, () => pair.a.table(REGION_KEY, 0, 1, () => 0));
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...read, wrId: 1 });
      pair.a.postSend(QPN, { ...write, wrId: 2, address: BASE + 8192, remote: BASE + 8192 });
    });
    pair.a.at(READY_PS + 3 * MS, () => {
      pair.a.table(REGION_KEY, 0, 1, () => present(BASE / 4096));
      pair.a.resumeFault(pair.a.faults[0].token);
    });
    pair.drive();
    expect(pair.a.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [2, WC_SUCCESS],
    ]);
    expect(pair.a.read(BASE, 3000)).toEqual(pair.b.read(BASE, 3000));
    expect(pair.hcaA.report().counters.local_ack_timeout_err).toBe(0);
    expect(pair.hcaA.report().counters.implied_nak_seq_err).toBe(0);
  });

  it('a READ response acknowledges the writes before it, wherever sending stands', () => {
    // The time-out sends writes 1 and 2 again when the READ response of the first round comes late.
    const lone = new LoneAdapter({
      profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
      setUp: { timeout: 5 },
    });
    const { host, peer } = lone;
    host.at(READY_PS, () => {
      host.postSend(QPN, { ...write, wrId: 1, length: 60_000 });
      host.postSend(QPN, { ...write, wrId: 2, length: 60_000 });
      host.postSend(QPN, { ...read, wrId: 3, length: 2000 });
    });
    peer.onPacket = ({ opcode, psn }) => {
      // Once the first packet is seen again, the answers to everything arrive.
      if (psn !== 100 || peer.seen.filter((p) => p.psn === 100).length !== 2) return;
      const last = peer.seen.find((p) => p.opcode === RC_READ_REQUEST);
      expect(opcode).not.toBe(RC_READ_REQUEST);
      const at = last?.psn ?? 0;
      peer.send({ opcode: RC_READ_RESPONSE_FIRST, psn: at, payload: bytesOf(1024, 5) });
      peer.send({ opcode: RC_READ_RESPONSE_LAST, psn: at + 1, payload: bytesOf(976, 6) });
    };
    lone.drive();
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [2, WC_SUCCESS],
      [3, WC_SUCCESS],
    ]);
    expect(host.read(BASE, 1024)).toEqual(bytesOf(1024, 5));
    expect(host.read(BASE + 1024, 976)).toEqual(bytesOf(976, 6));
  });

  it('a READ response that faults half-way leaves sending at what is not acknowledged', () => {
    const lone = new LoneAdapter({
      profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
      setUp: { timeout: 5 },
    });
    const { host, peer } = lone;
    host.at(READY_PS - 5 * US, () => host.table(REGION_KEY, 0, 1, () => 0));
    host.at(READY_PS, () => {
      host.postSend(QPN, { ...write, wrId: 1, address: BASE + 65_536, length: 60_000 });
      host.postSend(QPN, { ...read, wrId: 2, length: 1000 });
    });
    host.at(READY_PS + 0.4 * MS, () => {
      host.table(REGION_KEY, 0, 1, () => present(BASE / 4096));
      host.resumeFault(host.faults[0].token);
    });
    peer.onPacket = ({ psn }) => {
      const isSecondRound = psn === 100 && peer.seen.filter((p) => p.psn === 100).length === 2;
      const isRepeated = peer.seen.filter((p) => p.opcode === RC_READ_REQUEST).length === 2;
      if (isSecondRound || (isRepeated && psn === 159)) {
        peer.send({ opcode: RC_READ_RESPONSE_ONLY, psn: 159, payload: bytesOf(1000, 9) });
      }
    };
    lone.drive();
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [2, WC_SUCCESS],
    ]);
    // Write 1 was acknowledged by the response, so it is not sent a third time.
    expect(peer.seen.filter((p) => p.psn === 101).length).toBeLessThanOrEqual(2);
  });

  it('a fault of a READ that was answered meanwhile fails nobody', () => {
    const lone = new LoneAdapter();
    const { host, peer } = lone;
    host.at(READY_PS - 5 * US, () => host.table(REGION_KEY, 0, 1, () => 0));
    host.at(READY_PS, () => host.postSend(QPN, { ...read, wrId: 1, length: 1000 }));
    // The page comes by itself; the driver refuses the fault long after.
    host.at(READY_PS + 0.4 * MS, () => host.table(REGION_KEY, 0, 1, () => present(BASE / 4096)));
    host.at(READY_PS + 2 * MS, () => {
      expect(host.completions).toMatchObject([{ wrId: 1, status: WC_SUCCESS }]);
      host.postSend(QPN, { ...write, wrId: 2 });
      host.resumeFault(host.faults[0].token, 1);
    });
    peer.onPacket = ({ opcode, psn }) => {
      if (opcode === RC_READ_REQUEST) {
        peer.send({ opcode: RC_READ_RESPONSE_ONLY, psn, payload: bytesOf(1000, 3) });
      } else if (psn === 103) {
        peer.at(READY_PS + 3 * MS, () => peer.send({ ...ack, psn }));
      }
    };
    lone.drive();
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual([
      [1, WC_SUCCESS],
      [2, WC_SUCCESS],
    ]);
  });

  it('a READ whose own buffer cannot be had fails', () => {
    const pair = new Pair();
    pair.a.at(READY_PS - 5 * US, () => pair.a.table(REGION_KEY, 0, 1, () => 0));
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, { ...read, wrId: 1 }));
    pair.a.at(READY_PS + MS, () => pair.a.resumeFault(pair.a.faults[0].token, 1));
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ wrId: 1, status: WC_LOC_PROT_ERR }]);
  });
});

describe('the responder', () => {
  it('starts the answer to a repeated READ with a FIRST or ONLY packet, wherever it starts', () => {
    const lone = new LoneAdapter();
    const { peer } = lone;
    peer.at(READY_PS, () => peer.send({ ...request, psn: 100, address: BASE, dmaBytes: 4000 }));
    peer.at(READY_PS + MS, () =>
      peer.send({ ...request, psn: 101, address: BASE + 1024, dmaBytes: 2976 }),
    );
    peer.at(READY_PS + 2 * MS, () =>
      peer.send({ ...request, psn: 103, address: BASE + 3072, dmaBytes: 928 }),
    );
    lone.drive();
    expect(peer.seen.map(shape)).toEqual([
      [RC_READ_RESPONSE_FIRST, 100],
      [RC_READ_RESPONSE_MIDDLE, 101],
      [RC_READ_RESPONSE_MIDDLE, 102],
      [RC_READ_RESPONSE_LAST, 103],
      [RC_READ_RESPONSE_FIRST, 101],
      [RC_READ_RESPONSE_MIDDLE, 102],
      [RC_READ_RESPONSE_LAST, 103],
      [RC_READ_RESPONSE_ONLY, 103],
    ]);
  });

  it('whose page went away after the READ was admitted, and cannot be had, refuses the READ', () => {
    const pair = new Pair({ bytes: 1 << 21 });
    // Pages behind the bursts that are read ahead go away as soon as the READ is admitted.
    pair.a.at(READY_PS, () => pair.a.postSend(QPN, { ...read, wrId: 1, length: 1 << 20 }));
    pair.b.at(READY_PS + 3 * US, () => pair.b.table(REGION_KEY, 250, 1, () => 0));
    pair.b.at(READY_PS + MS, () => pair.b.resumeFault(pair.b.faults[0].token, 1));
    pair.drive();
    expect(pair.b.faults.length).toBe(1);
    expect(pair.a.completions).toMatchObject([{ wrId: 1, status: WC_REM_OP_ERR }]);
    expect(pair.b.asyncEvents).toEqual([EVENT_QP_REQ_ERR]);
    expect(pair.pool.burstsInUse).toBe(0);
    expect(pair.pool.framesInUse).toBe(0);
  });

  it('whose region is destroyed while the READ is answered refuses the rest', () => {
    const pair = new Pair({ bytes: 1 << 21 });
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...read, wrId: 1, length: 1 << 20 });
      pair.a.postSend(QPN, { ...write, wrId: 2 });
    });
    pair.b.at(READY_PS + 3 * US, () => pair.b.command(CMD_DESTROY_MKEY, [REGION_KEY]));
    pair.drive();
    expect(pair.a.completions).toMatchObject([
      { wrId: 1, status: WC_REM_ACCESS_ERR },
      { wrId: 2, status: 5 },
    ]);
    expect(pair.b.asyncEvents).toEqual([EVENT_QP_ACCESS_ERR]);
    expect(pair.pool.burstsInUse).toBe(0);
    expect(pair.pool.framesInUse).toBe(0);
  });

  it('drops a repeated READ that it has answered before and whose region is gone since', () => {
    const lone = new LoneAdapter();
    const { host, peer } = lone;
    peer.at(READY_PS, () => peer.send({ ...request, psn: 100, address: BASE, dmaBytes: 3000 }));
    host.at(READY_PS + MS / 2, () => host.command(CMD_DESTROY_MKEY, [REGION_KEY]));
    // A late copy of the first request: its answer is not needed, and its memory is gone.
    peer.at(READY_PS + MS, () =>
      peer.send({ ...request, psn: 100, address: BASE, dmaBytes: 3000 }),
    );
    const nothing = { opcode: RC_WRITE_ONLY, flags: 2, dmaBytes: 0 };
    peer.at(READY_PS + 2 * MS, () => peer.send({ ...nothing, psn: 103 }));
    lone.drive();
    expect(peer.seen.slice(3).map(shape)).toEqual([[RC_ACKNOWLEDGE, 103]]);
    expect(host.asyncEvents).toEqual([]);
  });

  it('answers what comes behind a repeated READ whose fault is still out', () => {
    const lone = new LoneAdapter({ bytes: 1 << 21 });
    const { host, peer } = lone;
    const far = BASE + (1 << 20);
    // A long READ faults in its last burst, then the peer asks for all of it again, twice.
    const first = { ...request, psn: 100, address: BASE, dmaBytes: 1 << 20 };
    peer.at(READY_PS, () => peer.send(first));
    host.at(READY_PS + 3 * US, () => host.table(REGION_KEY, 250, 1, () => 0));
    peer.at(READY_PS + 0.3 * MS, () => peer.send(first));
    peer.at(READY_PS + 0.3 * MS, () =>
      peer.send({ ...request, psn: 100 + 1024, address: far, dmaBytes: 500 }),
    );
    host.at(READY_PS + MS, () => {
      expect(host.faults.length).toBe(1);
      host.table(REGION_KEY, 250, 1, (page) => present(BASE / 4096 + page));
      host.resumeFault(host.faults[0].token);
    });
    lone.drive();
    const psns = peer.seen.map((p) => p.psn);
    expect(psns.slice(-1025)).toEqual(Array.from({ length: 1025 }, (_, i) => 100 + i));
    expect(lone.pool.burstsInUse).toBe(0);
  });

  it('counts a packet as sent when it is sent, not when it is queued behind a READ', () => {
    const lone = new LoneAdapter();
    const { peer } = lone;
    const first = { ...request, psn: 100, address: BASE, dmaBytes: 100_000 };
    peer.at(READY_PS, () => {
      peer.send(first);
      peer.send({ opcode: RC_WRITE_ONLY, flags: 2, psn: 100 + 98, dmaBytes: 0 });
      // Cuts the acknowledgement that waits behind the first answer.
      peer.send(first);
    });
    lone.drive();
    const { counters, queuePairs } = lone.hca.report();
    expect(counters.port_xmit_packets).toBe(peer.seen.length);
    expect(queuePairs[0].packets_sent).toBe(peer.seen.length);
  });
});
