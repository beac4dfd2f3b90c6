/**
 * Every experiment that ships, in the order in which `faultline experiment` lists them.
 */
import type { Experiment } from './experiment.ts';
import { overcommit } from './overcommit.ts';
import { pinReclaim } from './pin-reclaim.ts';

export const experiments: readonly Experiment[] = [pinReclaim, overcommit];
