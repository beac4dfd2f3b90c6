/** PSNs, duplicates, acknowledgements, credits and states at the responder of a reliable connection. */
import { describe, expect, it } from 'vitest';
import { creditCode, creditCounts } from '../../hca/qp/aeth.ts';
import {
  EVENT_COMM_EST,
  QP_STATE,
  QPA_STATE,
  QPS_ERR,
  QPS_INIT,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  RC_ACKNOWLEDGE,
  RC_READ_REQUEST,
  RC_READ_RESPONSE_LAST,
  RC_SEND_FIRST,
  RC_SEND_LAST,
  RC_SEND_MIDDLE,
  RC_SEND_ONLY,
  RC_WRITE_FIRST,
  RC_WRITE_LAST,
  RC_WRITE_ONLY,
  US,
} from '../../transport/index.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter, type PlainPacket } from '../fixtures/wire-peer.ts';

const QPN = 0x11;
const ASK = 2;
const ACK = 0x1f;
const NAK = 0x60;
const RNR = 0x2c;
const HALF = 2 ** 23;
const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);
const write = {
  opcode: RC_WRITE_ONLY,
  flags: ASK,
  rkey: REGION_KEY,
  address: BASE,
  dmaBytes: 4,
  payload: bytes(4, 1),
};
const send = { opcode: RC_SEND_ONLY, flags: ASK, payload: bytes(4, 2) };
const wrap = (psn: number): number => psn & 0xffffff;

type Options = ConstructorParameters<typeof LoneAdapter>[0] & { room?: number };

/** Sends packets 5 us apart, and returns what was answered to each. */
function run(packets: readonly PlainPacket[], receives = 0, options: Options = {}): LoneAdapter {
  const { room = 2048, ...rest } = options;
  const lone = new LoneAdapter({ bytes: 1 << 16, ...rest });
  const { host, peer } = lone;
  host.at(READY_PS / 2, () => {
    for (let i = 0; i < receives; i++) {
      host.postReceive(QPN, i + 1, REGION_KEY, BASE + 8192 + room * i, room);
    }
  });
  packets.forEach((packet, i) => {
    peer.at(READY_PS + i * 5 * US, () => peer.send(packet));
  });
  return lone;
}

const answers = ({ peer }: LoneAdapter): number[][] =>
  peer.seen.map((p) => [p.psn, p.syndrome, p.msn]);

describe('the PSN', () => {
  for (const expected of [0, 1, 100, 0x7fffff, 0x800000, 0xfffffe, 0xffffff]) {
    const cases: [number, number[], boolean][] = [
      // Behind: executed already, so it is acknowledged again and not carried out.
      [-HALF, [wrap(expected - 1), ACK, 0], false],
      [-HALF + 1, [wrap(expected - 1), ACK, 0], false],
      [-2, [wrap(expected - 1), ACK, 0], false],
      [-1, [wrap(expected - 1), ACK, 0], false],
      [0, [expected, ACK, 1], true],
      // Ahead: something is missing.
      [1, [expected, NAK, 0], false],
      [2, [expected, NAK, 0], false],
      [HALF - 1, [expected, NAK, 0], false],
    ];
    it.each(cases)(`${expected} is expected, and %i further comes`, (distance, answer, isDone) => {
      const psn = wrap(expected + distance);
      const lone = run([{ ...write, psn }], 0, { setUp: { receivePsn: expected } });
      lone.drive();
      expect(answers(lone)).toEqual([answer]);
      expect(lone.host.read(BASE, 4)).toEqual(bytes(4, isDone ? 1 : 0));
    });
  }

  it('of a long message goes around the wrap, and a READ takes one for each packet of its answer', () => {
    const lone = run(
      [
        { opcode: RC_SEND_FIRST, psn: 0xfffffe, payload: bytes(1024, 1) },
        { opcode: RC_SEND_MIDDLE, psn: 0xffffff, payload: bytes(1024, 2) },
        { opcode: RC_SEND_LAST, psn: 0, flags: ASK, payload: bytes(4, 3) },
        { ...write, opcode: RC_READ_REQUEST, psn: 1, dmaBytes: 2049, payload: bytes(0, 0) },
        // PSN 2 belongs to the READ, so this can only be a copy of something old.
        { ...send, psn: 2 },
        { ...send, psn: 4 },
      ],
      2,
      { setUp: { receivePsn: 0xfffffe }, room: 4096 },
    );
    lone.drive();
    expect(answers(lone)).toEqual([
      [0, ACK, 1],
      [1, ACK, 2],
      [2, 0, 0],
      [3, ACK, 2],
      [3, ACK, 2],
      [4, ACK, 3],
    ]);
    expect(lone.host.completions.map((c) => c.bytes)).toEqual([2052, 4]);
  });
});

describe('a gap', () => {
  it('is named once, and again when there is another', () => {
    const lone = run([
      { ...write, psn: 102 },
      { ...write, psn: 103 },
      { ...write, psn: 101 },
      { ...write, psn: 100 },
      { ...write, psn: 102 },
      { ...write, psn: 103 },
      { ...write, psn: 101 },
    ]);
    lone.drive();
    expect(answers(lone)).toEqual([
      [100, NAK, 0],
      [100, ACK, 1],
      [101, NAK, 1],
      [101, ACK, 2],
    ]);
    expect(lone.hca.report().counters.out_of_sequence).toBe(5);
  });

  it('does not keep copies of older requests from being answered', () => {
    const lone = run([
      { ...write, psn: 100 },
      { ...write, psn: 102 },
      { ...write, psn: 100 },
    ]);
    lone.drive();
    expect(answers(lone)).toEqual([
      [100, ACK, 1],
      [101, NAK, 1],
      [100, ACK, 1],
    ]);
  });
});

describe('a missing receive', () => {
  it('is named for the packet that needs it, and what follows in the flight is not answered', () => {
    const lone = run([
      { opcode: RC_SEND_FIRST, psn: 100, payload: bytes(1024, 1) },
      { opcode: RC_SEND_MIDDLE, psn: 101, payload: bytes(1024, 1) },
      { opcode: RC_SEND_LAST, psn: 102, flags: ASK, payload: bytes(4, 1) },
    ]);
    lone.drive();
    expect(answers(lone)).toEqual([[100, RNR, 0]]);
    expect(lone.hca.report().counters.out_of_buffer).toBe(1);
  });
});

describe('copies of requests', () => {
  it('are acknowledged with the newest PSN, each, and carried out by none', () => {
    const lone = run(
      [
        { opcode: RC_SEND_FIRST, psn: 100, payload: bytes(1024, 1) },
        { opcode: RC_SEND_FIRST, psn: 100, payload: bytes(1024, 7) },
        { opcode: RC_SEND_LAST, psn: 101, flags: ASK, payload: bytes(4, 1) },
        { opcode: RC_SEND_FIRST, psn: 100, payload: bytes(1024, 7) },
        { opcode: RC_SEND_LAST, psn: 101, payload: bytes(4, 7) },
        { ...write, opcode: RC_WRITE_FIRST, psn: 102, dmaBytes: 1025, payload: bytes(1024, 1) },
        { ...write, opcode: RC_WRITE_FIRST, psn: 102, dmaBytes: 1025, payload: bytes(1024, 7) },
        { opcode: RC_WRITE_LAST, psn: 103, payload: bytes(1, 1) },
      ],
      2,
    );
    lone.drive();
    expect(answers(lone)).toEqual([
      [100, ACK, 0],
      [101, ACK, 1],
      [101, ACK, 1],
      [101, ACK, 1],
      [102, ACK, 1],
      [102, ACK, 1],
    ]);
    expect(lone.host.completions.map((c) => [c.wrId, c.bytes])).toEqual([[1, 1028]]);
    expect(lone.host.read(BASE, 1025)).toEqual(bytes(1025, 1));
    expect(lone.host.read(BASE + 8192, 1028)).toEqual(bytes(1028, 1));
    expect(lone.hca.report().queuePairs[0]?.duplicate_requests).toBe(4);
  });
});

describe('the state', () => {
  it.each([
    ['INIT', [QPS_INIT], false],
    ['RTR', [QPS_INIT, QPS_RTR], true],
    ['RTS', [QPS_INIT, QPS_RTR, QPS_RTS], true],
  ])('%s', (_, states, isAnswered) => {
    const lone = run([{ ...write, psn: 100 }], 0, { setUp: { states } });
    lone.drive();
    expect(answers(lone)).toEqual(isAnswered ? [[100, ACK, 1]] : []);
    expect(lone.hca.report().counters.state_drops).toBe(isAnswered ? 0 : 1);
  });

  it.each([
    ['SQD', QPS_SQD, true],
    ['ERR', QPS_ERR, false],
  ])('%s', (_, state, isAnswered) => {
    const lone = run([{ ...write, psn: 100 }]);
    lone.host.at(READY_PS / 2, () => lone.host.modifyQp(QPN, QP_STATE, { [QPA_STATE]: state }));
    lone.drive();
    expect(answers(lone)).toEqual(isAnswered ? [[100, ACK, 1]] : []);
  });

  it('RTR ends, for its host, with the first packet that comes', () => {
    const states = [QPS_INIT, QPS_RTR];
    const lone = run(
      [
        { ...write, psn: 101 },
        { ...write, psn: 100 },
        { ...write, psn: 101 },
      ],
      0,
      {
        setUp: { states },
      },
    );
    lone.drive();
    expect(lone.host.events.map((e) => [e.event, e.number])).toEqual([[EVENT_COMM_EST, QPN]]);
  });
});

describe('credits', () => {
  it('are the largest code that the receives cover', () => {
    for (const [code, count] of creditCounts.entries()) {
      expect(creditCode(count)).toBe(code);
      if (count > 4) expect(creditCode(count - 1)).toBe(code - 1);
    }
    expect(creditCode(1e9)).toBe(30);
  });

  const profile = { endToEndCredits: true };
  it('say how many receives are posted, and that of the message that is coming in', () => {
    const lone = run(
      [
        { ...write, psn: 100 },
        { ...send, psn: 101 },
        { opcode: RC_SEND_FIRST, psn: 102, flags: ASK, payload: bytes(1024, 1) },
        { opcode: RC_SEND_LAST, psn: 103, flags: ASK, payload: bytes(1, 1) },
      ],
      7,
      { profile },
    );
    lone.drive();
    // Seven, six, six (one of them taken, its message not complete), five.
    expect(answers(lone).map(([, syndrome]) => creditCounts[syndrome as number])).toEqual([
      6, 6, 6, 4,
    ]);
  });

  it('that were none are renewed when a receive is posted', () => {
    const lone = run([{ ...send, psn: 100 }], 1, { profile });
    const { host } = lone;
    host.at(READY_PS + 50 * US, () => host.postReceive(QPN, 2, REGION_KEY, BASE, 64));
    host.at(READY_PS + 60 * US, () => host.postReceive(QPN, 3, REGION_KEY, BASE, 64));
    lone.drive();
    expect(answers(lone)).toEqual([
      [100, 0, 1],
      [100, 1, 1],
    ]);
  });

  it('are not given from a shared receive queue', () => {
    const lone = run([{ ...write, psn: 100 }], 0, { profile, setUp: { srqEntries: 8 } });
    lone.drive();
    expect(answers(lone)).toEqual([[100, ACK, 1]]);
  });
});

describe('acknowledgements', () => {
  /** Requests that come while a long READ keeps the link busy. */
  function behindEachOther(coalesceAcks: boolean): LoneAdapter {
    const lone = new LoneAdapter({
      bytes: 1 << 17,
      profile: { coalesceAcks },
      setUp: { queuePairs: 2, mtu: 4096 },
    });
    const { peer } = lone;
    peer.at(READY_PS, () => {
      const read = { opcode: RC_READ_REQUEST, qpn: QPN + 1, psn: 100, rkey: REGION_KEY };
      peer.send({ ...read, address: BASE, dmaBytes: 1 << 16 });
    });
    peer.at(READY_PS + 2 * US, () => {
      for (let i = 0; i < 12; i++) peer.send({ ...write, psn: 100 + i });
    });
    return lone;
  }

  it.each([false, true])('that wait behind each other: coalesced is %s', (coalesceAcks) => {
    const lone = behindEachOther(coalesceAcks);
    lone.drive();
    const acks = lone.peer.seen.filter((p) => p.opcode === RC_ACKNOWLEDGE);
    if (coalesceAcks) expect(acks.length).toBeLessThan(12);
    else expect(acks.length).toBe(12);
    expect(acks.at(-1)).toMatchObject({ psn: 111, msn: 12, syndrome: ACK });
    expect(lone.peer.seen.filter((p) => p.opcode === RC_READ_RESPONSE_LAST).length).toBe(1);
    expect(lone.pool.framesInUse).toBe(0);
  });
});
