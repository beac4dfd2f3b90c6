/**
 * Misuse between two real adapters: what each side is told (completions, asynchronous events, the
 * NAK between them), that nothing else happens, and that no byte of either memory changes.
 *
 * Host a does what is wrong, or meets a host b that is; b answers. The responder alone, packet by
 * packet, is in `test/hca/rc-misuse.test.ts` and its neighbours.
 */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_MW_BIND,
  ACCESS_READ,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_WRITE,
  BURST,
  BUS_RECV_DOORBELL,
  BUS_SRQ_DOORBELL,
  CMD_ALLOC_PD,
  CMD_CREATE_MKEY,
  CMD_DESTROY_MKEY,
  CQE_RECEIVE,
  EVENT_QP_REQ_ERR,
  FRAME_WORDS,
  type FramePool,
  type LoggedRecord,
  OP_RESPONSE,
  opFlags,
  PAYLOAD_BYTES,
  PKEY_DEFAULT,
  RC_SEND_FIRST,
  RC_SEND_LAST,
  RC_SEND_MIDDLE,
  RC_WRITE_FIRST,
  RC_WRITE_MIDDLE,
  RC_WRITE_ONLY,
  UC_SEND_ONLY,
  US,
  W_AETH,
  W_BTH_FLAGS,
  W_DEST_QPN,
  W_DMA_BYTES,
  W_LIDS,
  W_OPCODE,
  W_PKEY,
  W_PSN,
  W_RKEY,
  WC_RETRY_EXC_ERR,
  WC_SUCCESS,
  WR_RDMA_READ,
} from '../../transport/index.ts';
import type { BareHost } from '../fixtures/bare-host.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair, type PairOptions } from '../fixtures/pair.ts';

import {
  BINDABLE,
  EVERYTHING,
  FLUSHED,
  FOREIGN,
  GONE,
  INVALID,
  MTU,
  QPN,
  READ_ONLY,
  reliable,
  room,
  SIZE,
  send,
  unreliable,
  WRITE_ONLY,
  write,
} from './misuse-cases.ts';

const COMMON = { mtu: MTU, length: SIZE, access: EVERYTHING, qpAccess: EVERYTHING };

/** Both hosts, all of their memory filled, with the keys of this file. */
function stage(options: PairOptions = {}): { pair: Pair; log: LoggedRecord[] } {
  const pair = new Pair({
    bytes: SIZE,
    profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
    ...options,
    setUpA: { ...COMMON, timeout: 8, retryCnt: 2, ...options.setUpA },
    setUpB: { ...COMMON, timeout: 8, retryCnt: 2, ...options.setUpB },
  });
  const log: LoggedRecord[] = [];
  pair.hcaA.node.digest.attach(log);
  for (const host of [pair.a, pair.b]) {
    for (let page = 0; page < host.blocks.length; page++) {
      const fill = new Uint8Array(4096).fill(host === pair.a ? 0x5a : 0xb5);
      const burst = pair.pool.burstFromBytes(fill, 0, 4096);
      host.land(burst, 0, 4096, page, 0);
      pair.pool.releaseBurst(burst);
    }
    host.at(READY_PS / 2, () => {
      host.command(CMD_ALLOC_PD);
      host.command(CMD_CREATE_MKEY, [2, EVERYTHING, 7], [BASE, SIZE]);
      host.command(CMD_CREATE_MKEY, [1, ACCESS_REMOTE_READ, 7], [BASE, SIZE]);
      host.command(CMD_CREATE_MKEY, [1, ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE, 7], [BASE, SIZE]);
      host.command(CMD_CREATE_MKEY, [1, EVERYTHING, 7], [BASE, SIZE]);
      host.command(CMD_CREATE_MKEY, [1, ACCESS_LOCAL_WRITE | ACCESS_MW_BIND, 7], [BASE, SIZE]);
      const entry = (i: number): number => ((BASE / 4096 + i) << 2) | ACCESS_WRITE | ACCESS_READ;
      for (const key of [FOREIGN, READ_ONLY, WRITE_ONLY, GONE, BINDABLE]) {
        host.table(key, 0, SIZE / 4096, entry);
      }
      host.command(CMD_DESTROY_MKEY, [GONE]);
    });
  }
  return { pair, log };
}

/** Answers that a has received, by syndrome, without ACKs and RNR NAKs. */
function naksOf(log: readonly LoggedRecord[]): number[] {
  const packets = log.filter(({ kind, fields }) => kind === 'frame received' && fields[0] === 1);
  return packets
    .map(({ fields }) => fields.slice(1))
    .filter((words) => ((opFlags[words[W_OPCODE] as number] as number) & OP_RESPONSE) !== 0)
    .map((words) => (words[W_AETH] as number) >>> 24)
    .filter((syndrome) => syndrome >= 0x60);
}

/** The host's memory but for the bytes from BASE + `from` to BASE + `to` is as it was. */
function expectUntouched(host: BareHost, value: number, from = 0, to = 0): void {
  const bytes = host.read(0, host.blocks.length * 4096);
  bytes.fill(value, BASE + from, BASE + to);
  const wrong = bytes.findIndex((byte) => byte !== value);
  if (wrong >= 0) throw new Error(`byte ${wrong} of ${host.node.name} has changed`);
}

function expectNothingLeft({ pool, a, b, hcaA, hcaB }: Pair): void {
  expect(pool.framesInUse).toBe(0);
  expect(pool.burstsInUse).toBe(0);
  hcaA.checkLeaks();
  hcaB.checkLeaks();
  expect(pool.blocks.blocksInUse).toBe(new Set([...a.blocks, ...b.blocks]).size);
}

const statusesOf = (host: BareHost, isReceive: boolean): number[] =>
  host.completions
    .filter(({ flags }) => ((flags & CQE_RECEIVE) !== 0) === isReceive)
    .map(({ status }) => status);

describe.each([
  ['a reliable connection', reliable],
  ['an unreliable service', unreliable],
])('%s', (_, cases) => {
  it.each(Object.entries(cases))('%s', (_name, test) => {
    const { pair, log } = stage(test.options);
    const { a, b } = pair;
    const isShared = test.options?.setUpB?.srqEntries !== undefined;
    b.at(READY_PS / 2 + 1, () => {
      test.prepareB?.(b);
      test.posted?.forEach((sges, i) => {
        if (isShared) b.postBuffer(BUS_SRQ_DOORBELL, 1, i, sges);
        else b.postBuffer(BUS_RECV_DOORBELL, QPN, i, sges);
      });
    });
    a.at(READY_PS, () => {
      test.works.forEach((work, wrId) => {
        a.postSend(QPN, { ...work, wrId });
      });
    });
    pair.drive();

    expect(statusesOf(a, false)).toEqual(test.a);
    expect(a.completions.map(({ wrId }) => wrId)).toEqual(test.works.map((_work, i) => i));
    expect(statusesOf(b, true)).toEqual(test.b ?? []);
    expect(statusesOf(b, false)).toEqual([]);
    expect(naksOf(log)).toEqual(test.nak === undefined ? [] : [test.nak]);
    expect(a.asyncEvents).toEqual(test.eventsA ?? []);
    expect(b.asyncEvents).toEqual(test.eventsB ?? []);
    if (test.counter) expect(pair.hcaB.report().counters[test.counter]).toBeGreaterThan(0);
    const [from, to] = test.changes ?? [0, 0];
    expectUntouched(b, 0xb5, from, to);
    if (test.changes)
      expect(b.read(BASE + from, to - from).every((byte) => byte === 0x5a)).toBe(true);
    // A READ that went well brings what b has.
    const isRead = test.works.some(({ opcode, length }, i) => {
      return opcode === WR_RDMA_READ && length !== 0 && test.a[i] === WC_SUCCESS;
    });
    expectUntouched(a, 0x5a, 0, isRead ? 8192 : 0);
    expectNothingLeft(pair);
  });
});

/** What no adapter sends: packets that a third party puts on the wire with a's address. */
interface Stray {
  readonly opcode: number;
  readonly bytes?: number;
  readonly dmaBytes?: number;
  readonly psn?: number;
}

function strayFrame(pool: FramePool, psn: number, stray: Stray): number {
  const frame = pool.allocate();
  const { words, doubles } = pool;
  const base = frame * FRAME_WORDS;
  words[base + W_OPCODE] = stray.opcode;
  words[base + W_DEST_QPN] = QPN;
  words[base + W_PSN] = psn & 0xffffff;
  words[base + W_BTH_FLAGS] = 2;
  words[base + W_LIDS] = (1 << 16) | 2;
  words[base + W_PKEY] = PKEY_DEFAULT;
  words[base + W_RKEY] = REGION_KEY;
  words[base + W_DMA_BYTES] = stray.dmaBytes ?? stray.bytes ?? 0;
  doubles[frame * 2] = BASE;
  const bytes = stray.bytes ?? 0;
  words[base + PAYLOAD_BYTES] = bytes;
  if (bytes > 0) words[base + BURST] = pool.burstFromBytes(new Uint8Array(bytes), 0, bytes);
  return frame;
}

describe('packets in a’s name that a did not send', () => {
  const refused: Record<string, Stray> = {
    'a MIDDLE packet of no message': { opcode: RC_WRITE_MIDDLE, bytes: MTU },
    'a LAST packet of no message': { opcode: RC_SEND_LAST, bytes: 8 },
    'a SEND that goes on before it began': { opcode: RC_SEND_MIDDLE, bytes: MTU },
    'a reserved opcode': { opcode: 0x1f, bytes: 8 },
    'the opcode that RESYNC was': { opcode: 0x15 },
    'a FIRST packet that is short': { opcode: RC_WRITE_FIRST, bytes: 8, dmaBytes: 4096 },
    'an ONLY packet whose length is another': { opcode: RC_WRITE_ONLY, bytes: 8, dmaBytes: 16 },
    'an ONLY packet above the path MTU': { opcode: RC_WRITE_ONLY, bytes: MTU + 4 },
  };
  it.each(Object.entries(refused))('%s ends the connection', (_, stray) => {
    const { pair, log } = stage();
    const { a, b } = pair;
    b.at(READY_PS / 2 + 1, () => b.postBuffer(BUS_RECV_DOORBELL, QPN, 1, room));
    pair.drive();
    const out = pair.hcaA.node.ports[1];
    out?.send(READY_PS + 10 * US, strayFrame(pair.pool, 100, stray));
    a.at(READY_PS + 100 * US, () => a.postSend(QPN, { ...write, wrId: 7 }));
    pair.drive();
    expect(naksOf(log)).toEqual([INVALID]);
    expect(b.asyncEvents).toEqual([EVENT_QP_REQ_ERR]);
    expect(statusesOf(b, true)).toEqual([FLUSHED]);
    // a had nothing out that the NAK could have meant; b does not answer any more.
    expect(a.asyncEvents).toEqual([]);
    expect(statusesOf(a, false)).toEqual([WC_RETRY_EXC_ERR]);
    expectUntouched(a, 0x5a);
    expectUntouched(b, 0xb5);
    expectNothingLeft(pair);
  });

  const ignored: Record<string, Stray> = {
    'an opcode of another service': { opcode: UC_SEND_ONLY, bytes: 8 },
    'a request that b has had': { opcode: RC_WRITE_ONLY, bytes: 8, psn: 99 },
    'an answer that nobody asked for': { opcode: 0x10, bytes: 8 },
  };
  it.each(Object.entries(ignored))('%s changes nothing', (_, stray) => {
    const { pair } = stage();
    const { a, b } = pair;
    pair.drive();
    const out = pair.hcaA.node.ports[1];
    out?.send(READY_PS + 10 * US, strayFrame(pair.pool, stray.psn ?? 100, stray));
    a.at(READY_PS + 100 * US, () => a.postSend(QPN, { ...write, wrId: 7 }));
    pair.drive();
    expect(statusesOf(a, false)).toEqual([WC_SUCCESS]);
    expect([...a.asyncEvents, ...b.asyncEvents]).toEqual([]);
    expectUntouched(a, 0x5a);
    expectUntouched(b, 0xb5, 8192, 8256);
    expectNothingLeft(pair);
  });

  it('a SEND out of sequence is asked for again, and nothing is lost', () => {
    const { pair, log } = stage();
    const { a, b } = pair;
    b.at(READY_PS / 2 + 1, () => b.postBuffer(BUS_RECV_DOORBELL, QPN, 1, room));
    pair.drive();
    const out = pair.hcaA.node.ports[1];
    out?.send(
      READY_PS + 10 * US,
      strayFrame(pair.pool, 105, { opcode: RC_SEND_FIRST, bytes: MTU }),
    );
    a.at(READY_PS + 100 * US, () => a.postSend(QPN, { ...send, wrId: 7 }));
    pair.drive();
    expect(naksOf(log)).toEqual([0x60]);
    expect(statusesOf(a, false)).toEqual([WC_SUCCESS]);
    expect(statusesOf(b, true)).toEqual([WC_SUCCESS]);
    expectUntouched(b, 0xb5, 16_384, 16_448);
    expectNothingLeft(pair);
  });
});
