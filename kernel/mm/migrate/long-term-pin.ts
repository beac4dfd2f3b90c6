/**
 * Pins for long (FOLL_LONGTERM) and memory that may be unplugged: pages are moved out of movable nodes
 * before they are pinned for good (mm/gup.c: check_and_migrate_movable_pages).
 *
 * Owns only the move; pinning is `fault/user-pages.ts`. Without movable nodes it costs a look.
 */
import { SystemCallError } from '../../errno.ts';
import type { Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { NO_FRAME } from '../physical/frames.ts';
import type { MmStruct } from '../virtual/mm-struct.ts';
import { MIGRATE_NO_MEMORY } from './page-migration.ts';

/**
 * Rounds of moving and pinning again before a pin is refused. Assumed: Linux goes on for as long as only the
 * isolation of a page fails, and reclaims by itself where there is no room elsewhere.
 */
const MAX_ROUNDS = 10;

/** True when one of `count` pages that are pinned in `frames` keeps its node from being unplugged. */
export function hasMovable(
  memory: Memory,
  frames: Int32Array,
  first: number,
  count: number,
): boolean {
  if (!memory.nodes.some(({ movable }) => movable)) return false;
  for (let i = first; i < first + count; i++) if (isInMovable(memory, frames[i])) return true;
  return false;
}

/**
 * Moves those of the pages in `frames` that are in movable nodes to others; `round` counts the calls for
 * one pin.
 * @throws SystemCallError ENOMEM when pages stay: somebody holds them, or there is no room elsewhere
 */
export function* leaveMovableNodes(mm: MmStruct, frames: Int32Array, round: number): Sim<void> {
  const { memory } = mm;
  const { migration, nodes } = memory;
  // Of a huge page, or of a page that is mapped twice, only the first counts.
  const heads = new Set<number>();
  for (const frame of frames) {
    const head = memory.frames.headOf(frame);
    if (isInMovable(memory, head)) heads.add(head);
  }
  const isolated = [...heads].filter((head) => migration.isolate(head));
  let staying = heads.size - isolated.length;
  const target = (frame: number): number => {
    for (const node of nodes) {
      const to = node.movable ? NO_FRAME : migration.allocateOn(node.id, frame);
      if (to !== NO_FRAME) return to;
    }
    return NO_FRAME;
  };
  const status = new Int32Array(isolated.length);
  staying += yield* migration.migrate(isolated, target, status);
  if (round < MAX_ROUNDS) {
    // Others have some of them in hand, or hold on to what there is elsewhere.
    if (status.includes(MIGRATE_NO_MEMORY)) yield* memory.reclaim.shrink(staying);
    else if (staying > 0) yield* memory.timers.sleep(memory.costs.swapLatencyPs);
    return;
  }
  const detail = `${staying} pages cannot leave memory that may be unplugged`;
  const expected = 'room on other nodes, and pages that nobody holds';
  throw new SystemCallError('ENOMEM', 'pin_user_pages', detail, memory.node.name, expected);
}

function isInMovable(memory: Memory, frame: number): boolean {
  return memory.nodes[memory.frames.nodeOf(frame)]?.movable === true;
}
