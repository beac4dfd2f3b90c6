/**
 * Moving the pages of a pinned region to other frames while the adapter may be at work on them: the four
 * ways that the threads of February 2008 (seed 000) speak of.
 *
 * - `retry` (Gunthorpe: "page migration using some atomic operations with the adaptor and a cpu page copy
 *   with retry"): the adapter is never stopped. For each page: have the adapter's record of its writes
 *   cleared, copy, and have the table entry replaced in one step that fails if the adapter has written the
 *   page since; then copy again. The mail says no more than that; record and step are our reading of
 *   "atomic operations with the adaptor".
 * - `unchecked`: the same without record and retry. What the adapter writes during the copy is lost.
 * - `suspend`: the protection domain is suspended, everything is copied, the map switched, and resumed.
 * - `precopy` (Bestler: "the pages could be fully migrated to the new location, and the only work that was
 *   still required during the critical suspend/resume region was to actually shift to the new map"): copy
 *   while the adapter runs, copy again what was written meanwhile, and suspend only for the rest.
 *
 * The process' own accesses wait at migration entries while its page is on its way. A page that anybody
 * else holds stays. Owns the order of the steps; what a page in migration is, is `mm/migrate`.
 */
import { CMD_QUERY_DIRTY, CMD_SWITCH_PAGE, type TimePs } from '../../transport/index.ts';
import { VerbsError } from '../errno.ts';
import type { Memory } from '../mm/memory.ts';
import { MIGRATE_BUSY } from '../mm/migrate/page-migration.ts';
import { FRAME_DIRTY, FRAME_HUGE, NO_FRAME } from '../mm/physical/frames.ts';
import { PTE_DIRTY } from '../mm/virtual/page-table.ts';
import type { Sim } from '../sched/completion.ts';
import type { PinnedUmem } from '../umem/pinned.ts';
import type { Device } from './device.ts';
import type { MemoryRegion } from './memory-region.ts';
import { RegionTable } from './region-table.ts';

export type MoveMethod = 'retry' | 'unchecked' | 'suspend' | 'precopy';

/** What a move came to. */
export interface MoveReport {
  readonly method: MoveMethod;
  readonly pageCount: number;
  /** Pages that are on the new node now; the others are where they were, and in use. */
  movedPages: number;
  /** Pages copied, the same page again included. */
  copies: number;
  /** Time from the suspend of the protection domain to its resume. */
  suspendedPs: TimePs;
  /** Time from the first page that the process could not use to the last. */
  blockedPs: TimePs;
  totalPs: TimePs;
}

/** Who stops and starts the adapter's work for a protection domain. */
export interface DomainSwitch {
  suspendPd(pd: number): Sim<void>;
  resumePd(pd: number): Sim<void>;
}

/** Copies of one page before `retry` gives up on it. Assumed: as often as migrate_pages tries. */
const MAX_COPIES = 10;
/** Rounds of `precopy` at most, and what is little enough to be copied while suspended. Assumed, as in live migration. */
const PRECOPY_ROUNDS = 4;
const PRECOPY_SHARE = 1 / 32;
/** Pages that one QUERY_DIRTY asks for. */
const QUERY_PAGES = 4096;
/** Pages copied in one slice of CPU time. */
const COPY_SLICE = 16;

export class RegionMover {
  private readonly memory: Memory;
  private readonly umem: PinnedUmem;
  private readonly table: RegionTable;
  private readonly report: MoveReport;
  /** Frame that each page goes to; NO_FRAME for one that stays. */
  private readonly targets: Int32Array;
  /** 1 for a page that has to be copied (again). */
  private readonly stale: Uint8Array;
  /** 1 for a page whose dirty bit `precopy` has used for itself: it gets it back. */
  private readonly wasDirty: Uint8Array;

  /** @throws VerbsError EINVAL unless the region is registered and pinned */
  constructor(
    private readonly device: Device,
    private readonly domains: DomainSwitch,
    private readonly region: MemoryRegion,
    private readonly node: number,
    private readonly method: MoveMethod,
  ) {
    const { pinned } = region;
    if (pinned === undefined || !region.registered) {
      throw new VerbsError('EINVAL', 'move_mr', 'not a registered pinned region');
    }
    this.memory = region.mm.memory;
    if (this.memory.nodes[node] === undefined) {
      throw new VerbsError('EINVAL', 'move_mr', `there is no node ${node}`);
    }
    this.umem = pinned;
    this.table = new RegionTable(device.bus, device.commands);
    this.table.mkey = region.lkey;
    const { pageCount } = pinned;
    this.targets = new Int32Array(pageCount).fill(NO_FRAME);
    this.stale = new Uint8Array(pageCount).fill(1);
    this.wasDirty = new Uint8Array(pageCount);
    this.report = {
      method,
      pageCount,
      movedPages: 0,
      copies: 0,
      suspendedPs: 0,
      blockedPs: 0,
      totalPs: 0,
    };
  }

  /**
   * Moves the region's pages to the node.
   * @throws VerbsError EOPNOTSUPP when the adapter keeps no record of its writes (`retry`, `precopy`)
   */
  *move(): Sim<MoveReport> {
    const { region, report, memory } = this;
    const { now } = memory.node;
    yield memory.costs.systemCallPs;
    region.hold();
    try {
      if (this.method === 'retry' || this.method === 'unchecked') yield* this.moveOneByOne();
      else yield* this.moveTogether();
    } finally {
      this.tidyUp();
      region.put();
    }
    report.totalPs = memory.node.now - now;
    return report;
  }

  private *moveOneByOne(): Sim<void> {
    const { report, memory } = this;
    if (this.method === 'retry') yield* this.queryDirty();
    for (let page = 0; page < report.pageCount; page++) {
      const start = memory.node.now;
      if (!(yield* this.begin(page))) continue;
      const to = this.targets[page];
      const moved =
        this.method === 'retry'
          ? yield* this.copyWithRetry(page, to)
          : yield* this.copyUnchecked(page, to);
      this.end(page, moved);
      report.blockedPs += memory.node.now - start;
    }
  }

  /** True once the adapter has the page in `to`, with everything that it has ever written there. */
  private *copyWithRetry(page: number, to: number): Sim<boolean> {
    const { commands } = this.device;
    const { lkey } = this.region;
    yield* commands.run('move_mr', CMD_QUERY_DIRTY, [lkey, page, 1]);
    for (let copy = 0; copy < MAX_COPIES; copy++) {
      yield* this.copy(page, to);
      const entry = this.umem.entryFor(to);
      const switched = yield* commands.run('move_mr', CMD_SWITCH_PAGE, [lkey, page, entry]);
      if (switched === 1) return true;
    }
    return false;
  }

  private *copyUnchecked(page: number, to: number): Sim<boolean> {
    yield* this.copy(page, to);
    this.table.set(page, this.umem.entryFor(to));
    yield* this.table.flushAndWait();
    return true;
  }

  private *moveTogether(): Sim<void> {
    const { report, memory, domains, region, stale } = this;
    if (this.method === 'precopy') yield* this.precopy();
    const blockedAt = memory.node.now;
    const moving: number[] = [];
    for (let page = 0; page < report.pageCount; page++) {
      if (yield* this.begin(page)) moving.push(page);
    }
    const suspendedAt = memory.node.now;
    yield* domains.suspendPd(region.pd);
    if (this.method === 'precopy') {
      yield* this.queryDirty();
      const { flags } = memory.frames;
      for (const page of moving) {
        // Entries are gone, so what the process has written shows in the frame.
        if ((flags[this.umem.frameOf(page)] & FRAME_DIRTY) !== 0) stale[page] = 1;
      }
    }
    for (const page of moving) if (stale[page] === 1) yield* this.copy(page, this.targets[page]);
    for (const page of moving) this.table.set(page, this.umem.entryFor(this.targets[page]));
    yield* this.table.flushAndWait();
    yield* domains.resumePd(region.pd);
    report.suspendedPs = memory.node.now - suspendedAt;
    for (const page of moving) this.end(page, true);
    report.blockedPs = memory.node.now - blockedAt;
  }

  /** Copies while everybody goes on, until little is left that was written meanwhile. */
  private *precopy(): Sim<void> {
    const { report, stale, targets, memory } = this;
    yield* this.queryDirty();
    stale.fill(1);
    for (let page = 0; page < report.pageCount; page++) this.chooseTarget(page);
    for (let round = 0; round < PRECOPY_ROUNDS; round++) {
      let copied = 0;
      for (let page = 0; page < report.pageCount; page++) {
        if (stale[page] === 0 || targets[page] === NO_FRAME) continue;
        stale[page] = 0;
        // A write that comes later counts, one that came before is copied.
        this.takeProcessDirty(page);
        this.sample(page, targets[page]);
        if (++copied % COPY_SLICE === 0) yield COPY_SLICE * memory.costs.copyPagePs;
      }
      yield (copied % COPY_SLICE) * memory.costs.copyPagePs;
      yield* this.queryDirty();
      const left = this.countStale();
      if (left <= report.pageCount * PRECOPY_SHARE) break;
    }
  }

  /** Pages that the adapter or the process has written since they were copied. */
  private countStale(): number {
    const { stale, umem } = this;
    let left = 0;
    for (let page = 0; page < stale.length; page++) {
      if (this.isProcessDirty(umem.frameOf(page))) stale[page] = 1;
      left += stale[page];
    }
    return left;
  }

  /** Marks what the adapter has written since it was last asked; begins its record. */
  private *queryDirty(): Sim<void> {
    const { commands } = this.device;
    for (let first = 0; first < this.stale.length; first += QUERY_PAGES) {
      const count = Math.min(QUERY_PAGES, this.stale.length - first);
      const parameters = [this.region.lkey, first, count];
      const answer = yield* commands.exchange('move_mr', { opcode: CMD_QUERY_DIRTY, parameters });
      for (let i = 0; i < count; i++) {
        if ((answer.mailbox[i >>> 3] & (1 << (i & 7))) !== 0) this.stale[first + i] = 1;
      }
    }
  }

  /** Takes a page from the process and off its frame's pin; false when it has to stay. */
  private *begin(page: number): Sim<boolean> {
    const { migration, frames } = this.memory;
    const frame = this.umem.frameOf(page);
    if ((frames.flags[frame] & FRAME_HUGE) !== 0 || frames.nodeOf(frame) === this.node)
      return false;
    this.umem.lend(page);
    const isolated = migration.isolate(frame);
    let isTaken = false;
    const target = (): number => {
      isTaken = true;
      return this.chooseTarget(page);
    };
    const to = isolated ? yield* migration.begin(frame, target, false) : MIGRATE_BUSY;
    if (to >= 0) return true;
    this.umem.pinAt(page, frame);
    // What a failed migration was given to move to is free again.
    if (isTaken) this.targets[page] = NO_FRAME;
    if (isolated) migration.putBack(frame);
    return false;
  }

  /** Gives the page back to everybody, in its new frame or in the old one, and pins it there. */
  private end(page: number, moved: boolean): void {
    const { migration } = this.memory;
    const from = this.umem.frameOf(page);
    const to = this.targets[page];
    this.targets[page] = NO_FRAME;
    this.umem.pinAt(page, moved ? to : from);
    migration.end(from, to, moved);
    if (moved) this.report.movedPages++;
    else migration.putBack(from);
  }

  private chooseTarget(page: number): number {
    const { targets, umem, node } = this;
    const frame = umem.frameOf(page);
    const { frames } = this.memory;
    const isOther = frames.nodeOf(frame) !== node && (frames.flags[frame] & FRAME_HUGE) === 0;
    if (targets[page] === NO_FRAME && isOther) {
      targets[page] = this.memory.migration.allocateOn(node, frame);
    }
    return targets[page];
  }

  /** Targets of pages that were not moved go back, and pages are as dirty as they were. */
  private tidyUp(): void {
    const { frames } = this.memory;
    for (const frame of this.targets) if (frame !== NO_FRAME) frames.put(frame);
    this.targets.fill(NO_FRAME);
    for (let page = 0; page < this.wasDirty.length; page++) {
      if (this.wasDirty[page] === 1) frames.markDirty(this.umem.frameOf(page));
    }
  }

  private *copy(page: number, to: number): Sim<void> {
    this.sample(page, to);
    yield this.memory.costs.copyPagePs;
  }

  /** The new frame gets what the old one holds at the beginning of the copy: the latest byte missed most. */
  private sample(page: number, to: number): void {
    const { content } = this.memory.frames;
    content.copyTo(this.umem.frameOf(page), content, to);
    this.report.copies++;
  }

  /** Clears the record of what the process has written to a page. */
  private takeProcessDirty(index: number): void {
    const { frames, rmap } = this.memory;
    const frame = this.umem.frameOf(index);
    if (this.isProcessDirty(frame) || (frames.flags[frame] & FRAME_DIRTY) !== 0) {
      this.wasDirty[index] = 1;
    }
    frames.flags[frame] &= ~FRAME_DIRTY;
    rmap.forEach(frame, (id, page) => {
      const { table } = this.memory.mmOf(id);
      table.set(page, table.get(page) & ~PTE_DIRTY);
    });
  }

  private isProcessDirty(frame: number): boolean {
    const { rmap } = this.memory;
    let isDirty = false;
    rmap.forEach(frame, (id, page) => {
      if ((this.memory.mmOf(id).table.get(page) & PTE_DIRTY) !== 0) isDirty = true;
    });
    return isDirty;
  }
}
