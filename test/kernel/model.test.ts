/**
 * Random work in both directions at once, on a link that loses, doubles and reorders, with memory
 * pinned or on demand and taken away on the way: in the end all memory is what a model of RC says,
 * every result too, and every completion came exactly once and in order.
 *
 * The ranges of the two directions are apart, and so are results: what is left is what the
 * specification promises. A request that changes memory behind a READ carries a fence, because
 * without one the READ might see the change.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ScatterEntry, SendRequest, Sim } from '../../kernel/index.ts';
import {
  CQE_RECEIVE,
  CQE_WITH_IMMEDIATE,
  FLUSH_GLOBAL,
  FLUSH_RANGE,
  MS,
  SEND_FENCE,
  SEND_INLINE,
  SEND_SIGNALED,
  SEND_SOLICITED,
  US,
  WC_SUCCESS,
  type WireFaults,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_FLUSH,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
} from '../../transport/index.ts';
import { BASE, HostPair, open, PAGE, type Program } from '../fixtures/host-pair.ts';

const MAX_WORK = 16;
/** Areas of each region: sources are never written, targets belong to the peer's work. */
const AREA_BYTES = 16 * PAGE;
const [SOURCES, TARGETS, RESULTS, RECEIVES] = [0, 1, 2, 3].map((i) => i * AREA_BYTES) as [
  number,
  number,
  number,
  number,
];

interface Work {
  readonly opcode: number;
  readonly from: number;
  readonly to: number;
  readonly length: number;
  readonly pieces: number;
  readonly value: number;
  readonly isSignaled: boolean;
  readonly isInline: boolean;
  readonly isSolicited: boolean;
}

interface Plan {
  readonly work: readonly (readonly Work[])[];
  readonly faults: Partial<WireFaults>;
  readonly onDemand: boolean;
  readonly isCold: boolean;
  readonly takesAway: boolean;
  readonly mtuBytes: number;
  readonly maxRdAtomic: number;
  readonly seed: number;
}

const WORDS: readonly number[] = [WR_ATOMIC_FETCH_AND_ADD, WR_ATOMIC_CMP_AND_SWP, WR_ATOMIC_WRITE];
const SENDS: readonly number[] = [WR_SEND, WR_SEND_WITH_IMM];
const WRITES: readonly number[] = [WR_RDMA_WRITE, WR_RDMA_WRITE_WITH_IMM];
const CONSUMING: readonly number[] = [...SENDS, WR_RDMA_WRITE_WITH_IMM];
const WITH_IMM: readonly number[] = [WR_SEND_WITH_IMM, WR_RDMA_WRITE_WITH_IMM];

const work = fc.record({
  opcode: fc.constantFrom(...WORDS, ...SENDS, ...WRITES, WR_RDMA_READ, WR_FLUSH),
  from: fc.nat(AREA_BYTES - PAGE),
  to: fc.nat(AREA_BYTES - PAGE),
  length: fc.oneof(fc.nat(64), fc.nat(PAGE)),
  pieces: fc.integer({ min: 1, max: 5 }),
  value: fc.nat(0x7fffffff),
  isSignaled: fc.boolean(),
  isInline: fc.boolean(),
  isSolicited: fc.boolean(),
});

const plan: fc.Arbitrary<Plan> = fc.record({
  work: fc.tuple(
    fc.array(work, { maxLength: MAX_WORK }),
    fc.array(work, { minLength: 1, maxLength: MAX_WORK }),
  ),
  faults: fc.record({
    lossPpm: fc.constantFrom(0, 20_000, 100_000),
    duplicatePpm: fc.constantFrom(0, 50_000),
    reorderPpm: fc.constantFrom(0, 50_000),
    reorderPackets: fc.constant(3),
    corruptPpm: fc.constantFrom(0, 20_000),
  }),
  onDemand: fc.boolean(),
  isCold: fc.boolean(),
  takesAway: fc.boolean(),
  mtuBytes: fc.constantFrom(256, 1024, 4096),
  maxRdAtomic: fc.constantFrom(1, 3, 16),
  seed: fc.nat(1000),
});

/** One request with what the model has to know. */
interface Posted {
  readonly work: Work;
  readonly length: number;
  /** Where its bytes are at the initiator, and at the target. */
  readonly local: number;
  readonly remote: number;
  readonly isSignaled: boolean;
  readonly needsFence: boolean;
}

function prepare(list: readonly Work[]): Posted[] {
  let isRead = false;
  return list.map((one, k) => {
    const { opcode } = one;
    const isWord = WORDS.includes(opcode);
    const isFetch = opcode === WR_RDMA_READ || (isWord && opcode !== WR_ATOMIC_WRITE);
    const needsFence = isRead && opcode !== WR_RDMA_READ && opcode !== WR_FLUSH;
    if (needsFence) isRead = false;
    if (isFetch) isRead = true;
    return {
      work: one,
      length: isWord ? 8 : one.length,
      local: isFetch ? RESULTS + k * PAGE : SOURCES + one.from,
      remote: TARGETS + (isWord ? one.to & ~7 : one.to),
      // The last one is signalled: it stands for all others.
      isSignaled: one.isSignaled || k === list.length - 1,
      needsFence,
    };
  });
}

/** What a program asks of its adapter for one request. */
function requestOf(posted: Posted, k: number, program: Program, rkey: number): SendRequest {
  const { work: one, length, local, remote, isSignaled, needsFence } = posted;
  const { opcode, value } = one;
  const mayBeInline = [...SENDS, ...WRITES, WR_ATOMIC_WRITE].includes(opcode) && length <= 256;
  const flags =
    (isSignaled ? SEND_SIGNALED : 0) |
    (needsFence ? SEND_FENCE : 0) |
    (one.isSolicited ? SEND_SOLICITED : 0) |
    (mayBeInline && one.isInline ? SEND_INLINE : 0);
  const sges = opcode === WR_FLUSH ? [] : piecesOf(program, local, length, one.pieces);
  return {
    opcode,
    wrId: k,
    flags,
    sges,
    rkey,
    remoteAddress: BASE + remote,
    immediate: value,
    compareAdd: [opcode === WR_ATOMIC_CMP_AND_SWP ? 0 : value, value],
    swap: [value, 1],
    ...(opcode === WR_FLUSH
      ? { flush: { length, placement: FLUSH_GLOBAL, selectivity: FLUSH_RANGE } }
      : {}),
  };
}

function piecesOf({ mr }: Program, offset: number, length: number, count: number): ScatterEntry[] {
  return Array.from({ length: count }, (_, i) => {
    const from = Math.floor((length * i) / count);
    const to = Math.floor((length * (i + 1)) / count);
    return { address: BASE + offset + from, length: to - from, lkey: mr.lkey };
  });
}

/** Carries the work of one side out on copies of both memories. */
function execute(list: readonly Posted[], own: Uint8Array, other: Uint8Array): void {
  let receive = 0;
  list.forEach(({ work: { opcode, value }, length, local, remote }) => {
    const slot = RECEIVES + receive * PAGE;
    if (CONSUMING.includes(opcode)) receive++;
    if (SENDS.includes(opcode)) other.set(own.subarray(local, local + length), slot);
    else if (WRITES.includes(opcode) || opcode === WR_ATOMIC_WRITE) {
      other.set(own.subarray(local, local + length), remote);
    } else if (opcode === WR_RDMA_READ) own.set(other.subarray(remote, remote + length), local);
    else if (opcode !== WR_FLUSH) {
      own.set(other.subarray(remote, remote + 8), local);
      const word = new DataView(other.buffer, other.byteOffset + remote, 8);
      const old = word.getBigUint64(0, true);
      const big = BigInt(value);
      if (opcode === WR_ATOMIC_FETCH_AND_ADD) {
        word.setBigUint64(0, BigInt.asUintN(64, old + ((big << 32n) | big)), true);
      } else if (old === big) word.setBigUint64(0, (big << 32n) | 1n, true);
    }
  });
}

function check({ faults, ...plan }: Plan): void {
  const pair = new HostPair({ wire: faults, seed: plan.seed });
  const posted = plan.work.map(prepare) as [Posted[], Posted[]];
  const rkeys = [0, 0];
  const memories: Uint8Array[] = [];
  const finals: Uint8Array[] = [];
  const program = function* (side: 0 | 1): Sim<void> {
    const host = side === 0 ? pair.a : pair.b;
    const own = posted[side];
    const owed = posted[1 - side]?.filter(({ work }) => CONSUMING.includes(work.opcode)) ?? [];
    const { onDemand, isCold, mtuBytes, maxRdAtomic } = plan;
    const self = yield* open(host, {
      onDemand,
      isCold,
      mtuBytes,
      attributes: { maxRdAtomic },
      minRnrTimer: 1,
    });
    rkeys[side] = self.mr.rkey;
    for (let k = 0; k < owed.length; k++) {
      const sges = piecesOf(self, RECEIVES + k * PAGE, PAGE, 1 + (k % 3));
      yield* host.verbs.postRecv(self.qp, { wrId: 1000 + k, sges });
    }
    yield* host.sleep(10 * MS - host.node.now);
    memories[side] = host.mm.read(BASE, 4 * AREA_BYTES);
    if (plan.takesAway && side === 1) host.spawn('reclaim', takeAway(host));
    const post = function* (): Sim<void> {
      for (const [k, one] of own.entries()) {
        const request = requestOf(one, k, self, rkeys[1 - side] as number);
        yield* host.verbs.postSend(self.qp, request);
      }
    };
    host.spawn('post', post());
    const sent = own.flatMap(({ isSignaled }, k) => (isSignaled ? [k] : []));
    let received = 0;
    for (let left = sent.length + owed.length; left > 0; left--) {
      const completion = yield* self.cq.next();
      expect(completion.status).toBe(WC_SUCCESS);
      if ((completion.flags & CQE_RECEIVE) === 0) expect(completion.wrId).toBe(sent.shift());
      else {
        const { work: one, length } = owed[received] as Posted;
        expect(completion.wrId).toBe(1000 + received++);
        expect(completion.byteLen).toBe(length);
        const hasImmediate = WITH_IMM.includes(one.opcode);
        expect((completion.flags & CQE_WITH_IMMEDIATE) !== 0).toBe(hasImmediate);
        if (hasImmediate) expect(completion.immediate).toBe(one.value);
      }
    }
    yield* host.sleep(100 * MS);
    expect(self.cq.poll()).toBeUndefined();
    expect(self.qp.sendsOutstanding + self.qp.receives.outstanding).toBe(0);
    finals[side] = host.mm.read(BASE, 4 * AREA_BYTES);
  };
  expect(pair.run(program(0), program(1))).toBe(true);
  const [a, b] = memories as [Uint8Array, Uint8Array];
  execute(posted[0], a, b);
  execute(posted[1], b, a);
  expect([differenceAt(finals[0], a), differenceAt(finals[1], b)]).toEqual([-1, -1]);
  pair.checkLeaks();
}

/** Where two memories differ first, or -1. (toEqual takes seconds for so many bytes.) */
function differenceAt(memory: Uint8Array | undefined, model: Uint8Array): number {
  return model.findIndex((byte, i) => memory?.[i] !== byte);
}

/** The kernel takes pages back again and again while the work goes on. */
function* takeAway(host: HostPair['b']): Sim<void> {
  for (let i = 0; i < 20; i++) {
    yield* host.sleep(40 * US);
    yield* host.ram.reclaim.shrink(64);
  }
}

describe('two hosts', () => {
  it('leave memory, results and completions as the model of RC has them', () => {
    fc.assert(fc.property(plan, check), { numRuns: 60, seed: 1 });
  }, 100_000);
});
