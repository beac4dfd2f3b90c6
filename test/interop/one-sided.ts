/**
 * Owns how operations on the responder's memory are tried: WRITE, with immediate or without, READ and
 * FLUSH, each with the key of a region or of a window. Does not own atomics (atomics.ts).
 */
import { type Bench, immediateOf, type Message, type Outcome, piecesOf } from './bench.ts';

export async function write(bench: Bench): Promise<Outcome> {
  return writeWith(bench, bench.responder.end.address.rkey, 'write');
}

export async function writeImmediate(bench: Bench): Promise<Outcome> {
  return writeWith(bench, bench.responder.end.address.rkey, 'writeimm');
}

export async function writeWith(
  bench: Bench,
  rkey: number,
  op: 'write' | 'writeimm',
): Promise<Outcome> {
  const { requester, responder } = bench;
  const messages = bench.messages(bench.lengths());
  // A doubled message takes two receives.
  const receives = bench.isLossy ? [...messages, ...messages] : messages;
  await bench.run(responder, [
    ...messages.flatMap((m) => bench.prepare(responder, m.remote, m.length)),
    ...(op === 'writeimm' ? receives.map(() => ({ verb: 'recv', len: 0 })) : []),
  ]);
  const { completions } = await bench.run(requester, [
    ...bench.fill(messages),
    ...messages.map((m) => ({
      verb: 'post',
      op,
      off: m.local,
      len: m.length,
      sges: piecesOf(m),
      imm: immediateOf(m),
      raddr: bench.remoteAddress(m.remote),
      rkey,
    })),
    bench.waiting(messages.length),
  ]);
  bench.checkOrder(requester, completions, messages.length);
  if (op === 'write') return placed(bench, messages, bench.isLossy ? undefined : messages);
  const arrived = await bench.run(responder, [bench.waiting(messages.length, bench.isLossy)]);
  const announced = arrived.completions.flatMap((completion, i) => {
    const message = messages.find((m) => immediateOf(m) === completion.immediate);
    bench.compare(responder, completion, { op: 'recv_write_imm', length: message?.length ?? -1 });
    if (!bench.isLossy && message?.index !== i) {
      bench.problems.push(`immediate ${completion.immediate} is out of order`);
    }
    return message === undefined ? [] : [message];
  });
  return placed(bench, messages, [...new Set(announced)]);
}

/**
 * Checks what lies at the responder: all of `whole`, which was announced there or acknowledged; where
 * nobody knows what arrived, how many messages did.
 */
async function placed(
  bench: Bench,
  messages: readonly Message[],
  whole: readonly Message[] | undefined,
): Promise<Outcome> {
  const { responder } = bench;
  if (whole !== undefined) {
    const checks = whole.flatMap((m) => bench.check(responder, m.remote, m.length, m.seed));
    if (checks.length > 0) await bench.run(responder, checks);
    return bench.arrival(whole.length, messages.length);
  }
  let good = 0;
  for (const m of messages) {
    const { errors } = await responder.end.run([
      { verb: 'check', off: m.remote, len: m.length, seed: m.seed },
    ]);
    if (errors.length === 0) good++;
  }
  return bench.arrival(good, messages.length);
}

export async function read(bench: Bench): Promise<Outcome> {
  return readWith(bench, bench.responder.end.address.rkey);
}

export async function readWith(bench: Bench, rkey: number): Promise<Outcome> {
  const { requester, responder } = bench;
  // rxe cannot answer a READ of nothing again (rxe-read-of-nothing-again).
  const isAgain = requester.isOnDemand || bench.harm !== undefined;
  const lengths = bench.lengths().filter((length) => length > 0 || !(isAgain && responder.isRxe));
  const messages = bench.messages(lengths);
  await bench.run(
    responder,
    messages.map((m) => ({ verb: 'fill', off: m.remote, len: m.length, seed: m.seed })),
  );
  const { completions } = await bench.run(requester, [
    ...messages.flatMap((m) => bench.prepare(requester, m.local, m.length)),
    ...messages.map((m) => ({
      verb: 'post',
      op: 'read',
      off: m.local,
      len: m.length,
      sges: piecesOf(m),
      raddr: bench.remoteAddress(m.remote),
      rkey,
    })),
    bench.waiting(messages.length),
    ...messages.flatMap((m) => bench.check(requester, m.local, m.length, m.seed)),
  ]);
  bench.checkOrder(requester, completions, messages.length);
  return bench.outcome(messages.length, messages.length);
}

/** What was written is there when the flush completes. */
export async function flush(bench: Bench): Promise<Outcome> {
  const { requester, responder } = bench;
  const messages = bench.messages([bench.path.mtuBytes * 2 + 9, 64]);
  const rkey = responder.end.address.rkey;
  await bench.run(
    responder,
    messages.flatMap((m) => bench.prepare(responder, m.remote, m.length, true)),
  );
  const { completions } = await bench.run(requester, [
    ...bench.fill(messages),
    ...messages.flatMap((m) => {
      const target = { raddr: bench.remoteAddress(m.remote), rkey, len: m.length };
      return [
        { verb: 'post', op: 'write', off: m.local, ...target },
        { verb: 'post', op: 'flush', ftype: 1, level: 0, ...target },
      ];
    }),
    bench.waiting(2 * messages.length),
  ]);
  bench.checkOrder(requester, completions, 2 * messages.length);
  return placed(bench, messages, messages);
}
