/**
 * A host with a fake adapter, and the usual ways to run something on it.
 */
import { expect } from 'vitest';
import { SystemCallError } from '../../kernel/errno.ts';
import {
  defaultHostCosts,
  type Errno,
  Host,
  type HostConfig,
  type Sim,
} from '../../kernel/index.ts';
import { FramePool, NEVER, NS, type TimePs, US } from '../../transport/index.ts';
import { FakeAdapter } from '../fixtures/fake-adapter.ts';

export const PAGE = 4096;
/** Where tests map things. */
export const BASE = 0x7f0000000000;

export interface Bench {
  readonly host: Host;
  readonly adapter: FakeAdapter;
  readonly pool: FramePool;
  /** Runs `body` as a thread until the world is at rest, and says whether it ended. */
  run(body: Sim<void>, limitPs?: TimePs): boolean;
}

export function makeBench(changes: Partial<HostConfig> = {}): Bench {
  const pool = new FramePool(undefined, 8192, 4096);
  const host = new Host(
    {
      name: 'a',
      seed: 1,
      busLatencyPs: 300 * NS,
      busRateGbps: 100,
      memoryBytes: 256 * PAGE,
      swapBytes: 1024 * PAGE,
      cpus: 2,
      memlockBytes: Number.POSITIVE_INFINITY,
      costs: defaultHostCosts,
      interruptPs: 2 * US,
      faultWorkers: 4,
      verify: true,
      ...changes,
    },
    pool,
  );
  const adapter = new FakeAdapter(pool, 300 * NS);
  return {
    host,
    adapter,
    pool,
    run(body, limitPs = NEVER) {
      const thread = host.spawn('test', body);
      adapter.run(host, limitPs);
      return thread.done.done;
    },
  };
}

/** Runs `body` on a bench, which must come to its end and leave nothing behind. */
export function runCleanly(bench: Bench, body: Sim<void>): void {
  expect(bench.run(body)).toBe(true);
  bench.host.checkLeaks();
}

/** The errno of the SystemCallError that ends `body`; undefined when it comes to its own end. */
export function* refusal(body: Sim<unknown>): Sim<Errno | undefined> {
  try {
    yield* body;
  } catch (error) {
    if (error instanceof SystemCallError) return error.errno;
    throw error;
  }
  return undefined;
}
