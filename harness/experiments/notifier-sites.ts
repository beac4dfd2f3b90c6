/**
 * Every place in the memory manager that tells the notifiers (S2: seed 000, patches 2 and 3, and what has
 * come to them since).
 *
 * Each row is one call or mechanism with a client registered that writes down what it hears. Look at which
 * callbacks come, in which order, for which pages, with which cause, and which locks are held: "atomic"
 * callbacks must not sleep. The expected column is what the patches say; one difference is intended: V6
 * has the reverse map's sites call invalidate_page alone, today's Linux puts a range around it, and so do we.
 */
import {
  type AddressSpace,
  type Host,
  type Invalidation,
  MADV_DONTNEED,
  MADV_FREE,
  MADV_REMOVE,
  MAP_HUGETLB,
  MAP_SHARED,
  type MappedFile,
  type MmuNotifier,
  movePages,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
} from '../../kernel/index.ts';
import { MS } from '../../transport/index.ts';
import type { Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const BASE = 0x7f0000000000;
const RW = PROT_READ | PROT_WRITE;
const HUGE_BYTES = 2 ** 21;
/** Pages of the mapping that most sites work on. */
const PAGES = 8;

/** Where a site is tried: a host with one process, and a file that some map. */
export interface SiteWorld {
  readonly host: Host;
  readonly mm: AddressSpace;
  readonly file: MappedFile;
}

export interface Site {
  /** The kernel function that announces, and how it was got to. */
  readonly name: string;
  /** What the client hears, in order. */
  readonly expected: readonly string[];
  /** What is mapped before the client listens; PAGES anonymous pages that were written by default. */
  readonly prepare?: (world: SiteWorld) => Sim<unknown>;
  readonly act: (world: SiteWorld) => Sim<unknown>;
}

/** A begin and its end, with the locks that are held at both. */
function pair(what: string, locks: string): readonly string[] {
  return [`begin ${what} (${locks})`, `end ${what} (${locks})`];
}

/** What the reverse map's sites call for one page. */
function page(cause: string): readonly string[] {
  return [
    `begin ${cause} 0-1 (page)`,
    `page ${cause} 0 atomic (page, page table)`,
    `end ${cause} 0-1 (page)`,
  ];
}

function* mapFile({ mm, file }: SiteWorld): Sim<void> {
  yield* mm.mmap(BASE, PAGES * PAGE_BYTES, RW, MAP_SHARED, file);
  yield* mm.touch(BASE, PAGES, true);
}

function* mapHuge({ mm }: SiteWorld): Sim<void> {
  yield* mm.mmap(BASE, HUGE_BYTES, RW, MAP_HUGETLB);
  yield* mm.touch(BASE, 1, true);
}

/** Reclaims until the first page is gone. */
function* evict({ host, mm }: SiteWorld): Sim<void> {
  for (let round = 0; round < 64 && mm.pages.followPage(BASE / PAGE_BYTES, false) >= 0; round++) {
    yield* host.ram.reclaim.shrink(1);
    yield* host.sleep(1 * MS);
  }
}

export const sites: readonly Site[] = [
  {
    name: 'unmap_region (munmap)',
    expected: pair('unmap 2-6', 'mmap write'),
    act: ({ mm }) => mm.munmap(BASE + 2 * PAGE_BYTES, 4 * PAGE_BYTES),
  },
  {
    name: 'unmap_region (mmap over a mapping)',
    expected: pair('unmap 0-8', 'mmap write'),
    act: ({ mm }) => mm.mmap(BASE, PAGES * PAGE_BYTES, PROT_READ),
  },
  {
    name: 'unmap_region (brk)',
    expected: pair('unmap 4-8', 'mmap write'),
    *prepare({ mm }) {
      mm.setBrk(BASE, BASE);
      yield* mm.brk(BASE + PAGES * PAGE_BYTES);
      yield* mm.touch(BASE, PAGES, true);
    },
    act: ({ mm }) => mm.brk(BASE + 4 * PAGE_BYTES),
  },
  {
    name: 'zap_page_range (madvise DONTNEED)',
    expected: pair('clear 1-3', 'mmap read'),
    act: ({ mm }) => mm.madvise(BASE + PAGE_BYTES, 2 * PAGE_BYTES, MADV_DONTNEED),
  },
  {
    name: 'madvise_free_single_vma (madvise FREE)',
    expected: pair('clear 0-8', 'mmap read'),
    act: ({ mm }) => mm.madvise(BASE, PAGES * PAGE_BYTES, MADV_FREE),
  },
  {
    name: 'unmap_mapping_range (truncate)',
    expected: pair('clear 4-8 atomic', 'file mappings'),
    prepare: mapFile,
    act: ({ host, file }) => host.ram.files.truncate(file, 4 * PAGE_BYTES),
  },
  {
    name: 'unmap_mapping_range (madvise REMOVE)',
    expected: pair('clear 2-3 atomic', 'file mappings'),
    *prepare({ mm }) {
      yield* mm.mmap(BASE, PAGES * PAGE_BYTES, RW, MAP_SHARED);
      yield* mm.touch(BASE, PAGES, true);
    },
    act: ({ mm }) => mm.madvise(BASE + 2 * PAGE_BYTES, PAGE_BYTES, MADV_REMOVE),
  },
  {
    name: 'copy_page_range (fork)',
    expected: pair('cow 0-8', 'mmap write'),
    act: ({ mm }) => mm.fork('child'),
  },
  {
    name: 'do_wp_page (write after fork)',
    expected: pair('cow 3-4', 'mmap read'),
    *prepare({ mm }) {
      yield* mm.mmap(BASE, PAGES * PAGE_BYTES, RW);
      yield* mm.touch(BASE, PAGES, true);
      yield* mm.fork('child');
    },
    act: ({ mm }) => mm.touch(BASE + 3 * PAGE_BYTES, 1, true),
  },
  {
    name: 'move_page_tables (mremap)',
    expected: pair('move 0-8', 'mmap write'),
    act: ({ mm }) =>
      mm.mremap(BASE, PAGES * PAGE_BYTES, BASE + 64 * PAGE_BYTES, PAGES * PAGE_BYTES),
  },
  {
    name: 'mprotect_fixup (mprotect)',
    expected: pair('protection 0-2', 'mmap write'),
    act: ({ mm }) => mm.mprotect(BASE, 2 * PAGE_BYTES, PROT_READ),
  },
  {
    name: 'sys_remap_file_pages',
    expected: pair('unmap 0-2', 'mmap write'),
    prepare: mapFile,
    act: ({ mm }) => mm.remapFilePages(BASE, 2 * PAGE_BYTES, 6),
  },
  {
    name: 'remap_pfn_range (a driver)',
    expected: pair('clear 0-2', 'mmap write'),
    act: ({ mm }) => mm.remapPfnRange(BASE, 2 * PAGE_BYTES, 4),
  },
  {
    name: 'apply_to_page_range (a driver)',
    expected: pair('clear 0-2', 'mmap write'),
    act: ({ mm }) => mm.applyToPageRange(BASE, 2 * PAGE_BYTES, (_page, pte) => pte),
  },
  {
    name: '__unmap_hugepage_range (munmap of huge pages)',
    expected: [
      'begin unmap 0-512 (mmap write)',
      'begin unmap 0-512 atomic (mmap write, file mappings)',
      'end unmap 0-512 atomic (mmap write, file mappings)',
      'end unmap 0-512 (mmap write)',
    ],
    prepare: mapHuge,
    act: ({ mm }) => mm.munmap(BASE, HUGE_BYTES),
  },
  {
    name: '__xip_unmap (a hole of an execute-in-place file is filled)',
    expected: pair('clear 0-1 atomic', 'mmap read, file mappings'),
    *prepare({ host, mm }) {
      const xip = host.ram.files.openXip('/xip', PAGES * PAGE_BYTES);
      yield* mm.mmap(BASE, PAGES * PAGE_BYTES, RW, MAP_SHARED, xip);
      yield* mm.touch(BASE, 1, false);
    },
    act: ({ mm }) => mm.touch(BASE, 1, true),
  },
  {
    name: 'page_referenced and try_to_unmap (swap-out)',
    expected: ['age 0 atomic (page table)', ...page('swap')],
    *prepare({ mm }) {
      yield* mm.mmap(BASE, PAGE_BYTES, RW);
      yield* mm.touch(BASE, 1, true);
    },
    act: evict,
  },
  {
    name: 'try_to_unmap_cluster (a page of a file mapped out of order is reclaimed)',
    expected: ['age 0 atomic (page table)', ...page('swap')],
    *prepare({ host, mm, file }) {
      yield* mm.mmap(BASE, 2 * PAGE_BYTES, RW, MAP_SHARED, file);
      yield* mm.remapFilePages(BASE, PAGE_BYTES, 9);
      yield* mm.touch(BASE, 1, false);
      yield* host.sleep(1 * MS);
    },
    act: evict,
  },
  {
    name: 'try_to_unmap (migration)',
    expected: page('migrate'),
    *prepare({ mm }) {
      yield* mm.mmap(BASE, PAGE_BYTES, RW);
      yield* mm.touch(BASE, 1, true);
    },
    act: ({ mm }) => movePages(mm.state, [BASE], [1]),
  },
  {
    name: 'page_mkclean (writeback of a shared file)',
    expected: page('protection'),
    *prepare({ mm, file }) {
      yield* mm.mmap(BASE, PAGE_BYTES, RW, MAP_SHARED, file);
      yield* mm.touch(BASE, 1, true);
    },
    act: ({ host, file }) => host.ram.files.sync(file),
  },
  {
    name: 'exit_mmap',
    expected: ['release 8 pages mapped ()'],
    act: ({ mm }) => mm.exit(),
  },
  {
    name: 'exec_mmap',
    expected: ['release 8 pages mapped ()'],
    act: ({ mm }) => mm.exec(),
  },
];

/** A client of the list that writes down what it hears, and which locks are held then. */
class Listener implements MmuNotifier {
  readonly name = 'listener';
  readonly heard: string[] = [];
  listens = false;

  constructor(private readonly world: SiteWorld) {}

  *release(): Sim<void> {
    const { state } = this.world.mm;
    this.note(`release ${state.vmas.totalPages} pages mapped`, -1);
    yield 0;
  }

  *agePage(address: number): Sim<boolean> {
    this.note(`age ${index(address)} atomic`, address);
    yield 0;
    return false;
  }

  *invalidatePage(address: number, cause: string): Sim<void> {
    this.note(`page ${cause} ${index(address)} atomic`, address);
    yield 0;
  }

  *invalidateRangeBegin(range: Invalidation): Sim<void> {
    this.hear('begin', range);
    yield 0;
  }

  *invalidateRangeEnd(range: Invalidation): Sim<void> {
    this.hear('end', range);
    yield 0;
  }

  private hear(call: string, { start, end, cause, atomic }: Invalidation): void {
    const pages = `${index(start)}-${index(end)}${atomic ? ' atomic' : ''}`;
    this.note(`${call} ${cause} ${pages}`, start);
  }

  private note(what: string, address: number): void {
    if (!this.listens) return;
    const line = `${what} (${this.locks(address)})`;
    // Reclaim may look at a page several times before it takes it.
    if (!(line.startsWith('age') && this.heard.at(-1) === line)) this.heard.push(line);
  }

  private locks(address: number): string {
    const { host, mm } = this.world;
    const { ram } = host;
    const { lock, tableLock } = mm.state;
    const held: string[] = [];
    if (lock.writeLocked) held.push('mmap write');
    else if (lock.readLocked) held.push('mmap read');
    if (ram.files.all().some(({ mappingLock }) => mappingLock.locked)) held.push('file mappings');
    if (address >= 0 && this.lockedPage) held.push('page');
    if (tableLock.locked) held.push('page table');
    return held.join(', ');
  }

  /** Whether somebody has the first page to himself; nothing else locks pages here. */
  private get lockedPage(): boolean {
    const { frames, pageLocks } = this.world.host.ram;
    for (let frame = 0; frame < frames.count; frame++) if (pageLocks.isLocked(frame)) return true;
    return false;
  }
}

function index(address: number): number {
  return (address - BASE) / PAGE_BYTES;
}

/** Tries one site in a world of its own; returns what the client heard. */
export function listenAt(site: Site, seed: number): readonly string[] {
  const stage = new Stage({
    seed,
    host: {
      memoryBytes: 16 * HUGE_BYTES,
      memoryNodes: 2,
      swapBytes: 4 * HUGE_BYTES,
      mm: { hugePages: 1 },
    },
  });
  const { host } = stage;
  const world: SiteWorld = { host, mm: host.mm, file: host.ram.files.open('/file') };
  const listener = new Listener(world);
  stage.run(
    (function* (): Sim<void> {
      if (site.prepare !== undefined) yield* site.prepare(world);
      else {
        yield* world.mm.mmap(BASE, PAGES * PAGE_BYTES, RW);
        yield* world.mm.touch(BASE, PAGES, true);
      }
      yield* world.mm.notifiers.attach(listener);
      listener.listens = true;
      yield* site.act(world);
      listener.listens = false;
    })(),
  );
  return listener.heard;
}

export const notifierSites: Experiment = {
  name: 'notifier-sites',
  systems: ['S2'],
  title: 'Which callbacks does each site of the memory manager make, and under which locks?',
  run(seed): ExperimentResult {
    const rows: string[][] = [];
    let callbacks = 0;
    let right = 0;
    for (const site of sites) {
      const heard = listenAt(site, seed);
      const isRight = heard.join('; ') === site.expected.join('; ');
      if (isRight) right++;
      callbacks += heard.length;
      rows.push([site.name, heard.join('; '), isRight ? 'yes' : 'NO']);
    }
    return {
      columns: ['site', 'callbacks', 'as_expected'],
      rows,
      result: `${right} of ${sites.length} sites make the callbacks of the patches, ${callbacks} in all`,
      ok: right === sites.length,
    };
  },
};
