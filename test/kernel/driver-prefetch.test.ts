/** ibv_advise_mr: which pages come in ahead of use, and what is refused. */
import { describe, expect, it } from 'vitest';
import {
  type Errno,
  type Host,
  type MemoryRegion,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  VerbsError,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ADVICE_PREFETCH,
  ADVICE_PREFETCH_NO_FAULT,
  ADVICE_PREFETCH_WRITE,
  ADVISE_FLUSH,
  MS,
  SIZE_MAX,
} from '../../transport/index.ts';
import { BASE, type Bench, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const ODP = ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND;
const PAGES = 8;
const BYTES = PAGES * PAGE;
const PD = 1;
/** First page of the buffer in the child of its GiB. */
const IN_CHILD = (BASE % 2 ** 30) / PAGE;

interface Advice {
  readonly advice: number;
  readonly flags?: number;
  readonly address?: number;
  readonly length?: number;
}

function advise(host: Host, mr: MemoryRegion, how: Advice): Sim<void> {
  const { advice, flags = ADVISE_FLUSH, address = BASE, length = BYTES } = how;
  return host.verbs.adviseMr(PD, advice, flags, [{ address, length, lkey: mr.lkey }]);
}

/** Entries of the adapter, as page of the buffer and bits. */
function entries({ adapter }: Bench, mr: MemoryRegion): number[][] {
  const isImplicit = mr.address === 0;
  const key = isImplicit ? [...adapter.tables.keys()].at(-1) : mr.lkey;
  const table = adapter.tables.get(key as number) as Map<number, number>;
  const first = isImplicit ? IN_CHILD : 0;
  return [...table].map(([page, entry]) => [page - first, entry & 3]).sort((x, y) => x[0] - y[0]);
}

/** Registers on demand before anything is present, explicit or implicit; pages 0 and 1 come later. */
function tell(isImplicit: boolean, story: (bench: Bench, mr: MemoryRegion) => Sim<void>): void {
  const bench = makeBench();
  const { mm, verbs } = bench.host;
  const done = bench.run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, BYTES, RW);
      const range: [number, number] = isImplicit ? [0, SIZE_MAX] : [BASE, BYTES];
      const mr = yield* verbs.regMr(PD, ...range, ODP);
      yield* mm.touch(BASE, 2, true);
      yield* story(bench, mr);
      yield* verbs.deregMr(mr);
    })(),
  );
  expect(done).toBe(true);
  bench.host.checkLeaks();
}

describe.each([
  ['an explicit region', false],
  ['an implicit region', true],
])('advice on %s', (_what, isImplicit) => {
  it('PREFETCH faults pages in for reading, WRITE for writing', () => {
    tell(isImplicit, function* (bench, mr): Sim<void> {
      const { host } = bench;
      yield* advise(host, mr, { advice: ADVICE_PREFETCH, length: 3 * PAGE });
      expect(entries(bench, mr)).toEqual([
        [0, 1],
        [1, 1],
        [2, 1],
      ]);
      yield* advise(host, mr, { advice: ADVICE_PREFETCH_WRITE, length: 2 * PAGE });
      // Reading once more takes no right away.
      yield* advise(host, mr, { advice: ADVICE_PREFETCH, length: 3 * PAGE });
      expect(entries(bench, mr).map(([, bits]) => bits)).toEqual([3, 3, 1]);
      expect(mr.counters).toMatchObject({ page_prefetch: 5, page_faults: 0 });
    });
  });

  it('NO_FAULT enters what the process has present, and nothing else', () => {
    tell(isImplicit, function* (bench, mr): Sim<void> {
      const { host } = bench;
      const resident = host.mm.residentBytes;
      yield* advise(host, mr, { advice: ADVICE_PREFETCH_NO_FAULT });
      expect(entries(bench, mr)).toEqual([
        [0, 3],
        [1, 3],
      ]);
      expect(host.mm.residentBytes).toBe(resident);
      expect(mr.counters.page_prefetch).toBe(2);
    });
  });

  it('without FLUSH a work item does it later, and nobody hears of its errors', () => {
    tell(isImplicit, function* (bench, mr): Sim<void> {
      const { host } = bench;
      const later = { advice: ADVICE_PREFETCH_WRITE, flags: 0 };
      yield* advise(host, mr, later);
      expect(mr.counters.page_prefetch).toBe(0);
      yield* host.sleep(1 * MS);
      expect(mr.counters.page_prefetch).toBe(PAGES);
      yield* host.mm.munmap(BASE, BYTES);
      yield* advise(host, mr, later);
      yield* host.sleep(1 * MS);
      expect([mr.counters.page_prefetch, mr.pagesMapped]).toEqual([PAGES, 0]);
      // Deregistration waits for the work item.
      yield* host.mm.mmap(BASE, BYTES, RW);
      yield* advise(host, mr, later);
    });
  });
});

describe('advice is refused', () => {
  interface Stage {
    readonly bench: Bench;
    readonly odp: MemoryRegion;
    readonly readOnly: MemoryRegion;
    readonly pinned: MemoryRegion;
  }
  const cases: {
    what: string;
    errno: Errno;
    attempt: (stage: Stage) => Sim<void>;
  }[] = [];
  /** Keys are judged at once, whatever the flags; pages only with FLUSH. */
  const add = (
    what: string,
    errno: Errno,
    attempt: (stage: Stage, flags: number) => Sim<void>,
    isOfPages = false,
  ): void => {
    for (const flags of isOfPages ? [ADVISE_FLUSH] : [0, ADVISE_FLUSH]) {
      cases.push({
        what: `${what}, flags ${flags}`,
        errno,
        attempt: (stage) => attempt(stage, flags),
      });
    }
  };
  const one = (lkey: number, address = BASE, length = PAGE) => [{ address, length, lkey }];
  const verbsOf = ({ bench }: Stage) => bench.host.verbs;

  add('an lkey that nobody has', 'ENOENT', (s, flags) =>
    verbsOf(s).adviseMr(PD, ADVICE_PREFETCH, flags, one(0x7700)),
  );
  add('the lkey of another variant', 'ENOENT', (s, flags) =>
    verbsOf(s).adviseMr(PD, ADVICE_PREFETCH, flags, one(s.odp.lkey ^ 1)),
  );
  add('pinned memory', 'EINVAL', (s, flags) =>
    verbsOf(s).adviseMr(PD, ADVICE_PREFETCH, flags, one(s.pinned.lkey)),
  );
  add('another domain', 'EPERM', (s, flags) =>
    verbsOf(s).adviseMr(PD + 1, ADVICE_PREFETCH, flags, one(s.odp.lkey)),
  );
  add('writing to a read-only region', 'EPERM', (s, flags) =>
    verbsOf(s).adviseMr(PD, ADVICE_PREFETCH_WRITE, flags, one(s.readOnly.lkey)),
  );
  add('one bad key among good ones', 'ENOENT', (s, flags) =>
    verbsOf(s).adviseMr(PD, ADVICE_PREFETCH, flags, [...one(s.odp.lkey), ...one(0x7700)]),
  );
  add('an advice that there is not', 'EOPNOTSUPP', (s, flags) =>
    verbsOf(s).adviseMr(PD, 3, flags, one(s.odp.lkey)),
  );
  add('no range', 'EINVAL', (s, flags) => verbsOf(s).adviseMr(PD, ADVICE_PREFETCH, flags, []));
  add('an unknown flag', 'EINVAL', (s, flags) =>
    verbsOf(s).adviseMr(PD, ADVICE_PREFETCH, flags | 2, one(s.odp.lkey)),
  );
  add(
    'bytes beyond the region',
    'EFAULT',
    (s, flags) => verbsOf(s).adviseMr(PD, ADVICE_PREFETCH, flags, one(s.odp.lkey, BASE, BYTES + 1)),
    true,
  );
  add(
    'bytes that are not mapped',
    'EFAULT',
    function* (s, flags): Sim<void> {
      yield* s.bench.host.mm.munmap(BASE, BYTES);
      yield* verbsOf(s).adviseMr(PD, ADVICE_PREFETCH, flags, one(s.odp.lkey));
    },
    true,
  );

  it.each(cases)('$what', ({ errno, attempt }) => {
    const bench = makeBench();
    const { mm, verbs } = bench.host;
    let thrown: unknown;
    const done = bench.run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, BYTES, RW);
        const pinned = yield* verbs.regMr(PD, BASE, BYTES, ACCESS_LOCAL_WRITE);
        const odp = yield* verbs.regMr(PD, BASE, BYTES, ODP);
        const readOnly = yield* verbs.regMr(PD, BASE, BYTES, ACCESS_ON_DEMAND);
        try {
          yield* attempt({ bench, pinned, odp, readOnly });
        } catch (error) {
          thrown = error;
        }
        // Nothing stays held, so all of it can go.
        for (const mr of [pinned, odp, readOnly]) yield* verbs.deregMr(mr);
      })(),
    );
    expect(done).toBe(true);
    expect(thrown).toBeInstanceOf(VerbsError);
    expect((thrown as VerbsError).errno).toBe(errno);
    bench.host.checkLeaks();
  });
});
