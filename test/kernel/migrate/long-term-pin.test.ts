/** Pages that are pinned for long leave memory that may be unplugged. */
import { expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../../kernel/index.ts';
import { ACCESS_LOCAL_WRITE, MS } from '../../../transport/index.ts';
import { BASE, makeBench, PAGE } from '../bench.ts';

const RW = PROT_READ | PROT_WRITE;
const HOST = { memoryBytes: 4096 * PAGE, memoryNodes: 2, memorySectionBytes: 512 * PAGE };
const NODE_1 = { first: 2048, end: 4096 };

/** Registers 100 pages of a process at home on node 1, then unplugs that node; says what happened. */
function unplug(movableNodes: number[]): { nodes: Set<number>; message: string } {
  const { host, run } = makeBench({ ...HOST, movableNodes });
  const { mm, ram, verbs } = host;
  const nodes = new Set<number>();
  let message = 'offline';
  const done = run(
    (function* (): Sim<void> {
      mm.state.homeNode = 1;
      yield* mm.mmap(BASE, 200 * PAGE, RW);
      yield* mm.fill(BASE, 200 * PAGE, 5);
      const before = mm.hash(BASE, 200 * PAGE);
      const mr = yield* verbs.regMr(1, BASE, 100 * PAGE, ACCESS_LOCAL_WRITE);
      for (let page = 0; page < 100; page++) {
        nodes.add(ram.frames.nodeOf(mr.pinned?.frameOf(page) ?? -1));
      }
      try {
        yield* ram.hotplug.offline(NODE_1, 100 * MS);
      } catch (error) {
        message = (error as Error).message;
      }
      expect(mm.hash(BASE, 200 * PAGE)).toBe(before);
      yield* verbs.deregMr(mr);
    })(),
  );
  expect(done).toBe(true);
  host.checkLeaks();
  return { nodes, message };
}

it('lets a movable node be unplugged where pinning in place would not', () => {
  const inPlace = unplug([]);
  expect([...inPlace.nodes]).toEqual([1]);
  expect(inPlace.message).toMatch(/100 pages could not be moved/);
  const moved = unplug([1]);
  expect([...moved.nodes]).toEqual([0]);
  expect(moved.message).toBe('offline');
});

it('refuses to pin where pages cannot leave: ENOMEM, and nothing stays pinned', () => {
  const { host, run } = makeBench({ ...HOST, movableNodes: [0, 1] });
  const { mm, verbs } = host;
  let message = '';
  run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, 20 * PAGE, RW);
      try {
        yield* verbs.regMr(1, BASE, 20 * PAGE, ACCESS_LOCAL_WRITE);
      } catch (error) {
        message = (error as Error).message;
      }
      yield* mm.fill(BASE, 20 * PAGE, 2);
    })(),
  );
  expect(message).toMatch(/reg_mr: ENOMEM: .*20 pages cannot leave/);
  host.checkLeaks();
});
