/**
 * Each rule of the notifiers, broken on purpose, and the report of it: what, who, why, which node, when.
 */
import { of } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { Gadget } from '../../harness/experiments/gadget.ts';
import { BASE, type RuleBreak, ruleBreaks } from '../../harness/experiments/rule-breaks.ts';
import { PROT_READ, PROT_WRITE, type Sim, type SystemCallError } from '../../kernel/index.ts';
import type { IntervalOps } from '../../kernel/mm/notify/interval-notifier.ts';
import { CAUSE_CLEAR, CAUSE_UNMAP } from '../../kernel/mm/notify/invalidation.ts';
import { SimulationBug } from '../../transport/index.ts';
import { makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;

/** What nothing but damage to the lists themselves can bring about. */
const damages: readonly RuleBreak[] = [
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
];

describe('the rules of the notifiers', () => {
  it.each([...ruleBreaks, ...damages])('catch $rule', ({ report, how, config }) => {
    const bench = makeBench(config);
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

it('the fork of today, which fails in the same place, ends what it has begun', () => {
  const { host, run } = makeBench({ mm: { forkFailsAfterEntries: 2 } });
  const gadget = new Gadget(host.mm);
  const done = run(
    (function* (): Sim<void> {
      yield* host.mm.mmap(BASE, 4 * PAGE, RW);
      yield* host.mm.touch(BASE, 4, true);
      yield* host.mm.notifiers.attach(gadget);
      let errno = '';
      try {
        yield* host.mm.fork('child');
      } catch (error) {
        errno = (error as SystemCallError).errno;
      }
      expect(errno).toBe('ENOMEM');
      expect(gadget.calls).toEqual(['begin cow', 'end cow']);
    })(),
  );
  expect(done).toBe(true);
  host.checkLeaks();
});

/** The insides that two tests have to damage. */
function listOf(notifiers: object): { list: { head: unknown } } {
  return (notifiers as { chain: { list: { head: unknown } } }).chain;
}

function treeOf(intervals: object): { remove(item: unknown): boolean } {
  return (intervals as { tree: { remove(item: unknown): boolean } }).tree;
}
