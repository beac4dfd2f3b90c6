/** A sparse table is a table: whatever is set is what is read, and nothing else is found. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { SparseTable } from '../../transport/index.ts';

it('holds what a plain table holds', () => {
  const index = fc.integer({ min: 0, max: 299 });
  const change = fc.record({
    first: index,
    count: fc.integer({ min: 1, max: 60 }),
    entry: fc.constantFrom(0, 1, -1, 77),
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 300 }),
      fc.array(change),
      index,
      (length, changes, at) => {
        const table = new SparseTable(length);
        const plain = new Int32Array(length);
        for (const { first, count, entry } of changes) {
          for (let i = first; i < Math.min(length, first + count); i++) {
            table.set(i, entry);
            plain[i] = entry;
          }
        }
        expect(Array.from({ length }, (_, i) => table.get(i))).toEqual([...plain]);
        const end = Math.min(length, at + 100);
        const expected = plain.findIndex((entry, i) => i >= at && i < end && entry !== 0);
        expect(table.nextUsed(at, end)).toBe(expected < 0 ? end : expected);
      },
    ),
    { numRuns: 500, seed: 3 },
  );
});

it('reads as 0 outside', () => {
  const table = new SparseTable(20);
  table.set(19, 5);
  expect([table.get(20), table.get(31), table.get(32), table.get(-1), table.get(2 ** 31)]).toEqual([
    0, 0, 0, 0, 0,
  ]);
});

it('has room for a full table', () => {
  const table = new SparseTable(100_000);
  for (let i = 0; i < 100_000; i++) table.set(i, i + 1);
  let at = 0;
  for (let i = 0; i < 100_000; i++) {
    at = table.nextUsed(at, 100_000);
    if (at !== i || table.get(at) !== i + 1) break;
    at++;
  }
  expect(at).toBe(100_000);
});
