/**
 * Which virtual machines start on a host that has less memory than they were promised: NPF table 5.
 */
import { type Memory, machinesStarted } from '../experiments/overcommit.ts';
import type { Figure } from './figure.ts';

function started(memory: Memory, published: number): Figure {
  return {
    figure: `machines of 3 GB that start on a host of 8 GB, of four, ${memory}`,
    source: 'Lesokhin et al., ASPLOS 2017, table 5',
    grade: 'S',
    unit: 'machines',
    from: 'table',
    role: 'predicted',
    parameters: ['memoryBytes', 'swapBytes'],
    published,
    model: () => machinesStarted(memory, 1),
    reason:
      'Sizes are 1/64 of the paper; what a guest touches is not published: half of its memory is assumed.',
  };
}

export const overcommitFigures: readonly Figure[] = [started('pinned', 2), started('on demand', 4)];
