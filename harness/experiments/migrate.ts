/**
 * Moving memory: for NUMA, for huge pages, and out of a module that is to be taken out (S9).
 *
 * The same pages, scattered over a node, are of one kind after the other. Look at what compaction makes of
 * their node, whether the node can go offline, and how many move_pages moves: memory that is not pinned, locked
 * or registered on demand, can do all of it; pinned memory nothing, and marking it as pinned only saves the
 * attempts (Lameter in seed 000: "the code may make repeated attempts to migrate the page thinking that
 * the page count must at some point drop").
 */
import {
  type Host,
  type HostProcess,
  movePages,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  SystemCallError,
} from '../../kernel/index.ts';
import { ACCESS_LOCAL_WRITE, ACCESS_ON_DEMAND, MS } from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const NODE_PAGES = 4096;
const PAGES = 1024;
const BASE = 0x7f0000000000;
/** What stood between the pages and went away. */
const FILLER = BASE + 2 ** 32;
const RW = PROT_READ | PROT_WRITE;
/** The node that the pages are on, which is to go offline; node 0 has the kernel's own pages. */
const FROM = 1;
const TO = 0;
/** Order of a huge page: 2 MiB. */
const HUGE_ORDER = 9;
/** How long the attempt to take the node offline goes on. */
const OFFLINE_TIMEOUT_PS = 100 * MS;

const KINDS = ['plain', 'mlocked', 'on demand', 'pinned', 'pinned, marked'] as const;
type Kind = (typeof KINDS)[number];

interface Outcome {
  /** Free blocks of 2 MiB on the node, before and after compaction. */
  readonly blocksBefore: number;
  readonly blocksAfter: number;
  readonly compactionUs: number;
  /** 'yes', or the errno. */
  readonly offline: string;
  readonly offlineUs: number;
  /** Pages that move_pages moved, and that it could not move. */
  readonly moved: number;
  readonly refused: number;
  /** Attempts at pages that failed, all three together. */
  readonly failures: number;
  readonly isIntact: boolean;
}

function measure(kind: Kind, seed: number): Outcome {
  const stage = new Stage({
    seed,
    adapters: true,
    host: {
      memoryBytes: 2 * NODE_PAGES * PAGE_BYTES,
      memoryNodes: 2,
      memorySectionBytes: 512 * PAGE_BYTES,
      swapBytes: 0,
      pinnedPages: kind === 'pinned, marked' ? 'marked' : 'counted',
    },
  });
  const { host } = stage;
  let outcome: Outcome | undefined;
  stage.run(
    (function* (): Sim<void> {
      outcome = yield* moveThreeWays(host, host.createProcess('subject'), kind);
    })(),
  );
  return outcome as Outcome;
}

function* moveThreeWays(host: Host, subject: HostProcess, kind: Kind): Sim<Outcome> {
  const { mm } = subject;
  const { ram, node } = host;
  const { freeLists } = ram.frames;
  yield* scatter(subject);
  const before = mm.hash(BASE, PAGES * PAGE_BYTES);
  yield* makeKind(subject, kind);
  const blocksBefore = freeLists.blocksOf(FROM, HUGE_ORDER);
  const compactionStart = node.now;
  yield* ram.compaction.compactNode(FROM);
  const compactionUs = (node.now - compactionStart) / 1e6;
  const blocksAfter = freeLists.blocksOf(FROM, HUGE_ORDER);
  const offlineStart = node.now;
  const offline = yield* unplug(host);
  const offlineUs = (node.now - offlineStart) / 1e6;
  const addresses = Array.from({ length: PAGES }, (_, i) => BASE + i * PAGE_BYTES);
  const nodes = new Array<number>(PAGES).fill(TO);
  const status = yield* movePages(mm.state, addresses, nodes);
  return {
    blocksBefore,
    blocksAfter,
    compactionUs,
    offline,
    offlineUs,
    moved: status.filter((where) => where === TO).length,
    refused: status.filter((where) => where < 0).length,
    failures: ram.counters.pgmigrate_fail,
    isIntact: mm.hash(BASE, PAGES * PAGE_BYTES) === before,
  };
}

/** Writes the subject's pages so that every second frame of their part of the node is free in the end. */
function* scatter({ mm }: HostProcess): Sim<void> {
  mm.state.homeNode = FROM;
  yield* mm.mmap(BASE, PAGES * PAGE_BYTES, RW);
  yield* mm.mmap(FILLER, PAGES * PAGE_BYTES, RW);
  for (let page = 0; page < PAGES; page++) {
    yield* mm.fill(BASE + page * PAGE_BYTES, PAGE_BYTES, page + 1);
    yield* mm.touch(FILLER + page * PAGE_BYTES, 1, true);
  }
  yield* mm.munmap(FILLER, PAGES * PAGE_BYTES);
}

function* makeKind({ mm, verbs }: HostProcess, kind: Kind): Sim<void> {
  if (kind === 'plain') return;
  if (kind === 'mlocked') {
    yield* mm.mlock(BASE, PAGES * PAGE_BYTES);
    return;
  }
  const pd = yield* verbs.allocPd();
  const access = ACCESS_LOCAL_WRITE | (kind === 'on demand' ? ACCESS_ON_DEMAND : 0);
  yield* verbs.regMr(pd, BASE, PAGES * PAGE_BYTES, access);
}

/** Takes the node offline and puts it back; 'yes', or the errno. */
function* unplug({ ram }: Host): Sim<string> {
  const range = ram.hotplug.rangeOfNode(FROM);
  try {
    yield* ram.hotplug.offline(range, OFFLINE_TIMEOUT_PS);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return error.errno;
  }
  yield* ram.hotplug.online(range);
  return 'yes';
}

function run(seed: number): ExperimentResult {
  const rows: Cell[][] = [];
  let ok = true;
  const found = new Map<Kind, Outcome>();
  for (const kind of KINDS) {
    const o = measure(kind, seed);
    found.set(kind, o);
    rows.push([
      kind,
      o.blocksBefore,
      o.blocksAfter,
      Math.round(o.compactionUs),
      o.offline,
      Math.round(o.offlineUs),
      o.moved,
      o.refused,
      o.failures,
    ]);
    // What went offline has moved already, so move_pages finds it where it should be.
    const isPinned = kind === 'pinned' || kind === 'pinned, marked';
    const canMove = o.moved === PAGES && o.offline === 'yes' && o.blocksAfter > o.blocksBefore;
    const cannot = o.moved === 0 && o.offline === 'EBUSY' && o.blocksAfter <= o.blocksBefore;
    ok &&= o.isIntact && (isPinned ? cannot : canMove);
  }
  const of = (kind: Kind): Outcome => found.get(kind) as Outcome;
  const [plain, pinned, marked] = [of('plain'), of('pinned'), of('pinned, marked')];
  ok &&= marked.failures < pinned.failures;
  return {
    columns: [
      'memory',
      'free_2mib_before',
      'free_2mib_after',
      'compaction_us',
      'node_offline',
      'offline_us',
      'moved_pages',
      'refused_pages',
      'failed_attempts',
    ],
    rows,
    result:
      `on demand or locked: ${of('on demand').moved} of ${PAGES} pages move, compaction makes ` +
      `${plain.blocksAfter - plain.blocksBefore} huge pages, the node goes offline; pinned: ` +
      `${pinned.moved} move, ${pinned.offline} after ${Math.round(pinned.offlineUs / 1000)} ms and ` +
      `${pinned.failures} attempts in vain (marked: ${marked.failures})`,
    ok,
  };
}

export const migrate: Experiment = {
  name: 'migrate',
  systems: ['S9'],
  title: 'migration, compaction and memory unplug of plain, locked, on-demand and pinned memory',
  run,
};
