/**
 * Replays a recorded run on one host under a scheme, and says what came of it.
 *
 * A scheme with messages is preceded by the same replay without: what its memory was and how long its
 * calls took is what the scheme is compared with. `docs/REPLAY.md` says what every result means.
 */
import type { RegionReport } from '../../kernel/index.ts';
import { assert, Failure, NS, SimulationBug, type TimePs } from '../../transport/index.ts';
import type { RunProgress } from '../run.ts';
import { Outstanding } from '../workload/outstanding.ts';
import { Gaps } from './gaps.ts';
import { MessageCheck } from './message-check.ts';
import { type MessageContext, RankMessages, SharedMemory } from './messages.ts';
import { Rank } from './rank.ts';
import type { Recording } from './recording.ts';
import { BufferRegistration } from './registration.ts';
import {
  accountAnonymous,
  accountFiles,
  mapsEqual,
  type PresentPages,
  presentPages,
  type Residency,
  recordedPages,
} from './residency.ts';
import { type SchemeName, schemes } from './scheme.ts';
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

/** What came of one rank; the names are those of `--json`. */
export interface RankResult {
  readonly rank: number;
  /** Messages sent and received that are complete, and their payload. */
  readonly messages: number;
  readonly bytes: number;
  /** Whether mapped ranges and protections at the end are the recorded ones. */
  readonly maps_equal: boolean;
  /** Anonymous pages against the recording. */
  readonly residency: Residency;
  /** Pages of files, which recordings undercount. */
  readonly file_residency: Residency;
  /** Share of buffers that needed no registration; null where nothing is registered. */
  readonly hit_rate: number | null;
  readonly stale_uses: number;
  /** Pages that page faults of the adapter brought in, and that notifiers took from it. */
  readonly page_faults: number;
  readonly page_invalidations: number;
  readonly pinned_bytes_peak: number;
  readonly events_lost: number;
  /** Simulated time that the scheme cost; the sum of the parts in `cost`. */
  readonly cost_ns: number;
  readonly cost: {
    readonly registration_ns: number;
    readonly memory_ns: number;
    readonly fault_ns: number;
  };
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

/** Memory of a rank after a replay without messages. */
interface Baseline {
  readonly pages: PresentPages;
  readonly memoryPs: TimePs;
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
  const alone = await play({ ...options, scheme: 'none' });
  const baselines = alone.ranks.map(({ process, memoryPs }) => ({
    pages: presentPages(process.mm),
    memoryPs,
  }));
  const played = scheme === 'none' ? alone : await play(options);
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
    ranks: played.ranks.map((_, i) => resultOf(played, i, baselines[i] as Baseline)),
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
    return ranks.reduce((sum, { memoryEvents }) => sum + memoryEvents, 0);
  };
}

async function play(options: ReplayOptions): Promise<Finished> {
  const { onProgress, signal, recording, scheme, seed } = options;
  const finished = build(options);
  const { world, ranks } = finished;
  const planned = ranks.reduce((sum, { recorded }) => sum + recorded.events.length, 0);
  try {
    while (world.advance(SLICE_EVENTS)) {
      signal?.throwIfAborted();
      const done = ranks.reduce((sum, rank) => sum + rank.done, 0);
      onProgress?.({ simulatedPs: world.nowPs, done, planned });
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
  const numbers = recording.ranks.map(({ trace }) => trace.rank);
  const kind = schemes[scheme];
  const world = new ReplayWorld(numbers, seed, kind.kind !== 'none');
  const check = new MessageCheck((key, address) => world.frameOfKey(key, address), verify);
  const shared = new SharedMemory(numbers);
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

function resultOf(played: Finished, i: number, baseline: Baseline): RankResult {
  const { process, recorded, messages, memoryPs } = played.ranks[i] as Rank;
  const registration = messages?.registration;
  const { mm } = process;
  const { trace, end } = recorded;
  const pages = presentPages(mm);
  // A recording that was cut has no end; the replay without messages stands in for it.
  const recordedAnonymous = end
    ? recordedPages(end.resident, true)
    : new Set(baseline.pages.anonymous.keys());
  const recordedFiles = end
    ? recordedPages(end.resident, false)
    : new Set(baseline.pages.file.keys());
  const gaps = new Gaps(trace, end?.mappings ?? trace.mappings);
  const regions = played.world.host
    .report()
    .regions.filter(({ process: name }) => name === mm.name);
  const cost = costOf(regions, registration, memoryPs - baseline.memoryPs);
  return {
    rank: trace.rank,
    messages: messages?.count ?? 0,
    bytes: messages?.bytes ?? 0,
    maps_equal: end ? mapsEqual(mm, end.mappings) : true,
    residency: accountAnonymous(
      recordedAnonymous,
      pages.anonymous,
      gaps,
      messages === undefined ? undefined : baseline.pages.anonymous,
    ),
    file_residency: accountFiles(recordedFiles, pages),
    hit_rate: registration ? ratio(registration.hits, registration.lookups) : null,
    stale_uses: played.check.staleUses(mm),
    page_faults: regions.reduce((sum, { counters }) => sum + counters.page_faults, 0),
    page_invalidations: regions.reduce((sum, { counters }) => sum + counters.page_invalidations, 0),
    pinned_bytes_peak: mm.pinnedPeakBytes,
    events_lost: registration?.eventsLost ?? 0,
    cost_ns: cost.registration_ns + cost.memory_ns + cost.fault_ns,
    cost,
  };
}

function costOf(
  regions: readonly RegionReport[],
  registration: BufferRegistration | undefined,
  memoryPs: TimePs,
): RankResult['cost'] {
  if (registration === undefined) return { registration_ns: 0, memory_ns: 0, fault_ns: 0 };
  const faultPs = regions.reduce(
    (sum, { faultLatenciesPs }) => sum + faultLatenciesPs.reduce((a, b) => a + b, 0),
    0,
  );
  return {
    registration_ns: Math.round(registration.costPs / NS),
    memory_ns: Math.round(memoryPs / NS),
    fault_ns: Math.round(faultPs / NS),
  };
}

function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}
