/**
 * The three services side by side on a bad link: datagrams and an unreliable connection into one
 * host, a reliable connection with a shared receive queue into the other.
 *
 * Look for: messages_lost in summary.json, the datagrams and unreliable messages that never arrived
 * (nobody sends them again), while every message of the reliable connections came exactly once, and
 * whatever arrived is what was sent. Datagrams come twice where the link doubles them. The program
 * of b sleeps on a completion channel and is woken for eight completions at a time.
 */
import {
  host,
  link,
  queuePair,
  region,
  scenario,
  send,
  sendImm,
  sharedReceiveQueue,
  writeImm,
} from 'faultline';

const a = host('a');
const b = host('b', { completions: 'event', moderation: { count: 8, period: '20us' } });
const outbox = region(a, 'outbox', '256KiB', { prefault: true });
const datagramsIn = region(b, 'datagrams-in', '256KiB', { prefault: true });
const messagesIn = region(b, 'messages-in', '256KiB', { prefault: true });
const replies = region(b, 'replies', '64KiB', { prefault: true });
const pool = region(a, 'pool', '256KiB');

const inbox = sharedReceiveQueue('inbox', pool, { slot: '4KiB', entries: 64, limit: 16 });
const datagrams = queuePair('datagrams', a, b, { type: 'UD' });
const stream = queuePair('stream', a, b, { type: 'UC' });
const first = queuePair('first', a, b, { srqs: [inbox] });
const second = queuePair('second', a, b, { srqs: [inbox] });

export const mixed = scenario(
  'datagrams',
  'Datagrams, unreliable and reliable messages side by side',
  [
    link(a, b, { loss: '1%', duplicate: '1%', reorder: '1%', reorderDelay: '2us' }),
    sendImm(outbox, datagramsIn, { size: '1KiB', count: 200, depth: 8, on: datagrams }),
    writeImm(outbox, messagesIn, { size: '8KiB', count: 100, depth: 4, on: stream }),
    send(replies, pool, { size: '3000B', count: 200, depth: 8, on: first, sges: 3 }),
    sendImm(replies, pool, { size: '64B', count: 200, depth: 8, on: second, inline: true }),
  ],
);
