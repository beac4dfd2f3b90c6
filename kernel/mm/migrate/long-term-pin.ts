/**
 * Pins for long (FOLL_LONGTERM) and memory that may be unplugged: pages are moved out of movable nodes
 * before they are pinned for good (mm/gup.c: check_and_migrate_movable_pages).
 *
 * Owns only the move; pinning is `fault/user-pages.ts`.
 */
import type { Sim } from '../../sched/completion.ts';
import type { Memory } from '../memory.ts';
import { NO_FRAME } from '../physical/frames.ts';

/** True when a page that is pinned in `frame` would keep its node from being unplugged. */
export function isInMovableNode(memory: Memory, frame: number): boolean {
  return memory.nodes[memory.frames.nodeOf(frame)]?.movable === true;
}

/**
 * Moves those of `count` pages in `frames` that are in movable nodes, and that nobody holds, to others.
 * Returns how many stayed: they are held, or there is no room elsewhere.
 */
export function* leaveMovableNodes(
  memory: Memory,
  frames: Int32Array,
  first: number,
  count: number,
): Sim<number> {
  const { migration, nodes } = memory;
  const isolated: number[] = [];
  let staying = 0;
  for (let i = first; i < first + count; i++) {
    const head = memory.frames.headOf(frames[i]);
    if (!isInMovableNode(memory, head) || isolated.includes(head)) continue;
    if (migration.isolate(head)) isolated.push(head);
    else staying++;
  }
  const target = (frame: number): number => {
    for (const node of nodes) {
      const to = node.movable ? NO_FRAME : migration.allocateOn(node.id, frame);
      if (to !== NO_FRAME) return to;
    }
    return NO_FRAME;
  };
  const status = new Int32Array(isolated.length);
  return staying + (yield* migration.migrate(isolated, target, status));
}
