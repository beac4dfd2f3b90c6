/**
 * Checks what happens in a scenario: that operations and events name what exists, stay inside their
 * regions, suit their queue pairs and do not race. Every problem is a Failure E_SCENARIO_INVALID.
 * Takes time in proportion to the size of the scenario: scripts make thousands of operations.
 */
import { PAGE_BYTES } from '../../kernel/index.ts';
import { MAX_INLINE_BYTES } from '../../transport/index.ts';
import { checkRaces } from './check-races.ts';
import {
  consumesReceive,
  isAtomic,
  isOnWord,
  isSend,
  type OperationKind,
} from './operation-schema.ts';
import { invalid } from './problem.ts';
import { bytesAt, endOf } from './ranges.ts';
import { type ScenarioIndex, srqAt } from './scenario-index.ts';
import type { EventSpec, OperationSpec, QueuePairSpec, RegionSpec, Scenario } from './schema.ts';

type Access = RegionSpec['access'][number];

/** Kinds that queue pairs of the other services have, too. */
const kindsOf: Readonly<Record<'UC' | 'UD', readonly OperationKind[]>> = {
  UC: ['write', 'writeImm', 'send', 'sendImm'],
  UD: ['send', 'sendImm'],
};
const INLINE_KINDS: readonly OperationKind[] = [
  'write',
  'writeImm',
  'send',
  'sendImm',
  'sendInv',
  'atomicWrite',
];
const FLUSH_KINDS: readonly OperationKind[] = ['write', 'writeImm', 'atomicWrite'];
const WORD_BYTES = 8;

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

/** What a work request looks like, and whether its queue pair takes it. */
function checkShape(
  operation: OperationSpec,
  { type }: QueuePairSpec,
  mtu: number,
  path: string,
): void {
  const { kind, sizeBytes, inline, solicited, flush, depth, signalEvery } = operation;
  if (type !== 'RC' && !kindsOf[type].includes(kind)) {
    throw invalid(`${path}.kind`, `a ${type} queue pair has no ${kind}`, kindsOf[type].join(', '));
  }
  if (type === 'UD' && sizeBytes > mtu) {
    throw invalid(`${path}.size`, 'a datagram is one packet', `at most ${mtu}B, the mtu`);
  }
  if (isOnWord(kind)) {
    if (sizeBytes !== WORD_BYTES) {
      throw invalid(`${path}.size`, `${kind} works on a word`, `${WORD_BYTES}B, or nothing`);
    }
    if (operation.target.offsetBytes % WORD_BYTES !== 0) {
      throw invalid(`${path}.target.offset`, 'not a word', `a multiple of ${WORD_BYTES}B`);
    }
    if (operation.strideBytes % WORD_BYTES !== 0) {
      throw invalid(`${path}.stride`, 'words do not overlap', `a multiple of ${WORD_BYTES}B`);
    }
  }
  if (inline && (!INLINE_KINDS.includes(kind) || sizeBytes > MAX_INLINE_BYTES)) {
    throw invalid(
      `${path}.inline`,
      `${sizeBytes} bytes of a ${kind} do not fit a work request`,
      `at most ${MAX_INLINE_BYTES}B of ${INLINE_KINDS.join(', ')}`,
    );
  }
  if (solicited && !consumesReceive(kind)) {
    throw invalid(
      `${path}.solicited`,
      `a ${kind} completes nothing at the target`,
      'a send, writeImm',
    );
  }
  if (flush !== null && (!FLUSH_KINDS.includes(kind) || type !== 'RC')) {
    throw invalid(`${path}.flush`, 'there is nothing to flush', `${FLUSH_KINDS.join(', ')} on RC`);
  }
  if (signalEvery > depth) {
    throw invalid(
      `${path}.signalEvery`,
      `of ${depth} outstanding work requests none might be signalled`,
      'at most the depth',
    );
  }
  if (operation.sges > sizeBytes) throw tooManyPieces(`${path}.sges`, sizeBytes);
  if (operation.receiveSges > sizeBytes) throw tooManyPieces(`${path}.receiveSges`, sizeBytes);
  if (operation.receiveSges > 1 && !isSend(kind)) {
    throw invalid(`${path}.receiveSges`, `a ${kind} needs no buffer of a receive`, '1');
  }
}

function tooManyPieces(place: string, bytes: number) {
  return invalid(place, `more pieces than bytes`, `at most ${bytes}`);
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

/** Before memory is replaced what is outstanding must complete, so all of it has to be signalled. */
function checkSignals({ operations, events }: Scenario): void {
  const replaced = new Set<string>();
  for (const event of events) {
    if (event.kind === 'remap' || event.kind === 'dontneed') replaced.add(event.region);
    if (event.kind === 'rebind') replaced.add(`window ${event.window}`);
  }
  for (const { invalidates } of operations) if (invalidates) replaced.add(`window ${invalidates}`);
  operations.forEach(({ signalEvery, source, target }, i) => {
    if (signalEvery === 1) return;
    for (const { region, window } of [source, target]) {
      if (!replaced.has(region) && !(window !== null && replaced.has(`window ${window}`))) continue;
      throw invalid(
        `operations[${i}].signalEvery`,
        'memory that it uses is replaced on the way',
        '1: every work request is signalled',
      );
    }
  });
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
