/**
 * Replays a recorded run on one host under a scheme, and says what came of it.
 *
 * A scheme with messages is preceded by the same replay without: what its memory was and how long its
 * calls took is what the scheme is compared with. `docs/REPLAY.md` says what every result means.
 */
import { assert, Failure, NS, SimulationBug } from '../../transport/index.ts';
import type { RunProgress } from '../run.ts';
import { Outstanding } from '../workload/outstanding.ts';
import { MessageCheck } from './message-check.ts';
import { type MessageContext, RankMessages } from './messages.ts';
import { Rank } from './rank.ts';
import { type Baseline, type RankResult, resultOf } from './rank-result.ts';
import type { Recording } from './recording.ts';
import { BufferRegistration } from './registration.ts';
import { presentPages } from './residency.ts';
import { type SchemeName, schemes } from './scheme.ts';
import { SharedMemory } from './shared-memory.ts';
import { ReplayWorld } from './world.ts';

/** Events between two turns of the event loop, so that progress shows and Ctrl-C works. */
const SLICE_EVENTS = 20_000;

export interface ReplayOptions {
  readonly recording: Recording;
  readonly scheme: SchemeName;
  readonly seed: number;
  /** Whether the bytes of every message are compared. */
  readonly verify?: boolean;
  readonly onProgress?: (progress: RunProgress) => void;
  readonly signal?: AbortSignal;
}

export interface ReplayResult {
  readonly run: string;
  readonly scheme: SchemeName;
  readonly seed: number;
  /** Messages whose receiver saw other bytes than were sent, each explained by a stale use. */
  readonly corrupted_messages: number;
  /** One-sided operations of the recording, which are left out. */
  readonly one_sided_left_out: number;
  readonly simulated_ns: number;
  readonly ranks: readonly RankResult[];
}

/** A replay that has come to its end. */
interface Finished {
  readonly world: ReplayWorld;
  readonly ranks: readonly Rank[];
  readonly check: MessageCheck;
}

/**
 * Replays `options.recording`. Throws Failure E_TRACE_INVALID for a recording that contradicts itself,
 * E_STALLED when its messages wait for each other, E_UNVERIFIED when bytes differ for no reason.
 */
export async function replayRecording(options: ReplayOptions): Promise<ReplayResult> {
  const { recording, scheme, seed } = options;
  const turns = scheme === 'none' ? 1 : 2;
  const alone = await play({ ...options, scheme: 'none' }, 0, turns);
  const baselines = alone.ranks.map(({ process, memoryPs }) => ({
    pages: presentPages(process.mm),
    memoryPs,
  }));
  const played = scheme === 'none' ? alone : await play(options, 1, turns);
  const { check, world } = played;
  if (check.unexplained > 0) {
    const problem = `${check.unexplained} messages differ and no stale use explains it`;
    throw new Failure('E_UNVERIFIED', problem, recording.run, 'the bytes that were sent');
  }
  return {
    run: recording.run,
    scheme,
    seed,
    corrupted_messages: check.corrupted,
    one_sided_left_out: recording.oneSided,
    simulated_ns: world.nowPs / NS,
    ranks: played.ranks.map((rank, i) => resultOf(rank, world, check, baselines[i] as Baseline)),
  };
}

/**
 * For the benchmark: makes the processes of a recording, and returns what carries out all their memory
 * events, no messages, in one go and says how many there were.
 */
export function prepareMemoryReplay(recording: Recording): () => number {
  const { ranks, world } = build({ recording, scheme: 'none', seed: 1 });
  return () => {
    while (world.advance(Number.MAX_SAFE_INTEGER));
    for (const { finished } of ranks) assert(finished, 'a rank without messages does not end');
    return ranks.reduce((sum, { memoryEvents }) => sum + memoryEvents, 0);
  };
}

/** Plays once; for progress, it is turn number `turn` of `turns`. */
async function play(options: ReplayOptions, turn: number, turns: number): Promise<Finished> {
  const { onProgress, signal, recording, scheme, seed } = options;
  const finished = build(options);
  const { world, ranks } = finished;
  const planned = ranks.reduce((sum, { recorded }) => sum + recorded.events.length, 0);
  try {
    while (world.advance(SLICE_EVENTS)) {
      signal?.throwIfAborted();
      const done = ranks.reduce((sum, rank) => sum + rank.done, turn * planned);
      onProgress?.({ simulatedPs: world.nowPs, done, planned: turns * planned });
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    const stuck = ranks.filter((rank) => !rank.finished);
    if (stuck.length > 0) {
      const places = stuck.map(({ standing }) => standing.position).join('; ');
      throw new Failure('E_STALLED', places, recording.run, 'every rank to end');
    }
    world.checkLeaks();
  } catch (problem) {
    if (problem instanceof SimulationBug) {
      const how = `faultline replay ${recording.run} --scheme ${scheme} --seed ${seed}`;
      problem.message += `; to reproduce: ${how}`;
    }
    throw problem;
  }
  return finished;
}

function build({ recording, scheme, seed, verify = true }: ReplayOptions): Finished {
  const traces = recording.ranks.map(({ trace }) => trace);
  const kind = schemes[scheme];
  const world = new ReplayWorld(traces, seed, kind.kind !== 'none');
  const check = new MessageCheck((key, address) => world.frameOfKey(key, address), verify);
  const shared = new SharedMemory(traces.map(({ rank }) => rank));
  const { messages: known, buffered } = recording;
  const context: MessageContext = { world, shared, check, messages: known, buffered, seed };
  const ranks = recording.ranks.map((recorded, i): Rank => {
    const process = world.processes[i];
    assert(process !== undefined, 'every rank has a process');
    const standing = { position: 'connecting' };
    const outstanding = new Outstanding(standing);
    const registration = new BufferRegistration(kind, world, process);
    const { rank: number } = recorded.trace;
    const messages =
      kind.kind === 'none'
        ? undefined
        : new RankMessages(context, number, process, outstanding, registration);
    const rank = new Rank(
      world,
      process,
      recorded,
      messages,
      outstanding,
      standing,
      registration.libc,
    );
    world.host.spawn(`rank ${number}`, rank.run());
    return rank;
  });
  return { world, ranks, check };
}
