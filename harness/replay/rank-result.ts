/**
 * What came of one rank of a replay, as `--json` prints it; docs/REPLAY.md says what every field means.
 */
import type { RegionReport } from '../../kernel/index.ts';
import { NS, type TimePs } from '../../transport/index.ts';
import { Gaps } from './gaps.ts';
import type { MessageCheck } from './message-check.ts';
import type { Rank } from './rank.ts';
import type { BufferRegistration } from './registration.ts';
import {
  accountAnonymous,
  accountFiles,
  mapsEqual,
  type PresentPages,
  presentPages,
  type Residency,
  recordedPages,
  touchedWindows,
} from './residency.ts';
import type { ReplayWorld } from './world.ts';

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
  /** Share of buffers that needed no registration; null where there were none. */
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

/** Memory of a rank after a replay without messages. */
export interface Baseline {
  readonly pages: PresentPages;
  readonly memoryPs: TimePs;
}

/** What came of a rank whose replay has come to its end. */
export function resultOf(
  { process, recorded, messages, memoryPs }: Rank,
  world: ReplayWorld,
  check: MessageCheck,
  baseline: Baseline,
): RankResult {
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
  const regions = world.host.report().regions.filter(({ process: name }) => name === mm.name);
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
    file_residency: accountFiles(recordedFiles, pages, touchedWindows(trace)),
    hit_rate: registration?.lookups ? registration.hits / registration.lookups : null,
    stale_uses: check.staleUses(mm),
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
