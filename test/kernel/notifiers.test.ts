/**
 * The notifier list at work (S1): who is called, in which order, when registration and unregistration
 * count, what nests, what is refused, and that nobody pays for notifiers that are not there.
 */
import { of } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { Gadget } from '../../harness/experiments/gadget.ts';
import { MAP_HUGETLB, MAP_SHARED, PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import type {
  IntervalOps,
  IntervalSubscription,
} from '../../kernel/mm/notify/interval-notifier.ts';
import {
  CAUSE_CLEAR,
  CAUSE_COW,
  CAUSE_SWAP,
  CAUSE_UNMAP,
  type Invalidation,
} from '../../kernel/mm/notify/invalidation.ts';
import { FRAME_DIRTY } from '../../kernel/mm/physical/frames.ts';
import { ACCESS_LOCAL_WRITE, ACCESS_ON_DEMAND, MS, US } from '../../transport/index.ts';
import { BASE, type Bench, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;

/** Runs `body` with four pages mapped and touched; it must end, and nothing may be left over. */
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

describe('the notifier list', () => {
  it('tells the newest client first, of begin and of end, with cause and range', () => {
    play(function* ({ host }) {
      const { notifiers } = host.mm;
      const heard: string[] = [];
      for (const name of ['first', 'second', 'third']) {
        const gadget = new Gadget(host.mm, name);
        gadget.during = function* (call, range) {
          yield 1 * US;
          heard.push(`${name} ${call} ${range?.start} ${range?.end} ${range?.atomic}`);
        };
        yield* notifiers.attach(gadget);
      }
      const startPs = host.node.now;
      yield* notifiers.end(yield* notifiers.begin(PAGE, 3 * PAGE, CAUSE_COW, true));
      expect(heard).toEqual([
        'third begin cow 4096 12288 true',
        'second begin cow 4096 12288 true',
        'first begin cow 4096 12288 true',
        'third end cow 4096 12288 true',
        'second end cow 4096 12288 true',
        'first end cow 4096 12288 true',
      ]);
      expect(host.node.now - startPs).toBe(6 * US);
    });
  });

  it('lets clients come and go in the middle of a walk that sleeps', () => {
    play(function* ({ host }) {
      const { mm } = host;
      const { notifiers, state } = mm;
      const [last, leaver, slow] = ['last', 'leaver', 'slow'].map((name) => new Gadget(mm, name));
      for (const gadget of [last, leaver, slow]) yield* notifiers.attach(gadget);
      slow.during = () => host.sleep(100 * US);
      const newcomer = new Gadget(mm, 'newcomer');
      const walker = host.spawn(
        'walker',
        (function* (): Sim<void> {
          const range = yield* notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR);
          yield* notifiers.end(range);
        })(),
      );
      yield* host.sleep(10 * US);
      yield* state.lock.lockWrite();
      notifiers.register(newcomer);
      notifiers.unregister(leaver);
      notifiers.unregister(slow);
      state.lock.unlockWrite();
      yield* host.ram.srcu.synchronize();
      for (const gadget of [slow, leaver]) notifiers.free(gadget);
      yield walker.done;
      expect(slow.calls).toEqual(['begin clear']);
      expect(leaver.calls).toEqual([]);
      expect(newcomer.calls).toEqual([]);
      expect(last.calls).toEqual(['begin clear', 'end clear']);
      yield* notifiers.end(yield* notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR));
      expect(newcomer.calls).toEqual(['begin clear', 'end clear']);
      expect(last.calls).toHaveLength(4);
    });
  });

  it('keeps a client that leaves until every walk that may call it is over', () => {
    play(function* ({ host }) {
      const { mm } = host;
      const { notifiers } = mm;
      const { gracePeriodPs } = host.ram.costs;
      const slow = new Gadget(mm, 'slow');
      yield* notifiers.attach(slow);
      const stayPs = 3 * gracePeriodPs;
      slow.during = () => host.sleep(stayPs);
      const startPs = host.node.now;
      host.spawn(
        'walker',
        (function* (): Sim<void> {
          yield* notifiers.end(yield* notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR));
        })(),
      );
      yield* host.sleep(10 * US);
      slow.release = function* () {};
      yield* notifiers.detach(slow);
      expect(host.node.now - startPs).toBeGreaterThanOrEqual(stayPs);
      // Without anybody in the list a grace period takes what it takes.
      const againPs = host.node.now;
      yield* notifiers.attach(new Gadget(mm));
      expect(host.node.now - againPs).toBeGreaterThanOrEqual(gracePeriodPs);
      expect(host.node.now - againPs).toBeLessThan(gracePeriodPs + 10 * US);
    });
  });

  it('has a newcomer wait for the invalidations that it was not told of', () => {
    play(function* ({ host }) {
      const { notifiers } = host.mm;
      const durationPs = 5 * host.ram.costs.gracePeriodPs;
      const startPs = host.node.now;
      const walker = host.spawn(
        'walker',
        (function* (): Sim<void> {
          const range = yield* notifiers.begin(BASE, BASE + PAGE, CAUSE_SWAP);
          yield* host.sleep(durationPs);
          yield* notifiers.end(range);
        })(),
      );
      yield* host.sleep(10 * US);
      const newcomer = new Gadget(host.mm);
      yield* notifiers.attach(newcomer);
      expect(host.node.now - startPs).toBeGreaterThanOrEqual(durationPs);
      newcomer.map(BASE);
      yield walker.done;
      expect(newcomer.calls).toEqual([]);
      yield* notifiers.detach(newcomer);
    });
  });

  it('nests and overlaps: a page is closed until the last invalidation of it has ended', () => {
    play(function* ({ host }) {
      const { notifiers } = host.mm;
      const gadget = new Gadget(host.mm);
      yield* notifiers.attach(gadget);
      const outer = yield* notifiers.begin(BASE, BASE + 3 * PAGE, CAUSE_UNMAP);
      const inner = yield* notifiers.begin(BASE + 2 * PAGE, BASE + 4 * PAGE, CAUSE_COW);
      yield* notifiers.end(outer);
      gadget.map(BASE);
      expect(() => gadget.map(BASE + 2 * PAGE)).toThrow('while it is being invalidated (cow)');
      yield* notifiers.end(inner);
      gadget.map(BASE + 2 * PAGE);
      expect(notifiers.references.count).toBe(2);
      yield* notifiers.detach(gadget);
    });
  });

  it('stops at a client that refuses, and tells only those of the end that heard of the begin', () => {
    play(function* ({ host }) {
      const { mm } = host;
      const { notifiers } = mm;
      const [older, stubborn, newer] = ['older', 'stubborn', 'newer'].map(
        (name) => new Gadget(mm, name),
      );
      for (const gadget of [older, stubborn, newer]) {
        yield* notifiers.attach(gadget);
        gadget.map(BASE);
      }
      stubborn.obeys = false;
      stubborn.during = function* (call, range) {
        yield 1 * US;
        if (range !== undefined && call === 'begin swap') range.refused = true;
      };
      const range = yield* notifiers.begin(BASE, BASE + PAGE, CAUSE_SWAP);
      expect(range.refused).toBe(true);
      // It keeps its entry, and the page may go on being used: nothing was invalidated.
      newer.map(BASE);
      yield* notifiers.end(range);
      expect(newer.calls).toEqual(['begin swap', 'end swap']);
      expect(stubborn.calls).toEqual(['begin swap', 'end swap']);
      expect(older.calls).toEqual([]);
      expect(notifiers.references.countOf(older)).toBe(1);
      stubborn.obeys = true;
      for (const gadget of [older, stubborn, newer]) yield* notifiers.detach(gadget);
    });
  });

  it('refuses for whoever would have to sleep when the caller cannot wait', () => {
    play(function* ({ host }) {
      const { notifiers } = host.mm;
      let subscription: IntervalSubscription | undefined;
      const sleepy: IntervalOps = {
        invalidate(range: Invalidation, sequence: number) {
          if (range.nonblock) return false;
          subscription?.setSequence(sequence);
          return of();
        },
      };
      subscription = notifiers.intervals.subscribe(BASE, BASE + PAGE, sleepy);
      const range = yield* notifiers.beginNonblock(BASE, BASE + PAGE, CAUSE_UNMAP);
      expect(range.refused).toBe(true);
      yield* notifiers.end(range);
      const elsewhere = yield* notifiers.beginNonblock(BASE + PAGE, BASE + 2 * PAGE, CAUSE_UNMAP);
      expect(elsewhere.refused).toBe(false);
      yield* notifiers.end(elsewhere);
      yield* notifiers.intervals.unsubscribe(subscription);
    });
  });

  it('passes dirty and referenced state of external entries on to the page', () => {
    play(function* ({ host }) {
      const { mm } = host;
      const { frames } = mm.memory;
      const gadget = new Gadget(mm);
      yield* mm.notifiers.attach(gadget);
      gadget.map(BASE);
      const frame = gadget.entries.get(BASE / PAGE) as number;
      expect(yield* mm.notifiers.agePage(BASE)).toBe(false);
      gadget.young.add(BASE / PAGE);
      expect(yield* mm.notifiers.agePage(BASE)).toBe(true);
      expect(yield* mm.notifiers.agePage(BASE)).toBe(false);
      frames.flags[frame] &= ~FRAME_DIRTY;
      gadget.written.add(BASE / PAGE);
      yield* mm.mprotect(BASE, PAGE, PROT_READ);
      expect(frames.flags[frame] & FRAME_DIRTY).toBe(FRAME_DIRTY);
      yield* mm.notifiers.detach(gadget);
    });
  });

  it('keeps a page in memory that nobody uses but a client', () => {
    play(function* ({ host }) {
      const { mm } = host;
      const gadget = new Gadget(mm);
      gadget.agePage = function* (address) {
        yield 1 * US;
        return address === BASE;
      };
      yield* mm.notifiers.attach(gadget);
      const isPresent = (page: number) => mm.pages.followPage(BASE / PAGE + page, false) >= 0;
      for (let round = 0; round < 50 && (isPresent(1) || isPresent(2)); round++) {
        yield* host.ram.reclaim.shrink(2);
        yield* host.sleep(1 * MS);
      }
      expect([0, 1, 2].map(isPresent)).toEqual([true, false, false]);
      yield* mm.notifiers.detach(gadget);
    });
  });

  it('lets a client keep a page beyond the begin, if it holds the frame and says so', () => {
    play(function* ({ host }) {
      const { mm } = host;
      const { frames } = mm.memory;
      const { references } = mm.notifiers;
      const gadget = new Gadget(mm);
      yield* mm.notifiers.attach(gadget);
      gadget.map(BASE);
      const frame = gadget.entries.get(BASE / PAGE) as number;
      frames.get(frame);
      gadget.obeys = false;
      gadget.during = function* (call) {
        if (!call.startsWith('begin')) return;
        yield 1 * US;
        references.postpone(gadget, BASE / PAGE, frame, CAUSE_UNMAP);
      };
      yield* mm.munmap(BASE, PAGE);
      expect(references.count).toBe(1);
      expect(references.wronglyPostponed).toBe(1);
      expect(frames.references[frame]).toBe(1);
      references.drop(gadget, BASE / PAGE, frame);
      frames.put(frame);
      expect(references.count).toBe(0);
      yield* mm.notifiers.detach(gadget);
    });
  });

  it('releases everybody in one go, once, while every mapping is still there', () => {
    play(function* ({ host }) {
      const { mm } = host;
      const gadgets = [new Gadget(mm, 'one'), new Gadget(mm, 'two')];
      const heard: Invalidation[] = [];
      const ops: IntervalOps = {
        invalidate(range, sequence) {
          subscription.setSequence(sequence);
          heard.push(range);
          return of();
        },
      };
      const subscription = mm.notifiers.intervals.subscribe(BASE, BASE + PAGE, ops);
      for (const gadget of gadgets) {
        yield* mm.notifiers.attach(gadget);
        gadget.map(BASE);
        gadget.during = function* () {
          expect(mm.mappings()).toHaveLength(1);
          expect(mm.pages.followPage(BASE / PAGE, true)).toBeGreaterThanOrEqual(0);
          yield 1 * US;
        };
      }
      yield* mm.notifiers.release();
      yield* mm.munmap(BASE, 4 * PAGE);
      for (const gadget of gadgets) expect(gadget.calls).toEqual(['release']);
      expect(heard.map(({ cause }) => cause)).toEqual(['release', 'unmap']);
      expect(mm.notifiers.references.count).toBe(0);
      // Released: nothing to do any more, and no lock needed.
      mm.notifiers.unregister(gadgets[0]);
      for (const gadget of gadgets) mm.notifiers.free(gadget);
      yield* mm.notifiers.intervals.unsubscribe(subscription);
    });
  });
});

describe('a process without notifiers', () => {
  it('announces ranges without a callback, a grace period or any simulated time', () => {
    play(function* ({ host }) {
      const { mm } = host;
      const startPs = host.node.now;
      for (let i = 0; i < 1000; i++) {
        const range = mm.notifiers.tryBegin(BASE, BASE + PAGE, CAUSE_COW);
        expect(range).toBeDefined();
        expect(mm.notifiers.tryEnd(range as Invalidation)).toBe(true);
        expect(mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_COW).next().done).toBe(true);
        expect(mm.notifiers.invalidatePage(BASE, CAUSE_COW).next().done).toBe(true);
        expect(mm.notifiers.agePage(BASE).next()).toEqual({ done: true, value: false });
        // begin above was not ended: end it, so that nothing is left.
        const [left] = mm.notifiers.references.unfinished;
        yield* mm.notifiers.end(left);
      }
      expect(host.node.now).toBe(startPs);
      expect(mm.notifiers.callbacks).toBe(0);
      expect(mm.notifiers.intervals.invalidations).toBe(0);
      expect(host.ram.srcu.readers).toBe(0);
    });
  });

  it('pays nothing for the subscriptions of others, or of its own elsewhere', () => {
    play(function* ({ host }) {
      const other = host.createProcess('other').mm;
      const ops: IntervalOps = { invalidate: () => of() };
      const subscriptions = Array.from({ length: 100 }, (_, i) =>
        host.mm.notifiers.intervals.subscribe(BASE + (8 + i) * PAGE, BASE + (10 + i) * PAGE, ops),
      );
      yield* other.notifiers.attach(new Gadget(other));
      yield* host.mm.munmap(BASE, 4 * PAGE);
      expect(host.mm.notifiers.tryBegin(BASE, BASE + 9 * PAGE, CAUSE_UNMAP)).toBeUndefined();
      expect(other.notifiers.callbacks).toBe(0);
      expect(host.mm.notifiers.intervals.invalidations).toBe(0);
      for (const subscription of subscriptions) {
        yield* host.mm.notifiers.intervals.unsubscribe(subscription);
      }
    });
  });
});

describe('a region that is paged on demand, whose device must be waited for', () => {
  it.each([
    ['a file that is truncated', 0],
    ['huge pages that are unmapped', MAP_HUGETLB],
  ])('hears of %s by the rules of today: nobody is atomic', (_what, flags) => {
    const { host, adapter, run } = makeBench({ memoryBytes: 4096 * PAGE, mm: { hugePages: 2 } });
    const { mm, verbs, ram } = host;
    adapter.doneDelayPs = 20 * US;
    const done = run(
      (function* (): Sim<void> {
        const file = ram.files.open('/file');
        if (flags === 0) yield* mm.mmap(BASE, 8 * PAGE, RW, MAP_SHARED, file);
        else yield* mm.mmap(BASE, 512 * PAGE, RW, flags);
        yield* mm.touch(BASE, 8, true);
        const access = ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND;
        const mr = yield* verbs.regMr(1, BASE, 8 * PAGE, access);
        expect(mr.pagesMapped).toBe(8);
        if (flags === 0) yield* ram.files.truncate(file, 2 * PAGE);
        else yield* mm.munmap(BASE, 512 * PAGE);
        expect(mr.pagesMapped).toBe(flags === 0 ? 2 : 0);
        yield* verbs.deregMr(mr);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});
