/**
 * Turns unknown data into a Scenario, or says what is wrong, where, and what was expected.
 *
 * Shape and units are checked by the schema; what one field says about another (names, ranges,
 * who owns what) is checked here and in `check-work.ts`. Every problem is a Failure E_SCENARIO_INVALID.
 */
import { createHash } from 'node:crypto';
import type { z } from 'zod';
import { profiles } from '../../hca/index.ts';
import { type Failure, US } from '../../transport/index.ts';
import { checkExternal } from './check-external.ts';
import { checkWork } from './check-work.ts';
import { invalid, oneOf } from './problem.ts';
import { indexOf, type ScenarioIndex } from './scenario-index.ts';
import { type Scenario, scenarioSchema } from './schema.ts';

/** The resolved scenario in `data`. Throws Failure E_SCENARIO_INVALID. */
export function validateScenario(data: unknown): Scenario {
  const parsed = scenarioSchema.safeParse(data);
  if (!parsed.success) throw describeIssue(parsed.error.issues[0] as z.core.$ZodIssue);
  const scenario = parsed.data;
  const index = indexOf(scenario);
  checkWorld(scenario);
  checkRegions(index);
  checkResources(index);
  checkExternal(scenario);
  checkWork(scenario, index);
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
  hosts.forEach((host, i) => {
    oneOf(host.profile, Object.keys(profiles), `hosts[${i}].profile`, 'adapter profile');
    if (host.memoryBytes < 2 ** 20)
      throw invalid(`hosts[${i}].memory`, 'too small', 'at least 1MiB');
    if (host.memoryBytes > 2 ** 38)
      throw invalid(`hosts[${i}].memory`, 'too large', 'at most 256GiB');
    const { count, periodPs } = host.moderation;
    if (periodPs % US !== 0 || periodPs > 65_535 * US) {
      throw invalid(`hosts[${i}].moderation.period`, 'not what an adapter takes', '0us to 65535us');
    }
    if (count > 1 && periodPs === 0) {
      throw invalid(
        `hosts[${i}].moderation.period`,
        'the last completions, fewer than the count, would never be told',
        'above 0us',
      );
    }
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
    if (link.corruptPpm >= 1_000_000)
      throw invalid(`links[${i}].corrupt`, 'every packet is damaged', 'below 100%');
    for (const fault of ['duplicate', 'reorder'] as const) {
      if (link[`${fault}Ppm`] > 1_000_000)
        throw invalid(`links[${i}].${fault}`, 'more than every packet', 'at most 100%');
    }
  });
  queuePairs.forEach((pair, i) => {
    checkEnds(pair.between, names, `queuePairs[${i}].between`);
  });
  if (replay && replay.ranks[0] === replay.ranks[1]) {
    throw invalid('replay.ranks', 'both hosts would replay the same rank', 'two different ranks');
  }
  // A gateway gets its work from control clients, too.
  const isFed = hosts.some(({ external }) => external !== undefined);
  if (!replay && operations.length === 0 && !isFed) {
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

function checkRegions({ hosts, regions }: ScenarioIndex): void {
  regions.items.forEach((region, i) => {
    const host = hosts.get(region.host, `regions[${i}].host`);
    if (region.sizeBytes === 0)
      throw invalid(`regions[${i}].size`, 'the region is empty', 'at least 1B');
    if (!host.external && region.sizeBytes > host.memoryBytes + host.swapBytes) {
      throw invalid(
        `regions[${i}].size`,
        `the region is larger than the memory of host '${host.name}'`,
        `at most ${host.memoryBytes + host.swapBytes}B (memory and swap)`,
      );
    }
  });
}

/** Shared receive queues, the queue pairs that use them, and memory windows. */
function checkResources(index: ScenarioIndex): void {
  const { srqs, regions, queuePairs, windows, srqOfRegion } = index;
  srqs.items.forEach((srq, i) => {
    const path = `sharedReceiveQueues[${i}]`;
    const region = regions.get(srq.region, `${path}.region`);
    const owner = srqOfRegion.get(srq.region) ?? srq;
    if (owner !== srq)
      throw invalid(`${path}.region`, `'${owner.name}' has its receives there`, 'another region');
    if (srq.slotBytes === 0) throw invalid(`${path}.slot`, 'receives of no bytes', 'at least 1B');
    if (srq.entries * srq.slotBytes > region.sizeBytes) {
      throw invalid(
        `${path}.entries`,
        `${srq.entries} receives of ${srq.slotBytes} bytes do not fit region '${region.name}'`,
        `within its ${region.sizeBytes} bytes`,
      );
    }
    if (srq.limit > srq.entries)
      throw invalid(`${path}.limit`, 'more than it has', `at most ${srq.entries}`);
  });
  queuePairs.items.forEach(({ between, srqs: names }, i) => {
    const taken = new Set<string>();
    names.forEach((name, k) => {
      const path = `queuePairs[${i}].srqs[${k}]`;
      const { host } = regions.get(srqs.get(name, path).region, path);
      if (!between.includes(host) || taken.has(host))
        throw invalid(path, `it belongs to host '${host}'`, 'one for each end');
      taken.add(host);
    });
  });
  windows.items.forEach((window, i) => {
    const path = `windows[${i}]`;
    const region = regions.get(window.region, `${path}.region`);
    const pair = queuePairs.get(window.queuePair, `${path}.queuePair`);
    if (pair.type === 'UD')
      throw invalid(`${path}.queuePair`, 'datagrams use no keys', 'an RC or UC queue pair');
    if (!region.access.includes('mw-bind'))
      throw invalid(
        `${path}.region`,
        `region '${region.name}' does not allow it`,
        "access 'mw-bind'",
      );
    const length = window.lengthBytes ?? region.sizeBytes - window.offsetBytes;
    if (length <= 0 || window.offsetBytes + length > region.sizeBytes) {
      throw invalid(
        `${path}.offset`,
        `${length} bytes from ${window.offsetBytes} do not fit region '${region.name}'`,
        `within its ${region.sizeBytes} bytes`,
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
