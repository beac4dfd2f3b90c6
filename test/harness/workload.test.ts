/** What programs do where their operations and events get in each other's way. */
import { expect, it } from 'vitest';
import {
  host,
  prefetch,
  queuePair,
  region,
  remap,
  repeat,
  scenario,
  us,
  write,
} from '../../harness/index.ts';
import { runInProcess } from '../../harness/run.ts';
import { validateScenario } from '../../harness/scenario/validate.ts';
import { summarize } from '../../harness/stats/summarize.ts';

it('waits for room in a send queue that operations share', async () => {
  const a = host('a');
  const b = host('b');
  const on = queuePair('shared', a, b, {});
  const operation = (name: string) =>
    write(region(a, `${name}-out`, '64KiB'), region(b, `${name}-in`, '64KiB'), {
      size: '64B',
      count: 1024,
      depth: 1024,
      on,
    });
  const work = scenario('full', 'Three deep operations', ['x', 'y', 'z'].map(operation));
  const options = { scenario: validateScenario(work), mode: 'pinned', seed: 1 } as const;
  const outcome = await runInProcess(options);
  expect(outcome.error).toBeUndefined();
  expect(summarize(outcome, 4)).toMatchObject({ operations: 3072, data_verified: true });
});

it('takes a prefetch of what is being unmapped for what it is, a hint', async () => {
  const target = region(host('b'), 'target', '4MiB');
  const work = scenario('hint', 'Prefetches around a remap', [
    write(region(host('a'), 'source', '64KiB'), target, { size: '64KiB' }),
    remap(target, { at: us(10) }),
    ...repeat(20, (i) => prefetch(target, { at: us(9 + i / 4) })),
  ]);
  const options = { scenario: validateScenario(work), mode: 'odp', seed: 1 } as const;
  const outcome = await runInProcess(options);
  expect(outcome.error).toBeUndefined();
  expect(summarize(outcome, 4)).toMatchObject({ data_verified: true });
});
