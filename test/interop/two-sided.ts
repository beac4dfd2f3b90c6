/**
 * Owns how messages that take a receive are tried: SEND, with immediate or without, on every service.
 * Does not own SEND with invalidate (windows.ts).
 */
import { type Bench, immediateOf, type Message, type Outcome, piecesOf } from './bench.ts';
import type { Command } from './end.ts';

/** A UD receive starts with room for a global routing header. */
const GRH_BYTES = 40;

export async function send(bench: Bench, op: 'send' | 'sendimm'): Promise<Outcome> {
  const { requester, responder, service } = bench;
  const header = service === 'ud' ? GRH_BYTES : 0;
  const messages = bench.messages(bench.lengths(), 1, header);
  const room = Math.max(...messages.map(({ length }) => length)) + header;
  // A lost message leaves its receive to the next one, and a doubled one takes two.
  const receives = bench.isLossy ? [...messages, ...messages] : messages;
  const targets = receives.map(({ remote }) =>
    bench.isLossy ? responder.ranges.take(room) : remote,
  );
  await bench.run(
    responder,
    targets.flatMap((off, i) => {
      const len = bench.isLossy ? room : (messages[i] as Message).length + header;
      return [
        ...bench.prepare(responder, off, len),
        { verb: 'recv', off, len, sges: len < 3 ? 1 : 1 + ((i + 1) % 3), wrid: 100 + i },
      ];
    }),
  );
  const posted = await bench.run(requester, [
    ...bench.fill(messages),
    ...messages.map((m) => ({
      verb: 'post',
      op,
      off: m.local,
      len: m.length,
      sges: piecesOf(m),
      imm: immediateOf(m),
    })),
    bench.waiting(messages.length),
  ]);
  bench.checkOrder(requester, posted.completions, messages.length);
  const arrived = await bench.run(responder, [bench.waiting(messages.length, bench.isLossy)]);
  const seen = new Set<number>();
  const checks: Command[] = [];
  arrived.completions.forEach((completion, i) => {
    const message = bench.isLossy
      ? messages.find(({ length }) => length + header === completion.length)
      : messages[i];
    if (message === undefined) {
      bench.problems.push(`a receive of ${completion.length} bytes`);
      return;
    }
    if (seen.has(message.index) && !bench.isLossy) {
      bench.problems.push(`message ${message.index} came twice`);
    }
    seen.add(message.index);
    bench.compare(responder, completion, {
      op: 'recv',
      length: message.length + header,
      immediate: op === 'sendimm' ? immediateOf(message) : undefined,
    });
    const off = targets[completion.id - 100] ?? 0;
    const taken = bench.isLossy ? room : message.length + header;
    checks.push(
      { verb: 'check', off: off + header, len: message.length, seed: message.seed },
      ...bench.checkGuard(responder, off, taken),
    );
  });
  if (checks.length > 0) await bench.run(responder, checks);
  return bench.arrival(seen.size, messages.length);
}
