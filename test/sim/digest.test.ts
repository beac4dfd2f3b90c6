import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  combineDigests,
  Digest,
  firstDifference,
  type LoggedRecord,
} from '../../transport/index.ts';

const records = fc.array(fc.tuple(fc.nat(1e12), fc.integer(), fc.integer()), { maxLength: 30 });

function digestOf(list: readonly (readonly [number, number, number])[], log?: LoggedRecord[]) {
  const digest = new Digest('node');
  if (log) digest.attach(log);
  for (const [at, x, y] of list) digest.record(1, at, x, y);
  return digest.toString();
}

describe('Digest', () => {
  it('does not depend on the order of records, nor on whether they are logged', () => {
    fc.assert(
      fc.property(records, (list) => {
        expect(digestOf([...list].reverse(), [])).toBe(digestOf(list));
      }),
      { seed: 1 },
    );
  });

  it('depends on every field, on the time, and on each record being there once', () => {
    const list = [
      [1, 2, 3],
      [4, 5, 6],
    ] as const;
    const others = [
      [],
      [list[0]],
      [list[0], list[0], list[1]],
      [list[0], [4, 5, 7]],
      [list[0], [4, 6, 5]],
      [list[0], [4 + 2 ** 32, 5, 6]],
      list,
    ] as const;
    expect(new Set(others.map((other) => digestOf(other))).size).toBe(others.length);
  });

  it('finds the first difference in time', () => {
    const logs: LoggedRecord[][] = [[], []];
    digestOf(
      [
        [30, 1, 1],
        [20, 2, 2],
        [10, 3, 3],
      ],
      logs[0],
    );
    digestOf(
      [
        [10, 3, 3],
        [20, 2, 9],
        [30, 1, 1],
      ],
      logs[1],
    );
    const difference = firstDifference(logs[0], logs[1]);
    expect(difference?.left).toMatchObject({ timePs: 20, fields: [2, 2, 0, 0] });
    expect(firstDifference(logs[0], [...logs[0]].reverse())).toBeUndefined();
    expect(firstDifference([], logs[1])).toEqual({ left: undefined, right: logs[1][0] });
  });

  it('combines nodes by name', () => {
    const parts: [string, string][] = [
      ['a', 'x'],
      ['b', 'y'],
    ];
    const combined = combineDigests(new Map(parts));
    expect(combineDigests(new Map(parts.toReversed()))).toBe(combined);
    expect(
      combineDigests(
        new Map([
          ['a', 'y'],
          ['b', 'x'],
        ]),
      ),
    ).not.toBe(combined);
  });
});
