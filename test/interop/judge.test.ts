/** The table's judge: what is right is green, and what is wrong in any of the ways it can be is not. */
import { describe, expect, it } from 'vitest';
import { type Cell, cellsOf, fullGroups, type Group, shortGroups } from './cells.ts';
import { excuseFor } from './excuses.ts';
import { type Faults, idealSides } from './ideal-ends.ts';
import { operations } from './operations.ts';
import { jsonOf, renderFindings, verdictOf } from './report.ts';
import { type CellResult, runCells, type Wire } from './run-cells.ts';

const calm = fullGroups().filter(({ loss, path }) => loss === 'none' && path.mtuBytes === 512);
const lossy = fullGroups().filter(({ loss, path }) => loss === 'loss' && path.mtuBytes === 512);

async function play(
  groups: readonly Group[],
  faults: Faults = {},
  wire?: Wire,
): Promise<CellResult[]> {
  const results: CellResult[] = [];
  const cells = groups.flatMap((group) => cellsOf(group));
  await runCells({ ...idealSides(faults), wire }, cells, (result) => results.push(result));
  return results;
}

const names = (results: readonly CellResult[], verdict: CellResult['verdict']) => [
  ...new Set(
    results.filter((result) => result.verdict === verdict).map(({ cell }) => cell.operation.name),
  ),
];
const all = operations.map(({ name }) => name);
const without = (...left: string[]) => all.filter((name) => !left.includes(name));

describe('the judge', () => {
  it('is content with ends that do everything right', async () => {
    const results = await play(calm);
    expect(results.length).toBe(2 * 2 * operations.length);
    expect(names(results, 'green')).toEqual(all);
    expect(results.every(({ good, total }) => good === total && total > 0)).toBe(true);
  });

  it('sees one wrong byte, wherever it arrives', async () => {
    const results = await play(calm, {
      data: (bytes) => {
        if (bytes.length > 0) bytes[bytes.length - 1] = (bytes[bytes.length - 1] as number) ^ 1;
        return bytes;
      },
    });
    expect(names(results, 'green')).toEqual([]);
  });

  it('sees a byte written behind the end of a message', async () => {
    const results = await play(calm, { data: (bytes) => Buffer.concat([bytes, Buffer.of(0x77)]) });
    const pinned = results.filter(({ cell }) => cell.group.memory === 'pinned');
    expect(names(pinned, 'green')).toEqual([]);
  });

  it('sees a completion that does not come', async () => {
    const results = await play(calm, { completion: () => [] });
    expect(names(results, 'green')).toEqual([]);
  });

  it('sees a completion that comes twice', async () => {
    const results = await play(calm, { completion: (completion) => [completion, completion] });
    expect(names(results, 'green')).toEqual([]);
  });

  it('sees a failed completion', async () => {
    const results = await play(calm, {
      completion: (completion) => [{ ...completion, status: 10 }],
    });
    expect(names(results, 'green')).toEqual([]);
  });

  it('sees a wrong length, immediate or invalidated key of a receive', async () => {
    const received = (change: Partial<CellResult> | object): Faults => ({
      completion: (completion) => [
        completion.op.startsWith('recv') ? { ...completion, ...change } : completion,
      ],
    });
    const receiving = all.filter((name) => /SEND|WRITE imm/.test(name));
    expect(names(await play(calm, received({ length: 3 })), 'red')).toEqual(receiving);
    const withImmediate = all.filter((name) => /imm/.test(name));
    expect(names(await play(calm, received({ immediate: 3 })), 'red')).toEqual(
      expect.arrayContaining(withImmediate),
    );
    expect(names(await play(calm, received({ invalidatedRkey: 3 })), 'red')).toContain('SEND inv');
  });

  it('sees a message that is lost where nothing may be lost', async () => {
    const results = await play(calm, { isLost: () => true });
    expect(names(results, 'green')).toEqual([]);
  });
});

describe('with frames dropped on the wire', () => {
  /** Counts as many frames as there are lost messages. */
  const dropping = (perCell: number): Wire => {
    let asked = 0;
    return {
      impair: async () => {},
      harm: async () => ({ dropped: (asked++ % 2) * perCell, doubled: 0 }),
    };
  };
  const isLost = () => true;
  const reliable = operations.filter(({ service }) => service === 'rc').map(({ name }) => name);

  it('an unreliable service may lose what was dropped, a reliable one may not', async () => {
    const results = await play(lossy, { isLost }, dropping(100));
    expect(names(results, 'red')).toEqual(reliable);
    expect(names(results, 'green')).toEqual(without(...reliable));
  });

  it('what was not dropped may not be missing, but for the rule about UC', async () => {
    const results = await play(lossy, { isLost }, dropping(0));
    const green = results.filter(({ verdict }) => verdict === 'green');
    expect(green).toEqual([]);
    const excused = results.filter(({ verdict }) => verdict === 'excused');
    expect(excused.length).toBeGreaterThan(0);
    for (const { cell, rule } of excused) {
      expect([cell.group.service, cell.direction]).toEqual(['uc', 'us to guest']);
      expect(rule?.name).toBe('rxe-uc-stays-lost');
    }
  });
});

describe('rules of the rxe profile', () => {
  const cellOf = (operation: string, direction: string, loss: string) =>
    fullGroups()
      .filter((group) => group.loss === loss)
      .flatMap((group) => cellsOf(group, operation))
      .find((cell) => cell.direction === direction) as Cell;
  const failed = (...problems: string[]) => ({ good: 0, total: 1, missing: 0, problems });
  const refused = failed('guest: completion 1  10 remote access error', 'us: EIO byte 0 is 0');
  const unanswered = failed('us: completion 2  12 IBV_WC_RETRY_EXC_ERR', 'us: completion 3  5 x');

  it.each([
    ['FLUSH', 'guest to us', 'loss', refused, 'rxe-address-lost'],
    ['ATOMIC_WRITE', 'guest to us', 'loss', refused, 'rxe-address-lost'],
    ['ATOMIC_WRITE', 'guest to us', 'none', refused, undefined],
    ['ATOMIC_WRITE', 'us to guest', 'loss', refused, undefined],
    ['ATOMIC_WRITE', 'guest to us', 'loss', failed('us: EIO byte 0 is 0'), undefined],
    ['WRITE', 'guest to us', 'loss', refused, undefined],
    ['FLUSH', 'us to guest', 'loss', unanswered, 'rxe-flush-again'],
    ['FLUSH', 'us to guest', 'none', unanswered, undefined],
    ['FLUSH', 'us to guest', 'loss', failed('guest: CHECK bad at=0'), undefined],
    ['READ', 'us to guest', 'loss', unanswered, undefined],
  ] as const)('%s, %s, %s', (operation, direction, loss, outcome, rule) => {
    expect(excuseFor(cellOf(operation, direction, loss), outcome)?.name).toBe(rule);
  });
});

describe('the report', () => {
  const findings = async (faults: Faults) => ({
    guest: 'none',
    cells: await play(calm, faults),
    tools: [
      { tool: 'ib_send_bw', guestRole: 'client' as const, problems: [], ms: 1 },
      { tool: 'ib_send_bw', guestRole: 'server' as const, problems: ['it hung'], ms: 1 },
    ],
    counters: undefined,
    lag: undefined,
    seconds: 1,
  });

  it('counts cells and tools, and names what is red', async () => {
    const good = await findings({});
    expect(verdictOf(good)).toEqual({ green: good.cells.length + 1, excused: 0, red: 1 });
    const text = renderFindings(good);
    for (const name of all) expect(text).toContain(name);
    expect(text).toMatch(/ib_send_bw +│ ok +│ RED/);
    expect(JSON.parse(JSON.stringify(jsonOf(good))).cells.length).toBe(good.cells.length);
    const bad = await findings({ completion: () => [] });
    expect(verdictOf(bad).red).toBe(bad.cells.length + 1);
    expect(renderFindings(bad)).toContain('RED');
  });
});

describe('a run', () => {
  it('has to show that it met the conditions it claims', async () => {
    const cells = await play([...calm, ...lossy]);
    const counters = {
      odp_remote_triggered_page_fault: 1,
      odp_local_triggered_page_fault: 2,
      rnr_naks_sent: 3,
      impaired_drops: 4,
      impaired_duplicates: 5,
      retransmitted_packets: 6,
    };
    const lag = { maxMs: 12, times: 3 };
    const findings = { guest: 'none', cells, tools: [], counters, lag, seconds: 1 };
    const { red } = verdictOf(findings);
    expect(renderFindings(findings)).toContain('3 RNR NAKs sent, 4 frames dropped');
    for (const name of Object.keys(counters)) {
      const lacking = { ...findings, counters: { ...counters, [name]: 0 } };
      expect(verdictOf(lacking).red).toBe(red + 1);
      expect(renderFindings(lacking)).toContain('RED  not one of these');
    }
    const calmCells = cells.filter(({ cell }) => cell.group.loss === 'none');
    const pinned = calmCells.filter(({ cell }) => cell.group.memory === 'pinned');
    expect(verdictOf({ ...findings, cells: pinned, counters: {} }).red).toBe(0);
  });
});

describe('the cells', () => {
  it('are every combination in full, and every operation in short', () => {
    expect(fullGroups().length).toBe(2 * 2 * 6 * 3);
    const services = new Set(shortGroups().map(({ service }) => service));
    expect(services.size).toBe(3);
    const conditions = new Set(shortGroups().map(({ loss, memory }) => `${loss} ${memory}`));
    expect(conditions.size).toBe(4);
  });
});
