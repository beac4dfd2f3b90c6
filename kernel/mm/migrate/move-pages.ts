/**
 * The system calls with which a program, or its administrator, moves its pages between NUMA nodes
 * (mm/migrate.c: move_pages; mm/mempolicy.c: migrate_pages, mbind with MPOL_MF_MOVE).
 *
 * Owns how pages are found and what the caller is told; moving them is `page-migration.ts`. Simpler than
 * Linux: no capabilities, so MPOL_MF_MOVE_ALL is anybody's, and no memory policies.
 */
import { SystemCallError } from '../../errno.ts';
import type { Sim } from '../../sched/completion.ts';
import { isDeviceMemory } from '../page-range.ts';
import { FRAME_OFFLINE, FRAME_PINNED, PAGE_BYTES } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { PTE_PRESENT, pteNumber } from '../virtual/page-table.ts';
import { MIGRATE_BUSY, MIGRATED } from './page-migration.ts';

// Statuses of a page besides the number of the node that it is on and those of page-migration.ts:

/** The address is not mapped, or shows the page of zeros: EFAULT. */
export const PAGE_NOT_MAPPED = -14;
/** Nothing is present there: ENOENT. */
export const PAGE_NOT_PRESENT = -2;
/** Other processes map it too, and MPOL_MF_MOVE_ALL was not given: EACCES. */
export const PAGE_SHARED = -13;

/** Pages that are isolated at a time (the page that move_pages copies its arguments in). */
const BATCH = 512;

/**
 * move_pages: moves the page at each address to the node with the same index in `nodes`; without `nodes`
 * it only looks. Returns the status of each: its node, or a negative errno. A page stays when somebody
 * holds it (EBUSY), also when it is marked as pinned. `all` moves pages that others map too.
 * @throws SystemCallError ENODEV (no such node), EINVAL (lists of different length)
 */
export function* movePages(
  mm: MmStruct,
  addresses: readonly number[],
  nodes?: readonly number[],
  all = false,
): Sim<Int32Array> {
  const { memory } = mm;
  yield memory.costs.systemCallPs;
  if (nodes !== undefined && nodes.length !== addresses.length) {
    throw refuse(mm, 'EINVAL', `${addresses.length} pages and ${nodes.length} nodes`, 'as many');
  }
  for (const node of nodes ?? []) checkNode(mm, 'move_pages', node);
  const status = new Int32Array(addresses.length);
  const call = new MoveCall(mm, all);
  for (let first = 0; first < addresses.length; ) {
    // Neighbours that go to one node are moved together.
    const node = nodes?.[first];
    let end = first + 1;
    while (end < addresses.length && end - first < BATCH && nodes?.[end] === node) end++;
    yield* call.run(addresses, first, end, node, status);
    first = end;
  }
  return status;
}

/**
 * migrate_pages: moves what the process has present on node `from` to node `to`. Returns how many pages
 * could not be moved.
 * @throws SystemCallError ENODEV
 */
export function* migratePages(mm: MmStruct, from: number, to: number): Sim<number> {
  const { memory, vmas, table } = mm;
  yield memory.costs.systemCallPs;
  checkNode(mm, 'migrate_pages', from);
  checkNode(mm, 'migrate_pages', to);
  const { frames } = memory;
  let staying = 0;
  const call = new MoveCall(mm, false);
  const status = new Int32Array(BATCH);
  const batch: number[] = [];
  const areas = vmas
    .list()
    .map(({ start, end }) => [start / PAGE_BYTES, end / PAGE_BYTES] as const);
  for (const [first, end] of areas) {
    let page = table.nextUsed(first, end);
    while (page < end) {
      batch.length = 0;
      for (; page < end && batch.length < BATCH; page = table.nextUsed(page + 1, end)) {
        const pte = table.get(page);
        const isOurs = (pte & PTE_PRESENT) !== 0 && !isSpecial(mm, page, pteNumber(pte));
        if (isOurs && frames.nodeOf(pteNumber(pte)) === from) batch.push(page * PAGE_BYTES);
      }
      yield* call.run(batch, 0, batch.length, to, status);
      for (let i = 0; i < batch.length; i++) {
        if (status[i] !== to && status[i] !== PAGE_NOT_PRESENT) staying++;
      }
    }
  }
  return staying;
}

/** One call's lists, used for batch after batch. */
class MoveCall {
  private readonly isolated: number[] = [];
  /** Which address each isolated page is of. */
  private readonly indexes: number[] = [];
  private readonly results = new Int32Array(BATCH);

  constructor(
    private readonly mm: MmStruct,
    private readonly all: boolean,
  ) {}

  /** Moves the pages at addresses [first, end) to `node`, or only looks where they are. */
  *run(
    addresses: readonly number[],
    first: number,
    end: number,
    node: number | undefined,
    status: Int32Array,
  ): Sim<void> {
    const { memory, lock } = this.mm;
    this.isolated.length = 0;
    this.indexes.length = 0;
    yield* lock.lockRead();
    for (let i = first; i < end; i++) {
      status[i] = this.isolate(Math.floor((addresses[i] as number) / PAGE_BYTES), node, i);
    }
    lock.unlockRead();
    yield (end - first) * memory.costs.snapshotPagePs;
    if (node === undefined || this.isolated.length === 0) return;
    const target = (frame: number): number => memory.migration.allocateOn(node, frame);
    yield* memory.migration.migrate(this.isolated, target, this.results);
    for (let i = 0; i < this.isolated.length; i++) {
      const result = this.results[i];
      status[this.indexes[i] as number] = result === MIGRATED ? node : result;
    }
  }

  /** Status of a page as it is now; one that is to move is isolated, and its status comes later. */
  private isolate(page: number, node: number | undefined, index: number): number {
    const { memory, vmas, table } = this.mm;
    const { frames, migration } = memory;
    if (vmas.find(page * PAGE_BYTES) === undefined) return PAGE_NOT_MAPPED;
    const pte = table.get(page);
    if ((pte & PTE_PRESENT) === 0) return PAGE_NOT_PRESENT;
    if (isSpecial(this.mm, page, pteNumber(pte))) return PAGE_NOT_MAPPED;
    const frame = frames.headOf(pteNumber(pte));
    const here = frames.nodeOf(frame);
    if (node === undefined || here === node) return here;
    if (this.isolated.includes(frame)) return node;
    if (this.isShared(frame)) return PAGE_SHARED;
    const isMovable = (frames.flags[frame] & (FRAME_PINNED | FRAME_OFFLINE)) === 0;
    if (!isMovable || !migration.isolate(frame)) return MIGRATE_BUSY;
    this.isolated.push(frame);
    this.indexes.push(index);
    return MIGRATE_BUSY;
  }

  /** True for a page that another process maps too, where that matters. */
  private isShared(frame: number): boolean {
    let isShared = false;
    this.mm.memory.rmap.forEach(frame, (mm) => {
      if (mm !== this.mm.id) isShared = true;
    });
    return isShared && !this.all;
  }
}

/** True for the page of zeros, and for memory of a device: not pages of the process. */
function isSpecial(mm: MmStruct, page: number, frame: number): boolean {
  return frame === mm.memory.zeroFrame || isDeviceMemory(mm, page);
}

function checkNode(mm: MmStruct, call: string, node: number): void {
  if (mm.memory.nodes[node] !== undefined) return;
  const { name } = mm.memory.node;
  const most = mm.memory.nodes.length - 1;
  const detail = `node ${node} does not exist`;
  throw new SystemCallError('ENODEV', call, detail, name, `a node from 0 to ${most}`);
}

function refuse(mm: MmStruct, errno: 'EINVAL', detail: string, expected: string): SystemCallError {
  return new SystemCallError(errno, 'move_pages', detail, mm.memory.node.name, expected);
}
