import { describe, expect, it } from 'vitest';
import { RandomStream } from '../../transport/index.ts';

const draws = (stream: RandomStream, count = 8): number[] =>
  Array.from({ length: count }, () => stream.next());

describe('RandomStream', () => {
  it('is named by seed, owner and purpose alone', () => {
    expect(draws(new RandomStream(1, 'a', 'x'))).toEqual(draws(new RandomStream(1, 'a', 'x')));
    const names: [number, string, string][] = [
      [1, 'a', 'x'],
      [2, 'a', 'x'],
      [1, 'b', 'x'],
      [1, 'a', 'y'],
      [1, 'x', 'a'],
    ];
    const firsts = names.map((name) => new RandomStream(...name).next());
    expect(new Set(firsts).size).toBe(names.length);
  });

  it('draws the numbers it has always drawn', () => {
    // Recorded: a change here changes every seeded run there is.
    expect(draws(new RandomStream(42, 'host0', 'loss'), 4)).toMatchInlineSnapshot(`
      [
        2163409075,
        1157732187,
        4156667865,
        2905183544,
      ]
    `);
  });

  it('spreads evenly over a range, both ends included', () => {
    const stream = new RandomStream(7, 'a', 'range');
    const counts = new Array<number>(10).fill(0);
    for (let i = 0; i < 100_000; i++) counts[stream.below(10)]++;
    // Ten thousand each; six standard deviations are 570.
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(570);
  });

  it('has chances in parts per million', () => {
    const stream = new RandomStream(7, 'a', 'chance');
    expect(Array.from({ length: 1000 }, () => stream.chance(0))).not.toContain(true);
    expect(Array.from({ length: 1000 }, () => stream.chance(1_000_000))).not.toContain(false);
    let hits = 0;
    for (let i = 0; i < 100_000; i++) if (stream.chance(10_000)) hits++;
    expect(Math.abs(hits - 1000)).toBeLessThan(190);
  });
});
