import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Interval, IntervalTree } from '../../kernel/mm/notify/interval-tree.ts';

type Step =
  | { readonly op: 'insert'; readonly start: number; readonly length: number }
  | { readonly op: 'remove'; readonly which: number }
  | { readonly op: 'find'; readonly start: number; readonly length: number };

const place = fc.record({ start: fc.nat(60), length: fc.integer({ min: 1, max: 25 }) });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: place.map((where): Step => ({ op: 'insert', ...where })) },
  { weight: 1, arbitrary: fc.nat().map((which): Step => ({ op: 'remove', which })) },
  { weight: 2, arbitrary: place.map((where): Step => ({ op: 'find', ...where })) },
);

describe('the interval tree', () => {
  it('finds what a list filtered and sorted by start finds', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const tree = new IntervalTree<Interval>();
        const list: Interval[] = [];
        for (const each of steps) {
          if (each.op === 'insert') {
            const item = { start: each.start, end: each.start + each.length };
            tree.insert(item);
            list.push(item);
          } else if (each.op === 'remove') {
            const [item] = list.splice(each.which % Math.max(list.length, 1), 1);
            if (item !== undefined) expect(tree.remove(item)).toBe(true);
            if (item !== undefined) expect(tree.remove(item)).toBe(false);
          } else {
            const end = each.start + each.length;
            const hit = list.filter((item) => item.start < end && each.start < item.end);
            const expected = hit.toSorted((a, b) => a.start - b.start);
            expect(tree.overlapping(each.start, end)).toEqual(expected);
            expect(tree.hits(each.start, end)).toBe(hit.length > 0);
          }
          expect(tree.size).toBe(list.length);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('stays shallow however the intervals come', () => {
    const orders = [
      (i: number) => i,
      (i: number) => 10_000 - i,
      (i: number) => (i * 7919) % 10_007,
    ];
    for (const order of orders) {
      const tree = new IntervalTree<Interval>();
      for (let i = 0; i < 10_000; i++) tree.insert({ start: order(i), end: order(i) + 1 });
      expect(tree.depth).toBeLessThan(60);
    }
  });
});
