/**
 * The ranks of a recorded run that are replayed together: read, checked against each other, and, when
 * asked for, cut after so many events of all of them.
 *
 * Messages with ranks that are not replayed are left out; so are those of which a cut leaves only one
 * end. Owns which message is which: a key for each, known at both ends.
 */
import { Failure } from '../../transport/index.ts';
import { checkPair } from '../trace/check-pair.ts';
import { findRun } from '../trace/folder.ts';
import { isReceive, isSend, type Trace, type TraceEnd, type TraceEvent } from '../trace/format.ts';
import { readEnd, readTrace } from '../trace/reader.ts';

/** Message numbers of one sender; a key is its rank times this, plus the number. */
const MESSAGES_PER_RANK = 2 ** 32;

/** One rank of a recording. */
export interface RecordedRank {
  readonly trace: Trace;
  /** How the recorded process ended; undefined when the recording was cut. */
  readonly end: TraceEnd | undefined;
  /** Events of the rank that are replayed. */
  readonly events: readonly TraceEvent[];
}

export interface Recording {
  readonly run: string;
  readonly ranks: readonly RecordedRank[];
  /** Keys of the messages that have both ends in what is replayed. */
  readonly messages: ReadonlySet<number>;
  /**
   * Of those, the ones whose send was over, as recorded, before the receive was posted: the library
   * had copied the payload, and the program did not wait for the receiver.
   */
  readonly buffered: ReadonlySet<number>;
  /** One-sided operations, which are not replayed. */
  readonly oneSided: number;
}

/** The key of message `number` of those that rank `sender` sent. */
export function messageKey(sender: number, number: number): number {
  return sender * MESSAGES_PER_RANK + number;
}

/**
 * Reads `ranks` of `run` (a name, or a folder), all of them when undefined; only the first
 * `eventCount` events of all together when that is given. Throws Failure E_TRACE_INVALID, E_USAGE.
 */
export function readRecording(
  run: string,
  ranks?: readonly number[],
  eventCount = Number.POSITIVE_INFINITY,
): Recording {
  const folder = findRun(run);
  const first = readTrace(folder, 0);
  const all = Array.from({ length: first.ranks }, (_, rank) => rank);
  for (const rank of ranks ?? []) {
    if (rank < first.ranks) continue;
    throw new Failure(
      'E_USAGE',
      `${folder.name} has no rank ${rank}`,
      '--ranks',
      `0 to ${first.ranks - 1}`,
    );
  }
  const chosen = ranks ?? all;
  const traces = chosen.map((rank) => (rank === first.rank ? first : readTrace(folder, rank)));
  traces.forEach((trace, i) => {
    if (trace.rank === chosen[i] && trace.ranks === first.ranks) return;
    throw new Failure(
      'E_TRACE_INVALID',
      `the file is of rank ${trace.rank} of ${trace.ranks}`,
      `${trace.file}:1`,
      `rank ${chosen[i]} of ${first.ranks}`,
    );
  });
  for (const receiver of traces) {
    for (const sender of traces) if (sender !== receiver) checkPair(receiver, sender);
  }
  const untilNs = timeOfEvent(traces, eventCount);
  const isCut = untilNs !== Number.POSITIVE_INFINITY;
  const recorded = traces.map((trace): RecordedRank => {
    const end = isCut ? undefined : readEnd(folder, trace.rank);
    return { trace, end, events: isCut ? eventsUntil(trace, untilNs) : trace.events };
  });
  return { run: folder.name, ranks: recorded, ...survey(recorded) };
}

/** What is said of the messages of a recording: which there are, and which were buffered. */
function survey(
  ranks: readonly RecordedRank[],
): Pick<Recording, 'messages' | 'buffered' | 'oneSided'> {
  const sentNs = new Map<number, number>();
  const receivedNs = new Map<number, number>();
  let oneSided = 0;
  for (const { trace, events } of ranks) {
    /** Sends of each call or request that are not over. */
    const open = new Map<number, number[]>();
    let now = 0;
    for (const event of events) {
      now += event.gapNs;
      if (event.kind === 'rma') oneSided++;
      if (isSend(event)) {
        const key = messageKey(trace.rank, event.message);
        sentNs.set(key, Number.POSITIVE_INFINITY);
        const others = open.get(event.id);
        if (others) others.push(key);
        else open.set(event.id, [key]);
      } else if (isReceive(event)) {
        if (event.message !== 0) receivedNs.set(messageKey(event.peer, event.message), now);
      } else if (event.kind === 'done' || event.kind === 'ret') {
        for (const sent of open.get(event.id) ?? []) sentNs.set(sent, now);
        open.delete(event.id);
      }
    }
  }
  const messages = new Set<number>();
  const buffered = new Set<number>();
  for (const [key, overNs] of sentNs) {
    const postedNs = receivedNs.get(key);
    if (postedNs === undefined) continue;
    messages.add(key);
    if (overNs < postedNs) buffered.add(key);
  }
  return { messages, buffered, oneSided };
}

/** When event number `count` of all ranks happened; they share a clock. */
function timeOfEvent(traces: readonly Trace[], count: number): number {
  const times = traces.flatMap(({ events }) => {
    let now = 0;
    return events.map(({ gapNs }) => {
      now += gapNs;
      return now;
    });
  });
  if (count >= times.length) return Number.POSITIVE_INFINITY;
  return times.sort((a, b) => a - b)[count - 1] ?? 0;
}

function eventsUntil(trace: Trace, untilNs: number): TraceEvent[] {
  const events: TraceEvent[] = [];
  let now = 0;
  for (const event of trace.events) {
    now += event.gapNs;
    if (now > untilNs) break;
    events.push(event);
  }
  return events;
}
