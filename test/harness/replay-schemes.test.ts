/**
 * Registration schemes over recorded messages: which of them see that memory has changed, and what
 * becomes of the data when they do not.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { MessageCheck } from '../../harness/replay/message-check.ts';
import { messageKey, type Recording, readRecording } from '../../harness/replay/recording.ts';
import { type ReplayResult, replayRecording } from '../../harness/replay/replay.ts';
import { type SchemeName, schemeNames } from '../../harness/replay/scheme.ts';
import { isReceive, isSend } from '../../harness/trace/format.ts';
import type { AddressSpace } from '../../kernel/index.ts';
import { writeRun } from '../fixtures/recorded-run.ts';
import { temporaryFolder } from './fixtures.ts';

const withMessages = schemeNames.filter((name) => name !== 'none');

const replay = (recording: Recording, scheme: SchemeName): Promise<ReplayResult> =>
  replayRecording({ recording, scheme, seed: 1 });

const sum = (result: ReplayResult, field: 'messages' | 'bytes' | 'stale_uses'): number =>
  result.ranks.reduce((all, rank) => all + rank[field], 0);

/** Two buffers of 16 KiB, in pages of their own, and a heap. */
const MAPS = [
  '10000000-10010000 rw-p 00000000 00:00 0',
  '5554fffe0000-555500000000 rw-p 00000000 00:00 0 [heap]',
];
const BUFFER = '10000000';

/**
 * Pages of message buffers that each rank unmapped after a message had used them, counted from the
 * recorded lines alone: what an adapter that holds every page it has used must be told to drop.
 */
function pagesTakenAway({ ranks, messages }: Recording): number[] {
  return ranks.map(({ trace, events }) => {
    const used = new Set<number>();
    let taken = 0;
    let heapEnd = trace.brk;
    const takeAway = (start: number, end: number): void => {
      for (const page of used) {
        if (page < start / 4096 || page >= end / 4096) continue;
        used.delete(page);
        taken++;
      }
    };
    for (const event of events) {
      if (event.kind === 'munmap' || event.kind === 'mmap') {
        takeAway(event.address, event.address + event.length);
      } else if (event.kind === 'brk') {
        takeAway(event.end + 4095, heapEnd);
        heapEnd = event.end;
      } else if (isSend(event) || isReceive(event)) {
        const sender = isSend(event) ? trace.rank : event.peer;
        if (!messages.has(messageKey(sender, event.message))) continue;
        const { address, bytes } = event;
        const last = Math.floor((address + bytes - 1) / 4096);
        for (let page = Math.floor(address / 4096); page <= last; page++) used.add(page);
      }
    }
    return taken;
  });
}

/** Rank 0 sends twice from a buffer that stays; rank 1 receives twice at `address`, `change` between. */
function twoMessages(address: string, change: readonly string[]): string {
  const sender = [1, 2].flatMap((k) => [
    `100\tptx\t${BUFFER}\t16384\t16384\t1\t0\t0\t\t${k}`,
    `1000000\tret\t${k}`,
  ]);
  const receiver = (k: number): string[] => [
    `10\tpf\t${address}\t4\tu\t0`,
    `10\tprx\t${address}\t16384\t16384\t0\t0\t0\t${k}\t${k}`,
    `1000\tret\t${k}`,
  ];
  const events = [...receiver(1), ...change, ...receiver(2)];
  return writeRun(temporaryFolder(), [
    { maps: MAPS, events: [`0\tpf\t${BUFFER}\t4\tu\t0`, ...sender] },
    { maps: MAPS, events },
  ]);
}

const HEAP = '5554ffff0000';
const all = withMessages;
const told = all.filter((name) => name !== 'cache');
const toldByKernel = told.filter((name) => name !== 'cache+hooks');

/** How the receiver's buffer changes, and which schemes get the second message right. */
const changes: readonly {
  readonly what: string;
  readonly address: string;
  readonly change: readonly string[];
  readonly right: readonly SchemeName[];
}[] = [
  { what: 'nothing happens', address: BUFFER, change: [], right: all },
  {
    what: 'free and malloc get the same address again',
    address: BUFFER,
    change: [`5\tmunmap\t${BUFFER}\t16384`, `5\tmmap\t${BUFFER}\t16384\trw-\tp\t-`],
    right: told,
  },
  {
    what: 'a helper thread unmaps, past libc',
    address: BUFFER,
    change: [`5\tmunmap\t${BUFFER}\t16384\t77`, `5\tmmap\t${BUFFER}\t16384\trw-\tp\t-\t77`],
    right: toldByKernel,
  },
  {
    what: 'a helper thread maps over it',
    address: BUFFER,
    change: [`5\tmmap\t${BUFFER}\t16384\trw-\tpF\t-\t77`],
    right: toldByKernel,
  },
  {
    what: 'the heap shrinks and grows again',
    address: HEAP,
    change: [`5\tbrk\t${HEAP}\t-65536`, '5\tbrk\t555500000000\t65536'],
    right: told,
  },
  {
    what: 'mremap moves it away, and something else is mapped',
    address: BUFFER,
    change: [
      `5\tmremap\t${BUFFER}\t16384\t20000000\t16384\t3`,
      `5\tmmap\t${BUFFER}\t16384\trw-\tp\t-`,
    ],
    right: told,
  },
  {
    what: 'madvise drops its pages',
    address: BUFFER,
    change: [`5\tmadvise\t${BUFFER}\t16384\tMADV_DONTNEED`],
    right: told,
  },
  {
    what: 'rights are taken and given back, and the pages stay',
    address: BUFFER,
    change: [`5\tmprotect\t${BUFFER}\t16384\tr--`, `5\tmprotect\t${BUFFER}\t16384\trw-`],
    right: all,
  },
];

describe('a receive buffer between two messages', () => {
  it.each(changes)('$what', async ({ address, change, right }) => {
    const recording = readRecording(twoMessages(address, change));
    for (const scheme of withMessages) {
      const result = await replay(recording, scheme);
      const stale = right.includes(scheme) ? 0 : 1;
      const seen = result.ranks.map(({ stale_uses, messages, bytes, residency }) => ({
        stale_uses,
        messages,
        bytes,
        unattributed: residency.unattributed - (residency.replayed - residency.extra),
      }));
      expect({ scheme, corrupted: result.corrupted_messages, seen }).toMatchObject({
        scheme,
        corrupted: stale,
        seen: [
          { stale_uses: 0, messages: 2, bytes: 32_768 },
          { stale_uses: stale, messages: 2, bytes: 32_768 },
        ],
      });
    }
  });
});

describe('the beginning of a recorded run', () => {
  /** Two ranks, and enough events for their first messages and some unmapping between them. */
  const prefix: Readonly<Record<string, number>> = {
    hpcc: 6_000,
    qe: 10_000,
    'qe-mmap128k': 18_000,
  };

  describe.each(Object.entries(prefix))('%s', (run, eventCount) => {
    const results = new Map<SchemeName, ReplayResult>();
    const recording = readRecording(run, [0, 1], eventCount);
    beforeAll(async () => {
      for (const scheme of schemeNames) results.set(scheme, await replay(recording, scheme));
    });
    const of = (scheme: SchemeName): ReplayResult => results.get(scheme) as ReplayResult;

    it('carries the same messages under every scheme', () => {
      const counts = withMessages.map((scheme) => {
        const result = of(scheme);
        return [sum(result, 'messages'), sum(result, 'bytes')];
      });
      expect(counts[0]?.[0]).toBeGreaterThan(300);
      for (const count of counts) expect(count).toEqual(counts[0]);
    });

    it('is never stale where the scheme hears of changes', () => {
      for (const scheme of ['cache+ummunotify', 'cache+perf', 'odp', 'implicit'] as const) {
        expect({ scheme, stale: sum(of(scheme), 'stale_uses') }).toEqual({ scheme, stale: 0 });
        expect(of(scheme).corrupted_messages).toBe(0);
      }
    });

    it('uses stale pages where a cache is told nothing and its buffers are mapped again', () => {
      const isMappedAgain = run === 'qe-mmap128k';
      expect(sum(of('cache'), 'stale_uses') > 50).toBe(isMappedAgain);
      expect(of('cache').corrupted_messages > 50).toBe(isMappedAgain);
    });

    it('takes from an adapter with one key what the program unmapped', () => {
      const invalidated = of('implicit').ranks.map(({ page_invalidations }) => page_invalidations);
      expect(invalidated).toEqual(pagesTakenAway(recording));
      expect(Math.max(...invalidated) > 1000).toBe(run === 'qe-mmap128k');
    });

    it('accounts for every page', () => {
      for (const scheme of schemeNames) {
        for (const { residency, maps_equal } of of(scheme).ranks) {
          expect({ scheme, maps_equal, unattributed: residency.unattributed }).toEqual({
            scheme,
            maps_equal: true,
            unattributed: 0,
          });
        }
      }
    });

    it('pins what a scheme pins, and faults where it faults', () => {
      const least = (scheme: SchemeName, field: 'pinned_bytes_peak' | 'page_faults'): number =>
        Math.min(...of(scheme).ranks.map((rank) => rank[field]));
      const most = (scheme: SchemeName, field: 'pinned_bytes_peak' | 'page_faults'): number =>
        Math.max(...of(scheme).ranks.map((rank) => rank[field]));
      for (const scheme of withMessages) {
        const isPinned = scheme.startsWith('cache');
        if (isPinned) expect(least(scheme, 'pinned_bytes_peak')).toBeGreaterThan(4 * 4096);
        else expect(most(scheme, 'pinned_bytes_peak')).toBe(0);
        if (isPinned) expect(most(scheme, 'page_faults')).toBe(0);
      }
      expect(least('implicit', 'page_faults')).toBeGreaterThan(0);
      for (const { hit_rate } of of('implicit').ranks) expect(hit_rate).toBe(1);
    });
  });

  it('comes to the same result again', async () => {
    const recording = readRecording('qe', [0, 1], 8_000);
    expect(await replay(recording, 'odp')).toEqual(await replay(recording, 'odp'));
  });
});

describe('the judge of messages', () => {
  const PAGE = 4096;

  /** A process with frames 100, 101, … at pages 0, 1, …, whose bytes hash to what `bytes` says. */
  const processWith = (bytes: { hash: number }) =>
    ({
      hash: () => bytes.hash,
      pages: { followPage: (page: number) => (page < 8 ? 100 + page : -1) },
    }) as unknown as AddressSpace;

  /** What becomes of a message of two pages, whose receiver's key leads to `frames`. */
  const judge = (frames: readonly number[], received: number, verify = true) => {
    const frameOfKey = (key: number, address: number) =>
      key === 2 ? (frames[address / PAGE - 1] ?? -1) : 100 + address / PAGE;
    const check = new MessageCheck(frameOfKey, verify);
    const [sender, receiver] = [processWith({ hash: 5 }), processWith({ hash: received })];
    check.onSend(9, sender, 100, PAGE);
    expect(check.onReceive(9, receiver, 2, PAGE + 100)).toBe(PAGE);
    check.onSent(9, sender, 1, 100, PAGE);
    const stale = [sender, receiver].map((mm) => check.staleUses(mm));
    return { stale, corrupted: check.corrupted, unexplained: check.unexplained };
  };

  it.each([
    ['frames are those of the process', [101, 102], 5, [0, 0], 0, 0],
    ['the key has another frame at the second page', [101, 77], 6, [0, 1], 1, 0],
    ['the key has no frame, which nobody can use', [101, -1], 5, [0, 0], 0, 0],
    ['bytes differ and every frame is right', [101, 102], 6, [0, 0], 1, 1],
  ] as const)('%s', (_, frames, received, stale, corrupted, unexplained) => {
    expect(judge(frames, received)).toEqual({ stale, corrupted, unexplained });
    expect(judge(frames, received, false)).toEqual({ stale, corrupted: 0, unexplained: 0 });
  });

  it('wants to know what was sent before it arrives, and once', () => {
    const check = new MessageCheck(() => -1, true);
    const mm = processWith({ hash: 1 });
    expect(() => check.onReceive(1, mm, 2, 0)).toThrow(/nobody has sent/);
    check.onSend(1, mm, 0, 10);
    expect(() => check.onSend(1, mm, 0, 10)).toThrow(/sent twice/);
  });
});
