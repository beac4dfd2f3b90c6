/**
 * Notifiers of whoever keeps its own reverse map (S4): only exported pages are asked about, callbacks may
 * sleep, and no page is freed before every remote has acknowledged.
 */
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { CAUSE_SWAP } from '../../kernel/mm/notify/invalidation.ts';
import type { RmapNotifier } from '../../kernel/mm/notify/rmap-notifier.ts';
import { PAGE_BYTES } from '../../kernel/mm/physical/frames.ts';
import { tryToUnmap } from '../../kernel/mm/reclaim/try-to-unmap.ts';
import { MS, US } from '../../transport/index.ts';
import { BASE, type Bench, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;

/** Another machine that maps pages: drops an entry when its acknowledgement has come. */
class Remote implements RmapNotifier {
  readonly asked: number[] = [];
  private readonly entries = new Map<number, number>();

  constructor(
    private readonly bench: Bench,
    readonly name: string,
    private readonly ackPs: number,
  ) {}

  *export(address: number): Sim<number> {
    const { mm, ram } = this.bench.host;
    const frame = yield* mm.pages.get(address / PAGE, true);
    yield* ram.pageLocks.lock(frame);
    ram.rmapNotifiers.exportPage(frame);
    mm.notifiers.references.insert(this, address / PAGE, frame);
    this.entries.set(frame, address / PAGE);
    ram.pageLocks.unlock(frame);
    ram.frames.put(frame);
    return frame;
  }

  *invalidatePage(frame: number): Sim<void> {
    this.asked.push(frame);
    const page = this.entries.get(frame);
    if (page === undefined) return;
    yield* this.bench.host.sleep(this.ackPs);
    this.bench.host.mm.notifiers.references.drop(this, page, frame);
    this.entries.delete(frame);
  }
}

/** Takes a page away as reclaim does, and says when its frame was freed. */
function* reclaimPage(bench: Bench, frame: number): Sim<number> {
  const { ram, mm, node } = bench.host;
  const { frames, pageLocks, lru } = ram;
  let freedPs = -1;
  const freed = frames.onFree;
  frames.onFree = (which) => {
    if (which === frame) freedPs = node.now;
    freed(which);
  };
  frames.get(frame);
  yield* pageLocks.lock(frame);
  lru.remove(frame);
  const gone = yield* tryToUnmap(ram, frame, CAUSE_SWAP, () => 0);
  expect(gone).toBe(true);
  expect(mm.pages.followPage(BASE / PAGE_BYTES, false)).toBe(-1);
  expect(freedPs).toBe(-1);
  pageLocks.unlock(frame);
  frames.put(frame);
  frames.onFree = freed;
  return freedPs;
}

function play(body: (bench: Bench) => Sim<void>): void {
  const bench = makeBench();
  const done = bench.run(
    (function* (): Sim<void> {
      yield* bench.host.mm.mmap(BASE, 4 * PAGE, RW);
      yield* bench.host.mm.touch(BASE, 4, true);
      yield* body(bench);
    })(),
  );
  expect(done).toBe(true);
  bench.host.checkLeaks();
}

describe('rmap notifiers', () => {
  it('are asked before an exported page is freed, which waits for every acknowledgement', () => {
    play(function* (bench) {
      const { host } = bench;
      const { rmapNotifiers } = host.ram;
      const [near, far] = [new Remote(bench, 'near', 10 * US), new Remote(bench, 'far', 3 * MS)];
      for (const remote of [near, far]) yield* rmapNotifiers.register(remote);
      const frame = yield* near.export(BASE);
      expect(yield* far.export(BASE)).toBe(frame);
      const startPs = host.node.now;
      const freedPs = yield* reclaimPage(bench, frame);
      expect(freedPs - startPs).toBeGreaterThanOrEqual(3 * MS + 10 * US);
      expect([near.asked, far.asked]).toEqual([[frame], [frame]]);
      expect(rmapNotifiers.isExported(frame)).toBe(false);
      for (const remote of [near, far]) yield* rmapNotifiers.unregister(remote);
    });
  });

  it('cost a page that is not exported nothing', () => {
    play(function* (bench) {
      const { ram, mm, node } = bench.host;
      const remote = new Remote(bench, 'remote', 3 * MS);
      yield* ram.rmapNotifiers.register(remote);
      const exported = yield* remote.export(BASE + PAGE);
      const startPs = node.now;
      yield* reclaimPage(bench, mm.pages.followPage(BASE / PAGE, false));
      expect(node.now - startPs).toBeLessThan(10 * US);
      expect(remote.asked).toEqual([]);
      expect(ram.rmapNotifiers.invalidations).toBe(0);
      yield* reclaimPage(bench, exported);
      expect(remote.asked).toEqual([exported]);
      yield* ram.rmapNotifiers.unregister(remote);
    });
  });

  it('fail the run when a page is freed before a remote has let go', () => {
    const bench = makeBench();
    const careless = new Remote(bench, 'careless', 0);
    careless.invalidatePage = function* () {
      yield 1 * US;
    };
    const program = function* (): Sim<void> {
      yield* bench.host.mm.mmap(BASE, PAGE, RW);
      yield* bench.host.ram.rmapNotifiers.register(careless);
      yield* reclaimPage(bench, yield* careless.export(BASE));
    };
    expect(() => bench.run(program())).toThrow(/careless (still )?maps/);
  });

  it('hold callers to their locks', () => {
    const refusals: [string, (bench: Bench, remote: Remote) => Sim<void>][] = [
      [
        'a page is exported that is not locked',
        function* ({ host }) {
          yield 1 * US;
          host.ram.rmapNotifiers.exportPage(host.mm.pages.followPage(BASE / PAGE, false));
        },
      ],
      [
        'an exported page is invalidated and not locked',
        function* ({ host }, remote) {
          const frame = yield* remote.export(BASE);
          yield* host.ram.rmapNotifiers.invalidatePage(frame, CAUSE_SWAP);
        },
      ],
      [
        'an exported page is invalidated by somebody who must not sleep',
        function* ({ host }, remote) {
          const frame = yield* remote.export(BASE);
          yield* host.ram.pageLocks.lock(frame);
          yield* host.mm.state.tableLock.lock();
          yield* host.ram.rmapNotifiers.invalidatePage(frame, CAUSE_SWAP);
        },
      ],
      [
        'remote is registered twice',
        function* ({ host }, remote) {
          yield* host.ram.rmapNotifiers.register(remote);
        },
      ],
    ];
    for (const [message, body] of refusals) {
      const bench = makeBench();
      const remote = new Remote(bench, 'remote', 1 * US);
      const program = function* (): Sim<void> {
        yield* bench.host.mm.mmap(BASE, PAGE, RW);
        yield* bench.host.mm.touch(BASE, 1, true);
        yield* bench.host.ram.rmapNotifiers.register(remote);
        yield* body(bench, remote);
      };
      expect(() => bench.run(program())).toThrow(message);
    }
  });
});
