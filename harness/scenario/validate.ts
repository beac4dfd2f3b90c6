/**
 * Turns unknown data into a Scenario, or says what is wrong, where, and what was expected.
 *
 * Shape and units are checked by the schema; what one field says about another (names, ranges,
 * who owns what) is checked here and in `check-work.ts`. Every problem is a Failure E_SCENARIO_INVALID.
 */
import { createHash } from 'node:crypto';
import type { z } from 'zod';
import { profiles } from '../../hca/index.ts';
import type { Failure } from '../../transport/index.ts';
import { checkWork } from './check-work.ts';
import { invalid, namesOf, oneOf, unique, unknown } from './problem.ts';
import { type Scenario, scenarioSchema } from './schema.ts';

/** The resolved scenario in `data`. Throws Failure E_SCENARIO_INVALID. */
export function validateScenario(data: unknown): Scenario {
  const parsed = scenarioSchema.safeParse(data);
  if (!parsed.success) throw describeIssue(parsed.error.issues[0] as z.core.$ZodIssue);
  const scenario = parsed.data;
  checkWorld(scenario);
  checkRegions(scenario);
  checkWork(scenario);
  return scenario;
}

/** 32 hexadecimal digits: the same for two scenarios exactly when their resolved data are. */
export function scenarioHash(scenario: Scenario): string {
  return createHash('sha256').update(canonicalJson(scenario)).digest('hex').slice(0, 32);
}

function describeIssue(issue: z.core.$ZodIssue): Failure {
  const place = issue.path.reduce<string>(
    (path, key) =>
      typeof key === 'number'
        ? `${path}[${key}]`
        : path === ''
          ? String(key)
          : `${path}.${String(key)}`,
    '',
  );
  const expected =
    issue.code === 'custom' && typeof issue.params?.expected === 'string'
      ? issue.params.expected
      : issue.code === 'invalid_value'
        ? issue.values.map(String).join(', ')
        : '';
  return invalid(place || 'scenario', issue.message, expected);
}

function checkWorld({ hosts, links, queuePairs, replay, operations }: Scenario): void {
  if (hosts.length !== 2)
    throw invalid('hosts', `there are ${hosts.length} hosts`, 'exactly two, for now');
  if (links.length !== 1)
    throw invalid('links', `there are ${links.length} links`, 'exactly one, for now');
  unique(hosts, 'hosts');
  unique(queuePairs, 'queuePairs');
  hosts.forEach((host, i) => {
    oneOf(host.profile, Object.keys(profiles), `hosts[${i}].profile`, 'adapter profile');
    if (host.memoryBytes < 2 ** 20)
      throw invalid(`hosts[${i}].memory`, 'too small', 'at least 1MiB');
    if (host.memoryBytes > 2 ** 38)
      throw invalid(`hosts[${i}].memory`, 'too large', 'at most 256GiB');
  });
  const names = hosts.map(({ name }) => name);
  links.forEach((link, i) => {
    checkEnds(link.between, names, `links[${i}].between`);
    if (link.latencyPs === 0) {
      throw invalid(
        `links[${i}].latency`,
        'a link needs a latency above zero: the latency is what lets its two ends be simulated apart',
        'at least 1ps',
      );
    }
    if (link.rateGbps <= 0) throw invalid(`links[${i}].rate`, 'the rate is zero', 'above zero');
    if (link.lossPpm >= 1_000_000)
      throw invalid(`links[${i}].loss`, 'every packet is lost', 'below 100%');
  });
  queuePairs.forEach((pair, i) => {
    checkEnds(pair.between, names, `queuePairs[${i}].between`);
  });
  if (replay && replay.ranks[0] === replay.ranks[1]) {
    throw invalid('replay.ranks', 'both hosts would replay the same rank', 'two different ranks');
  }
  if (!replay && operations.length === 0) {
    throw invalid('operations', 'nothing happens', 'at least one operation, or a replay');
  }
  if (replay && operations.length > 0) {
    throw invalid(
      'operations',
      'a replay brings its own operations',
      'operations or a replay, not both',
    );
  }
}

function checkRegions({ hosts, regions }: Scenario): void {
  unique(regions, 'regions');
  regions.forEach((region, i) => {
    const host = hosts.find(({ name }) => name === region.host);
    if (!host) throw unknown(region.host, namesOf(hosts), `regions[${i}].host`, 'host');
    if (region.sizeBytes === 0)
      throw invalid(`regions[${i}].size`, 'the region is empty', 'at least 1B');
    if (region.sizeBytes > host.memoryBytes + host.swapBytes) {
      throw invalid(
        `regions[${i}].size`,
        `the region is larger than the memory of host '${host.name}'`,
        `at most ${host.memoryBytes + host.swapBytes}B (memory and swap)`,
      );
    }
  });
}

function checkEnds(ends: readonly [string, string], hosts: readonly string[], path: string): void {
  ends.forEach((end, i) => {
    oneOf(end, hosts, `${path}[${i}]`, 'host');
  });
  if (ends[0] === ends[1])
    throw invalid(path, 'both ends are the same host', 'two different hosts');
}

/** JSON with the keys of every object in order. */
function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value)
      .filter(([, field]) => field !== undefined)
      .sort(([x], [y]) => (x < y ? -1 : 1))
      .map(([key, field]) => `${JSON.stringify(key)}:${canonicalJson(field)}`);
    return `{${entries.join(',')}}`;
  }
  return JSON.stringify(value);
}
