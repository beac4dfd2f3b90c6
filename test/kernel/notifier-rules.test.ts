/**
 * Each rule of the notifiers, broken on purpose, and the report of it: what, who, why, which node, when.
 */
import { of, NEVER as SILENCE } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import type { IntervalOps } from '../../kernel/mm/notify/interval-notifier.ts';
import {
  CAUSE_CLEAR,
  CAUSE_MIGRATE,
  CAUSE_SWAP,
  CAUSE_UNMAP,
} from '../../kernel/mm/notify/invalidation.ts';
import { SpinLock } from '../../kernel/sched/spin-lock.ts';
import { SimulationBug, US } from '../../transport/index.ts';
import { BASE, type Bench, makeBench, PAGE } from './bench.ts';
import { Gadget } from './gadget.ts';

const RW = PROT_READ | PROT_WRITE;

interface Break {
  readonly rule: string;
  /** The report up to the place and time. */
  readonly report: string;
  readonly how: (bench: Bench, gadget: Gadget) => Sim<void>;
}

const breaks: readonly Break[] = [
  {
    rule: 'an entry between begin and end',
    report: 'gadget enters page 0x7f0000000000 while it is being invalidated (clear)',
    *how({ host }, gadget) {
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR);
      gadget.map(BASE);
    },
  },
  {
    rule: 'an entry left when begin returns',
    report: 'gadget still maps 0x7f0000001000 when the begin of its invalidation returns (unmap)',
    *how({ host }, gadget) {
      gadget.obeys = false;
      gadget.map(BASE + PAGE);
      yield* host.mm.munmap(BASE, 4 * PAGE);
    },
  },
  {
    rule: 'an entry left when invalidatePage returns',
    report: 'gadget still maps 0x7f0000000000 when its invalidatePage returns (migrate)',
    *how({ host }, gadget) {
      gadget.map(BASE);
      gadget.obeys = false;
      yield* host.mm.state.tableLock.lock();
      yield* host.mm.notifiers.invalidatePage(BASE, CAUSE_MIGRATE);
    },
  },
  {
    rule: 'a page freed that a client maps, by a site that announces nothing',
    report:
      'page frame FRAME is freed while gadget maps it at 0x7f0000000000 (outside of any invalidation)',
    *how({ host }, gadget) {
      gadget.map(BASE);
      yield* host.sleep(1 * US);
      const frame = gadget.entries.get(BASE / PAGE) as number;
      host.mm.state.table.set(BASE / PAGE, 0);
      host.ram.rmap.unmap(frame, host.mm.state.id, BASE / PAGE);
    },
  },
  {
    rule: 'a page freed that a client has postponed without a reference',
    report: 'page frame FRAME is freed while gadget maps it at 0x7f0000000000 (unmap)',
    *how({ host }, gadget) {
      gadget.map(BASE);
      gadget.obeys = false;
      gadget.during = function* (call) {
        if (call !== 'begin unmap') return;
        yield 1 * US;
        const frame = gadget.entries.get(BASE / PAGE) as number;
        host.mm.notifiers.references.postpone(gadget, BASE / PAGE, frame, CAUSE_UNMAP);
      };
      yield* host.mm.munmap(BASE, PAGE);
    },
  },
  {
    rule: 'sleeping in an atomic range',
    report: 'gadget sleeps in invalidateRangeBegin, which is atomic (clear): 1000000 ps to pass',
    *how({ host }, gadget) {
      gadget.during = () => host.sleep(1 * US);
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR, true);
    },
  },
  {
    rule: 'sleeping under the page table lock',
    report: 'gadget sleeps in invalidatePage, which is atomic (swap): 1000000 ps to pass',
    *how({ host }, gadget) {
      gadget.during = () => host.sleep(1 * US);
      yield* host.mm.state.tableLock.lock();
      yield* host.mm.notifiers.invalidatePage(BASE, CAUSE_SWAP);
    },
  },
  {
    rule: 'sleeping while a page is aged',
    report: 'gadget sleeps in agePage, which is atomic (ageing): 1000000 ps to pass',
    *how({ host }, gadget) {
      gadget.during = () => host.sleep(1 * US);
      yield* host.mm.notifiers.agePage(BASE);
    },
  },
  {
    rule: 'a subscription that sleeps in an atomic range',
    report: 'sleeper sleeps in invalidate, which is atomic (clear)',
    *how({ host }) {
      const ops: IntervalOps = { name: 'sleeper', invalidate: () => SILENCE };
      host.mm.notifiers.intervals.subscribe(BASE, BASE + PAGE, ops);
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR, true);
    },
  },
  {
    rule: 'a range announced as one that may sleep, under a spinlock',
    report:
      'breaker announces an invalidation in which clients may sleep, and holds a spinlock (unmap)',
    *how({ host }) {
      const lock = new SpinLock(host.scheduler, 'i_mmap_lock');
      yield* lock.lock();
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_UNMAP);
    },
  },
  {
    rule: 'a call after the unregistration',
    report: 'invalidateRangeBegin of gadget is called after its unregistration (clear)',
    *how({ host }, gadget) {
      const { notifiers } = host.mm;
      const { list } = listOf(notifiers);
      const place = list.head;
      yield* notifiers.detach(gadget);
      list.head = place;
      yield* notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR);
    },
  },
  {
    rule: 'a call after the end of a subscription',
    report: 'leaver is called after its unsubscription (unmap)',
    *how({ host }, gadget) {
      const { intervals } = host.mm.notifiers;
      yield* host.mm.notifiers.detach(gadget);
      const second: IntervalOps = { name: 'leaver', invalidate: () => of() };
      const leaver = intervals.subscribe(BASE, BASE + PAGE, second);
      const first: IntervalOps = {
        invalidate(_range, sequence) {
          subscription.setSequence(sequence);
          treeOf(intervals).remove(leaver);
          return of();
        },
      };
      const subscription = intervals.subscribe(BASE - PAGE, BASE + PAGE, first);
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_UNMAP);
    },
  },
  {
    rule: 'an end without a begin',
    report: 'an invalidation ends that never began (unmap)',
    *how({ host }) {
      const range = { start: BASE, end: BASE + PAGE, cause: CAUSE_UNMAP, atomic: false } as const;
      yield* host.mm.notifiers.end({ ...range, refused: false });
    },
  },
  {
    rule: 'a second end',
    report: 'an invalidation ends that never began (clear)',
    *how({ host }) {
      const range = yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR);
      yield* host.mm.notifiers.end(range);
      yield* host.mm.notifiers.end(range);
    },
  },
  {
    rule: 'a thread that ends before its invalidation',
    report:
      'breaker ends with an invalidation begun and not ended ' +
      '(swap of 0x7f0000000000 to 0x7f0000001000; gadget was told)',
    *how({ host }) {
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_SWAP);
    },
  },
  {
    rule: 'a process that exits before its invalidation',
    report:
      'breaker exits with an invalidation begun and not ended ' +
      '(clear of 0x7f0000000000 to 0x7f0000001000; gadget was told)',
    *how({ host }) {
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR);
      yield* host.mm.notifiers.release();
    },
  },
  {
    rule: 'an invalidation that is left at the end of the run',
    report: 'an invalidation never ended (clear of 0x7f0000000000 to 0x7f0000001000)',
    *how({ host }) {
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR);
      host.mm.notifiers.checkAtRest();
    },
  },
  {
    rule: 'registration without the mmap lock',
    report: 'second is registered without the mmap lock of a',
    *how({ host }) {
      yield* host.mm.state.lock.lockRead();
      host.mm.notifiers.register(new Gadget(host.mm, 'second'));
    },
  },
  {
    rule: 'unregistration without the mmap lock',
    report: 'gadget is unregistered without the mmap lock of a',
    *how({ host }, gadget) {
      yield* host.sleep(1 * US);
      host.mm.notifiers.unregister(gadget);
    },
  },
  {
    rule: 'registration twice',
    report: 'gadget is registered twice',
    *how({ host }, gadget) {
      yield* host.mm.notifiers.attach(gadget);
    },
  },
  {
    rule: 'freeing before the grace period',
    report: 'gadget is freed before its grace period is over',
    *how({ host }, gadget) {
      yield* host.mm.state.lock.lockWrite();
      host.mm.notifiers.unregister(gadget);
      host.mm.state.lock.unlockWrite();
      yield* host.sleep(1 * US);
      host.mm.notifiers.free(gadget);
    },
  },
  {
    rule: 'freeing while registered',
    report: 'gadget is freed while it is registered',
    *how({ host }, gadget) {
      yield* host.sleep(1 * US);
      host.mm.notifiers.free(gadget);
    },
  },
  {
    rule: 'freeing with entries left',
    report: 'gadget is freed and has 1 entries left',
    *how({ host }, gadget) {
      gadget.map(BASE);
      gadget.obeys = false;
      yield* host.mm.notifiers.detach(gadget);
    },
  },
  {
    rule: 'an entry before the registration is visible',
    report: 'second makes an external reference before its registration is visible to everybody',
    *how({ host }) {
      const second = new Gadget(host.mm, 'second');
      yield* host.mm.state.lock.lockWrite();
      host.mm.notifiers.register(second);
      host.mm.state.lock.unlockWrite();
      second.map(BASE);
    },
  },
  {
    rule: 'an entry after the unregistration',
    report: 'gadget makes an external reference after its unregistration',
    *how({ host }, gadget) {
      gadget.map(BASE);
      yield* host.mm.notifiers.detach(gadget);
      gadget.map(BASE);
    },
  },
  {
    rule: 'an entry dropped that is not there',
    report: 'gadget drops an entry that it does not have at 0x7f0000002000',
    *how({ host }, gadget) {
      yield* host.sleep(1 * US);
      host.mm.notifiers.references.drop(gadget, BASE / PAGE + 2, 1);
    },
  },
  {
    rule: 'a refusal where the site allows none',
    report: 'gadget refuses what must happen now (unmap)',
    *how({ host }, gadget) {
      gadget.during = refuse;
      yield* host.mm.munmap(BASE, PAGE);
    },
  },
  {
    rule: 'a refusal of a subscription where the site allows none',
    report: 'stubborn refuses what must happen now (clear)',
    *how({ host }) {
      const ops: IntervalOps = { name: 'stubborn', invalidate: () => false };
      host.mm.notifiers.intervals.subscribe(BASE, BASE + PAGE, ops);
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR);
    },
  },
  {
    rule: 'a subscription that does not note the sequence',
    report: 'forgetful does not note the sequence of an invalidation (clear)',
    *how({ host }) {
      const ops: IntervalOps = { name: 'forgetful', invalidate: () => of() };
      host.mm.notifiers.intervals.subscribe(BASE, BASE + PAGE, ops);
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE, CAUSE_CLEAR);
    },
  },
  {
    rule: 'a release that leaves entries',
    report: 'gadget keeps 1 entries when its release returns (release)',
    *how({ host }, gadget) {
      gadget.map(BASE);
      gadget.obeys = false;
      yield* host.mm.notifiers.release();
    },
  },
  {
    rule: 'a second release',
    report: 'the notifiers of a process are released twice',
    *how({ host }) {
      yield* host.mm.notifiers.release();
      yield* host.mm.notifiers.release();
    },
  },
  {
    rule: 'an entry that names another frame than the process has',
    report: 'gadget maps 0x7f0000000000 to frame FRAME, and the process does not',
    *how({ host }, gadget) {
      gadget.map(BASE);
      yield* host.sleep(1 * US);
      host.mm.state.table.set(BASE / PAGE, 0);
      host.mm.notifiers.checkAtRest();
    },
  },
];

describe('the rules of the notifiers', () => {
  it.each(breaks)('catch $rule', ({ report, how }) => {
    const bench = makeBench();
    const { host } = bench;
    const gadget = new Gadget(host.mm);
    let frame = -1;
    let caughtPs = -1;
    host.spawn(
      'breaker',
      (function* (): Sim<void> {
        yield* host.mm.mmap(BASE, 4 * PAGE, RW);
        yield* host.mm.touch(BASE, 4, true);
        frame = host.mm.pages.followPage(BASE / PAGE, false);
        yield* host.mm.notifiers.attach(gadget);
        yield* how(bench, gadget);
      })(),
    );
    let bug: unknown;
    try {
      bench.adapter.run(host);
    } catch (error) {
      bug = error;
      caughtPs = host.node.now;
    }
    expect(bug).toBeInstanceOf(SimulationBug);
    const expected = report.replace('FRAME', String(frame));
    expect((bug as Error).message).toBe(`${expected} (node a.host, ${caughtPs} ps)`);
  });
});

function* refuse(_call: string, range?: { refused: boolean }): Sim<void> {
  yield 1 * US;
  if (range !== undefined) range.refused = true;
}

/** The insides that two tests have to damage. */
function listOf(notifiers: object): { list: { head: unknown } } {
  return (notifiers as { chain: { list: { head: unknown } } }).chain;
}

function treeOf(intervals: object): { remove(item: unknown): boolean } {
  return (intervals as { tree: { remove(item: unknown): boolean } }).tree;
}
