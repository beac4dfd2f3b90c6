/**
 * The systems of the seed threads (docs/HOST.md lists them as S1 to S21) and the experiment that shows
 * each: `faultline systems`.
 */
import { experiments } from './registry.ts';
import { runSeeded } from './seeded.ts';

/** One system with the command that shows it and what it has just computed. */
export interface SystemRow {
  readonly id: string;
  readonly command: string;
  readonly result: string;
  readonly ok: boolean;
}

/** Systems in order of their numbers, each with the experiment that shows it mainly; runs them one by one. */
export function* systemRows(seed: number): Generator<SystemRow> {
  const ids = new Set(experiments.flatMap(({ systems }) => systems));
  const numberOf = (id: string): number => Number(id.slice(1));
  for (const id of [...ids].sort((a, b) => numberOf(a) - numberOf(b))) {
    const shown =
      experiments.find(({ systems }) => systems[0] === id) ??
      experiments.find(({ systems }) => systems.includes(id));
    if (shown === undefined) continue;
    const { result, ok } = runSeeded(shown, seed);
    const seedFlag = seed === 1 ? '' : ` --seed ${seed}`;
    yield { id, command: `faultline experiment ${shown.name}${seedFlag}`, result, ok };
  }
}
