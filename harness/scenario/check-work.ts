/**
 * Checks what happens in a scenario: that operations and events name what exists, stay inside their
 * regions and do not race. Every problem is a Failure E_SCENARIO_INVALID.
 */
import { PAGE_BYTES } from '../../kernel/index.ts';
import { invalid, namesOf, oneOf, unknown } from './problem.ts';
import type { EventSpec, OperationSpec, RegionSpec, Scenario } from './schema.ts';

/** Checks operations and events; hosts, queue pairs and regions are known to be sound. */
export function checkWork(scenario: Scenario): void {
  scenario.operations.forEach((operation, i) => {
    checkOperation(scenario, operation, `operations[${i}]`);
  });
  checkReceives(scenario);
  checkRaces(scenario);
  scenario.events.forEach((event, i) => {
    checkEvent(scenario, event, `events[${i}]`);
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
    if (event.offsetBytes % PAGE_BYTES !== 0) {
      throw invalid(`${path}.offset`, 'not on a page boundary', `a multiple of ${PAGE_BYTES}B`);
    }
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

function regionOf(scenario: Scenario, name: string, path: string): RegionSpec {
  const region = scenario.regions.find((candidate) => candidate.name === name);
  if (!region) throw unknown(name, namesOf(scenario.regions), path, 'region');
  return region;
}
