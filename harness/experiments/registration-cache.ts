/**
 * What a registration cache is worth, and what it takes to be right (S16, C8; Wyckoff, Geoffray, Bestler
 * and Gunthorpe in seed 000).
 *
 * A program receives messages into buffers of its allocator, which gives large ones back to the kernel
 * and gets the same addresses again with other pages. Each message is an RDMA WRITE whose bytes are
 * compared with what the program then sees. Look first at the time a message takes when every one
 * registers (`immediate`) and when a cache does; then at stale uses, messages whose bytes the program
 * does not see: without a source of invalidation there are many, with hooks those that free their memory
 * past libc, with ummunotify or a perf ring none. The last rows are a program that receives and computes in
 * turns, with too little memory and with enough: `lazy` keeps what nobody uses pinned, a fixed budget
 * bounds it whether memory is short or not, the kernel's own request only when it is.
 */
import {
  type CacheOptions,
  HooksSource,
  type Host,
  type InvalidationSource,
  type MemoryRegion,
  NoSource,
  PAGE_BYTES,
  PerfSource,
  PROT_READ,
  PROT_WRITE,
  RegistrationCache,
  type ReleasePolicy,
  type Sim,
  Ummunotify,
  UmmunotifySource,
  VerbsRegistrar,
} from '../../kernel/index.ts';
import { ACCESS_LOCAL_WRITE, RandomStream } from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Loopback } from './loopback.ts';
import { Stage } from './stage.ts';

const MIB = 2 ** 20;
const RW = PROT_READ | PROT_WRITE;
const SOURCE = 0x7e0000000000;
const HEAP = 0x7f0000000000;
const DATA = 0x7d0000000000;
const MESSAGE_BYTES = 128 * 1024;
const MESSAGES = 120;
/** Buffers that the program uses in turn, and how many of a million messages free theirs first. */
const BUFFERS = 16;
const FREE_PPM = 250_000;

interface Scheme {
  readonly name: string;
  readonly release: ReleasePolicy;
  /** Of a million frees, those that go past libc. */
  readonly rawPpm: number;
  open(host: Host): Sim<InvalidationSource>;
}

function* none(): Sim<InvalidationSource> {
  yield 0;
  return new NoSource();
}

function* hooks({ mm }: Host): Sim<InvalidationSource> {
  yield 0;
  return new HooksSource(mm);
}

const ring = { pageCount: 1, mode: 'drop' } as const;
const counting = { pageCount: 1, mode: 'overwrite', records: 'tag' } as const;

const SCHEMES: readonly Scheme[] = [
  { name: 'per message', release: 'immediate', rawPpm: 0, open: none },
  { name: 'cache', release: 'lazy', rawPpm: 0, open: none },
  { name: 'cache+hooks', release: 'lazy', rawPpm: 0, open: hooks },
  { name: 'cache+hooks, 1 in 4 raw', release: 'lazy', rawPpm: FREE_PPM, open: hooks },
  {
    name: 'cache+ummunotify',
    release: 'lazy',
    rawPpm: FREE_PPM,
    open: ({ mm }) => UmmunotifySource.open(new Ummunotify(), mm),
  },
  {
    name: 'cache+perf',
    release: 'lazy',
    rawPpm: FREE_PPM,
    open: ({ mm }) => PerfSource.open(mm, ring),
  },
  {
    name: 'cache+perf counters',
    release: 'lazy',
    rawPpm: FREE_PPM,
    open: ({ mm }) => PerfSource.open(mm, counting, 'counters'),
  },
];

interface Outcome {
  readonly messageUs: number;
  readonly hitPercent: number;
  readonly staleUses: number;
  readonly pinnedPeakKib: number;
  readonly unusedKib: number;
  readonly eventsLost: number;
}

/** The allocator pattern under one scheme. */
function measure(scheme: Scheme, seed: number): Outcome {
  const stage = new Stage({ seed, adapters: true });
  const { host } = stage;
  const { mm, node } = host;
  const random = new RandomStream(seed, 'experiment', 'registration-cache');
  let staleUses = 0;
  let spentPs = 0;
  let outcome: Outcome | undefined;
  stage.run(
    (function* (): Sim<void> {
      const loopback = yield* Loopback.open(host);
      const registrar = new VerbsRegistrar(host.verbs, loopback.pd);
      const source = yield* scheme.open(host);
      const options: CacheOptions = {
        release: scheme.release,
        budgetBytes: Number.POSITIVE_INFINITY,
      };
      const cache = new RegistrationCache(mm, registrar, source, options);
      yield* mm.mmap(SOURCE, MESSAGE_BYTES, RW);
      yield* mm.mmap(HEAP, BUFFERS * MESSAGE_BYTES, RW);
      const from = yield* host.verbs.regMr(loopback.pd, SOURCE, MESSAGE_BYTES, ACCESS_LOCAL_WRITE);
      for (let i = 0; i < MESSAGES; i++) {
        const buffer = HEAP + random.below(BUFFERS) * MESSAGE_BYTES;
        if (random.chance(FREE_PPM)) {
          const isLibc = !random.chance(scheme.rawPpm);
          const calls = isLibc && source instanceof HooksSource ? source : mm;
          yield* calls.munmap(buffer, MESSAGE_BYTES);
          yield* mm.mmap(buffer, MESSAGE_BYTES, RW);
        }
        // The program clears its buffer before it receives.
        yield* mm.fill(buffer, MESSAGE_BYTES, 0);
        yield* mm.fill(SOURCE, MESSAGE_BYTES, i + 1);
        const start = node.now;
        const lease = yield* cache.acquire(buffer, MESSAGE_BYTES, true);
        yield* loopback.write(from, SOURCE, lease.handle, buffer, MESSAGE_BYTES);
        yield* cache.release(lease);
        spentPs += node.now - start;
        if (mm.hash(buffer, MESSAGE_BYTES) !== mm.hash(SOURCE, MESSAGE_BYTES)) staleUses++;
      }
      const { counters } = cache;
      outcome = {
        messageUs: spentPs / MESSAGES / 1e6,
        hitPercent: (100 * counters.hits) / counters.lookups,
        staleUses,
        pinnedPeakKib: mm.pinnedPeakBytes / 1024,
        unusedKib: cache.unusedBytes / 1024,
        eventsLost: source.eventsLost,
      };
      yield* cache.close();
    })(),
  );
  host.checkLeaks();
  return outcome as Outcome;
}

/** RAM that is too little for the second program, and enough; what it receives into and computes on. */
const SHORT_RAM_BYTES = 16 * MIB;
const ROOMY_RAM_BYTES = 64 * MIB;
const PHASE_BUFFERS = 80;
const DATA_BYTES = 8 * MIB;
const ROUNDS = 3;

interface Pressure {
  readonly totalMs: number;
  readonly hitPercent: number;
  readonly swappedPages: number;
  readonly unusedPeakKib: number;
  readonly requests: number;
  readonly evictions: number;
}

/** A program that receives into many buffers and then computes on its data, in turns. */
function pressure(release: ReleasePolicy, memoryBytes: number, seed: number): Pressure {
  const stage = new Stage({
    seed,
    adapters: true,
    host: { memoryBytes, swapBytes: 4 * SHORT_RAM_BYTES },
  });
  const { host } = stage;
  const { mm, node } = host;
  let outcome: Pressure | undefined;
  stage.run(
    (function* (): Sim<void> {
      const loopback = yield* Loopback.open(host);
      const registrar = new VerbsRegistrar(host.verbs, loopback.pd);
      const source = yield* UmmunotifySource.open(new Ummunotify(), mm);
      const options: CacheOptions = { release, budgetBytes: 2 * MIB };
      const cache = new RegistrationCache<MemoryRegion>(mm, registrar, source, options);
      yield* mm.mmap(HEAP, PHASE_BUFFERS * MESSAGE_BYTES, RW);
      yield* mm.mmap(DATA, DATA_BYTES, RW);
      let unusedPeak = 0;
      const start = node.now;
      for (let round = 0; round < ROUNDS; round++) {
        for (let i = 0; i < PHASE_BUFFERS; i++) {
          const buffer = HEAP + i * MESSAGE_BYTES;
          const lease = yield* cache.acquire(buffer, MESSAGE_BYTES, true);
          yield* mm.touch(buffer, MESSAGE_BYTES / PAGE_BYTES, true);
          yield* cache.release(lease);
        }
        unusedPeak = Math.max(unusedPeak, cache.unusedBytes);
        for (let pass = 0; pass < 2; pass++) yield* mm.touch(DATA, DATA_BYTES / PAGE_BYTES, true);
      }
      const { counters } = cache;
      outcome = {
        totalMs: (node.now - start) / 1e9,
        hitPercent: (100 * counters.hits) / counters.lookups,
        swappedPages: mm.memory.counters.pswpout,
        unusedPeakKib: unusedPeak / 1024,
        requests: counters.requests,
        evictions: counters.evictions,
      };
      yield* cache.close();
    })(),
  );
  return outcome as Pressure;
}

function run(seed: number): ExperimentResult {
  const rows: Cell[][] = [];
  const byName = new Map<string, Outcome>();
  for (const scheme of SCHEMES) {
    const o = measure(scheme, seed);
    byName.set(scheme.name, o);
    const figures = [o.messageUs.toFixed(2), o.hitPercent.toFixed(1), o.staleUses, o.eventsLost];
    rows.push([scheme.name, ...figures, o.pinnedPeakKib, o.unusedKib, '', '', '']);
  }
  const policies = ['lazy', 'budget', 'pressure'] as const;
  const underPressure = (name: string, memoryBytes: number): Pressure[] =>
    policies.map((release) => {
      const o = pressure(release, memoryBytes, seed);
      const figures = ['', o.hitPercent.toFixed(1), '', '', '', o.unusedPeakKib];
      const costs = [o.totalMs.toFixed(1), o.swappedPages, o.evictions];
      rows.push([`${name}: ${release}`, ...figures, ...costs]);
      return o;
    });
  const shorts = underPressure('short', SHORT_RAM_BYTES);
  const roomy = underPressure('roomy', ROOMY_RAM_BYTES);
  const of = (name: string): Outcome => byName.get(name) as Outcome;
  const [each, cached, safe] = [of('per message'), of('cache'), of('cache+ummunotify')];
  const [lazy, budget, asked] = shorts as [Pressure, Pressure, Pressure];
  const ok =
    cached.messageUs < each.messageUs &&
    cached.staleUses > 0 &&
    of('cache+hooks').staleUses === 0 &&
    of('cache+hooks, 1 in 4 raw').staleUses > 0 &&
    [each, safe, of('cache+perf'), of('cache+perf counters')].every((o) => o.staleUses === 0) &&
    safe.messageUs < each.messageUs &&
    budget.unusedPeakKib < lazy.unusedPeakKib &&
    asked.requests > 0 &&
    asked.swappedPages < lazy.swappedPages &&
    (roomy[2] as Pressure).hitPercent > (roomy[1] as Pressure).hitPercent;
  return {
    columns: [
      'scheme',
      'message_us',
      'hit_percent',
      'stale_uses',
      'events_lost',
      'pinned_peak_kib',
      'unused_kib',
      'total_ms',
      'swapped_pages',
      'evictions',
    ],
    rows,
    result:
      `a message of ${MESSAGE_BYTES / 1024} KiB takes ${each.messageUs.toFixed(1)} us with a registration of its own, ` +
      `${cached.messageUs.toFixed(1)} us with a cache, which is stale ${cached.staleUses} times in ` +
      `${MESSAGES}, and ${safe.messageUs.toFixed(1)} us with ummunotify, never stale`,
    ok,
  };
}

export const registrationCache: Experiment = {
  name: 'registration-cache',
  systems: ['S16'],
  claims: ['C8'],
  title: 'What is a registration cache worth, and what does it take to be right?',
  run,
};
