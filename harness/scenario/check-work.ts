/**
 * Checks what happens in a scenario: that operations and events name what exists, stay inside their
 * regions, suit their queue pairs and do not race. Every problem is a Failure E_SCENARIO_INVALID.
 * Takes time in proportion to the size of the scenario: scripts make thousands of operations.
 */
import { PAGE_BYTES } from '../../kernel/index.ts';
import { checkRaces } from './check-races.ts';
import { checkShape, checkSignals } from './check-shape.ts';
import { consumesReceive, isAtomic, isSend, type OperationKind } from './operation-schema.ts';
import { invalid } from './problem.ts';
import { bytesAt, endOf } from './ranges.ts';
import { type ScenarioIndex, srqAt } from './scenario-index.ts';
import type { EventSpec, OperationSpec, QueuePairSpec, RegionSpec, Scenario } from './schema.ts';

type Access = RegionSpec['access'][number];

/** Checks operations and events; everything that they name is known to be sound. */
export function checkWork(scenario: Scenario, index: ScenarioIndex): void {
  const { operations, events, mtu } = scenario;
  operations.forEach((operation, i) => {
    const path = `operations[${i}]`;
    const pair = checkEnds(operation, index, path);
    checkShape(operation, pair, mtu, path);
    checkRights(operation, pair, index, path);
  });
  checkReceives(scenario, index);
  checkRaces(scenario, index);
  const received = new Set(
    operations.filter(({ kind }) => isSend(kind)).map(({ target }) => target.region),
  );
  events.forEach((event, i) => {
    checkEvent(event, index, received, `events[${i}]`);
  });
  checkSignals(scenario);
}

/** Hosts, regions and ranges; returns the queue pair. */
function checkEnds(operation: OperationSpec, index: ScenarioIndex, path: string): QueuePairSpec {
  const { kind, from } = operation;
  index.hosts.get(from, `${path}.from`);
  const pair = index.queuePairs.get(operation.queuePair, `${path}.queuePair`);
  if (operation.sizeBytes === 0) {
    throw invalid(`${path}.size`, 'an operation of no bytes', 'at least 1B');
  }
  const remote = kind === 'read' ? 'source' : 'target';
  for (const side of ['source', 'target'] as const) {
    const place = operation[side];
    const region = index.regions.get(place.region, `${path}.${side}.region`);
    const owned = region.host === from;
    if (owned === (side === remote)) {
      throw invalid(
        `${path}.${side}.region`,
        `region '${region.name}' belongs to host '${region.host}'`,
        side === remote ? 'a region of the other host' : `a region of '${from}'`,
      );
    }
    checkWindow(operation, side, remote, index, `${path}.${side}.window`);
    const end = endOf(place, region, index);
    const isResult = side === 'source' && isAtomic(kind);
    const places = isResult ? Math.min(operation.count, operation.depth) : 1;
    const bytes = bytesAt(operation, side, pair) * places;
    checkInside(region, place.offsetBytes, bytes, `${path}.${side}.offset`, end);
  }
  return pair;
}

function checkWindow(
  operation: OperationSpec,
  side: 'source' | 'target',
  remote: 'source' | 'target',
  index: ScenarioIndex,
  path: string,
): void {
  const { window: name, region, offsetBytes } = operation[side];
  if (name === null) return;
  const window = index.windows.get(name, path);
  if (side !== remote || isSend(operation.kind)) {
    throw invalid(
      path,
      'nobody uses these bytes by a remote key',
      'a window where peers read or write',
    );
  }
  if (window.region !== region) {
    throw invalid(
      path,
      `window '${name}' is bound to region '${window.region}'`,
      `one of '${region}'`,
    );
  }
  if (window.queuePair !== operation.queuePair) {
    throw invalid(
      path,
      `window '${name}' is for queue pair '${window.queuePair}'`,
      `one for '${operation.queuePair}'`,
    );
  }
  if (offsetBytes < window.offsetBytes) {
    throw invalid(path, `window '${name}' begins at ${window.offsetBytes}`, 'bytes inside it');
  }
  const needed = rightOf(operation.kind);
  if (!(window.access as readonly Access[]).includes(needed)) {
    throw invalid(path, `window '${name}' does not allow ${needed}`, `access with '${needed}'`);
  }
}

/** Rights at the target's region, shared receive queues, and windows that are invalidated. */
function checkRights(
  { kind, from, target, flush, invalidates, ...operation }: OperationSpec,
  pair: QueuePairSpec,
  index: ScenarioIndex,
  path: string,
): void {
  const region = index.regions.get(target.region, `${path}.target.region`);
  const needed: Access[] = isAtomic(kind) ? ['remote-atomic'] : [];
  if (flush !== null) needed.push(`flush-${flush}`);
  for (const right of needed) {
    if (region.access.includes(right)) continue;
    throw invalid(
      `${path}.target.region`,
      `region '${region.name}' does not allow ${right}`,
      `access with '${right}'`,
    );
  }
  const srq = isSend(kind) ? srqAt(index, pair, region.host) : undefined;
  const owner = index.srqOfRegion.get(target.region);
  if (owner !== srq) {
    throw invalid(
      `${path}.target.region`,
      srq
        ? `'${pair.name}' takes its receives from '${srq.name}'`
        : `the receives of '${owner?.name}' are in region '${region.name}'`,
      srq ? `region '${srq.region}'` : 'another region',
    );
  }
  if (srq) {
    const bytes = bytesAt({ kind, from, target, flush, invalidates, ...operation }, 'target', pair);
    if (bytes > srq.slotBytes) {
      throw invalid(`${path}.size`, `a receive takes ${bytes} bytes`, `at most ${srq.slotBytes}B`);
    }
  }
  if ((kind === 'sendInv') !== (invalidates !== null)) {
    throw invalid(`${path}.invalidates`, 'a sendInv invalidates a window', 'a window, for sendInv');
  }
  if (invalidates === null) return;
  const window = index.windows.get(invalidates, `${path}.invalidates`);
  const owned = index.regions.get(window.region, `${path}.invalidates`).host === from;
  if (owned || window.queuePair !== operation.queuePair) {
    throw invalid(
      `${path}.invalidates`,
      `window '${window.name}' is not the peer's on this queue pair`,
      `one of the other host for '${operation.queuePair}'`,
    );
  }
}

/** Receives are consumed in order, so each direction of a queue pair serves one receiving operation. */
function checkReceives({ operations }: Scenario, index: ScenarioIndex): void {
  const taken = new Map<string, number>();
  operations.forEach(({ kind, from, queuePair, target }, i) => {
    if (!consumesReceive(kind)) return;
    const pair = index.queuePairs.get(queuePair, '');
    const { host } = index.regions.get(target.region, '');
    if (srqAt(index, pair, host) !== undefined) return;
    const key = `${queuePair} from ${from}`;
    if (taken.has(key)) {
      throw invalid(
        `operations[${i}].queuePair`,
        `operations[${taken.get(key)}] already consumes the receives of '${queuePair}' from '${from}'`,
        'a queue pair of its own for each operation that consumes receives',
      );
    }
    taken.set(key, i);
  });
}

function checkEvent(
  event: EventSpec,
  index: ScenarioIndex,
  received: ReadonlySet<string>,
  path: string,
): void {
  index.hosts.get(event.host, `${path}.host`);
  if (event.kind === 'rebind') {
    const window = index.windows.get(event.window, `${path}.window`);
    const { host } = index.regions.get(window.region, `${path}.window`);
    if (host === event.host) return;
    throw invalid(
      `${path}.window`,
      `window '${window.name}' belongs to host '${host}'`,
      'its host',
    );
  }
  if (!('region' in event)) return;
  const region = index.regions.get(event.region, `${path}.region`);
  if (region.host !== event.host) {
    throw invalid(
      `${path}.region`,
      `region '${region.name}' belongs to host '${region.host}'`,
      `a region of '${event.host}'`,
    );
  }
  if (event.kind === 'remap' || event.kind === 'dontneed') {
    checkReplaced(region, index, received, `${path}.region`);
  }
  if ('offsetBytes' in event) {
    if (event.offsetBytes % PAGE_BYTES !== 0) {
      throw invalid(`${path}.offset`, 'not on a page boundary', `a multiple of ${PAGE_BYTES}B`);
    }
    const length = event.lengthBytes ?? region.sizeBytes - event.offsetBytes;
    checkInside(region, event.offsetBytes, length, `${path}.offset`);
  }
}

function checkReplaced(
  { name }: RegionSpec,
  index: ScenarioIndex,
  received: ReadonlySet<string>,
  path: string,
): void {
  if (received.has(name) || index.srqOfRegion.has(name)) {
    throw invalid(
      path,
      `receives are posted on region '${name}'`,
      'a region that is not the target of a send',
    );
  }
  if (index.windows.items.some(({ region }) => region === name)) {
    throw invalid(path, `a window is bound to region '${name}'`, 'a region without windows');
  }
}

function checkInside(
  region: RegionSpec,
  offset: number,
  length: number,
  path: string,
  end = region.sizeBytes,
): void {
  if (length >= 0 && offset + length <= end) return;
  const what = end === region.sizeBytes ? `region '${region.name}'` : 'the window';
  throw invalid(
    path,
    `${length} bytes from offset ${offset} do not fit ${what}`,
    `within its ${end} bytes`,
  );
}

/** What a window has to allow for a kind. */
function rightOf(kind: OperationKind): Access {
  if (kind === 'read') return 'remote-read';
  return isAtomic(kind) ? 'remote-atomic' : 'remote-write';
}
