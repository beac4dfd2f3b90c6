/**
 * The contract of simulated time, for random worlds: what happens is the same in one partition, in
 * several processes over any channel, with and without trains, and as a naive global order has it.
 */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { connect, listen } from '../../transport/channel/websocket.ts';
import { runOracle } from '../fixtures/toy-oracle.ts';
import { runPair, runSplit, runTogether } from '../fixtures/toy-run.ts';
import { makeToyWorld } from '../fixtures/toy-world.ts';

const seeds = fc.integer({ min: 1, max: 2 ** 31 - 1 });
// A fixed seed: a failure that comes and goes would be no use to anyone.
const runs = (numRuns: number) => ({ seed: 20231, numRuns });

describe('a random world', () => {
  it('in one partition follows the global order', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const world = makeToyWorld(seed);
        expect(runTogether(world).states).toEqual(runOracle(world));
      }),
      runs(400),
    );
  });

  it('does the same train by train and packet by packet', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const world = makeToyWorld(seed);
        expect(runTogether(world, true)).toEqual(runTogether(world, false));
      }),
      runs(200),
    );
  });

  it('does the same in two partitions', async () => {
    await fc.assert(
      fc.asyncProperty(seeds, fc.nat(), async (seed, nat) => {
        const world = makeToyWorld(seed);
        const split = 1 + (nat % (world.names.length - 1));
        expect(await runPair(world, split)).toEqual(runTogether(world));
      }),
      runs(100),
    );
  });

  it('does the same over WebSockets', async () => {
    await fc.assert(
      fc.asyncProperty(seeds, fc.nat(), async (seed, nat) => {
        const world = makeToyWorld(seed);
        const split = 1 + (nat % (world.names.length - 1));
        const server = await listen('ws://127.0.0.1:0');
        const ends = await Promise.all([server.accept(), connect(server.url)]);
        server.close();
        expect(await runPair(world, split, ends)).toEqual(runTogether(world));
      }),
      runs(20),
    );
  });

  it('does the same with a process for every node', async () => {
    await fc.assert(
      fc.asyncProperty(seeds, async (seed) => {
        const world = makeToyWorld(seed);
        expect(await runSplit(world)).toEqual(runTogether(world));
      }),
      runs(50),
    );
  });
});
