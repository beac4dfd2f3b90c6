/** The adapter's record of the pages that it writes, and the table entry that it replaces in one step. */
import { describe, expect, it } from 'vitest';
import { DirtyLog } from '../../hca/memory/dirty-log.ts';
import type { Sim } from '../../kernel/index.ts';
import {
  CMD_BAD_PARAMETER,
  CMD_BAD_RESOURCE,
  CMD_NOT_SUPPORTED,
  CMD_OK,
  CMD_QUERY_DIRTY,
  CMD_SWITCH_PAGE,
  RandomStream,
} from '../../transport/index.ts';
import { HostPair, open } from '../fixtures/host-pair.ts';

it('gives each page once, and clears it', () => {
  const random = new RandomStream(1, 'test', 'pages');
  const log = new DirtyLog(100);
  const written = new Set<number>();
  for (let i = 0; i < 2000; i++) {
    const page = random.below(100);
    if (random.chance(500_000)) {
      log.note(page);
      written.add(page);
    } else expect(log.take(page)).toBe(written.delete(page));
  }
});

interface DriverCommands {
  exchange(
    verb: string,
    command: { opcode: number; parameters: readonly number[] },
  ): Sim<{ readonly result: number; readonly mailbox: Uint8Array }>;
}

type Answer = [status: number, result: number];

/** Gives commands to an adapter as its driver would; `key` is that of a region of 64 pages. */
function command(
  body: (
    give: (opcode: number, parameters: readonly number[]) => Sim<Answer>,
    key: number,
  ) => Sim<void>,
  tracks = true,
): void {
  const pair = new HostPair({ profile: { dirtyTracking: tracks } });
  const { commands } = (pair.a as unknown as { device: { commands: DriverCommands } }).device;
  const give = function* (opcode: number, parameters: readonly number[]): Sim<Answer> {
    try {
      return [CMD_OK, (yield* commands.exchange('test', { opcode, parameters })).result];
    } catch (error) {
      return [Number(/answered (\d+)/.exec((error as Error).message)?.[1]), 0];
    }
  };
  const program = function* (): Sim<void> {
    const { mr } = yield* open(pair.a);
    yield* body(give, mr.lkey);
  };
  expect(pair.run(program())).toBe(true);
}

describe('QUERY_DIRTY and SWITCH_PAGE', () => {
  it.each([
    ['a key that is not there', CMD_QUERY_DIRTY, 0x7700, [0, 1], CMD_BAD_RESOURCE],
    ['pages beyond the region', CMD_QUERY_DIRTY, 0, [60, 10], CMD_BAD_PARAMETER],
    ['no pages', CMD_QUERY_DIRTY, 0, [0, 0], CMD_BAD_PARAMETER],
    ['pages before the region', CMD_QUERY_DIRTY, 0, [-1, 2], CMD_BAD_PARAMETER],
    ['a switch without a record', CMD_SWITCH_PAGE, 0, [0, 7], CMD_BAD_PARAMETER],
  ])('refuse %s', (_, opcode, wrongKey, rest, status) => {
    command(function* (give, key) {
      expect((yield* give(opcode, [wrongKey || key, ...rest]))[0]).toBe(status);
    });
  });

  it('are refused by an adapter that keeps no record', () => {
    command(function* (give, key) {
      expect((yield* give(CMD_QUERY_DIRTY, [key, 0, 1]))[0]).toBe(CMD_NOT_SUPPORTED);
      expect((yield* give(CMD_SWITCH_PAGE, [key, 0, 1]))[0]).toBe(CMD_NOT_SUPPORTED);
    }, false);
  });

  it('switch pages that were not written, inside the region only', () => {
    command(function* (give, key) {
      expect(yield* give(CMD_QUERY_DIRTY, [key, 0, 64])).toEqual([CMD_OK, 0]);
      expect(yield* give(CMD_SWITCH_PAGE, [key, 63, (200 << 2) | 3])).toEqual([CMD_OK, 1]);
      expect((yield* give(CMD_SWITCH_PAGE, [key, 64, 7]))[0]).toBe(CMD_BAD_PARAMETER);
    });
  });
});
