/** Every answer a peer can give, at every place, to every kind of work: what the requester makes of it. */
import { describe, expect, it } from 'vitest';
import {
  FLUSH_GLOBAL,
  MS,
  NS,
  RC_ACKNOWLEDGE,
  RC_ATOMIC_ACKNOWLEDGE,
  RC_READ_RESPONSE_FIRST,
  RC_READ_RESPONSE_LAST,
  RC_READ_RESPONSE_MIDDLE,
  RC_READ_RESPONSE_ONLY,
  US,
  WC_BAD_RESP_ERR,
  WC_REM_ACCESS_ERR,
  WC_REM_INV_REQ_ERR,
  WC_REM_OP_ERR,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_WRITE,
  WR_FLUSH,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { type BareWork, READY_PS } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter, type PlainPacket } from '../fixtures/wire-peer.ts';
import { ALL, local, QPN } from '../fixtures/work.ts';

/** A kind of work at the head of the queue: PSNs from 100 on, and then one WRITE of one packet. */
interface Head {
  readonly name: string;
  readonly work: BareWork;
  readonly packets: number;
  /** What completes it: an ACK, or an answer of its own. */
  readonly answer: 'ack' | 'read' | 'atomic' | 'empty';
}
const heads: readonly Head[] = [
  { name: 'SEND', work: { opcode: WR_SEND, length: 3000 }, packets: 3, answer: 'ack' },
  { name: 'WRITE', work: { opcode: WR_RDMA_WRITE, length: 3000 }, packets: 3, answer: 'ack' },
  { name: 'READ', work: { opcode: WR_RDMA_READ, length: 3000 }, packets: 3, answer: 'read' },
  {
    name: 'atomic',
    work: { opcode: WR_ATOMIC_CMP_AND_SWP, length: 8, compareAdd: 1n },
    packets: 1,
    answer: 'atomic',
  },
  {
    name: 'FLUSH',
    work: { opcode: WR_FLUSH, length: 8, immediate: FLUSH_GLOBAL },
    packets: 1,
    answer: 'empty',
  },
  {
    name: 'ATOMIC WRITE',
    work: { opcode: WR_ATOMIC_WRITE, length: 8 },
    packets: 1,
    answer: 'empty',
  },
];

const ACK = 0x1f;
const payload = (bytes: number): Uint8Array => new Uint8Array(bytes).fill(9);
const acknowledge = (syndrome: number): Partial<PlainPacket> & { opcode: number } => ({
  opcode: RC_ACKNOWLEDGE,
  syndrome,
});
const response = (
  opcode: number,
  bytes: number,
  syndrome = ACK,
): Partial<PlainPacket> & { opcode: number } => ({ opcode, syndrome, payload: payload(bytes) });

const answers: Readonly<Record<string, Partial<PlainPacket> & { opcode: number }>> = {
  ACK: acknowledge(ACK),
  'ACK with credits': acknowledge(0x0a),
  'RNR NAK': acknowledge(0x21),
  'NAK sequence': acknowledge(0x60),
  'NAK invalid request': acknowledge(0x61),
  'NAK access': acknowledge(0x62),
  'NAK operation': acknowledge(0x63),
  'NAK code 4': acknowledge(0x64),
  'NAK code 31': acknowledge(0x7f),
  'syndrome 0x40': acknowledge(0x40),
  'syndrome 0x80': acknowledge(0x80),
  'syndrome 0xff': acknowledge(0xff),
  'READ first': response(RC_READ_RESPONSE_FIRST, 1024),
  'READ middle': response(RC_READ_RESPONSE_MIDDLE, 1024),
  'READ last': response(RC_READ_RESPONSE_LAST, 952),
  'READ only': response(RC_READ_RESPONSE_ONLY, 952),
  'READ first, short': response(RC_READ_RESPONSE_FIRST, 1023),
  'READ last, long': response(RC_READ_RESPONSE_LAST, 956),
  'READ first with a NAK': response(RC_READ_RESPONSE_FIRST, 1024, 0x61),
  'empty READ only': response(RC_READ_RESPONSE_ONLY, 0),
  'empty READ only with RNR': response(RC_READ_RESPONSE_ONLY, 0, 0x21),
  'atomic ACK': response(RC_ATOMIC_ACKNOWLEDGE, 0),
  'atomic ACK with a NAK': response(RC_ATOMIC_ACKNOWLEDGE, 0, 0x60),
};

interface Outcome {
  /** Completions, in order. */
  readonly done: readonly (readonly [number, number])[];
  /** The PSN that sending goes back to, if it does, and whether it waits before. */
  readonly back?: number;
  readonly waits?: boolean;
}
const NOTHING: Outcome = { done: [] };
const nakStatus: Readonly<Record<string, number>> = {
  'NAK invalid request': WC_REM_INV_REQ_ERR,
  'NAK access': WC_REM_ACCESS_ERR,
  'NAK operation': WC_REM_OP_ERR,
};
const failed = (wrId: number, status: number): Outcome => ({
  done: [
    ...(wrId === 2 ? [[1, WC_SUCCESS] as const] : []),
    [wrId, status],
    ...(wrId === 1 ? [[2, WC_WR_FLUSH_ERR] as const] : []),
  ],
});

/** What the specification makes of `name` at `psn` while nothing of the two messages is answered. */
function judge(head: Head, name: string, psn: number): Outcome {
  const next = 100 + head.packets;
  if (psn < 100 || psn > next) return NOTHING;
  if (/code|syndrome/.test(name)) return NOTHING;
  const isAck = name.startsWith('ACK');
  // An ACK covers its own PSN, everything else what is before it.
  const covered = isAck ? psn + 1 : psn;
  if (head.answer !== 'ack' && covered > 100) return { done: [], back: 100 };
  const done: [number, number][] = [];
  if (covered >= next) done.push([1, WC_SUCCESS]);
  if (isAck) {
    if (psn === next) done.push([2, WC_SUCCESS]);
    return { done };
  }
  const wrId = psn === next ? 2 : 1;
  if (name === 'RNR NAK') return { done, back: psn, waits: true };
  if (name === 'NAK sequence') return { done, back: psn };
  if (name in nakStatus) return failed(wrId, nakStatus[name]);
  if (wrId === 1) {
    if (head.answer === 'read' && (name === 'READ first' || name === 'READ middle')) return NOTHING;
    if (head.answer === 'atomic' && name === 'atomic ACK') return { done: [[1, WC_SUCCESS]] };
    if (head.answer === 'empty' && name === 'empty READ only') return { done: [[1, WC_SUCCESS]] };
  }
  return failed(wrId, WC_BAD_RESP_ERR);
}

describe.each(heads)('to a $name and a WRITE behind it', (head) => {
  const places = [99, 100, 101, 102, 103, 104].filter((psn) => psn <= 101 + head.packets);
  const cases = Object.keys(answers).flatMap((name) => places.map((psn) => ({ name, psn })));
  it.each(cases)('$name with PSN $psn', ({ name, psn }) => {
    const lone = new LoneAdapter({
      profile: { rnrWaitPercent: 100, rnrWaitMinPs: 0 },
      setUp: { timeout: 0, access: ALL, qpAccess: ALL },
      limitPs: READY_PS + MS,
    });
    const { host, peer } = lone;
    const answerPs = READY_PS + 100 * US;
    host.at(READY_PS, () => {
      host.postSend(QPN, { ...local, ...head.work, wrId: 1 });
      host.postSend(QPN, { ...local, opcode: WR_RDMA_WRITE, length: 10, wrId: 2 });
    });
    peer.at(answerPs, () => peer.send({ ...answers[name], psn }));
    lone.drive();
    const expected = judge(head, name, psn);
    expect(host.completions.map((c) => [c.wrId, c.status])).toEqual(expected.done);
    const again = peer.seen.filter((packet) => packet.timePs > answerPs);
    expect(again[0]?.psn).toBe(expected.back);
    if (again.length > 0) {
      // Code 1 is 10 us.
      const waitPs = again[0].timePs - answerPs;
      expect(waitPs > 10 * US).toBe(expected.waits === true);
      expect(waitPs).toBeLessThan(14 * US);
    }
    expect(lone.hca.report().queuePairs[0].timeouts).toBe(0);
  });
});

describe('a READ that is partly answered', () => {
  /** Posts a READ of three packets, answers the first one, then gives `packet`. */
  function story(packet: PlainPacket): LoneAdapter {
    const lone = new LoneAdapter({ setUp: { timeout: 0 }, limitPs: READY_PS + MS });
    const { host, peer } = lone;
    host.at(READY_PS, () =>
      host.postSend(QPN, { ...local, opcode: WR_RDMA_READ, length: 3000, wrId: 1 }),
    );
    peer.at(READY_PS + 100 * US, () => {
      peer.send({ ...response(RC_READ_RESPONSE_FIRST, 1024), psn: 100 });
      peer.send(packet);
    });
    return lone;
  }

  it.each([
    ['the first response again', { ...response(RC_READ_RESPONSE_FIRST, 1024), psn: 100 }],
    ['a ghost of it with other bytes', { ...response(RC_READ_RESPONSE_ONLY, 7), psn: 100 }],
    ['a NAK of what is answered', { ...acknowledge(0x61), psn: 100 }],
  ])('%s says nothing new', (_, packet) => {
    const lone = story(packet);
    lone.drive();
    expect(lone.host.completions).toEqual([]);
    expect(lone.peer.seen.length).toBe(1);
  });

  it('a gap in the responses has the rest asked for again', () => {
    const lone = story({ ...response(RC_READ_RESPONSE_LAST, 952), psn: 102 });
    lone.drive();
    expect(lone.peer.seen.map((p) => [p.psn, p.dmaBytes])).toEqual([
      [100, 3000],
      [101, 1976],
    ]);
    expect(lone.peer.seen[1].address).toBe((local.remote as number) + 1024);
  });

  it.each([
    ['beginning with FIRST', RC_READ_RESPONSE_FIRST],
    ['going on with MIDDLE, as rxe does', RC_READ_RESPONSE_MIDDLE],
  ])('the rest may come %s', (_, opcode) => {
    const lone = story({ ...response(RC_READ_RESPONSE_LAST, 952), psn: 102 });
    lone.peer.onPacket = ({ psn }) => {
      if (psn !== 101) return;
      lone.peer.send({ ...response(opcode, 1024), psn: 101 });
      lone.peer.send({ ...response(RC_READ_RESPONSE_LAST, 952), psn: 102 });
    };
    lone.drive();
    expect(lone.host.completions).toMatchObject([{ wrId: 1, status: WC_SUCCESS, bytes: 3000 }]);
    expect(lone.host.read(BASE, 3000).every((byte) => byte === 9)).toBe(true);
  });

  it.each([
    ['LAST too early', { ...response(RC_READ_RESPONSE_LAST, 1024), psn: 101 }],
    ['ONLY too early', { ...response(RC_READ_RESPONSE_ONLY, 1024), psn: 101 }],
    ['an atomic', { ...response(RC_ATOMIC_ACKNOWLEDGE, 0), psn: 101 }],
  ])('%s fails it', (_, packet) => {
    const lone = story(packet);
    lone.drive();
    expect(lone.host.completions).toMatchObject([{ wrId: 1, status: WC_BAD_RESP_ERR }]);
  });
});

describe('after an RNR NAK', () => {
  const options = {
    profile: { rnrWaitPercent: 100, rnrWaitMinPs: 0 },
    setUp: { timeout: 0, retryCnt: 0, rnrRetry: 1 },
  };
  const write = { ...local, opcode: WR_RDMA_WRITE, length: 3000 };

  it('NAKs of the packets behind it, as rxe sends them, cost no retry', () => {
    const lone = new LoneAdapter(options);
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, wrId: 1 }));
    let flight = 0;
    peer.onPacket = ({ psn }) => {
      if (psn !== 102) return;
      if (flight++ > 0) {
        peer.send({ ...acknowledge(ACK), psn: 102 });
        return;
      }
      peer.send({ ...acknowledge(0x21), psn: 100 });
      peer.send({ ...acknowledge(0x60), psn: 100 });
      peer.send({ ...acknowledge(0x60), psn: 100 });
      // The RNR NAK itself, doubled on its way.
      peer.send({ ...acknowledge(0x21), psn: 100 });
    };
    lone.drive();
    expect(host.completions).toMatchObject([{ wrId: 1, status: WC_SUCCESS }]);
    expect(peer.seen.length).toBe(6);
    expect(lone.hca.report().queuePairs[0].rnr_naks_received).toBe(1);
  });

  it.each([
    ['NAK invalid request', 0x61, WC_REM_INV_REQ_ERR],
    ['NAK operation', 0x63, WC_REM_OP_ERR],
  ])('%s ends the connection at once', (_, syndrome, status) => {
    const lone = new LoneAdapter(options);
    const { host, peer } = lone;
    host.at(READY_PS, () => host.postSend(QPN, { ...write, wrId: 1 }));
    peer.at(READY_PS + 50 * US, () => {
      peer.send({ ...acknowledge(0x2e), psn: 100 });
      peer.send({ ...acknowledge(syndrome), psn: 100 });
    });
    lone.drive();
    expect(host.completions).toMatchObject([{ wrId: 1, status }]);
    expect(host.completions[0].timePs).toBeLessThan(READY_PS + 60 * US + 100 * NS);
  });
});
