/**
 * Owns the axes of the table and which cells there are: operation, direction, path MTU, loss, memory.
 * Does not own what is done in a cell (operations.ts) nor running them (run-cells.ts).
 */
import type { Path, Service } from './end.ts';
import { type Operation, operations } from './operations.ts';

/** Who posts the requests. `far` is the end that is not the guest: our adapter. */
export type Direction = 'guest to us' | 'us to guest';
export type Loss = 'none' | 'loss';
export type Memory = 'pinned' | 'on demand';

export const directions: readonly Direction[] = ['guest to us', 'us to guest'];
export const losses: readonly Loss[] = ['none', 'loss'];
export const memories: readonly Memory[] = ['pinned', 'on demand'];
export const mtus: readonly number[] = [256, 512, 1024, 2048, 4096];

/** What a connection is made for: its cells are tried one after the other on it. */
export interface Group {
  readonly service: Service;
  readonly path: Path;
  readonly loss: Loss;
  /** Of our side's memory; the guest's is always pinned. */
  readonly memory: Memory;
}

export interface Cell {
  readonly group: Group;
  readonly operation: Operation;
  readonly direction: Direction;
}

/** The cells of a group whose operation's name contains `only`. */
export function cellsOf(group: Group, only = ''): Cell[] {
  return operations
    .filter(({ service, name }) => service === group.service && name.includes(only))
    .flatMap((operation) => directions.map((direction) => ({ group, operation, direction })));
}

/** Every combination over IPv4, and over IPv6 those of one MTU. */
export function fullGroups(): Group[] {
  const paths: Path[] = mtus.map((mtuBytes) => ({ mtuBytes, network: 'ipv4' }));
  return combine([...paths, { mtuBytes: 1024, network: 'ipv6' }]);
}

/** Each combination of loss and memory with one path MTU, and IPv6 without loss. */
const shortMtus: Readonly<Record<string, number>> = {
  'none pinned': 4096,
  'none on demand': 256,
  'loss pinned': 2048,
  'loss on demand': 512,
};

export function shortGroups(): Group[] {
  return fullGroups().filter(({ service, path, loss, memory }) => {
    if (path.network === 'ipv4') return path.mtuBytes === shortMtus[`${loss} ${memory}`];
    return service === 'rc' && loss === 'none' && memory === 'on demand';
  });
}

function combine(paths: readonly Path[]): Group[] {
  const services: Service[] = ['rc', 'uc', 'ud'];
  return losses.flatMap((loss) =>
    memories.flatMap((memory) =>
      paths.flatMap((path) => services.map((service) => ({ service, path, loss, memory }))),
    ),
  );
}
