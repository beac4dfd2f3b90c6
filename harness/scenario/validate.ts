/**
 * Turns unknown data into a Scenario, or says what is wrong, where, and what was expected.
 *
 * Shape and units are checked by the schema; what one field says about another (names, ranges,
 * who owns what) is checked here. Every problem is a Failure E_SCENARIO_INVALID.
 */
import { createHash } from 'node:crypto';
import type { z } from 'zod';
import { profiles } from '../../hca/index.ts';
import { Failure } from '../../transport/index.ts';
import {
  type EventSpec,
  type OperationSpec,
  type RegionSpec,
  type Scenario,
  scenarioSchema,
} from './schema.ts';

/** The resolved scenario in `data`. Throws Failure E_SCENARIO_INVALID. */
export function validateScenario(data: unknown): Scenario {
  const parsed = scenarioSchema.safeParse(data);
  if (!parsed.success) throw describeIssue(parsed.error.issues[0] as z.core.$ZodIssue);
  const scenario = parsed.data;
  checkWorld(scenario);
  checkRegions(scenario);
  scenario.operations.forEach((operation, i) => {
    checkOperation(scenario, operation, `operations[${i}]`);
  });
  checkReceives(scenario);
  checkRaces(scenario);
  scenario.events.forEach((event, i) => {
    checkEvent(scenario, event, `events[${i}]`);
  });
  return scenario;
}

/** 32 hexadecimal digits: the same for two scenarios exactly when their resolved data are. */
export function scenarioHash(scenario: Scenario): string {
  return createHash('sha256').update(canonicalJson(scenario)).digest('hex').slice(0, 32);
}

function invalid(place: string, message: string, expected = ''): Failure {
  return new Failure('E_SCENARIO_INVALID', message, place, expected);
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

function checkOperation(scenario: Scenario, operation: OperationSpec, path: string): void {
  const hosts = namesOf(scenario.hosts);
  oneOf(operation.from, hosts, `${path}.from`, 'host');
  oneOf(operation.queuePair, namesOf(scenario.queuePairs), `${path}.queuePair`, 'queue pair');
  if (operation.sizeBytes === 0)
    throw invalid(`${path}.size`, 'an operation of no bytes', 'at least 1B');
  const [local, remote] = operation.kind === 'read' ? ['target', 'source'] : ['source', 'target'];
  for (const side of ['source', 'target'] as const) {
    const region = regionOf(scenario, operation[side].region, `${path}.${side}.region`);
    const owned = region.host === operation.from;
    if (owned !== (side === local)) {
      throw invalid(
        `${path}.${side}.region`,
        `region '${region.name}' belongs to host '${region.host}'`,
        side === remote ? 'a region of the other host' : `a region of '${operation.from}'`,
      );
    }
    checkInside(region, operation[side].offsetBytes, operation.sizeBytes, `${path}.${side}.offset`);
  }
}

/** Receives are consumed in order, so each direction of a queue pair serves one receiving operation. */
function checkReceives({ operations }: Scenario): void {
  const taken = new Map<string, number>();
  operations.forEach(({ kind, from, queuePair }, i) => {
    if (kind !== 'send' && kind !== 'writeImm') return;
    const key = `${queuePair} from ${from}`;
    if (taken.has(key)) {
      throw invalid(
        `operations[${i}].queuePair`,
        `operations[${taken.get(key)}] already consumes the receives of '${queuePair}' from '${from}'`,
        'a queue pair of its own for each send or writeImm operation',
      );
    }
    taken.set(key, i);
  });
}

/**
 * Operations run side by side, so no bytes may be written by one and used by another: what arrives
 * would depend on timing, and could not be verified.
 */
function checkRaces(scenario: Scenario): void {
  const uses = scenario.operations.flatMap((operation, i) =>
    (['source', 'target'] as const).map((side) => ({
      i,
      side,
      region: operation[side].region,
      ...spanOf(scenario, operation, side),
    })),
  );
  for (const use of uses) {
    const other = uses.find(
      (earlier) =>
        earlier.i < use.i &&
        earlier.region === use.region &&
        earlier.start < use.end &&
        use.start < earlier.end &&
        (earlier.side === 'target' || use.side === 'target'),
    );
    if (!other) continue;
    throw invalid(
      `operations[${use.i}].${use.side}`,
      `these bytes of region '${use.region}' are also the ${other.side} of operations[${other.i}]`,
      'a range of its own wherever one of two operations writes',
    );
  }
}

/** The bytes of a region that all work requests of an operation use together. */
function spanOf(
  { regions }: Scenario,
  { sizeBytes, strideBytes, count, ...operation }: OperationSpec,
  side: 'source' | 'target',
): { start: number; end: number } {
  const { region, offsetBytes: start } = operation[side];
  const regionBytes = regions.find(({ name }) => name === region)?.sizeBytes ?? 0;
  return { start, end: Math.min(regionBytes, start + (count - 1) * strideBytes + sizeBytes) };
}

function checkEvent(scenario: Scenario, event: EventSpec, path: string): void {
  oneOf(event.host, namesOf(scenario.hosts), `${path}.host`, 'host');
  if (!('region' in event)) return;
  const region = regionOf(scenario, event.region, `${path}.region`);
  if (region.host !== event.host) {
    throw invalid(
      `${path}.region`,
      `region '${region.name}' belongs to host '${region.host}'`,
      `a region of '${event.host}'`,
    );
  }
  const received = scenario.operations.some(
    ({ kind, target }) => kind === 'send' && target.region === event.region,
  );
  if (received && (event.kind === 'remap' || event.kind === 'dontneed')) {
    throw invalid(
      `${path}.region`,
      `receives are posted on region '${region.name}'`,
      'a region that is not the target of a send',
    );
  }
  if ('offsetBytes' in event) {
    const length = event.lengthBytes ?? region.sizeBytes - event.offsetBytes;
    checkInside(region, event.offsetBytes, length, `${path}.offset`);
  }
}

function checkInside(region: RegionSpec, offset: number, length: number, path: string): void {
  if (length >= 0 && offset + length <= region.sizeBytes) return;
  throw invalid(
    path,
    `${length} bytes from offset ${offset} do not fit region '${region.name}'`,
    `within its ${region.sizeBytes} bytes`,
  );
}

function checkEnds(ends: readonly [string, string], hosts: readonly string[], path: string): void {
  ends.forEach((end, i) => {
    oneOf(end, hosts, `${path}[${i}]`, 'host');
  });
  if (ends[0] === ends[1])
    throw invalid(path, 'both ends are the same host', 'two different hosts');
}

function regionOf(scenario: Scenario, name: string, path: string): RegionSpec {
  const region = scenario.regions.find((candidate) => candidate.name === name);
  if (!region) throw unknown(name, namesOf(scenario.regions), path, 'region');
  return region;
}

function unique(items: readonly { name: string }[], path: string): void {
  items.forEach(({ name }, i) => {
    const first = items.findIndex((item) => item.name === name);
    if (first < i)
      throw invalid(`${path}[${i}].name`, `'${name}' is already ${path}[${first}]`, 'a new name');
  });
}

function oneOf(name: string, known: readonly string[], path: string, what: string): void {
  if (!known.includes(name)) throw unknown(name, known, path, what);
}

function unknown(name: string, known: readonly string[], path: string, what: string): Failure {
  return invalid(path, `there is no ${what} '${name}'`, known.join(', ') || `a declared ${what}`);
}

function namesOf(items: readonly { name: string }[]): string[] {
  return items.map(({ name }) => name);
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
