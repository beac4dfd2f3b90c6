/**
 * Owns how operations on one word of the responder's memory are tried: compare-and-swap, fetch-and-add
 * and atomic write, with what they return and what they leave.
 */
import type { Bench, Message, Outcome, Station } from './bench.ts';
import { pattern } from './end.ts';

const ATOMIC_COUNT = 6;
const ATOMIC_BYTES = 8;

/** Half of them find what they compare with. */
export async function compareAndSwap(bench: Bench): Promise<Outcome> {
  return atomics(bench, 'cas', ({ seed, index }) => {
    const before = word(seed);
    const isHit = index % 2 === 0;
    const swap = 0x1122334455667700n + BigInt(index);
    return {
      args: { cmp: isHit ? before : before + 1n, swap },
      result: before,
      after: isHit ? swap : before,
    };
  });
}

/** Among them additions that carry over the whole word. */
export async function fetchAndAdd(bench: Bench): Promise<Outcome> {
  return atomics(bench, 'faa', ({ seed, index }) => {
    const before = word(seed);
    const add = index % 2 === 0 ? 0xffffffffffffff00n + BigInt(index) : BigInt(index);
    return { args: { add }, result: before, after: BigInt.asUintN(64, before + add) };
  });
}

export async function atomicWrite(bench: Bench): Promise<Outcome> {
  return atomics(bench, 'awrite', ({ index }) => {
    const val = 0x8877665544332200n + BigInt(index);
    return { args: { val }, result: undefined, after: val };
  });
}

interface AtomicCase {
  readonly args: Readonly<Record<string, bigint>>;
  /** What the requester gets back. */
  readonly result: bigint | undefined;
  /** What lies at the responder afterwards. */
  readonly after: bigint;
}

async function atomics(
  bench: Bench,
  op: string,
  caseOf: (message: Message) => AtomicCase,
): Promise<Outcome> {
  const { requester, responder } = bench;
  const messages = bench.messages(new Array(ATOMIC_COUNT).fill(ATOMIC_BYTES), ATOMIC_BYTES);
  const rkey = responder.end.address.rkey;
  await bench.run(responder, [
    ...messages.flatMap((m) => [
      { verb: 'fill', off: m.remote, len: ATOMIC_BYTES, seed: m.seed },
      ...bench.prepare(responder, m.remote, ATOMIC_BYTES, op === 'awrite'),
    ]),
  ]);
  const done = await bench.run(requester, [
    ...messages.flatMap((m) => bench.prepare(requester, m.local, ATOMIC_BYTES)),
    ...messages.map((m) => ({
      verb: 'post',
      op,
      off: m.local,
      len: ATOMIC_BYTES,
      raddr: bench.remoteAddress(m.remote),
      rkey,
      ...caseOf(m).args,
    })),
    bench.waiting(messages.length),
    ...messages.map((m) => ({ verb: 'dump', off: m.local, len: ATOMIC_BYTES })),
    ...messages.flatMap((m) => bench.checkGuard(requester, m.local, ATOMIC_BYTES)),
  ]);
  bench.checkOrder(requester, done.completions, messages.length);
  const left = await bench.run(responder, [
    ...messages.map((m) => ({ verb: 'dump', off: m.remote, len: ATOMIC_BYTES })),
    ...messages.flatMap((m) => bench.checkGuard(responder, m.remote, ATOMIC_BYTES)),
  ]);
  for (const m of messages) {
    const { result, after } = caseOf(m);
    if (result !== undefined) compareWord(bench, requester, done.dumps[m.index], result);
    compareWord(bench, responder, left.dumps[m.index], after);
  }
  return bench.outcome(messages.length, messages.length);
}

/** The eight bytes that `fill` with `seed` writes, as the CPU reads them. */
function word(seed: number): bigint {
  return Buffer.from(
    Array.from({ length: ATOMIC_BYTES }, (_, i) => pattern(seed, i)),
  ).readBigUInt64LE();
}

function compareWord(
  bench: Bench,
  station: Station,
  got: Buffer | undefined,
  expected: bigint,
): void {
  if (got?.length === ATOMIC_BYTES && got.readBigUInt64LE() === expected) return;
  bench.problems.push(
    `${station.end.name}: ${got?.toString('hex') ?? 'nothing'} in memory, not ${expected.toString(16)}`,
  );
}
