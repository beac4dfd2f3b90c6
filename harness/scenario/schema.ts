/**
 * A scenario as plain data: what is in the world, what it does, and how long it may take.
 *
 * `ScenarioInput` is what people and scripts write, with a unit on every quantity. `Scenario` is the
 * same thing resolved: picoseconds, bytes, Gb/s and parts per million, every default filled in. Two
 * runs are of the same scenario when the hashes of the resolved data agree. What the fields do is
 * the business of `world.ts` (hosts, links) and `workload/` (everything that happens).
 *
 * This data model is extended by adding fields with defaults; none is renamed or removed.
 */
import { z } from 'zod';
import {
  parseRate,
  parseShare,
  parseSize,
  parseTime,
  quantityHelp,
  type Rate,
  type Share,
  type Size,
  type Time,
} from './quantity.ts';

/** How memory is registered: `ib_umem` pinned at registration, or paged on demand. */
export type Mode = 'pinned' | 'odp';
export const modes: readonly Mode[] = ['pinned', 'odp'];

function quantity<T extends string>(
  parse: (value: unknown) => number | undefined,
  expected: string,
): z.ZodType<number, T> {
  return z
    .custom<T>((value) => parse(value) !== undefined, {
      error: (issue) => `${show(issue.input)} is not ${expected.split(',')[0]}`,
      params: { expected },
    })
    .transform((value) => parse(value) as number);
}

const time = (): z.ZodType<number, Time> => quantity<Time>(parseTime, quantityHelp.time);
const size = (): z.ZodType<number, Size> => quantity<Size>(parseSize, quantityHelp.size);
const rate = (): z.ZodType<number, Rate> => quantity<Rate>(parseRate, quantityHelp.rate);
const share = (): z.ZodType<number, Share> => quantity<Share>(parseShare, quantityHelp.share);

const name = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,40}$/, 'a name is lower-case letters, digits and dashes');
const integer = (low: number, high: number): z.ZodNumber => z.int().min(low).max(high);

const hostSchema = z
  .strictObject({
    name,
    /** Adapter generation; the names are those of `hca/` profiles. */
    profile: z.string().default('connectx-4'),
    memory: size().prefault('64MiB'),
    swap: size().prefault('0B'),
    cpus: integer(1, 64).default(2),
    /** RLIMIT_MEMLOCK. */
    memlock: z.union([z.literal('unlimited'), size()]).default('unlimited'),
  })
  .transform(({ memory, swap, memlock, ...rest }) => ({
    ...rest,
    memoryBytes: memory,
    swapBytes: swap,
    /** null: unlimited. */
    memlockBytes: memlock === 'unlimited' ? null : memlock,
  }));

const linkSchema = z
  .strictObject({
    between: z.tuple([z.string(), z.string()]),
    rate: rate().prefault('100Gbps'),
    /** One way. It is also the lookahead of the parallel run, so it may not be zero. */
    latency: time().prefault('1us'),
    /** Chance that a packet is lost, each direction. */
    loss: share().prefault('0%'),
  })
  .transform(({ between, rate, latency, loss }) => ({
    between,
    rateGbps: rate,
    latencyPs: latency,
    lossPpm: loss,
  }));

const queuePairSchema = z.strictObject({
  name,
  between: z.tuple([z.string(), z.string()]),
  /** Local ACK timeout is 4.096 us x 2^timeout (ibv_qp_attr.timeout); 0 waits for ever. */
  timeout: integer(0, 31).default(14),
  retryCnt: integer(0, 7).default(7),
  /** 7 retries for ever. */
  rnrRetry: integer(0, 7).default(7),
  /** Code of the delay that RNR NAKs ask for (ibv_qp_attr.min_rnr_timer); 12 is 0.64 ms. */
  minRnrTimer: integer(0, 31).default(12),
  maxRdAtomic: integer(1, 16).default(16),
});

const access = z.enum(['local-write', 'remote-write', 'remote-read']);

const regionSchema = z
  .strictObject({
    name,
    host: z.string(),
    size: size(),
    /** `mode`: as --mode says. */
    registration: z.enum(['mode', 'pinned', 'odp']).default('mode'),
    /** The program writes the whole region before it registers it. */
    prefault: z.boolean().default(false),
    access: z.array(access).default(['local-write', 'remote-write', 'remote-read']),
  })
  .transform(({ size, ...rest }) => ({ ...rest, sizeBytes: size }));

const place = z
  .strictObject({ region: z.string(), offset: size().prefault('0B') })
  .transform(({ region, offset }) => ({ region, offsetBytes: offset }));

const operationSchema = z
  .strictObject({
    kind: z.enum(['write', 'writeImm', 'send', 'read']),
    /** The host that posts the work requests. */
    from: z.string(),
    queuePair: z.string(),
    /** Where the bytes come from: a region of `from`, for a read one of the other host. */
    source: place,
    target: place,
    size: size(),
    count: integer(1, 10_000_000).default(1),
    /** Work requests outstanding at once. */
    depth: integer(1, 1024).default(1),
    /** Distance from one operation's range to the next; both wrap at the end of their region. */
    stride: size().optional(),
    /** The program writes new bytes into the source before each operation; perftest does not. */
    refill: z.boolean().default(true),
    /** When the first is posted, counted from the start of traffic. */
    at: time().prefault('0s'),
  })
  .transform(({ size, stride, at, ...rest }) => ({
    ...rest,
    sizeBytes: size,
    strideBytes: stride ?? size,
    atPs: at,
  }));

const rangeOfRegion = {
  region: z.string(),
  offset: size().prefault('0B'),
  /** The rest of the region when left out. */
  length: size().optional(),
};
/** When, counted from the start of traffic. */
const at = time();

const eventSchema = z.discriminatedUnion('kind', [
  /** The kernel takes pages back from the program, as many as it can of `size`. */
  z
    .strictObject({ kind: z.literal('reclaim'), at, host: z.string(), size: size() })
    .transform(({ at, size, ...rest }) => ({ ...rest, atPs: at, sizeBytes: size })),
  /** madvise(MADV_DONTNEED): the content is dropped, the mapping stays. */
  z
    .strictObject({ kind: z.literal('dontneed'), at, host: z.string(), ...rangeOfRegion })
    .transform(timedRange),
  /** munmap and mmap of the whole region at the same address, as an allocator does. */
  z
    .strictObject({ kind: z.literal('remap'), at, host: z.string(), region: z.string() })
    .transform(({ at, ...rest }) => ({ ...rest, atPs: at })),
  /** The driver suspends the protection domain for `duration`. */
  z
    .strictObject({ kind: z.literal('suspend'), at, host: z.string(), duration: time() })
    .transform(({ at, duration, ...rest }) => ({ ...rest, atPs: at, durationPs: duration })),
  /** ibv_advise_mr(PREFETCH_WRITE). */
  z
    .strictObject({ kind: z.literal('prefetch'), at, host: z.string(), ...rangeOfRegion })
    .transform(timedRange),
]);

function timedRange<T extends { at: number; offset: number; length?: number | undefined }>(
  event: T,
): Omit<T, 'at' | 'offset' | 'length'> & {
  atPs: number;
  offsetBytes: number;
  lengthBytes: number | null;
} {
  const { at, offset, length, ...rest } = event;
  return { ...rest, atPs: at, offsetBytes: offset, lengthBytes: length ?? null };
}

const replaySchema = z.strictObject({
  /** A recorded run that ships in harness/traces, or the path prefix of one (without .rankN.gz). */
  run: z.string(),
  /** The ranks that become the first and the second host. */
  ranks: z.tuple([integer(0, 4095), integer(0, 4095)]).default([0, 1]),
  /** Recorded gaps between lines become compute time times this. */
  gapScale: z.number().min(0).max(1000).default(0),
});

export const scenarioSchema = z.strictObject({
  name,
  summary: z.string().max(200).default(''),
  hosts: z.array(hostSchema),
  links: z.array(linkSchema),
  mtu: z.union([256, 512, 1024, 2048, 4096].map((bytes) => z.literal(bytes))).default(4096),
  queuePairs: z.array(queuePairSchema).default([]),
  regions: z.array(regionSchema).default([]),
  operations: z.array(operationSchema).default([]),
  events: z.array(eventSchema).default([]),
  replay: replaySchema.optional(),
  limits: z
    .strictObject({ simulated: time().prefault('60s') })
    .prefault({})
    .transform(({ simulated }) => ({ simulatedPs: simulated })),
});

/** A scenario as written: quantities with units, defaults left out. */
export type ScenarioInput = z.input<typeof scenarioSchema>;
/** A scenario as run: integers in ps, bytes, Gb/s and ppm. */
export type Scenario = z.output<typeof scenarioSchema>;
export type HostSpec = Scenario['hosts'][number];
export type LinkSpec = Scenario['links'][number];
export type QueuePairSpec = Scenario['queuePairs'][number];
export type RegionSpec = Scenario['regions'][number];
export type OperationSpec = Scenario['operations'][number];
export type EventSpec = Scenario['events'][number];

function show(value: unknown): string {
  return value === undefined ? 'nothing' : (JSON.stringify(value) ?? String(value));
}
