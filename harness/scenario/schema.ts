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
import { parseIp, parseMac } from '../gateway/addresses.ts';
import { integer, name, rate, share, size, time } from './fields.ts';
import { operationSchema } from './operation-schema.ts';

/** How memory is registered: `ib_umem` pinned at registration, or paged on demand. */
export type Mode = 'pinned' | 'odp';
export const modes: readonly Mode[] = ['pinned', 'odp'];

const externalSchema = z.strictObject({
  /** Its IPv4 or IPv6 address, by which queue pairs reach it. */
  ip: z.string().refine((text) => parseIp(text) !== undefined, { error: 'not an IP address' }),
  /** Asked for by ARP or neighbour discovery when left out. */
  mac: z
    .string()
    .refine((text) => parseMac(text) !== undefined, { error: 'not a unicast MAC address' })
    .optional(),
});

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
    /** Whether peers hear of a suspended protection domain, or learn it from silence. */
    pdSuspend: z.enum(['silent', 'announced']).default('silent'),
    /** How the program waits for completions: it polls, or sleeps on a completion channel. */
    completions: z.enum(['poll', 'event']).default('poll'),
    /** Completion events are held back for so many completions, or so long after the first. */
    moderation: z
      .strictObject({ count: integer(0, 65_535), period: time() })
      .prefault({ count: 0, period: '0us' }),
    /** A machine that is not simulated: it is on a real Ethernet, which a gateway is connected to. */
    external: externalSchema.optional(),
  })
  .transform(({ memory, swap, memlock, moderation, ...rest }) => ({
    ...rest,
    moderation: { count: moderation.count, periodPs: moderation.period },
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
    /** What packets are wrapped in: LRH and VCRC, or Ethernet, IP and UDP (RoCEv2). */
    linkLayer: z.enum(['InfiniBand', 'Ethernet']).default('InfiniBand'),
    /** Chance that a packet is lost, each direction; and how many are lost in a row. */
    loss: share().prefault('0%'),
    lossBurst: integer(1, 1000).default(1),
    /** Chance that a packet arrives twice, and how much later the second one does. */
    duplicate: share().prefault('0%'),
    duplicateDelay: time().prefault('0us'),
    /** Chance that a packet is late: behind so many others (0: any number), by so long at most. */
    reorder: share().prefault('0%'),
    reorderPackets: integer(0, 1000).default(0),
    reorderDelay: time().prefault('10us'),
    /** Chance that bits of a packet are flipped. */
    corrupt: share().prefault('0%'),
  })
  .transform((link) => ({
    between: link.between,
    rateGbps: link.rate,
    latencyPs: link.latency,
    linkLayer: link.linkLayer,
    lossPpm: link.loss,
    lossBurstPackets: link.lossBurst,
    duplicatePpm: link.duplicate,
    duplicateDelayPs: link.duplicateDelay,
    reorderPpm: link.reorder,
    reorderPackets: link.reorderPackets,
    reorderDelayPs: link.reorderDelay,
    corruptPpm: link.corrupt,
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
  maxDestRdAtomic: integer(1, 16).default(16),
  /** Reliable connection, unreliable connection, datagrams. */
  type: z.enum(['RC', 'UC', 'UD']).default('RC'),
  /** Shared receive queues that its ends take receives from; an end without one has its own. */
  srqs: z.array(z.string()).max(2).default([]),
  /** Of a queue pair to an external host: what that host calls it, and the first PSN each side sends. */
  remote: z
    .strictObject({
      qpn: integer(0, 0xffffff),
      psn: integer(0, 0xffffff).default(0),
      localPsn: integer(0, 0xffffff).default(0),
    })
    .optional(),
});

const srqSchema = z
  .strictObject({
    name,
    /** Its receives stand side by side in this region, which says whose it is. */
    region: z.string(),
    /** Bytes of each receive, and how many there are. */
    slot: size(),
    entries: integer(1, 16_384).default(64),
    /** With fewer receives left than this an event comes, and the program posts those that are free. */
    limit: integer(0, 16_384).default(0),
  })
  .transform(({ slot, ...rest }) => ({ ...rest, slotBytes: slot }));

const access = z.enum([
  'local-write',
  'remote-write',
  'remote-read',
  'remote-atomic',
  'mw-bind',
  'flush-global',
  'flush-persistent',
]);

const windowSchema = z
  .strictObject({
    name,
    /** Bound to a range of this region, which has to allow 'mw-bind'. */
    region: z.string(),
    /** The queue pair that may use it. */
    queuePair: z.string(),
    offset: size().prefault('0B'),
    /** The rest of the region when left out. */
    length: size().optional(),
    access: z
      .array(z.enum(['remote-write', 'remote-read', 'remote-atomic']))
      .default(['remote-write', 'remote-read', 'remote-atomic']),
  })
  .transform(({ offset, length, ...rest }) => ({
    ...rest,
    offsetBytes: offset,
    lengthBytes: length ?? null,
  }));

const regionSchema = z
  .strictObject({
    name,
    host: z.string(),
    size: size(),
    /** `mode`: as --mode says. */
    registration: z.enum(['mode', 'pinned', 'odp']).default('mode'),
    /** The program writes the whole region before it registers it. */
    prefault: z.boolean().default(false),
    access: z
      .array(access)
      .default(['local-write', 'remote-write', 'remote-read', 'remote-atomic']),
    /** Of a region of an external host: where it is there, and the key for it. */
    remote: z
      .strictObject({
        address: integer(0, Number.MAX_SAFE_INTEGER),
        rkey: integer(0, 0xffffffff),
      })
      .optional(),
  })
  .transform(({ size, ...rest }) => ({ ...rest, sizeBytes: size }));

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
  /** The host of a memory window invalidates it and binds it again, with another key. */
  z
    .strictObject({ kind: z.literal('rebind'), at, host: z.string(), window: z.string() })
    .transform(({ at, ...rest }) => ({ ...rest, atPs: at })),
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
  /** A recorded run that ships in harness/traces, or the folder of one. */
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
  sharedReceiveQueues: z.array(srqSchema).default([]),
  windows: z.array(windowSchema).default([]),
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
export type SharedReceiveQueueSpec = Scenario['sharedReceiveQueues'][number];
export type WindowSpec = Scenario['windows'][number];
export type EventSpec = Scenario['events'][number];
export type { OperationSpec } from './operation-schema.ts';
