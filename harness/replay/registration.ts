/**
 * How a rank gets keys for its message buffers, by scheme, and what that costs it.
 *
 * A buffer is registered with the rights that its memory has, so that a later use of another kind finds
 * it. The cache itself, and who tells it of changes, are `kernel/clients`.
 */
import {
  HooksSource,
  type InvalidationSource,
  type Lease,
  type MemoryRegion,
  NoSource,
  PerfSource,
  RegistrationCache,
  type Sim,
  UmmunotifySource,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  assert,
  type TimePs,
} from '../../transport/index.ts';
import { PROT_WRITE } from '../trace/format.ts';
import type { LibcCalls } from '../workload/recorded-memory.ts';
import { mappingAt, registerRegion } from '../workload/registrations.ts';
import type { Scheme } from './scheme.ts';
import type { RankProcess, ReplayWorld } from './world.ts';

/** The right to use a buffer until it is released. */
export interface BufferLease {
  readonly region: MemoryRegion;
  /** What the cache calls it; undefined where there is no cache. */
  readonly lease: Lease<MemoryRegion> | undefined;
}

const READ = ACCESS_REMOTE_READ;
const READ_WRITE = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ;
/** All of user space: what SIZE_MAX from address 0 means to the driver. */
const WHOLE_ADDRESS_SPACE = 2 ** 47;

/** One page of records, about fifty, and what does not fit is lost. Assumed: the smallest there is. */
const PERF_RING = { pageCount: 1, mode: 'drop' } as const;

/** The registered memory of one rank. */
export class BufferRegistration {
  /** Buffers asked for, and those among them that needed no registration. */
  lookups = 0;
  hits = 0;
  /** Simulated time that the rank has spent here. */
  costPs: TimePs = 0;
  private cache: RegistrationCache<MemoryRegion> | undefined;
  private whole: MemoryRegion | undefined;
  private readonly hooks: HooksSource | undefined;

  constructor(
    private readonly scheme: Scheme,
    private readonly world: ReplayWorld,
    private readonly process: RankProcess,
  ) {
    const isHooked = scheme.kind === 'cache' && scheme.source === 'hooks';
    this.hooks = isHooked ? new HooksSource(process.mm) : undefined;
  }

  /** The calls of libc that take memory away: with hooks around them where the scheme has them. */
  get libc(): LibcCalls {
    return this.hooks ?? this.process.mm;
  }

  /** Events of memory that were lost. */
  get eventsLost(): number {
    return this.cache?.source.eventsLost ?? 0;
  }

  /** Begins, for queue pairs of `pd`. */
  *open(pd: number): Sim<void> {
    const { scheme, process } = this;
    if (scheme.kind === 'implicit') {
      this.whole = yield* this.timed(this.register(pd, 0, WHOLE_ADDRESS_SPACE, true));
      return;
    }
    const registrar = {
      register: (address: number, length: number, writable: boolean) =>
        this.register(pd, address, length, writable),
      deregister: (region: MemoryRegion) => process.verbs.deregMr(region),
    };
    const options = { release: 'lazy', budgetBytes: Number.POSITIVE_INFINITY } as const;
    const source = yield* this.timed(this.listen());
    this.cache = new RegistrationCache(process.mm, registrar, source, options);
  }

  /** A region around `length` bytes at `address`; `writable` when the adapter will write there. */
  *acquire(address: number, length: number, writable: boolean): Sim<BufferLease> {
    this.lookups++;
    if (this.whole) {
      this.hits++;
      return { region: this.whole, lease: undefined };
    }
    assert(this.cache !== undefined, 'a buffer is asked for before the start');
    const rights = mappingAt(this.process.mm, address)?.prot ?? 0;
    const asWritable = writable || (rights & PROT_WRITE) !== 0;
    const lease = yield* this.timed(this.cache.acquire(address, length, asWritable));
    if (lease.hit) this.hits++;
    return { region: lease.handle, lease };
  }

  *release({ lease }: BufferLease): Sim<void> {
    if (lease && this.cache) yield* this.timed(this.cache.release(lease));
  }

  /** Deregisters everything. */
  *close(): Sim<void> {
    if (this.cache) yield* this.timed(this.cache.close());
    if (this.whole) yield* this.timed(this.process.verbs.deregMr(this.whole));
  }

  private *register(
    pd: number,
    address: number,
    length: number,
    writable: boolean,
  ): Sim<MemoryRegion> {
    const onDemand = this.scheme.kind === 'cache' ? 0 : ACCESS_ON_DEMAND;
    const where = { verbs: this.process.verbs, node: this.world.host.node };
    const access = (writable ? READ_WRITE : READ) | onDemand;
    return yield* registerRegion(where, pd, address, length, access);
  }

  /** Opens what tells the cache of changes. */
  private *listen(): Sim<InvalidationSource> {
    const { mm } = this.process;
    const source = this.scheme.kind === 'cache' ? this.scheme.source : 'none';
    switch (source) {
      case 'none':
        return new NoSource();
      case 'hooks':
        return this.hooks as HooksSource;
      case 'ummunotify':
        return yield* UmmunotifySource.open(this.world.ummunotify, mm);
      case 'perf':
        return yield* PerfSource.open(mm, PERF_RING);
    }
  }

  private *timed<T>(work: Sim<T>): Sim<T> {
    const { node } = this.world.host;
    const start = node.now;
    const result = yield* work;
    this.costPs += node.now - start;
    return result;
  }
}
