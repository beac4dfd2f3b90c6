/**
 * The rules of the notifiers (S1), each broken on purpose: what somebody does, and the report of it that
 * has to follow at once. A world for one break is one host with four pages mapped at BASE and present,
 * and a gadget that is registered.
 */
import { of, NEVER as SILENCE } from 'rxjs';
import {
  CAUSE_CLEAR,
  CAUSE_MIGRATE,
  CAUSE_SWAP,
  CAUSE_UNMAP,
  type Host,
  type HostConfig,
  type IntervalOps,
  PAGE_BYTES,
  type Sim,
  SpinLock,
  SystemCallError,
} from '../../kernel/index.ts';
import { US } from '../../transport/index.ts';
import { Gadget } from './gadget.ts';

/** Where the pages are that the breaks are about. */
export const BASE = 0x7f0000000000;

export interface RuleBreak {
  readonly rule: string;
  /** The report, up to node and time; FRAME stands for the number of the first page's frame. */
  readonly report: string;
  /** What the host is made of besides. */
  readonly config?: Partial<HostConfig>;
  /** Breaks it, in the thread `breaker`. */
  readonly how: (world: { readonly host: Host }, gadget: Gadget) => Sim<void>;
}

export const ruleBreaks: readonly RuleBreak[] = [
  {
    rule: 'an entry between begin and end',
    report: 'gadget enters page 0x7f0000000000 while it is being invalidated (clear)',
    *how({ host }, gadget) {
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE_BYTES, CAUSE_CLEAR);
      gadget.map(BASE);
    },
  },
  {
    rule: 'an entry left when begin returns',
    report: 'gadget still maps 0x7f0000001000 when the begin of its invalidation returns (unmap)',
    *how({ host }, gadget) {
      gadget.obeys = false;
      gadget.map(BASE + PAGE_BYTES);
      yield* host.mm.munmap(BASE, 4 * PAGE_BYTES);
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
      const frame = gadget.entries.get(BASE / PAGE_BYTES) as number;
      host.mm.state.table.set(BASE / PAGE_BYTES, 0);
      host.ram.rmap.unmap(frame, host.mm.state.id, BASE / PAGE_BYTES);
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
        const frame = gadget.entries.get(BASE / PAGE_BYTES) as number;
        host.mm.notifiers.references.postpone(gadget, BASE / PAGE_BYTES, frame, CAUSE_UNMAP);
      };
      yield* host.mm.munmap(BASE, PAGE_BYTES);
    },
  },
  {
    rule: 'sleeping in an atomic range',
    report: 'gadget sleeps in invalidateRangeBegin, which is atomic (clear): 1000000 ps to pass',
    *how({ host }, gadget) {
      gadget.during = () => host.sleep(1 * US);
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE_BYTES, CAUSE_CLEAR, true);
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
      host.mm.notifiers.intervals.subscribe(BASE, BASE + PAGE_BYTES, ops);
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE_BYTES, CAUSE_CLEAR, true);
    },
  },
  {
    rule: 'a range announced as one that may sleep, under a spinlock',
    report:
      'breaker announces an invalidation in which clients may sleep, and holds a spinlock (unmap)',
    *how({ host }) {
      const lock = new SpinLock(host.scheduler, 'i_mmap_lock');
      yield* lock.lock();
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE_BYTES, CAUSE_UNMAP);
    },
  },
  {
    rule: 'an end without a begin',
    report: 'an invalidation ends that never began (unmap)',
    *how({ host }) {
      const range = {
        start: BASE,
        end: BASE + PAGE_BYTES,
        cause: CAUSE_UNMAP,
        atomic: false,
      } as const;
      yield* host.mm.notifiers.end({ ...range, refused: false });
    },
  },
  {
    rule: 'a second end',
    report: 'an invalidation ends that never began (clear)',
    *how({ host }) {
      const range = yield* host.mm.notifiers.begin(BASE, BASE + PAGE_BYTES, CAUSE_CLEAR);
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
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE_BYTES, CAUSE_SWAP);
    },
  },
  {
    // "return -ENOMEM" in the middle of V6's copy_page_range, seed 000, patch 2.
    rule: 'the end that V6 forgets when fork fails',
    report:
      'breaker ends with an invalidation begun and not ended ' +
      '(cow of 0x7f0000000000 to 0x7f0000004000; gadget was told)',
    config: { mm: { v6CopyPageRange: true, forkFailsAfterEntries: 2 } },
    *how({ host }) {
      try {
        yield* host.mm.fork('child');
      } catch (error) {
        if (!(error instanceof SystemCallError)) throw error;
      }
    },
  },
  {
    rule: 'a process that exits before its invalidation',
    report:
      'breaker exits with an invalidation begun and not ended ' +
      '(clear of 0x7f0000000000 to 0x7f0000001000; gadget was told)',
    *how({ host }) {
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE_BYTES, CAUSE_CLEAR);
      yield* host.mm.notifiers.release();
    },
  },
  {
    rule: 'an invalidation that is left at the end of the run',
    report: 'an invalidation never ended (clear of 0x7f0000000000 to 0x7f0000001000)',
    *how({ host }) {
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE_BYTES, CAUSE_CLEAR);
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
      host.mm.notifiers.references.drop(gadget, BASE / PAGE_BYTES + 2, 1);
    },
  },
  {
    rule: 'a refusal where the site allows none',
    report: 'gadget refuses what must happen now (unmap)',
    *how({ host }, gadget) {
      gadget.during = refuse;
      yield* host.mm.munmap(BASE, PAGE_BYTES);
    },
  },
  {
    rule: 'a refusal of a subscription where the site allows none',
    report: 'stubborn refuses what must happen now (clear)',
    *how({ host }) {
      const ops: IntervalOps = { name: 'stubborn', invalidate: () => false };
      host.mm.notifiers.intervals.subscribe(BASE, BASE + PAGE_BYTES, ops);
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE_BYTES, CAUSE_CLEAR);
    },
  },
  {
    rule: 'a subscription that does not note the sequence',
    report: 'forgetful does not note the sequence of an invalidation (clear)',
    *how({ host }) {
      const ops: IntervalOps = { name: 'forgetful', invalidate: () => of() };
      host.mm.notifiers.intervals.subscribe(BASE, BASE + PAGE_BYTES, ops);
      yield* host.mm.notifiers.begin(BASE, BASE + PAGE_BYTES, CAUSE_CLEAR);
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
      host.mm.state.table.set(BASE / PAGE_BYTES, 0);
      host.mm.notifiers.checkAtRest();
    },
  },
];

function* refuse(_call: string, range?: { refused: boolean }): Sim<void> {
  yield 1 * US;
  if (range !== undefined) range.refused = true;
}
