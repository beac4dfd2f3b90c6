/**
 * Memory cgroups: sets of processes with a common limit on their pages (mm/memcontrol.c, cgroup v2).
 *
 * A page is charged to the group of the process whose fault or read brought it in, and stays charged to it
 * until its frame is free. Charging over `memory.max` reclaims inside the group first; who does that, and
 * what happens when it does not help, is `reclaim.ts`. Owns groups and their accounts.
 *
 * Simpler than Linux: one level below the root, which has no account; swap, page tables and kernel memory
 * are not charged; no memory.high.
 */
import { assert, Failure } from '../../../transport/index.ts';
import { type Frames, PAGE_BYTES } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';

/** Number of the root group: every process that nobody put into another one. */
export const ROOT_GROUP = 0;

export class MemoryGroup {
  /** Pages charged, and at most so far (memory.current, memory.peak). */
  pageCount = 0;
  pageCountPeak = 0;
  /** Charges that met the limit (memory.failcnt of version 1, `max` of memory.events). */
  failcnt = 0;
  /** Times that reclaim inside the group was not enough (`oom` of memory.events). */
  oom = 0;
  /** Processes of the group that were killed for that (`oom_kill`). */
  oomKills = 0;

  constructor(
    /** 1 and up: `frames.groups` names it. */
    readonly id: number,
    readonly name: string,
    /** Pages at most (memory.max). */
    readonly maxPages: number,
  ) {}

  /** memory.current, in bytes. */
  get currentBytes(): number {
    return this.pageCount * PAGE_BYTES;
  }
}

export class MemoryGroups {
  private readonly groups: (MemoryGroup | undefined)[] = [undefined];

  /** Up to `limit` groups, the root included. */
  constructor(
    private readonly frames: Frames,
    private readonly limit: number,
  ) {}

  /** Groups that there are, the root included: their numbers are those below. */
  get count(): number {
    return this.groups.length;
  }

  /**
   * Creates a group.
   * @throws Failure E_OPERATION when there are too many, or the limit is not a positive number of bytes
   */
  create(name: string, maxBytes: number): MemoryGroup {
    if (this.groups.length === this.limit || !(maxBytes >= PAGE_BYTES)) {
      const expected = `up to ${this.limit - 1} groups of a page or more each`;
      throw new Failure('E_OPERATION', `no memory cgroup of ${maxBytes} bytes`, name, expected);
    }
    const group = new MemoryGroup(this.groups.length, name, Math.floor(maxBytes / PAGE_BYTES));
    this.groups.push(group);
    return group;
  }

  /** Puts a process into a group; pages that it has stay charged where they are (as in version 2). */
  enter(mm: MmStruct, group: MemoryGroup): void {
    mm.group = group.id;
  }

  /** The group with that number, which is not the root. */
  group(id: number): MemoryGroup {
    return this.groups[id] as MemoryGroup;
  }

  /** True when `count` more pages may be charged to group `id`. */
  hasRoom(id: number, count: number): boolean {
    if (id === ROOT_GROUP) return true;
    const group = this.group(id);
    return group.pageCount + count <= group.maxPages;
  }

  /** Charges an allocated frame to group `id`, in place of the one that it is charged to. */
  charge(frame: number, id: number): void {
    this.uncharge(frame);
    this.frames.groups[frame] = id;
    if (id === ROOT_GROUP) return;
    const group = this.group(id);
    group.pageCount++;
    if (group.pageCount > group.pageCountPeak) group.pageCountPeak = group.pageCount;
  }

  /** A frame becomes free, or another group's. */
  uncharge(frame: number): void {
    const id = this.frames.groups[frame];
    if (id === ROOT_GROUP) return;
    const group = this.group(id);
    group.pageCount--;
    assert(group.pageCount >= 0, 'a memory cgroup is uncharged more than it was charged');
    this.frames.groups[frame] = ROOT_GROUP;
  }

  /** Asserts that the accounts are those of the frames that name the groups. */
  check(): void {
    const counts = new Int32Array(this.groups.length);
    for (let frame = 0; frame < this.frames.count; frame++) counts[this.frames.groups[frame]]++;
    for (let id = 1; id < this.groups.length; id++) {
      assert(counts[id] === this.group(id).pageCount, 'pages of a memory cgroup are miscounted');
    }
  }
}
