/** A capture replayed in every role: what our adapter does in the place of each captured queue pair. */
import { VerbsError } from '../../kernel/index.ts';
import { Failure } from '../../transport/index.ts';
import type { Capture } from './capture.ts';
import { deliver, type Reading, readingsOf } from './deliveries.ts';
import { Difference, Findings } from './findings.ts';
import { type Flow, flowOf, isFor, isFrom } from './flow.ts';
import { lateAnswers } from './order.ts';
import { Player, type PlayerOptions } from './player.ts';
import type { CaptureText } from './rcpeer-text.ts';
import { rxeProfile } from './rxe-profile.ts';
import type { QueuePairSetup } from './setup.ts';
import { textSetups } from './text-setup.ts';
import { timelineOf } from './timeline.ts';
import { toolSetups } from './tool-setup.ts';

/** Orders of arrival to try for one reading before it is given up. */
const ORDERS_MAX = 6;

export interface Replay {
  readonly findings: Findings;
  /** The first difference of each queue pair that differs. */
  readonly differences: readonly string[];
}

/** The queue pairs that the capture is of. Throws Failure E_NO_SETUP or E_SETUP_INVALID. */
export function setupsOf(capture: Capture, text: CaptureText | undefined): QueuePairSetup[] {
  const fromText = text === undefined ? [] : textSetups(text);
  const setups = fromText.length > 0 ? fromText : toolSetups(capture);
  const isKnown = capture.packets.some((captured) =>
    setups.some((setup) => isFor(setup, captured) || isFrom(setup, captured)),
  );
  if (isKnown) return setups;
  throw new Failure(
    'E_NO_SETUP',
    setups.length === 0
      ? 'neither the text beside the capture nor an exchange inside it names queue pairs'
      : 'no packet belongs to the queue pairs that are named',
    capture.file,
    'LOCAL lines of rcpeer, or an exchange of ibv_*_pingpong, perftest or rdma_cm',
  );
}

/** Replays `capture` with our adapter in the place of each of its queue pairs. Throws as setupsOf. */
export function replay(capture: Capture, text: CaptureText | undefined): Replay {
  const setups = setupsOf(capture, text);
  const findings = new Findings();
  const differences: string[] = capture.problems.map(
    ({ number, what }) => `frame ${number}: ${what}`,
  );
  for (const { icrcRule, number } of capture.packets) {
    const rule = rxeProfile.find(({ name }) => name === icrcRule);
    if (rule !== undefined) findings.depart(rule, number);
  }
  setups.forEach((setup, i) => {
    const difference = replayOne(capture, text, setups, i, findings);
    if (difference !== undefined) differences.push(`${setup.name}: ${difference.message}`);
  });
  return { findings, differences };
}

/** One queue pair, with every reading of what was delivered to it until one explains what it did. */
function replayOne(
  capture: Capture,
  text: CaptureText | undefined,
  setups: readonly QueuePairSetup[],
  i: number,
  findings: Findings,
): Difference | undefined {
  const isForIt = (captured: Capture['packets'][number]): boolean => isFor(setups[i], captured);
  let first: { readonly difference: Difference; readonly attempt: Findings } | undefined;
  for (const reading of readingsOf(text, capture, isForIt)) {
    const attempt = new Findings();
    const difference = replayReading(capture, text, setups, i, reading, attempt);
    if (difference === undefined) {
      findings.add(attempt);
      return undefined;
    }
    first ??= { difference, attempt };
  }
  if (first !== undefined) findings.add(first.attempt);
  return first?.difference;
}

/**
 * One reading, with as many orders of arrival as it takes: an answer may have reached the captured host
 * only after it had gone back by itself.
 */
function replayReading(
  capture: Capture,
  text: CaptureText | undefined,
  setups: readonly QueuePairSetup[],
  i: number,
  reading: Reading,
  findings: Findings,
): Difference | undefined {
  const { packets } = capture;
  const flows = setups.map((setup) => {
    const { arrivals } = deliver(
      packets.filter((captured) => isFor(setup, captured)),
      text,
      reading,
    );
    return flowOf(setup, packets, arrivals);
  });
  const hasPrograms = setups[i].program !== undefined;
  const steps = hasPrograms ? timelineOf(text?.commands ?? [], flows, packets)[i] : undefined;
  const mtu = setups[i].connections[0]?.mtu ?? 1024;
  const late =
    hasPrograms && !isReset(setups[i])
      ? lateAnswers(flows[i].requests, flows[i].arrivals, mtu)
      : new Map<number, number>();
  let first: { readonly difference: Difference; readonly attempt: Findings } | undefined;
  for (let order = 0; order < ORDERS_MAX; order++) {
    const attempt = new Findings();
    const options = { steps, late: new Map(late), isLossy: text?.isLossy ?? false };
    const { difference, suspects } = play(flows[i], options, attempt);
    if (difference === undefined) {
      findings.add(attempt);
      const mine = packets.filter((captured) => isFor(setups[i], captured));
      const { departures } = deliver(mine, text, reading);
      for (const { rule, frame } of departures) findings.depart(rule, frame);
      return undefined;
    }
    first ??= { difference, attempt };
    // The last answer that came before a request differed may have come after it.
    const suspect = suspects.findLast((place) => !late.has(place));
    if (difference.request === undefined || suspect === undefined) break;
    late.set(suspect, difference.request + 1);
  }
  if (first !== undefined) findings.add(first.attempt);
  return first?.difference;
}

/** Plays `flow` once: the first difference, and the answers that came just before it. */
function play(
  flow: Flow,
  options: PlayerOptions,
  findings: Findings,
): { difference: Difference | undefined; suspects: readonly number[] } {
  try {
    const player = new Player(flow, options, findings);
    const difference = player.play();
    return { difference, suspects: player.suspects };
  } catch (error) {
    // What the captured host could set up, ours refuses.
    if (!(error instanceof VerbsError)) throw error;
    return { difference: new Difference(error.message, 0), suspects: [] };
  }
}

/** PSNs of a queue pair that was reset start anew: they do not say what was sent again. */
function isReset({ program }: QueuePairSetup): boolean {
  return (
    program?.some(({ name, words }) => name === 'modify' && words.text('state') === 'reset') ===
    true
  );
}
