/** A run is the same run in one process, in two, and in four: equal digests, verified bytes. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Outcome } from '../../harness/report.ts';
import { runInProcess, runPart } from '../../harness/run.ts';
import { loadScenario } from '../../harness/scenario/load.ts';
import type { Mode } from '../../harness/scenario/schema.ts';
import { summarize } from '../../harness/stats/summarize.ts';
import { channelsOf, identityOf, nodeNames, type RunOptions } from '../../harness/world.ts';
import { type Channel, inProcessPair, runSwitchboard } from '../../transport/index.ts';
import { start, temporaryFolder } from './fixtures.ts';

/** Without what measures the run and not the world. */
function worldOf(outcome: Outcome) {
  if (outcome.error !== undefined) throw outcome.error;
  const { wall, ...rest } = summarize(outcome, 4);
  return rest;
}

async function asPair(options: RunOptions): Promise<Outcome[]> {
  const ends = inProcessPair();
  return Promise.all(
    ['a', 'b'].map((host, i) => {
      const local = [`${host}.hca`, `${host}.host`];
      const end = ends[i] as Channel;
      return runPart({ ...options, local, peerTimeoutMs: 30_000 }, async () => end);
    }),
  );
}

async function asFour(options: RunOptions): Promise<Outcome[]> {
  const names = nodeNames(options.scenario);
  const pairs = names.map(() => inProcessPair());
  const hubEnds = pairs.map(([end]) => end);
  const hub = runSwitchboard({
    run: identityOf(options),
    channels: channelsOf(options.scenario),
    participantCount: names.length,
    accept: async () => hubEnds.shift() as Channel,
  });
  const parts = names.map((name, i) =>
    runPart({ ...options, local: [name], peerTimeoutMs: 30_000 }, async () => {
      const [, end] = pairs[i] as [Channel, Channel];
      return end;
    }),
  );
  const outcomes = await Promise.all(parts);
  await hub;
  return outcomes;
}

const names = ['one-write', 'cold-start', 'invalidation', 'pressure', 'read-fault', 'ping-pong'];
/** Every operation and service; they take longer, so one seed has to do. */
const longNames = ['atomics', 'windows', 'datagrams'];
const modes: readonly Mode[] = ['pinned', 'odp'];

describe('placement', () => {
  it.each([...names, ...longNames])('%s: one, two and four processes agree', async (name) => {
    const scenario = await loadScenario(name);
    for (const seed of longNames.includes(name) ? [1] : [1, 2, 77]) {
      const digests = new Set<string>();
      for (const mode of modes) {
        const options = { scenario, mode, seed };
        const alone = worldOf(await runInProcess(options));
        expect(alone).toMatchObject({ complete: true, data_verified: true });
        for (const outcome of [...(await asPair(options)), ...(await asFour(options))]) {
          expect(worldOf(outcome)).toEqual(alone);
        }
        digests.add(alone.digest);
      }
      expect(digests.size).toBe(2);
    }
  });

  it('a wire with every fault: one, two and four processes agree', async () => {
    const good = await loadScenario('cold-start');
    const faults = {
      lossPpm: 10_000,
      lossBurstPackets: 2,
      duplicatePpm: 20_000,
      duplicateDelayPs: 3_000_000,
      reorderPpm: 20_000,
      reorderPackets: 3,
      corruptPpm: 20_000,
    };
    const scenario = { ...good, links: good.links.map((link) => ({ ...link, ...faults })) };
    for (const mode of modes) {
      const options = { scenario, mode, seed: 3 };
      const outcome = await runInProcess(options);
      const alone = worldOf(outcome);
      expect(alone).toMatchObject({ complete: true, data_verified: true });
      for (const other of [...(await asPair(options)), ...(await asFour(options))]) {
        expect(worldOf(other)).toEqual(alone);
      }
      const b = outcome.reports.find(({ node }) => node === 'b.hca');
      expect(b?.hca?.counters.port_rcv_errors).toBeGreaterThan(0);
    }
  });

  it('real processes agree too, split or not', async () => {
    const folder = temporaryFolder();
    const digest = async (...flags: string[]): Promise<unknown> => {
      const out = join(folder, flags.join(''));
      const result = await start(folder, 'compare', 'one-write', '--json', '--out', out, ...flags)
        .done;
      expect(result.stderr).not.toContain('E_');
      expect(result.status).toBe(0);
      const written = JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8'));
      expect(JSON.parse(result.stdout)).toEqual(written);
      return modes.map((mode) => written.modes[mode].digest);
    };
    const inProcess = await digest('--transport', 'inproc');
    expect(await digest('--transport', 'ws')).toEqual(inProcess);
    expect(await digest('--split')).toEqual(inProcess);
  });
});
