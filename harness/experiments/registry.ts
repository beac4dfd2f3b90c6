/**
 * Every experiment that ships, in the order in which `faultline experiment` lists them.
 */
import type { Experiment } from './experiment.ts';

export const experiments: readonly Experiment[] = [];
