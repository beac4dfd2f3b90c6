/**
 * One process of the memory storm: random system calls, accesses by the CPU, by a virtual machine, by a GRU
 * and by the adapter over its loopback, each checked against a model of what memory should hold.
 *
 * A process does one thing at a time, so its model is exact; the storm is around it: other processes, and
 * the kernel moving, swapping, compacting and unplugging (`memory-disturber.ts`).
 */
import { Gru } from '../../kernel/clients/gru.ts';
import type { GruContext } from '../../kernel/clients/gru-context.ts';
import { UmmunotifySource } from '../../kernel/clients/invalidation-source-ummunotify.ts';
import { Kvm } from '../../kernel/clients/kvm.ts';
import { PerfEvents } from '../../kernel/clients/perf-events.ts';
import { RegistrationCache } from '../../kernel/clients/registration-cache.ts';
import { SkeletonV7 } from '../../kernel/clients/skeleton-v7.ts';
import { Ummunotify } from '../../kernel/clients/ummunotify.ts';
import type { Vcpu } from '../../kernel/clients/vcpu.ts';
import { VerbsRegistrar } from '../../kernel/clients/verbs-registrar.ts';
import type { Xpmem } from '../../kernel/clients/xpmem.ts';
import type { MoveMethod } from '../../kernel/driver/region-mover.ts';
import {
  type AddressSpace,
  type Host,
  type HostProcess,
  type MemoryRegion,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  SystemCallError,
  VerbsError,
} from '../../kernel/index.ts';
import { MAP_POPULATE, MAP_SHARED } from '../../kernel/mm/address-space.ts';
import {
  MADV_DONTNEED,
  MADV_FREE,
  MADV_HUGEPAGE,
  MADV_REMOVE,
  MADV_WILLNEED,
} from '../../kernel/mm/calls/advice.ts';
import { MCL_CURRENT, MCL_FUTURE } from '../../kernel/mm/calls/lock-calls.ts';
import type { MappedFile } from '../../kernel/mm/files/mapped-file.ts';
import type { MmuNotifier } from '../../kernel/mm/notify/mmu-notifiers.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  type RandomStream,
  SEND_SIGNALED,
  SIZE_MAX,
  US,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { type Endpoint, endpoint, join } from '../fixtures/loopback.ts';
import { CutFile } from './memory-file.ts';
import { MemoryModel, PAGE, RW } from './memory-model.ts';
import { type Access, WINDOW_PAGES, type Window } from './memory-window.ts';

/** What a process does its calls on: private memory that comes and goes. */
export const BASE = 0x7f00_0000_0000;
export const SPAN = 96;
/** Pages that are registered, pinned, and stay. */
const PINNED_BASE = BASE + 2 ** 31;
const PINNED_PAGES = 24;
/** What the adapter sends from and reads to. */
const STAGING = BASE + 2 ** 32;
const STAGING_PAGES = 8;
/** Shared memory, of the process and its children: only the process writes it. */
const SHARED_BASE = BASE + 3 * 2 ** 31;
const SHARED_PAGES = 8;
/** Where huge pages are welcome: two of them, of one process. */
const HUGE_BASE = BASE + 5 * 2 ** 31;
const HUGE_SPAN = 1024;
/** Memory that other processes attach. */
export const WINDOW_BASE = BASE + 7 * 2 ** 31;
/** The heap, which brk moves the end of. */
const HEAP_BASE = BASE + 9 * 2 ** 31;
const HEAP_PAGES = 24;
/** A file of the process alone, which it cuts. */
const CUT_BASE = BASE + 11 * 2 ** 31;
/** A file that all share; each writes its own part. */
const FILE_BASE = BASE + 2 ** 33;
export const FILE_SLICE = 12;
const RIGHTS = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_READ | ACCESS_REMOTE_WRITE;
const METHODS: readonly MoveMethod[] = ['retry', 'suspend', 'precopy'];
const OWN_LID = 1;

/** A client of the notifiers that checks how it is called: outside of the ledger that checks clients. */
class Witness implements MmuNotifier {
  isRegistered = false;
  private readonly open: { start: number; end: number }[] = [];

  constructor(readonly name: string) {}

  *invalidateRangeBegin(range: { start: number; end: number }): Sim<void> {
    this.check('begin');
    this.open.push(range);
    yield 50_000;
  }

  *invalidateRangeEnd(range: { start: number; end: number }): Sim<void> {
    this.check('end');
    const at = this.open.indexOf(range);
    // One that began before the registration was visible ends without a begin.
    if (at >= 0) this.open.splice(at, 1);
    yield 50_000;
  }

  /** Invalidations that began and have not ended. */
  get openCount(): number {
    return this.open.length;
  }

  private check(what: string): void {
    if (!this.isRegistered) throw new Error(`${this.name}: ${what} without a registration`);
  }
}

export class Actor {
  /** Operations done, by name: that a storm does what it says. */
  readonly done = new Map<string, number>();
  private model = new MemoryModel(SPAN);
  private pinnedModel = new MemoryModel(PINNED_PAGES);
  private fileModel = new MemoryModel(FILE_SLICE);
  private hugeModel = new MemoryModel(HUGE_SPAN);
  private sharedModel = new MemoryModel(SHARED_PAGES);
  private heapModel = new MemoryModel(HEAP_PAGES);
  private cutFile: CutFile | undefined;
  private heapPages = 0;
  /** What the process has attached of others. */
  private readonly accesses = new Map<Window, Access>();
  /** The child that runs in the memory of the process (vfork), while there is one. */
  private guestOf: AddressSpace | undefined;
  private readonly locked = new Set<number>();
  private ends: [Endpoint, Endpoint] | undefined;
  private staging: MemoryRegion | undefined;
  private implicit: MemoryRegion | undefined;
  private onDemand: { region: MemoryRegion; first: number; count: number } | undefined;
  private pinned: MemoryRegion | undefined;
  private vcpu: Vcpu | undefined;
  private kvm: Kvm | undefined;
  private gru: Gru | undefined;
  private context: GruContext | undefined;
  private cache: RegistrationCache<MemoryRegion> | undefined;
  private perf: PerfEvents | undefined;
  private readonly witness: Witness;
  private children = 0;
  /** Writes of shared memory under way: a child sees them or not. */
  private sharedUnsure = 0;

  constructor(
    private readonly host: Host,
    readonly process: HostProcess,
    private readonly random: RandomStream,
    private readonly file: MappedFile,
    private readonly slice: number,
    /** Room enough for huge pages. */
    private readonly hasHuge: boolean,
    private readonly xpmem: Xpmem,
    /** One for each process of the storm, its own at `slice`. */
    private readonly windows: readonly Window[],
    /** Room enough to lock everything. */
    private readonly mayLockAll: boolean,
  ) {
    this.witness = new Witness(`witness of ${process.name}`);
  }

  private get mm(): AddressSpace {
    return this.guestOf ?? this.process.mm;
  }

  /** The region that a disturber may move, while it is there. */
  get movable(): MemoryRegion | undefined {
    return this.pinned;
  }

  /** The life of the process: `count` operations, then its end. */
  *run(count: number): Sim<void> {
    yield* this.setUp();
    for (let i = 0; i < count; i++) {
      yield* this.step();
      if (i % 8 === 7) this.check();
      yield* this.host.sleep(this.random.below(20 * US));
    }
    while (this.children > 0) yield* this.host.sleep(100 * US);
    this.check();
    yield* this.tearDown(false);
    if (this.random.chance(500_000)) yield* this.window.lose(this.process.exit());
    else yield* this.endByHand();
  }

  private *setUp(): Sim<void> {
    const { mm, random } = this;
    const { verbs } = this.process;
    yield* mm.mmap(BASE, SPAN * PAGE, RW);
    this.model.map(0, SPAN, RW);
    yield* mm.mmap(PINNED_BASE, PINNED_PAGES * PAGE, RW);
    yield* mm.mmap(STAGING, STAGING_PAGES * PAGE, RW);
    yield* mm.touch(STAGING, STAGING_PAGES, true);
    this.pinnedModel.map(0, PINNED_PAGES, RW);
    yield* mm.mmap(SHARED_BASE, SHARED_PAGES * PAGE, RW, MAP_SHARED);
    this.sharedModel.map(0, SHARED_PAGES, RW);
    if (this.hasHuge) {
      yield* mm.mmap(HUGE_BASE, HUGE_SPAN * PAGE, RW);
      yield* mm.madvise(HUGE_BASE, HUGE_SPAN * PAGE, MADV_HUGEPAGE);
      this.hugeModel.map(0, HUGE_SPAN, RW);
    }
    const offset = this.slice * FILE_SLICE * PAGE;
    yield* mm.mmap(FILE_BASE, FILE_SLICE * PAGE, RW, MAP_SHARED, this.file, offset);
    yield* mm.write(FILE_BASE, new Uint8Array(FILE_SLICE * PAGE));
    this.fileModel.map(0, FILE_SLICE, RW);
    mm.setBrk(HEAP_BASE, HEAP_BASE);
    const { files } = this.host.ram;
    this.cutFile = new CutFile(files.open(`/cut by ${this.process.name}`), CUT_BASE);
    yield* this.cutFile.setUp(mm);
    yield* this.window.setUp(mm);
    const first = yield* endpoint(this.process);
    const second = yield* endpoint(this.process, first.pd);
    yield* join(first, second, OWN_LID);
    this.ends = [first, second];
    while (this.staging === undefined) yield* this.registerStaging(first.pd);
    if (random.chance(600_000)) {
      this.implicit = yield* verbs.regMr(first.pd, 0, SIZE_MAX, RIGHTS | ACCESS_ON_DEMAND);
    }
    if (random.chance(600_000)) {
      this.kvm = yield* Kvm.create(mm, { batchPages: random.chance(500_000) ? 1 : 512 });
      this.kvm.addSlot({ firstGfn: 0, pageCount: SPAN, address: BASE });
      const pages = new Map<number, number>();
      for (let page = 0; page < SPAN; page++) pages.set(page, page);
      this.vcpu = this.kvm.createVcpu(pages);
    }
    if (random.chance(600_000)) {
      this.gru = yield* Gru.open(mm, { tlbEntries: 16 });
      this.context = this.gru.createContext();
    }
    if (random.chance(400_000)) {
      const source = yield* UmmunotifySource.open(new Ummunotify(), mm);
      const registrar = new VerbsRegistrar(verbs, first.pd);
      this.cache = new RegistrationCache(mm, registrar, source, {
        release: 'lazy',
        budgetBytes: Number.POSITIVE_INFINITY,
      });
    }
    if (random.chance(300_000)) {
      this.perf = yield* PerfEvents.open(mm, { pageCount: 1, mode: 'drop' });
      yield* this.perf.addFilter(1, BASE, BASE + SPAN * PAGE);
    }
  }

  /** Where pins have to leave a node that may be unplugged, there may be no room for a while. */
  private *registerStaging(pd: number): Sim<void> {
    try {
      this.staging = yield* this.process.verbs.regMr(pd, STAGING, STAGING_PAGES * PAGE, RIGHTS);
    } catch (error) {
      if (!(error instanceof VerbsError) || error.errno !== 'ENOMEM') throw error;
      yield* this.host.sleep(500 * US);
    }
  }

  /** Ends what the process has at work on its memory; with `leaves`, only what cannot outlive its memory. */
  private *tearDown(leaves: boolean): Sim<void> {
    for (const access of [...this.accesses.values()]) yield* this.giveBack(access);
    if (this.cache) yield* this.cache.close();
    if (this.perf) yield* this.perf.close();
    this.cache = undefined;
    this.perf = undefined;
    if (!leaves) yield* this.endClients();
  }

  private *endClients(): Sim<void> {
    yield* this.setWitness(false);
    if (this.kvm) yield* this.kvm.destroy();
    if (this.gru) yield* this.gru.close();
    this.kvm = undefined;
    this.vcpu = undefined;
    this.gru = undefined;
    this.context = undefined;
  }

  /** Another program: what was registered, attached and modelled is gone, and the program starts afresh. */
  private *exec(): Sim<boolean> {
    // Children share memory with the process that its next program has no model of.
    if (this.children > 0) return false;
    const leaves = this.random.chance(500_000);
    yield* this.tearDown(leaves);
    const { notifiers } = this.mm;
    yield* this.window.lose(this.process.exec());
    if (leaves) {
      if (this.witness.isRegistered) yield* notifiers.detach(this.witness);
      this.witness.isRegistered = false;
      yield* this.endClients();
    }
    this.staging = undefined;
    this.implicit = undefined;
    this.pinned = undefined;
    this.onDemand = undefined;
    this.locked.clear();
    this.heapPages = 0;
    this.model = new MemoryModel(SPAN);
    this.pinnedModel = new MemoryModel(PINNED_PAGES);
    this.fileModel = new MemoryModel(FILE_SLICE);
    this.hugeModel = new MemoryModel(HUGE_SPAN);
    this.sharedModel = new MemoryModel(SHARED_PAGES);
    this.heapModel = new MemoryModel(HEAP_PAGES);
    yield* this.setUp();
    return true;
  }

  /** Gives everything back before the end, one thing after the other, as a tidy program does. */
  private *endByHand(): Sim<void> {
    const { verbs } = this.process;
    const regions = [this.staging, this.implicit, this.pinned, this.onDemand?.region];
    for (const region of regions) if (region) yield* verbs.deregMr(region);
    this.pinned = undefined;
    yield* this.window.remove();
    for (const { start, end } of [...this.mm.mappings()]) yield* this.mm.munmap(start, end - start);
    yield* this.process.exit();
  }

  private *step(): Sim<void> {
    const { random } = this;
    const first = random.below(SPAN);
    const most = random.chance(300_000) ? 48 : 10;
    const count = 1 + random.below(Math.min(most, SPAN - first));
    const name = NAMES[random.below(NAMES.length)] as (typeof NAMES)[number];
    try {
      const happened = yield* this.carryOut(name, first, count);
      if (happened) this.done.set(name, (this.done.get(name) ?? 0) + 1);
    } catch (error) {
      // What the machine may refuse at any time; nothing has changed then.
      const isRefusal = error instanceof SystemCallError || error instanceof VerbsError;
      if (!isRefusal || !REFUSALS.includes(error.errno)) throw error;
      this.done.set(`${name} ${error.errno}`, (this.done.get(`${name} ${error.errno}`) ?? 0) + 1);
    }
  }

  private *carryOut(name: string, first: number, count: number): Sim<boolean> {
    const { mm, model, random } = this;
    const [address, length] = [BASE + first * PAGE, count * PAGE];
    switch (name) {
      case 'mmap': {
        const prot = random.chance(850_000) ? RW : PROT_READ;
        const flags = random.chance(200_000) ? MAP_POPULATE : 0;
        yield* mm.mmap(address, length, prot, flags);
        model.map(first, count, prot);
        for (let page = first; page < first + count; page++) this.locked.delete(page);
        return true;
      }
      case 'munmap':
        yield* mm.munmap(address, length);
        model.unmap(first, count);
        for (let page = first; page < first + count; page++) this.locked.delete(page);
        return true;
      case 'mprotect': {
        if (!model.allows(first, count, PROT_READ)) return false;
        const prot = random.chance(600_000) ? RW : PROT_READ;
        yield* mm.mprotect(address, length, prot);
        model.protect(first, count, prot);
        return true;
      }
      case 'dontneed':
        // Locked memory is refused (EINVAL).
        if (!model.allows(first, count, PROT_READ) || this.isLocked(first, count)) return false;
        yield* mm.madvise(address, length, MADV_DONTNEED);
        model.zero(first, count);
        return true;
      case 'advise':
        if (!model.allows(first, count, PROT_READ)) return false;
        yield* mm.madvise(address, length, random.chance(500_000) ? MADV_WILLNEED : MADV_HUGEPAGE);
        return true;
      case 'mremap':
        return yield* this.remap(first, count);
      case 'mlock':
        if (!model.allows(first, count, PROT_READ) || this.locked.size + count > 24) return false;
        yield* mm.mlock(address, length);
        for (let page = first; page < first + count; page++) this.locked.add(page);
        return true;
      case 'munlock':
        if (!model.allows(first, count, PROT_READ)) return false;
        yield* mm.munlock(address, length);
        for (let page = first; page < first + count; page++) this.locked.delete(page);
        return true;
      case 'touch':
        if (!model.allows(first, count, PROT_READ)) return false;
        yield* mm.touch(address, count, false);
        return true;
      case 'write':
        return yield* this.writeBy(first, count, (at, bytes) => mm.write(at, bytes));
      case 'fork':
        return yield* this.fork();
      case 'witness':
        yield* this.setWitness(!this.witness.isRegistered);
        return true;
      case 'free':
        if (!model.allows(first, count, PROT_READ) || this.isLocked(first, count)) return false;
        yield* mm.madvise(address, length, MADV_FREE);
        model.free(first, count);
        return true;
      case 'shared remove': {
        const page = first % SHARED_PAGES;
        const pages = 1 + (count % (SHARED_PAGES - page));
        this.sharedUnsure++;
        yield* mm.madvise(SHARED_BASE + page * PAGE, pages * PAGE, MADV_REMOVE);
        this.sharedModel.zero(page, pages);
        this.sharedUnsure--;
        return true;
      }
      case 'brk':
        return yield* this.useHeap();
      case 'cut file':
        return yield* this.useCutFile();
      case 'mlockall':
        return yield* this.lockAll(first, count);
      case 'vfork':
        return yield* this.vfork();
      case 'exec':
        return yield* this.exec();
      case 'window':
        return yield* this.useWindow();
      case 'attached':
        return yield* this.useAttached();
      case 'huge':
        return this.hasHuge && (yield* this.useHuge());
      case 'shared write': {
        const at = random.below(SHARED_PAGES * PAGE - 9000);
        const bytes = this.pattern(1 + random.below(8000));
        this.sharedModel.write(at, bytes);
        this.sharedUnsure++;
        yield* mm.write(SHARED_BASE + at, bytes);
        this.sharedUnsure--;
        return true;
      }
      case 'file write': {
        const at = random.below(FILE_SLICE * PAGE - 9000);
        const bytes = this.pattern(1 + random.below(8000));
        yield* mm.write(FILE_BASE + at, bytes);
        this.fileModel.write(at, bytes);
        return true;
      }
      default:
        return yield* this.useDevice(name, first, count);
    }
  }

  private *useDevice(name: string, first: number, count: number): Sim<boolean> {
    const { vcpu, context, implicit } = this;
    switch (name) {
      case 'guest write':
        if (vcpu === undefined) return false;
        return yield* this.writeBy(first, count, (at, bytes) => vcpu.write(at - BASE, bytes));
      case 'guest read':
        if (vcpu === undefined) return false;
        return yield* this.readBy(first, count, (at, length) => vcpu.read(at - BASE, length));
      case 'gru write':
        if (context === undefined) return false;
        return yield* this.writeBy(first, count, (at, bytes) => context.write(at, bytes));
      case 'gru read':
        if (context === undefined) return false;
        return yield* this.readBy(first, count, (at, length) => context.read(at, length));
      case 'skeleton':
        return yield* this.useSkeleton(first, count);
      case 'implicit write':
        if (implicit === undefined) return false;
        return yield* this.rdmaWrite(implicit, this.model, BASE, first, count);
      case 'implicit read':
        if (implicit === undefined) return false;
        return yield* this.rdmaRead(implicit, this.model, BASE, first, count);
      case 'on demand':
        return yield* this.useOnDemand(first, count);
      case 'pinned':
        return yield* this.usePinned();
      case 'move':
        return yield* this.movePinned();
      case 'cache':
        return yield* this.useCache(first, count);
      default:
        return false;
    }
  }

  private *remap(first: number, count: number): Sim<boolean> {
    const to = this.random.below(SPAN - count + 1);
    const isApart = to >= first + count || to + count <= first;
    if (!isApart || !this.model.isUniform(first, count) || this.isLocked(first, count))
      return false;
    if (this.isLocked(to, count)) return false;
    try {
      yield* this.mm.mremap(BASE + first * PAGE, count * PAGE, BASE + to * PAGE, count * PAGE);
    } catch (error) {
      // Alike to the model, but not one mapping: under different advice, say.
      if (error instanceof SystemCallError && error.errno === 'EFAULT') return false;
      throw error;
    }
    this.model.move(first, count, to);
    return true;
  }

  /** Something with memory of huge pages: mostly writes, and now and then what splits one. */
  private *useHuge(): Sim<boolean> {
    const { mm, random, hugeModel } = this;
    const first = random.below(HUGE_SPAN);
    const count = 1 + random.below(Math.min(HUGE_SPAN - first, 40));
    const [address, length] = [HUGE_BASE + first * PAGE, count * PAGE];
    switch (random.below(10)) {
      case 0:
        yield* mm.madvise(address, length, MADV_DONTNEED);
        hugeModel.zero(first, count);
        return true;
      case 1:
        yield* mm.mprotect(address, length, PROT_READ);
        yield* mm.mprotect(address, length, RW);
        return true;
      case 2: {
        // The area as a whole anew: huge pages again.
        const half = random.below(2) * 512;
        yield* mm.mmap(HUGE_BASE + half * PAGE, 512 * PAGE, RW);
        yield* mm.madvise(HUGE_BASE + half * PAGE, 512 * PAGE, MADV_HUGEPAGE);
        hugeModel.map(half, 512, RW);
        return true;
      }
      case 3:
        if (this.implicit === undefined) return false;
        return yield* this.rdmaRead(this.implicit, hugeModel, HUGE_BASE, first, count);
      case 4:
        if (this.implicit === undefined) return false;
        return yield* this.rdmaWrite(this.implicit, hugeModel, HUGE_BASE, first, count);
      default: {
        const bytes = this.pattern(1 + random.below(length));
        yield* mm.write(address, bytes);
        hugeModel.write(first * PAGE, bytes);
        return true;
      }
    }
  }

  private *useHeap(): Sim<boolean> {
    const { mm, random, heapModel } = this;
    if (random.chance(500_000)) {
      const pages = random.below(HEAP_PAGES + 1);
      const old = this.heapPages;
      yield* mm.brk(HEAP_BASE + pages * PAGE - random.below(pages > 0 ? PAGE : 1));
      this.heapPages = pages;
      if (pages > old) heapModel.map(old, pages - old, RW);
      else heapModel.unmap(pages, old - pages);
      return true;
    }
    if (this.heapPages === 0) return false;
    const first = random.below(this.heapPages);
    if (this.implicit && random.chance(300_000)) {
      return yield* this.rdmaWrite(this.implicit, heapModel, HEAP_BASE, first, 1);
    }
    const bytes = this.pattern(1 + random.below((this.heapPages - first) * PAGE));
    yield* mm.write(HEAP_BASE + first * PAGE, bytes);
    heapModel.write(first * PAGE, bytes);
    return true;
  }

  private *useCutFile(): Sim<boolean> {
    const { random, implicit } = this;
    const cutFile = this.cutFile as CutFile;
    const pages = cutFile.wholePages;
    if (implicit === undefined || pages === 0 || random.chance(700_000)) {
      yield* cutFile.step(this.mm, random, this.pattern(1 + random.below(3 * PAGE)));
      return true;
    }
    const first = random.below(pages);
    const count = 1 + random.below(pages - first);
    if (random.chance(500_000)) {
      return yield* this.rdmaWrite(implicit, cutFile.model, CUT_BASE, first, count);
    }
    return yield* this.rdmaRead(implicit, cutFile.model, CUT_BASE, first, count);
  }

  /** Everything is locked for a while, or what is mapped meanwhile, or both. */
  private *lockAll(first: number, count: number): Sim<boolean> {
    const { mm, random, model, locked } = this;
    if (!this.mayLockAll) return false;
    const flags = 1 + random.below(MCL_CURRENT | MCL_FUTURE);
    let isLocked = false;
    try {
      yield* mm.mlockall(flags);
      isLocked = true;
      if (flags & MCL_CURRENT) {
        this.cutFile?.copyPrivate();
        for (let page = 0; page < SPAN; page++) if (model.allows(page, 1, 0)) locked.add(page);
      }
      if (flags & MCL_FUTURE) {
        yield* mm.mmap(BASE + first * PAGE, count * PAGE, RW);
        model.map(first, count, RW);
        for (let page = first; page < first + count; page++) locked.add(page);
      }
      yield* this.host.sleep(random.below(200 * US));
      this.check();
      yield* this.carryOut('write', first, count);
      yield* this.carryOut('implicit write', first, count);
      this.check();
    } finally {
      yield* mm.munlockall();
      locked.clear();
      if (!isLocked) yield* (this.cutFile as CutFile).remapPrivate(mm);
    }
    return true;
  }

  /** A child does some calls in the memory of the process, and then starts a program of its own, or ends. */
  private *vfork(): Sim<boolean> {
    const { random } = this;
    const child = yield* this.process.mm.vfork();
    this.guestOf = child;
    try {
      for (let i = random.below(4); i > 0; i--) {
        const first = random.below(SPAN);
        const count = 1 + random.below(Math.min(10, SPAN - first));
        const name = VFORK_NAMES[random.below(VFORK_NAMES.length)] as string;
        yield* this.carryOut(name, first, count);
      }
      if (random.chance(500_000)) yield* child.exec();
    } finally {
      this.guestOf = undefined;
    }
    if (child.state === this.process.mm.state) {
      yield* child.exit();
      return true;
    }
    this.children++;
    const actor = this;
    const bytes = this.pattern(8 * PAGE);
    this.host.spawn(
      'program',
      (function* (): Sim<void> {
        const model = new MemoryModel(16);
        yield* child.mmap(BASE, 16 * PAGE, RW);
        model.map(0, 16, RW);
        yield* child.write(BASE + 3 * PAGE, bytes);
        model.write(3 * PAGE, bytes);
        yield* actor.host.sleep(100 * US);
        actor.compare(child, model, BASE, 0, 16, 'a program');
        yield* child.exit();
        actor.children--;
      })(),
    );
    return true;
  }

  private get window(): Window {
    return this.windows[this.slice] as Window;
  }

  /** Its own memory that others have attached: writes to it, and changes under their hands. */
  private *useWindow(): Sim<boolean> {
    const { random, window, implicit, mm } = this;
    const page = random.below(WINDOW_PAGES);
    const value = 1 + random.below(255);
    const choice = random.below(10);
    if (choice === 0) {
      yield* window.remove();
      yield* this.host.sleep(random.below(50 * US));
      yield* window.share(mm);
      return true;
    }
    if (choice < 5) {
      yield* window.disturb(mm, random);
      return true;
    }
    if (choice < 8 || implicit === undefined) {
      return yield* window.writeOwn(this.slice, page, value, (at, bytes) => mm.write(at, bytes));
    }
    const actor = this;
    return yield* window.writeOwn(this.slice, page, value, function* (at, bytes) {
      yield* mm.write(STAGING, bytes);
      yield* actor.transfer(WR_RDMA_WRITE, bytes.length, at, implicit);
    });
  }

  /** Memory of another process, attached: reads, writes, and now and then a fresh attachment. */
  private *useAttached(): Sim<boolean> {
    const { random, accesses, windows } = this;
    const window = windows[random.below(windows.length)] as Window;
    const access = accesses.get(window);
    if (access && (access.segid !== window.segid || random.chance(80_000))) {
      yield* this.giveBack(access);
      return true;
    }
    if (access === undefined) {
      const { segid } = window;
      if (segid === 0) return false;
      const apid = this.xpmem.get(segid, true);
      const attachment = this.xpmem.attach(apid, 0, WINDOW_PAGES * PAGE);
      accesses.set(window, { window, segid, apid, attachment });
      return true;
    }
    let happened = false;
    for (let i = 1 + random.below(8); i > 0; i--) {
      const page = random.below(WINDOW_PAGES);
      // The lane of the owner is the owner's; its own window is read as others read it.
      const isWrite = window !== this.window && random.chance(500_000);
      const done = isWrite
        ? yield* window.writeBy(access, this.slice, page, 1 + random.below(255))
        : yield* window.readBy(access, random.below(windows.length), page);
      happened = happened || done;
    }
    return happened;
  }

  private *giveBack({ window, apid }: Access): Sim<void> {
    this.accesses.delete(window);
    yield* this.xpmem.release(apid);
  }

  /** A child looks at what it inherited, writes some of it, looks again, and ends; meanwhile life goes on. */
  private *fork(): Sim<boolean> {
    if (this.children > 1) return false;
    const child = yield* this.mm.fork(`${this.process.name} child`);
    const model = this.model.copy();
    // Whatever attachers write from now on is not the child's.
    const inherited = child.hash(WINDOW_BASE, WINDOW_PAGES * PAGE);
    const seed = this.random.below(1000);
    this.children++;
    const actor = this;
    this.host.spawn(
      'child',
      (function* (): Sim<void> {
        for (let i = 0; i < 3; i++) {
          yield* actor.host.sleep(((seed * 7 + i * 13) % 300) * US);
          actor.compare(child, model, BASE, 0, SPAN, 'a child');
          if (actor.sharedUnsure === 0) {
            actor.compare(
              child,
              actor.sharedModel,
              SHARED_BASE,
              0,
              SHARED_PAGES,
              'a child, shared',
            );
          }
          const page = (seed + i * 31) % SPAN;
          if (!model.allows(page, 1, PROT_WRITE)) continue;
          const bytes = new Uint8Array(PAGE).fill(seed + i);
          yield* child.write(BASE + page * PAGE, bytes);
          model.write(page * PAGE, bytes);
        }
        actor.compare(child, model, BASE, 0, SPAN, 'a child');
        if (child.hash(WINDOW_BASE, WINDOW_PAGES * PAGE) !== inherited) {
          throw new Error(`a child of ${actor.process.name} sees what an attacher has written`);
        }
        yield* child.exit();
        actor.children--;
      })(),
    );
    return true;
  }

  private *setWitness(wanted: boolean): Sim<void> {
    const { witness, mm } = this;
    if (witness.isRegistered === wanted) return;
    if (wanted) {
      witness.isRegistered = true;
      yield* mm.notifiers.attach(witness);
    } else {
      yield* mm.notifiers.detach(witness);
      witness.isRegistered = false;
    }
  }

  private *useSkeleton(first: number, count: number): Sim<boolean> {
    if (!this.model.allows(first, count, PROT_WRITE)) return false;
    const skeleton = new SkeletonV7(this.mm);
    yield* this.mm.notifiers.attach(skeleton);
    for (let page = first; page < first + Math.min(count, 6); page++) {
      yield* skeleton.populate(BASE + page * PAGE, this.random.chance(300_000), true);
      yield* this.host.sleep(this.random.below(10 * US));
    }
    yield* this.mm.notifiers.detach(skeleton);
    return true;
  }

  private *useOnDemand(first: number, count: number): Sim<boolean> {
    const { verbs } = this.process;
    const { onDemand, random } = this;
    if (onDemand === undefined) {
      const { pd } = this.firstEnd;
      const access = RIGHTS | ACCESS_ON_DEMAND;
      const region = yield* verbs.regMr(pd, BASE + first * PAGE, count * PAGE, access);
      this.onDemand = { region, first, count };
      return true;
    }
    if (random.chance(150_000)) {
      this.onDemand = undefined;
      yield* verbs.deregMr(onDemand.region);
      return true;
    }
    const from = onDemand.first + random.below(onDemand.count);
    const pages = 1 + random.below(onDemand.first + onDemand.count - from);
    if (random.chance(500_000)) {
      return yield* this.rdmaWrite(onDemand.region, this.model, BASE, from, pages);
    }
    return yield* this.rdmaRead(onDemand.region, this.model, BASE, from, pages);
  }

  private *usePinned(): Sim<boolean> {
    const { verbs } = this.process;
    const { pinned, random } = this;
    if (pinned === undefined) {
      this.pinned = yield* verbs.regMr(this.firstEnd.pd, PINNED_BASE, PINNED_PAGES * PAGE, RIGHTS);
      return true;
    }
    if (random.chance(150_000)) {
      this.pinned = undefined;
      yield* verbs.deregMr(pinned);
      return true;
    }
    const first = random.below(PINNED_PAGES);
    const count = 1 + random.below(PINNED_PAGES - first);
    if (random.chance(600_000)) {
      return yield* this.rdmaWrite(pinned, this.pinnedModel, PINNED_BASE, first, count);
    }
    return yield* this.rdmaRead(pinned, this.pinnedModel, PINNED_BASE, first, count);
  }

  private *movePinned(): Sim<boolean> {
    const { pinned, random } = this;
    if (pinned === undefined) return false;
    const method = METHODS[random.below(METHODS.length)] as MoveMethod;
    const thread = this.host.spawn(
      'mover',
      this.process.verbs.moveMr(pinned, random.below(2), method),
    );
    // The adapter and the CPU go on meanwhile.
    for (let i = 0; i < 40 && !thread.done.done; i++) {
      const first = random.below(PINNED_PAGES);
      const count = 1 + random.below(PINNED_PAGES - first);
      if (i % 2 === 0) {
        yield* this.rdmaWrite(pinned, this.pinnedModel, PINNED_BASE, first, count);
        continue;
      }
      const bytes = this.pattern(count * PAGE);
      yield* this.mm.write(PINNED_BASE + first * PAGE, bytes);
      this.pinnedModel.write(first * PAGE, bytes);
    }
    yield thread.done;
    return true;
  }

  /** A transfer whose memory a registration cache registers, told by ummunotify what to forget. */
  private *useCache(first: number, count: number): Sim<boolean> {
    const { cache } = this;
    if (cache === undefined || !this.model.allows(first, count, PROT_WRITE)) return false;
    const lease = yield* cache.acquire(BASE + first * PAGE, count * PAGE, true);
    yield* this.rdmaWrite(lease.handle, this.model, BASE, first, count);
    yield* this.rdmaRead(lease.handle, this.model, BASE, first, count);
    yield* cache.release(lease);
    return true;
  }

  /** RDMA WRITE into up to STAGING_PAGES pages of a region, through the adapter's loopback. */
  private *rdmaWrite(
    region: MemoryRegion,
    model: MemoryModel,
    base: number,
    first: number,
    count: number,
  ): Sim<boolean> {
    const pages = Math.min(count, STAGING_PAGES);
    if (!model.allows(first, pages, PROT_WRITE)) return false;
    const skip = this.random.below(PAGE);
    const bytes = this.pattern(1 + this.random.below(pages * PAGE - skip));
    yield* this.mm.write(STAGING, bytes);
    yield* this.transfer(WR_RDMA_WRITE, bytes.length, base + first * PAGE + skip, region);
    model.write(first * PAGE + skip, bytes);
    return true;
  }

  /** RDMA READ of up to STAGING_PAGES pages of a region, compared with the model. */
  private *rdmaRead(
    region: MemoryRegion,
    model: MemoryModel,
    base: number,
    first: number,
    count: number,
  ): Sim<boolean> {
    const pages = Math.min(count, STAGING_PAGES);
    if (!model.allows(first, pages, PROT_READ)) return false;
    yield* this.transfer(WR_RDMA_READ, pages * PAGE, base + first * PAGE, region);
    const got = this.mm.read(STAGING, pages * PAGE);
    model.expect(first * PAGE, got, `an RDMA READ of ${this.process.name}`);
    return true;
  }

  private *transfer(opcode: number, length: number, to: number, target: MemoryRegion): Sim<void> {
    const { verbs } = this.process;
    const { qp, cq } = this.firstEnd;
    yield* verbs.postSend(qp, {
      opcode,
      wrId: 1,
      flags: SEND_SIGNALED,
      sges: [{ address: STAGING, length, lkey: (this.staging as MemoryRegion).lkey }],
      remoteAddress: to,
      rkey: target.rkey,
    });
    const { status } = yield* cq.next();
    if (status !== WC_SUCCESS) throw new Error(`a transfer ends with status ${status}`);
  }

  private get firstEnd(): Endpoint {
    return (this.ends as [Endpoint, Endpoint])[0];
  }

  private *writeBy(
    first: number,
    count: number,
    write: (address: number, bytes: Uint8Array) => Sim<void>,
  ): Sim<boolean> {
    if (!this.model.allows(first, count, PROT_WRITE)) return false;
    const skip = this.random.below(PAGE);
    const bytes = this.pattern(1 + this.random.below(count * PAGE - skip));
    yield* write(BASE + first * PAGE + skip, bytes);
    this.model.write(first * PAGE + skip, bytes);
    return true;
  }

  private *readBy(
    first: number,
    count: number,
    read: (address: number, length: number) => Sim<Uint8Array>,
  ): Sim<boolean> {
    if (!this.model.allows(first, count, PROT_READ)) return false;
    const bytes = yield* read(BASE + first * PAGE, count * PAGE);
    this.model.expect(first * PAGE, bytes, `a read of a device of ${this.process.name}`);
    return true;
  }

  private isLocked(first: number, count: number): boolean {
    for (let page = first; page < first + count; page++) if (this.locked.has(page)) return true;
    return false;
  }

  private pattern(length: number): Uint8Array {
    const start = this.random.below(251);
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = start + i * 7 + (i >> 8);
    return bytes;
  }

  /** Compares all memory of the process with the models, and what the kernel promised of it. */
  check(): void {
    this.compare(this.mm, this.model, BASE, 0, SPAN, 'private memory');
    this.compare(this.mm, this.pinnedModel, PINNED_BASE, 0, PINNED_PAGES, 'pinned memory');
    if (this.hasHuge) {
      this.compare(this.mm, this.hugeModel, HUGE_BASE, 0, HUGE_SPAN, 'huge pages');
    }
    this.compare(this.mm, this.sharedModel, SHARED_BASE, 0, SHARED_PAGES, 'shared memory');
    this.compare(this.mm, this.fileModel, FILE_BASE, 0, FILE_SLICE, 'a shared file');
    this.compare(this.mm, this.heapModel, HEAP_BASE, 0, HEAP_PAGES, 'the heap');
    this.cutFile?.check(this.mm);
    this.window.check(this.mm);
    for (const page of this.locked) {
      const frame = this.mm.pages.followPage(BASE / PAGE + page, false);
      const moving = this.host.ram.migration.entries.count > 0;
      const isReadable = this.model.allows(page, 1, PROT_READ);
      if (frame < 0 && !moving && isReadable) throw new Error('a locked page is not present');
    }
  }

  private compare(
    mm: AddressSpace,
    model: MemoryModel,
    base: number,
    first: number,
    count: number,
    what: string,
  ): void {
    const got = mm.read(base + first * PAGE, count * PAGE);
    model.expect(first * PAGE, got, `${what} of ${this.process.name}`);
  }
}

const NAMES = [
  'mmap',
  'mmap',
  'mmap',
  'munmap',
  'mprotect',
  'dontneed',
  'advise',
  'mremap',
  'mlock',
  'munlock',
  'touch',
  'write',
  'write',
  'write',
  'write',
  'fork',
  'witness',
  'file write',
  'shared write',
  'huge',
  'huge',
  'guest write',
  'guest read',
  'gru write',
  'gru read',
  'skeleton',
  'guest write',
  'gru write',
  'implicit write',
  'implicit write',
  'implicit read',
  'on demand',
  'on demand',
  'pinned',
  'pinned',
  'move',
  'cache',
  'window',
  'window',
  'window',
  'attached',
  'attached',
  'attached',
  'attached',
  'free',
  'shared remove',
  'brk',
  'brk',
  'cut file',
  'cut file',
  'mlockall',
  'vfork',
  'exec',
] as const;

/** What a child does in its parent's memory. */
const VFORK_NAMES = ['mmap', 'munmap', 'mprotect', 'dontneed', 'mremap', 'write', 'write', 'free'];

const REFUSALS: readonly string[] = ['ENOMEM', 'EAGAIN'];
