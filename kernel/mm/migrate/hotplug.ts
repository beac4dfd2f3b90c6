/**
 * Memory that goes offline and comes back: a failing module, or one that is to be taken out
 * (mm/memory_hotplug.c: offline_pages, online_pages; mm/page_isolation.c).
 *
 * Drivers are asked first and may refuse (`memory-notifier.ts`; the eHCA driver does, whose adapter knows all
 * of memory). Then what is free in the range is kept from being given out, and what
 * is in use moves away, again and again until the time is up: a pinned page never goes.
 *
 * Owns the states of sections and the time-out. Simpler than Linux: no nodes that appear or vanish, only
 * their memory does; the struct pages stay.
 */
import { MS, type TimePs } from '../../../transport/index.ts';
import { SystemCallError } from '../../errno.ts';
import { type MemoryAction, MemoryNotifiers } from '../../memory-notifier.ts';
import type { Sim } from '../../sched/completion.ts';
import { Mutex } from '../../sched/mutex.ts';
import type { Memory } from '../memory.ts';
import { FRAME_HUGE, FRAME_OFFLINE, NO_FRAME, PAGE_BYTES } from '../physical/frames.ts';
import { HUGE_PAGES } from '../physical/free-lists.ts';
import { watermarksFor } from '../physical/memory-node.ts';

/** What goes offline at a time on x86-64 (SECTION_SIZE_BITS 27). */
const SECTION_BYTES = 128 * 2 ** 20;
/** How long offline_pages tries: 120 s in 2.6.24 (remove_memory); for ever, or until a signal, today. */
export const OFFLINE_TIMEOUT_PS: TimePs = 120_000 * MS;
/** Between attempts when nothing moved; doubled each time up to the longest. Assumed: Linux yields the CPU. */
const FIRST_PAUSE_PS: TimePs = 1 * MS;
const LONGEST_PAUSE_PS: TimePs = 1000 * MS;
/** Pages isolated and moved at a time. */
const BATCH = 256;
/** Pages that an error names. */
const NAMED_PAGES = 4;

/** Frames [first, end). */
export interface FrameRange {
  readonly first: number;
  readonly end: number;
}

/** Somebody who may hold pages and can say so when memory cannot go offline. */
export interface PageHolder {
  /** What holds the frame, in words, or undefined. */
  holderOf(frame: number): string | undefined;
}

export class MemoryHotplug {
  /** Frames of a section. */
  readonly sectionFrames: number;
  /** Who is asked first, and told afterwards. */
  readonly notifiers = new MemoryNotifiers();
  private readonly holders: PageHolder[] = [];
  private readonly status = new Int32Array(BATCH);
  /** One at a time (mem_hotplug_lock). */
  private readonly lock = new Mutex('memory hotplug');

  constructor(
    private readonly memory: Memory,
    sectionBytes = SECTION_BYTES,
  ) {
    this.sectionFrames = Math.max(HUGE_PAGES, Math.floor(sectionBytes / PAGE_BYTES));
  }

  /** Adds somebody to ask when a page cannot be moved. */
  addHolder(holder: PageHolder): void {
    this.holders.push(holder);
  }

  /** Frames of node `node`, all sections of it. */
  rangeOfNode(node: number): FrameRange {
    const zone = this.memory.nodes[node];
    return { first: zone?.firstFrame ?? 0, end: zone?.endFrame ?? 0 };
  }

  /**
   * Takes memory out of use, moving what is there elsewhere; sleeps until that is done.
   * @throws SystemCallError EINVAL (not whole sections of one node, or offline already), EBUSY (a driver
   * refuses, or pages could not be moved in `timeoutPs`: the first of them are named with who holds them)
   */
  *offline(range: FrameRange, timeoutPs = OFFLINE_TIMEOUT_PS): Sim<void> {
    yield this.memory.costs.systemCallPs;
    yield* this.lock.lock();
    try {
      yield* this.empty(range, timeoutPs);
    } finally {
      this.lock.unlock();
    }
  }

  /**
   * Puts memory to use that was offline.
   * @throws SystemCallError EINVAL (not whole sections, or not offline), EBUSY (a driver refuses)
   */
  *online(range: FrameRange): Sim<void> {
    const { memory } = this;
    yield memory.costs.systemCallPs;
    yield* this.lock.lock();
    try {
      this.check('online_pages', range, true);
      this.ask('going online', 'online_pages', range);
    } finally {
      this.lock.unlock();
    }
    for (let frame = range.first; frame < range.end; frame++) {
      memory.frames.flags[frame] &= ~FRAME_OFFLINE;
    }
    this.giveBack(range);
    this.setWatermarks(range);
    this.notifiers.tell('online', range.first, range.end - range.first);
  }

  private *empty(range: FrameRange, timeoutPs: TimePs): Sim<void> {
    const { memory } = this;
    this.check('offline_pages', range, false);
    this.ask('going offline', 'offline_pages', range);
    const { freeLists } = memory.frames;
    for (const block of blocksOf(range)) freeLists.isolate(block);
    const endPs = memory.node.now + timeoutPs;
    let pausePs = FIRST_PAUSE_PS;
    while (this.used(range) > 0) {
      const moved = yield* this.evacuate(range);
      if (moved > 0) pausePs = FIRST_PAUSE_PS;
      else if (memory.node.now >= endPs) {
        const left = this.used(range);
        const error = this.busy(range, left);
        this.giveBack(range);
        this.notifiers.tell('offline cancelled', range.first, range.end - range.first);
        throw error;
      } else {
        yield* memory.timers.sleep(Math.min(pausePs, Math.max(1, endPs - memory.node.now)));
        pausePs = Math.min(2 * pausePs, LONGEST_PAUSE_PS);
      }
    }
    for (let frame = range.first; frame < range.end; frame++) {
      memory.frames.flags[frame] = FRAME_OFFLINE;
    }
    this.setWatermarks(range);
    this.notifiers.tell('offline', range.first, range.end - range.first);
  }

  /** Moves what can be moved, once through the range; returns how many frames became free. */
  private *evacuate(range: FrameRange): Sim<number> {
    const { memory, status } = this;
    const { frames, migration, costs } = memory;
    const before = this.used(range);
    const isolated: number[] = [];
    const target = (frame: number): number => this.targetFor(frame);
    let frame = range.first;
    while (frame < range.end) {
      const first = frame;
      isolated.length = 0;
      for (; frame < range.end && isolated.length < BATCH; frame++) {
        if (frames.references[frame] === 0) continue;
        const isHuge = (frames.flags[frame] & FRAME_HUGE) !== 0;
        if (migration.isolate(frame)) isolated.push(frame);
        if (isHuge) frame += HUGE_PAGES - 1;
      }
      yield (frame - first) * costs.scanFramePs;
      if (isolated.length > 0) yield* migration.migrate(isolated, target, status);
    }
    return before - this.used(range);
  }

  /** A frame of the same node where there is one, else of another. */
  private targetFor(frame: number): number {
    const { migration, nodes, frames } = this.memory;
    const home = frames.nodeOf(frame);
    const to = migration.allocateOn(home, frame);
    if (to !== NO_FRAME) return to;
    for (const { id } of nodes) {
      const other = id === home ? NO_FRAME : migration.allocateOn(id, frame);
      if (other !== NO_FRAME) return other;
    }
    return NO_FRAME;
  }

  private used({ first, end }: FrameRange): number {
    const { references } = this.memory.frames;
    let used = 0;
    for (let frame = first; frame < end; frame++) if (references[frame] > 0) used++;
    return used;
  }

  /** Ends the isolation; what nobody has is free again. */
  private giveBack(range: FrameRange): void {
    const { frames } = this.memory;
    for (const block of blocksOf(range)) frames.freeLists.endIsolation(block);
    for (let frame = range.first; frame < range.end; frame++) {
      if (frames.references[frame] === 0) frames.freeLists.give(frame, 0);
    }
  }

  private setWatermarks({ first }: FrameRange): void {
    const { frames, nodes } = this.memory;
    const zone = nodes[frames.nodeOf(first)];
    if (zone === undefined) return;
    let online = 0;
    for (let frame = zone.firstFrame; frame < zone.endFrame; frame++) {
      if ((frames.flags[frame] & FRAME_OFFLINE) === 0) online++;
    }
    zone.watermarks = watermarksFor(online);
  }

  private ask(action: MemoryAction, call: string, { first, end }: FrameRange): void {
    const veto = this.notifiers.ask(action, first, end - first);
    if (veto === undefined) return;
    throw this.refuse(
      'EBUSY',
      call,
      `${veto.name} refuses: ${veto.reason}`,
      'to unload that driver',
    );
  }

  private check(call: string, { first, end }: FrameRange, isOffline: boolean): void {
    const { frames, nodes } = this.memory;
    const zone = nodes[frames.nodeOf(Math.max(0, Math.min(first, frames.count - 1)))];
    const isInside = zone !== undefined && first >= zone.firstFrame && end <= zone.endFrame;
    const isWhole =
      isInside &&
      (first - zone.firstFrame) % this.sectionFrames === 0 &&
      ((end - zone.firstFrame) % this.sectionFrames === 0 || end === zone.endFrame) &&
      first % HUGE_PAGES === 0;
    if (!isWhole || end <= first) {
      const detail = `frames ${first} to ${end} are no sections of one node`;
      throw this.refuse('EINVAL', call, detail, `multiples of ${this.sectionFrames} frames`);
    }
    for (let frame = first; frame < end; frame++) {
      if (((frames.flags[frame] & FRAME_OFFLINE) !== 0) === isOffline) continue;
      const detail = `frame ${frame} is ${isOffline ? 'online' : 'offline'} already`;
      throw this.refuse('EINVAL', call, detail, isOffline ? 'offline memory' : 'online memory');
    }
  }

  private busy({ first, end }: FrameRange, left: number): SystemCallError {
    const { frames } = this.memory;
    const named: string[] = [];
    for (let frame = first; frame < end && named.length < NAMED_PAGES; frame++) {
      if (frames.references[frame] === 0 || frames.headOf(frame) !== frame) continue;
      named.push(`frame ${frame} (${this.reason(frame)})`);
    }
    const detail = `${left} pages could not be moved: ${named.join(', ')}${left > named.length ? ', …' : ''}`;
    return this.refuse('EBUSY', 'offline_pages', detail, 'memory that nobody has pinned');
  }

  /** Who holds a page that stayed. */
  private reason(frame: number): string {
    const { frames } = this.memory;
    for (const holder of this.holders) {
      const name = holder.holderOf(frame);
      if (name !== undefined) return `pinned by ${name}`;
    }
    if (frames.pinCounts[frame] > 0) return `pinned ${frames.pinCounts[frame]} times`;
    const extra = frames.extraReferences(frame);
    return extra > 0 ? `held ${extra} times` : 'no room elsewhere';
  }

  private refuse(
    errno: 'EBUSY' | 'EINVAL',
    call: string,
    detail: string,
    expected: string,
  ): SystemCallError {
    return new SystemCallError(errno, call, detail, this.memory.node.name, expected);
  }
}

function* blocksOf({ first, end }: FrameRange): Generator<number> {
  for (let block = first / HUGE_PAGES; block * HUGE_PAGES < end; block++) yield block;
}
