/**
 * Running an experiment so that a bug report says how to see the bug again.
 */
import { SimulationBug } from '../../transport/index.ts';
import type { Experiment, ExperimentResult } from './experiment.ts';

/** Runs `experiment` with `seed`; a bug of the model names both. */
export function runSeeded(experiment: Experiment, seed: number): ExperimentResult {
  try {
    return experiment.run(seed);
  } catch (problem) {
    if (problem instanceof SimulationBug) {
      problem.message += `; to reproduce: faultline experiment ${experiment.name} --seed ${seed}`;
    }
    throw problem;
  }
}
