/**
 * The experiments about the notifiers do what they say, with numbers that follow from the model.
 */
import { describe, expect, it, vi } from 'vitest';
import { exitRelease } from '../../harness/experiments/exit-release.ts';
import type { Experiment } from '../../harness/experiments/experiment.ts';
import { notifierRules } from '../../harness/experiments/notifier-rules.ts';
import { runSeeded } from '../../harness/experiments/seeded.ts';
import { skeletonRace } from '../../harness/experiments/skeleton-race.ts';
import { host, region, remap, scenario, us, write } from '../../harness/index.ts';
import { runInProcess } from '../../harness/run.ts';
import { validateScenario } from '../../harness/scenario/validate.ts';
import { IntervalNotifiers } from '../../kernel/mm/notify/interval-notifier.ts';
import { assert, SimulationBug } from '../../transport/index.ts';

describe('experiments about notifiers', () => {
  it.each([notifierRules, skeletonRace, exitRelease])('$name', (experiment: Experiment) => {
    const { ok, rows, columns, result } = experiment.run(2);
    expect(result).toBeTruthy();
    expect(ok, result).toBe(true);
    for (const row of rows) expect(row).toHaveLength(columns.length);
  });

  it('say with which seed a bug is seen again', () => {
    const broken: Experiment = {
      name: 'broken',
      systems: [],
      title: '',
      run() {
        assert(false, 'something is wrong', { name: 'a.host', now: 17 });
      },
    };
    expect(() => runSeeded(broken, 5)).toThrow(
      'something is wrong (node a.host, 17 ps); to reproduce: faultline experiment broken --seed 5',
    );
  });

  it('and so does a run whose memory manager forgets to tell the devices', async () => {
    const hits = vi.spyOn(IntervalNotifiers.prototype, 'hits').mockReturnValue(false);
    const target = region(host('b'), 'target', '256KiB');
    const work = scenario('deaf', 'A remap that no device hears of', [
      write(region(host('a'), 'source', '256KiB'), target, { size: '64KiB', count: 8 }),
      remap(target, { at: us(400) }),
    ]);
    const { error } = await runInProcess({
      scenario: validateScenario(work),
      mode: 'odp',
      seed: 7,
    });
    hits.mockRestore();
    expect(error).toBeInstanceOf(SimulationBug);
    expect((error as Error).message).toMatch(
      /^on-demand region still maps 0x[0-9a-f]+ when the begin of its invalidation returns \(unmap\) \(node b\.host, \d+ ps\); to reproduce: faultline run deaf --mode odp --seed 7$/,
    );
  });
});
