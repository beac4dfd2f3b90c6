/**
 * Compares what both ends of every message saw of its bytes.
 *
 * An initiator's entry names the message by the responder's queue pair and number; the responder has
 * the same entry under its own name. A message is verified when both are there with equal length and
 * hash.
 */
import type { MessageEntry } from '../../kernel/index.ts';
import { CONTROL_QPN } from '../workload/layout.ts';

export interface Verification {
  /** Messages that an initiator saw complete. */
  readonly checked: number;
  /** Payload of those that carry data of the scenario; the programs' control messages are others. */
  readonly dataBytes: number;
  /** Of these, and of those that only a responder saw: without an equal counterpart. */
  readonly unverified: number;
}

/** Compares the logs of the two hosts. */
export function verifyMessages(
  logs: readonly [readonly MessageEntry[], readonly MessageEntry[]],
): Verification {
  const first = compare(logs[0], logs[1]);
  const second = compare(logs[1], logs[0]);
  return {
    checked: first.checked + second.checked,
    dataBytes: first.dataBytes + second.dataBytes,
    unverified: first.unverified + second.unverified,
  };
}

/** What the initiator side of one log says against the target side of the other. */
function compare(
  initiators: readonly MessageEntry[],
  targets: readonly MessageEntry[],
): Verification {
  const key = (entry: MessageEntry): string => `${entry.qpn} ${entry.message}`;
  // Message numbers have 24 bits, so a long run may use one again: entries of a key are a queue.
  const seen = new Map<string, MessageEntry[]>();
  for (const entry of targets) {
    if (entry.side !== 'target') continue;
    const queue = seen.get(key(entry));
    if (queue) queue.push(entry);
    else seen.set(key(entry), [entry]);
  }
  let checked = 0;
  let dataBytes = 0;
  let unverified = 0;
  for (const entry of initiators) {
    if (entry.side !== 'initiator') continue;
    checked++;
    if (entry.qpn !== CONTROL_QPN) dataBytes += entry.bytes;
    const other = seen.get(key(entry))?.shift();
    if (!other || other.bytes !== entry.bytes || other.hash !== entry.hash) unverified++;
  }
  for (const queue of seen.values()) unverified += queue.length;
  return { checked, dataBytes, unverified };
}
