/**
 * Owns how type-2 memory windows of the responder are tried: bound, used, and invalidated by their
 * owner or by the requester's SEND.
 */
import type { Bench, Message, Outcome } from './bench.ts';
import { readWith, writeWith } from './one-sided.ts';

const WINDOW_BYTES = 64;

/** The responder binds a window; the requester writes and reads through it; it is invalidated. */
export async function throughWindow(bench: Bench): Promise<Outcome> {
  const { responder } = bench;
  const rkey = await bindWindow(bench, 1, 0, responder.ranges.memoryBytes);
  const written = await writeWith(bench, rkey, 'write');
  const readBack = await readWith(bench, rkey);
  await bench.run(responder, [{ verb: 'post', op: 'inv', inv: rkey }, bench.waiting(1)]);
  return bench.outcome(written.good + readBack.good, written.total + readBack.total);
}

/** The responder's window is gone after the message that says so. */
export async function sendInvalidate(bench: Bench): Promise<Outcome> {
  const { requester, responder } = bench;
  const messages = bench.messages([bench.path.mtuBytes + 7]);
  const [message] = messages as [Message];
  const off = responder.ranges.take(WINDOW_BYTES);
  const rkey = await bindWindow(bench, 0, off, WINDOW_BYTES);
  await bench.run(responder, [
    ...bench.prepare(responder, message.remote, message.length),
    { verb: 'recv', off: message.remote, len: message.length },
  ]);
  const through = { raddr: bench.remoteAddress(off), rkey };
  await bench.run(requester, [
    ...bench.fill(messages),
    { verb: 'post', op: 'write', off: message.local, len: WINDOW_BYTES, ...through },
    { verb: 'post', op: 'sendinv', off: message.local, len: message.length, inv: rkey },
    bench.waiting(2),
  ]);
  const { completions } = await bench.run(responder, [
    bench.waiting(1),
    ...bench.check(responder, message.remote, message.length, message.seed),
    { verb: 'check', off, len: WINDOW_BYTES, seed: message.seed },
  ]);
  bench.compare(responder, completions[0], {
    op: 'recv',
    length: message.length,
    invalidatedRkey: rkey,
  });
  return bench.outcome(1, 1);
}

/** Binds type-2 window `mw` to a range of the responder's region; returns its key. */
async function bindWindow(bench: Bench, mw: number, off: number, len: number): Promise<number> {
  const { windowRkeys } = await bench.run(bench.responder, [
    { verb: 'mw', mw },
    { verb: 'post', op: 'bind', mw, off, len, access: 'rwa' },
    bench.waiting(1),
  ]);
  return windowRkeys.at(-1) ?? 0;
}
