/**
 * What registering and invalidating cost end to end, adapter and bus included, against the
 * measurements that the constants come from: nothing may be charged twice.
 */
import { describe, expect, it } from 'vitest';
import { Hca, type HcaProfile, profiles } from '../../hca/index.ts';
import { defaultHostCosts, Host, type Sim } from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  FramePool,
  Partition,
  US,
} from '../../transport/index.ts';
import { BASE, PAGE } from './bench.ts';

/** Microseconds that registering `pages` resident pages takes, and unmapping them afterwards. */
function measure(pages: number, access: number): { register: number; unmap: number } {
  const pool = new FramePool();
  const profile = profiles['connectx-4'] as HcaProfile;
  const host = new Host(
    {
      name: 'a',
      seed: 1,
      busLatencyPs: profile.busLatencyPs,
      busRateGbps: profile.busRateGbps,
      memoryBytes: 4096 * PAGE,
      swapBytes: 0,
      cpus: 2,
      memlockBytes: Number.POSITIVE_INFINITY,
      costs: defaultHostCosts,
      interruptPs: profile.interruptPs,
      faultWorkers: 1,
      verify: false,
    },
    pool,
  );
  const wire = { rateGbps: 100, latencyPs: US, lossPpm: 0 };
  const hca = new Hca({ name: 'a', seed: 1, profile, lid: 1, wire, trains: true }, pool);
  const result = { register: 0, unmap: 0 };
  const { mm, verbs, node } = host;
  host.spawn(
    'test',
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, pages * PAGE, 3);
      yield* mm.touch(BASE, pages, true);
      const pd = yield* verbs.allocPd();
      const start = node.now;
      yield* verbs.regMr(pd, BASE, pages * PAGE, access);
      result.register = (node.now - start) / US;
      const registered = node.now;
      yield* mm.munmap(BASE, pages * PAGE);
      result.unmap = (node.now - registered) / US;
    })(),
  );
  const bus = { a: 0, aPort: 0, b: 1, bPort: 0, latencyPs: profile.busLatencyPs };
  const partition = new Partition([hca.node, host.node], [bus]);
  while (partition.advance(100_000));
  return result;
}

describe('costs end to end', () => {
  it.each([1, 1024])('registers %i pages in the time that UCX assumes', (pages) => {
    const ucx = 16 + 0.246 * pages;
    const { register } = measure(pages, ACCESS_LOCAL_WRITE);
    expect(Math.abs(register / ucx - 1)).toBeLessThan(0.02);
  });

  it.each([
    [1, 16.9],
    [1024, 60.9],
  ])('invalidates %i pages in the time that NPF measured', (pages, npf) => {
    const { systemCallPs, vmaChangePs, unmapPagePs } = defaultHostCosts;
    const { unmap } = measure(pages, ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND);
    const own = (systemCallPs + vmaChangePs + pages * unmapPagePs) / US;
    expect(Math.abs((unmap - own) / npf - 1)).toBeLessThan(0.02);
  });
});
