/** What two adapters do with each other, told as short stories over bare hosts. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  BUS_PD_RESUME,
  BUS_PD_SUSPEND,
  CQE_RECEIVE,
  FAULT_AT_RESPONDER,
  MS,
  US,
  WC_RDMA_READ,
  WC_RECV,
  WC_RECV_RDMA_WITH_IMM,
  WC_RETRY_EXC_ERR,
  WC_RNR_RETRY_EXC_ERR,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair } from '../fixtures/pair.ts';

const QPN = 0x11;
const write = { opcode: WR_RDMA_WRITE, lkey: REGION_KEY, rkey: REGION_KEY };

/** Page table entry of page `page`, mapped to the frame of the same number. */
const present = (page: number): number => (page << 2) | ACCESS_WRITE | ACCESS_READ;

describe('one message', () => {
  it.each([1, 255, 1024, 1025, 4096, 70_001])('RDMA WRITE of %i bytes lands unchanged', (bytes) => {
    const pair = new Pair();
    pair.a.fill(BASE + 13, bytes, 1);
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, {
        ...write,
        wrId: 5,
        address: BASE + 13,
        length: bytes,
        remote: BASE + 4099,
      }),
    );
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ wrId: 5, status: WC_SUCCESS, bytes }]);
    expect(pair.b.completions).toEqual([]);
    expect(pair.b.read(BASE + 4099, bytes)).toEqual(pair.a.read(BASE + 13, bytes));
    expect(pair.pool.framesInUse).toBe(0);
    expect(pair.pool.burstsInUse).toBe(0);
  });

  it('RDMA WRITE of nothing completes and needs no valid key', () => {
    const pair = new Pair();
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { ...write, rkey: 0x666, address: BASE, length: 0, remote: 12345 }),
    );
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_SUCCESS }]);
  });

  it('RDMA WRITE with immediate consumes a receive and delivers the immediate', () => {
    const pair = new Pair();
    pair.b.at(READY_PS - 1000, () => pair.b.postReceive(QPN, 9, REGION_KEY, BASE, 0));
    pair.a.fill(BASE, 5000, 2);
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, {
        ...write,
        opcode: WR_RDMA_WRITE_WITH_IMM,
        address: BASE,
        length: 5000,
        remote: BASE + 8192,
        immediate: 0x12345678,
      }),
    );
    pair.drive();
    expect(pair.b.completions).toMatchObject([
      {
        wrId: 9,
        status: WC_SUCCESS,
        opcode: WC_RECV_RDMA_WITH_IMM,
        bytes: 5000,
        immediate: 0x12345678,
      },
    ]);
    expect(pair.b.read(BASE + 8192, 5000)).toEqual(pair.a.read(BASE, 5000));
  });

  it('SEND lands in the posted receive, with its true length', () => {
    const pair = new Pair();
    pair.b.at(READY_PS - 1000, () => pair.b.postReceive(QPN, 3, REGION_KEY, BASE + 100, 9000));
    pair.a.fill(BASE, 3333, 3);
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { opcode: WR_SEND, lkey: REGION_KEY, address: BASE, length: 3333 }),
    );
    pair.drive();
    expect(pair.b.completions).toMatchObject([
      { wrId: 3, status: WC_SUCCESS, opcode: WC_RECV, bytes: 3333, flags: CQE_RECEIVE },
    ]);
    expect(pair.b.read(BASE + 100, 3333)).toEqual(pair.a.read(BASE, 3333));
  });

  it.each([1, 1024, 5000, 200_000])('RDMA READ of %i bytes brings them back', (bytes) => {
    const pair = new Pair();
    pair.b.fill(BASE + 7, bytes, 4);
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, {
        opcode: WR_RDMA_READ,
        lkey: REGION_KEY,
        rkey: REGION_KEY,
        address: BASE + 111,
        length: bytes,
        remote: BASE + 7,
      }),
    );
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_SUCCESS, opcode: WC_RDMA_READ, bytes }]);
    expect(pair.a.read(BASE + 111, bytes)).toEqual(pair.b.read(BASE + 7, bytes));
    expect(pair.pool.burstsInUse).toBe(0);
  });

  it('PSNs wrap at 2^24', () => {
    const at = { sendPsn: 0xfffffd, receivePsn: 0xfffffd };
    const pair = new Pair({ setUpA: at, setUpB: at });
    pair.a.fill(BASE, 20_000, 5);
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { ...write, address: BASE, length: 20_000, remote: BASE + 65536 }),
    );
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_SUCCESS }]);
    expect(pair.b.read(BASE + 65536, 20_000)).toEqual(pair.a.read(BASE, 20_000));
  });
});

describe('page faults', () => {
  it('responder: RNR NAK, one event, and after the resume the repetition succeeds', () => {
    const pair = new Pair({ profile: { rnrWaitPercent: 100, rnrWaitMinPs: 0 } });
    const page = BASE / 4096 + 20;
    pair.b.at(READY_PS - 5 * US, () => pair.b.table(REGION_KEY, 20, 1, () => 0));
    pair.a.fill(BASE, 8192, 6);
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { ...write, address: BASE, length: 8192, remote: page * 4096 - 4096 }),
    );
    pair.b.at(READY_PS + MS / 2, () => {
      expect(pair.b.faults).toMatchObject([
        { access: ACCESS_WRITE | FAULT_AT_RESPONDER, address: page * 4096, bytes: 4096, qpn: QPN },
      ]);
      pair.b.table(REGION_KEY, 20, 1, () => present(page));
      pair.b.resumeFault(pair.b.faults[0].token);
    });
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_SUCCESS }]);
    expect(pair.b.read(page * 4096 - 4096, 8192)).toEqual(pair.a.read(BASE, 8192));
    const [a, b] = [pair.hcaA.report(), pair.hcaB.report()];
    // The fault takes longer than the 0.64 ms timer once: the page comes at 0.5 + 0.08 ms.
    expect(b.counters.rnr_naks_sent).toBe(1);
    expect(b.regions[0].rnr_naks).toBe(1);
    expect(a.counters.rnr_nak_retry_err).toBe(1);
    expect(a.counters.retransmitted_packets).toBe(4);
    expect(a.regions[0].bytes_retransmitted).toBe(4096);
    // The timer, and reading the payload from memory once more.
    expect(a.regions[0].stall_ps).toBeGreaterThanOrEqual(0.64 * MS);
    expect(a.regions[0].stall_ps).toBeLessThan(0.65 * MS);
    expect(b.counters.odp_remote_triggered_page_fault).toBe(1);
  });

  it('SEND: one fault asks for all that is left of the receive', () => {
    const pair = new Pair();
    pair.b.at(READY_PS - 5 * US, () => {
      pair.b.table(REGION_KEY, 1, 20, () => 0);
      pair.b.postReceive(QPN, 3, REGION_KEY, BASE + 100, 40_000);
    });
    pair.a.fill(BASE, 30_000, 6);
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { opcode: WR_SEND, lkey: REGION_KEY, address: BASE, length: 30_000 }),
    );
    pair.b.at(READY_PS + MS / 2, () => {
      expect(pair.b.faults).toMatchObject([{ address: BASE + 4096, bytes: 40_100 - 4096 }]);
      pair.b.table(REGION_KEY, 1, 20, (page) => present(BASE / 4096 + page));
      pair.b.resumeFault(pair.b.faults[0].token);
    });
    pair.drive();
    expect(pair.b.completions).toMatchObject([{ status: WC_SUCCESS, bytes: 30_000 }]);
    expect(pair.b.read(BASE + 100, 30_000)).toEqual(pair.a.read(BASE, 30_000));
    expect(pair.hcaA.report().counters.rnr_nak_retry_err).toBe(1);
  });

  it('requester: pauses, nothing is lost, the wait counts as stall', () => {
    const pair = new Pair();
    pair.a.at(READY_PS - 5 * US, () => pair.a.table(REGION_KEY, 1, 1, () => 0));
    pair.a.fill(BASE, 12_288, 7);
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { ...write, address: BASE, length: 12_288, remote: BASE }),
    );
    pair.a.at(READY_PS + MS, () => {
      expect(pair.a.faults).toMatchObject([
        { access: ACCESS_READ, address: BASE + 4096, bytes: 8192 },
      ]);
      pair.a.table(REGION_KEY, 1, 1, () => present(BASE / 4096 + 1));
      pair.a.resumeFault(pair.a.faults[0].token);
    });
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_SUCCESS }]);
    expect(pair.b.read(BASE, 12_288)).toEqual(pair.a.read(BASE, 12_288));
    const a = pair.hcaA.report();
    expect(a.counters.rnr_nak_retry_err).toBe(0);
    expect(a.counters.retransmitted_packets).toBe(0);
    expect(a.regions[0].stall_ps).toBeGreaterThan(MS);
  });

  it('READ into a missing page: responses are dropped and asked for again about every 0.5 ms', () => {
    const pair = new Pair();
    pair.a.at(READY_PS - 5 * US, () => pair.a.table(REGION_KEY, 0, 1, () => 0));
    pair.b.fill(BASE, 3000, 8);
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, {
        ...write,
        opcode: WR_RDMA_READ,
        address: BASE,
        length: 3000,
        remote: BASE,
      }),
    );
    pair.a.at(READY_PS + 1.2 * MS, () => {
      expect(pair.a.faults.length).toBe(1);
      pair.a.table(REGION_KEY, 0, 1, () => present(BASE / 4096));
      pair.a.resumeFault(pair.a.faults[0].token);
    });
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_SUCCESS }]);
    expect(pair.a.read(BASE, 3000)).toEqual(pair.b.read(BASE, 3000));
    expect(pair.hcaB.report().counters.rx_read_requests).toBe(1);
    expect(pair.hcaB.report().counters.duplicate_request).toBe(3);
    expect(pair.a.completions[0].timePs).toBeGreaterThan(READY_PS + 1.5 * MS);
  });

  it('several READs outstanding when the first one faults: all are asked for again and arrive', () => {
    const pair = new Pair();
    pair.a.at(READY_PS - 5 * US, () => pair.a.table(REGION_KEY, 0, 1, () => 0));
    pair.b.fill(BASE, 80_000, 8);
    pair.a.at(READY_PS, () => {
      for (let i = 0; i < 4; i++) {
        const at = BASE + i * 20_000;
        const length = 20_000;
        pair.a.postSend(QPN, {
          ...write,
          opcode: WR_RDMA_READ,
          wrId: i,
          address: at,
          length,
          remote: at,
        });
      }
    });
    pair.a.at(READY_PS + 0.2 * MS, () => {
      pair.a.table(REGION_KEY, 0, 1, () => present(BASE / 4096));
      pair.a.resumeFault(pair.a.faults[0].token);
    });
    pair.drive();
    expect(pair.a.completions.map((c) => [c.wrId, c.status])).toEqual(
      [0, 1, 2, 3].map((i) => [i, 0]),
    );
    expect(pair.a.read(BASE, 80_000)).toEqual(pair.b.read(BASE, 80_000));
    expect(pair.hcaA.report().counters.local_ack_timeout_err).toBe(0);
  });

  it('a fault that cannot be served fails both ends', () => {
    const pair = new Pair({ profile: { rnrWaitPercent: 100, rnrWaitMinPs: 0 } });
    pair.b.at(READY_PS - 5 * US, () => pair.b.table(REGION_KEY, 0, 1, () => 0));
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { ...write, address: BASE, length: 100, remote: BASE }),
    );
    pair.b.at(READY_PS + MS / 2, () => pair.b.resumeFault(pair.b.faults[0].token, 1));
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: 11 }]);
    expect(pair.b.asyncEvents.length).toBe(1);
  });
});

describe('loss and time', () => {
  it.each([10_000, 100_000])(
    'at %i lost packets in a million everything still arrives once',
    (lossPpm) => {
      const timing = { timeout: 8, retryCnt: 7 };
      const pair = new Pair({
        lossPpm,
        profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
        setUpA: timing,
        setUpB: timing,
      });
      pair.a.fill(BASE, 1 << 19, 9);
      pair.b.fill(BASE + (1 << 19), 1 << 19, 10);
      pair.a.at(READY_PS, () => {
        for (let i = 0; i < 16; i++) {
          const at = BASE + i * 32_768;
          pair.a.postSend(QPN, { ...write, wrId: 2 * i, address: at, length: 32_768, remote: at });
          const back = at + (1 << 19);
          pair.a.postSend(QPN, {
            ...write,
            opcode: WR_RDMA_READ,
            wrId: 2 * i + 1,
            address: back,
            length: 32_768,
            remote: back,
          });
        }
      });
      pair.drive();
      expect(pair.a.completions.map((c) => [c.wrId, c.status])).toEqual(
        Array.from({ length: 32 }, (_, i) => [i, WC_SUCCESS]),
      );
      expect(pair.b.read(BASE, 1 << 19)).toEqual(pair.a.read(BASE, 1 << 19));
      expect(pair.a.read(BASE + (1 << 19), 1 << 19)).toEqual(
        pair.b.read(BASE + (1 << 19), 1 << 19),
      );
      expect(pair.hcaA.report().counters.retransmitted_packets).toBeGreaterThan(0);
      expect(pair.pool.framesInUse).toBe(0);
      expect(pair.pool.burstsInUse).toBe(0);
    },
  );

  it('a dead peer costs retry_cnt + 1 time-outs, then the work request fails', () => {
    const timing = { timeout: 10, retryCnt: 3 };
    const pair = new Pair({
      lossPpm: 1_000_000,
      profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
      setUpA: timing,
    });
    pair.a.at(READY_PS, () => {
      pair.a.postSend(QPN, { ...write, wrId: 1, address: BASE, length: 100, remote: BASE });
      pair.a.postSend(QPN, { ...write, wrId: 2, address: BASE, length: 100, remote: BASE });
    });
    pair.drive();
    expect(pair.a.completions).toMatchObject([
      { wrId: 1, status: WC_RETRY_EXC_ERR },
      { wrId: 2, status: 5 },
    ]);
    const took = pair.a.completions[0].timePs - READY_PS;
    const timeout = 4.096 * US * 2 ** 10;
    expect(took).toBeGreaterThanOrEqual(4 * timeout);
    expect(took).toBeLessThan(4 * timeout + 10 * US);
    expect(pair.hcaA.report().counters.local_ack_timeout_err).toBe(4);
  });

  it('no receive posted: RNR NAKs until rnr_retry is used up', () => {
    const pair = new Pair({
      profile: { rnrWaitPercent: 100, rnrWaitMinPs: 0 },
      setUpA: { rnrRetry: 2 },
      setUpB: { minRnrTimer: 14 },
    });
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, {
        opcode: WR_SEND_WITH_IMM,
        lkey: REGION_KEY,
        address: BASE,
        length: 10,
      }),
    );
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_RNR_RETRY_EXC_ERR }]);
    expect(pair.hcaB.report().counters.out_of_buffer).toBe(3);
    const took = pair.a.completions[0].timePs - READY_PS;
    expect(took).toBeGreaterThanOrEqual(2 * 1.28 * MS);
    expect(took).toBeLessThan(2 * 1.28 * MS + 50 * US);
  });
});

describe('PD suspend', () => {
  it('is silent: requests are dropped without an answer, and the peer times out and recovers', () => {
    const timing = { timeout: 8 };
    const pair = new Pair({
      profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
      setUpA: timing,
    });
    pair.a.fill(BASE, 50_000, 11);
    pair.b.at(READY_PS - 10 * US, () => pair.b.protectionDomain(BUS_PD_SUSPEND, 1));
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { ...write, address: BASE, length: 50_000, remote: BASE }),
    );
    pair.b.at(READY_PS + 3 * MS, () => {
      expect(pair.b.read(BASE, 50_000).every((byte) => byte === 0)).toBe(true);
      pair.b.protectionDomain(BUS_PD_RESUME, 1);
    });
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_SUCCESS }]);
    expect(pair.b.read(BASE, 50_000)).toEqual(pair.a.read(BASE, 50_000));
    const b = pair.hcaB.report().counters;
    expect(b.suspended_drops).toBeGreaterThan(0);
    expect(b.rnr_naks_sent).toBe(0);
    expect(pair.hcaA.report().counters.local_ack_timeout_err).toBeGreaterThan(0);
  });

  it('a suspended requester sends nothing until it is resumed', () => {
    const pair = new Pair();
    pair.a.at(READY_PS - 10 * US, () => pair.a.protectionDomain(BUS_PD_SUSPEND, 1));
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { ...write, address: BASE, length: 50_000, remote: BASE }),
    );
    pair.a.at(READY_PS + 3 * MS, () => {
      expect(pair.hcaA.report().counters.port_xmit_packets).toBe(0);
      pair.a.protectionDomain(BUS_PD_RESUME, 1);
    });
    pair.drive();
    expect(pair.a.completions).toMatchObject([{ status: WC_SUCCESS }]);
    expect(pair.a.completions[0].timePs).toBeGreaterThan(READY_PS + 3 * MS);
  });

  it('no older mapping is used after the answer: a page moved meanwhile is written at its new frame', () => {
    const pair = new Pair();
    pair.a.fill(BASE, 4096, 12);
    // Warm the translation cache with the old frame.
    pair.a.at(READY_PS, () =>
      pair.a.postSend(QPN, { ...write, wrId: 1, address: BASE, length: 4096, remote: BASE }),
    );
    const spare = BASE / 4096 + 300;
    pair.b.at(READY_PS + MS, () => pair.b.protectionDomain(BUS_PD_SUSPEND, 1));
    pair.b.at(READY_PS + 2 * MS, () => pair.b.table(REGION_KEY, 0, 1, () => present(spare)));
    pair.b.at(READY_PS + 3 * MS, () => pair.b.protectionDomain(BUS_PD_RESUME, 1));
    pair.a.at(READY_PS + 4 * MS, () => {
      pair.a.fill(BASE, 4096, 13);
      pair.a.postSend(QPN, { ...write, wrId: 2, address: BASE, length: 4096, remote: BASE });
    });
    pair.drive();
    expect(pair.b.read(spare * 4096, 4096)).toEqual(pair.a.read(BASE, 4096));
    expect(pair.b.read(BASE, 4096)).not.toEqual(pair.a.read(BASE, 4096));
  });
});
