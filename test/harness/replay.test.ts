/** Recorded MPI runs without messages: memory ends as it did, and every difference has a cause. */
import { describe, expect, it } from 'vitest';
import { type Recording, readRecording } from '../../harness/replay/recording.ts';
import { replayRecording } from '../../harness/replay/replay.ts';
import { accountAnonymous } from '../../harness/replay/residency.ts';
import type { TraceEvent } from '../../harness/trace/format.ts';
import { writeRun } from '../fixtures/recorded-run.ts';
import { temporaryFolder } from './fixtures.ts';

/** Anonymous pages at the end of each rank, and how many of them were touched unrecorded. */
const recorded = {
  hpcc: [
    [3782, 57],
    [3544, 57],
    [3544, 57],
    [3530, 57],
  ],
  qe: [
    [6492, 59],
    [6378, 59],
    [6395, 59],
    [6399, 59],
  ],
  'qe-mmap128k': [
    [3385, 59],
    [3371, 57],
    [3384, 59],
    [3374, 59],
  ],
} as const;

/** The recording with the events of its first rank changed. */
function changed(recording: Recording, change: (events: TraceEvent[]) => TraceEvent[]): Recording {
  const [first, ...others] = recording.ranks;
  if (!first) throw new Error('a recording has ranks');
  return { ...recording, ranks: [{ ...first, events: change([...first.events]) }, ...others] };
}

const replayAlone = async (recording: Recording) =>
  (await replayRecording({ recording, scheme: 'none', seed: 1 })).ranks;

describe('a recorded run without messages', () => {
  it.each(Object.entries(recorded))('ends as it did: %s', async (run, ranks) => {
    const results = await replayAlone(readRecording(run));
    expect(results).toHaveLength(4);
    results.forEach(({ rank, maps_equal, residency, file_residency, ...rest }, i) => {
      const [pages, missing] = ranks[i] as readonly [number, number];
      expect({ rank, maps_equal }).toEqual({ rank: i, maps_equal: true });
      expect(residency).toMatchObject({
        recorded: pages,
        replayed: pages - missing,
        extra: 0,
        missing,
        unattributed: 0,
      });
      const causes = Object.values(residency.by_cause).reduce((sum, count) => sum + count, 0);
      expect(causes).toBe(missing);
      // Only fault-around makes file pages differ, in either direction.
      expect(file_residency.recorded).toBeGreaterThan(3000);
      expect(rest).toMatchObject({ messages: 0, hit_rate: null, stale_uses: 0, cost_ns: 0 });
    });
  });

  it('replays some of the ranks', async () => {
    const results = await replayAlone(readRecording('hpcc', [1, 3]));
    expect(results.map(({ rank }) => rank)).toEqual([1, 3]);
    expect(results.every(({ maps_equal }) => maps_equal)).toBe(true);
  });
});

describe('a stack', () => {
  it('grows where the program touches it, and only there', async () => {
    const stack = (start: string) => `${start}-7ffd00021000 rw-p 00000000 00:00 0 [stack]`;
    const touch = (page: string) => `0\tpf\t${page}\t1\tu\t0`;
    const at = (...events: string[]) =>
      writeRun(temporaryFolder(), [
        {
          maps: [stack('7ffd00000000')],
          events,
          mapsEnd: [stack('7ffcffffd000')],
          residentEnd: ['7ffcffffd000 1 a'],
        },
      ]);
    const [rank] = await replayAlone(readRecording(at(touch('7ffcffffd000'))));
    expect(rank).toMatchObject({
      maps_equal: true,
      residency: { recorded: 1, replayed: 1, extra: 0, missing: 0 },
    });
    // Not beyond 8 MiB, which nobody may touch.
    await expect(replayAlone(readRecording(at(touch('7ffcff7ff000'))))).rejects.toMatchObject({
      code: 'E_TRACE_INVALID',
      place: expect.stringMatching(/rank0\.tsv\.gz:2$/),
    });
  });
});

describe('a replay that goes wrong', () => {
  const recording = readRecording('hpcc', [0]);
  const last = (events: TraceEvent[], kind: TraceEvent['kind']): number =>
    events.findLastIndex((event) => event.kind === kind);

  it('is told from the recording: an munmap that is left out', async () => {
    const broken = changed(recording, (events) => events.toSpliced(last(events, 'munmap'), 1));
    const [rank] = await replayAlone(broken);
    expect(rank).toMatchObject({ maps_equal: false });
  });

  it('is told from the recording: an mprotect that is left out', async () => {
    const broken = changed(recording, (events) => events.toSpliced(last(events, 'mprotect'), 1));
    const [rank] = await replayAlone(broken);
    expect(rank).toMatchObject({ maps_equal: false, residency: { unattributed: 0 } });
  });

  it('is told from the recording: a page fault too few, and one too many', async () => {
    const { mappings } = recording.ranks[0]?.end ?? { mappings: [] };
    const resident = new Set(
      recording.ranks[0]?.end?.resident.flatMap(({ address, pageCount }) =>
        Array.from({ length: pageCount }, (_, i) => address + i * 4096),
      ),
    );
    const heap = mappings.find(({ area }) => area === 'heap');
    if (!heap) throw new Error('the program has a heap');
    let untouched = heap.end - 4096;
    while (resident.has(untouched)) untouched -= 4096;
    const tooMany = changed(recording, (events) => [
      ...events,
      { kind: 'pf', line: 0, gapNs: 0, address: untouched, pageCount: 1 },
    ]);
    const [extra] = await replayAlone(tooMany);
    expect(extra?.residency).toMatchObject({ extra: 1, missing: 57, unattributed: 1 });

    const tooFew = changed(recording, (events) =>
      events.filter((event) => event.kind !== 'pf' || event.address < heap.start),
    );
    const [missing] = await replayAlone(tooFew);
    expect(missing?.residency.unattributed).toBeGreaterThan(1000);
  });

  it('has every page accounted for by what made it present, or by nothing', () => {
    const gaps = { causeOf: (page: number) => (page === 7 ? ('recorder' as const) : undefined) };
    const account = (origins: [number, number][], baseline?: [number, number][]) =>
      accountAnonymous(new Set([1, 7]), new Map(origins), gaps, baseline && new Map(baseline));
    // Pages 2 to 6 are extra: made by the program, at the start, by a registration, the adapter, and
    // by a registration where the replay without messages has one too.
    expect(
      account(
        [
          [1, 0],
          [2, 0],
          [3, 1],
          [4, 3],
          [5, 4],
          [6, 3],
        ],
        [
          [1, 0],
          [6, 0],
        ],
      ),
    ).toEqual({
      recorded: 2,
      replayed: 6,
      extra: 5,
      missing: 1,
      unattributed: 3,
      by_cause: { registration: 1, device_fault: 1, recorder: 1 },
    });
    // A page that messages have made disappear is nobody's gap.
    expect(account([[1, 0]], [[7, 0]])).toMatchObject({ missing: 1, unattributed: 1 });
  });
});
