/**
 * Compares what both ends of every message saw of its bytes.
 *
 * An initiator's entry names the message by the responder's queue pair and number; the responder has
 * the same entry under its own name. A message is verified when both are there with equal length and
 * hash. A message of an unreliable service may be lost, and a datagram may come twice, but whatever
 * arrived must be something that was sent. An atomic operation is verified when the responder has
 * executed exactly one with the same address, operands and original value.
 */
import type { AtomicEntry, MessageEntry } from '../../kernel/index.ts';
import { QPT_RC } from '../../transport/index.ts';
import { CONTROL_QPN } from '../workload/layout.ts';

/** The part of a host's report that this is about. */
export interface HostLog {
  readonly messages: readonly MessageEntry[];
  readonly atomics: readonly AtomicEntry[];
}

export interface Verification {
  /** Messages and atomic operations that an initiator saw complete. */
  readonly checked: number;
  /** Payload of those that carry data of the scenario; the programs' control messages are others. */
  readonly dataBytes: number;
  /** Of these, and of those that only a responder saw: without an equal counterpart. */
  readonly unverified: number;
  /** Messages of unreliable services that never arrived. */
  readonly lost: number;
}

const ATOMIC_BYTES = 8;

/** Compares the logs of the two hosts. */
export function verifyMessages(a: HostLog, b: HostLog): Verification {
  const parts = [
    ...[compare(a.messages, b.messages), compare(b.messages, a.messages)],
    ...[compareAtomics(a.atomics, b.atomics), compareAtomics(b.atomics, a.atomics)],
  ];
  const sum = (field: keyof Verification): number =>
    parts.reduce((total, part) => total + part[field], 0);
  return {
    checked: sum('checked'),
    dataBytes: sum('dataBytes'),
    unverified: sum('unverified'),
    lost: sum('lost'),
  };
}

/** What the initiator side of one log says against the target side of the other. */
function compare(
  initiators: readonly MessageEntry[],
  targets: readonly MessageEntry[],
): Verification {
  // Message numbers have 24 bits, so a long run may use one again: entries of a key are a queue.
  const seen = new Entries(targets);
  let checked = 0;
  let dataBytes = 0;
  let unverified = 0;
  let lost = 0;
  const sent = new Set<string>();
  for (const entry of initiators) {
    if (entry.side !== 'initiator') continue;
    checked++;
    if (entry.qpn !== CONTROL_QPN) dataBytes += entry.bytes;
    const other = seen.take(keyOf(entry));
    if (entry.service === QPT_RC) {
      if (!other || other.bytes !== entry.bytes || other.hash !== entry.hash) unverified++;
    } else {
      sent.add(keyOf(entry));
      if (!other) lost++;
    }
  }
  for (const [key, left] of seen.rest()) {
    if (!sent.has(key)) unverified += left;
  }
  return { checked, dataBytes, unverified, lost };
}

function compareAtomics(
  initiators: readonly AtomicEntry[],
  targets: readonly AtomicEntry[],
): Verification {
  const executed = new Map<string, number>();
  const key = ({ address, operation, values }: AtomicEntry): string =>
    `${address} ${operation} ${values.join(' ')}`;
  for (const entry of targets) {
    if (entry.side === 'target') executed.set(key(entry), (executed.get(key(entry)) ?? 0) + 1);
  }
  let checked = 0;
  let unverified = 0;
  for (const entry of initiators) {
    if (entry.side !== 'initiator') continue;
    checked++;
    const left = executed.get(key(entry)) ?? 0;
    if (left > 0) executed.set(key(entry), left - 1);
    else unverified++;
  }
  for (const left of executed.values()) unverified += left;
  return { checked, dataBytes: checked * ATOMIC_BYTES, unverified, lost: 0 };
}

/** What names a message at both ends: its number, or where numbers differ its bytes. */
function keyOf({ service, qpn, message, bytes, hash }: MessageEntry): string {
  return service === QPT_RC ? `${qpn} ${message}` : `${qpn} ${bytes} bytes ${hash}`;
}

/** The target's entries, in the order in which they came, by key. */
class Entries {
  private readonly queues = new Map<string, MessageEntry[]>();

  constructor(entries: readonly MessageEntry[]) {
    for (const entry of entries) {
      if (entry.side !== 'target') continue;
      const queue = this.queues.get(keyOf(entry));
      if (queue) queue.push(entry);
      else this.queues.set(keyOf(entry), [entry]);
    }
  }

  /** Takes the oldest entry of a key. */
  take(key: string): MessageEntry | undefined {
    return this.queues.get(key)?.shift();
  }

  /** Keys with the number of entries that nobody took. */
  *rest(): Generator<[key: string, left: number]> {
    for (const [key, queue] of this.queues) yield [key, queue.length];
  }
}
