/**
 * Every experiment that ships, in the order in which `faultline experiment` lists them.
 */

import { exitRelease } from './exit-release.ts';
import type { Experiment } from './experiment.ts';
import { mlock } from './mlock.ts';
import { notifierRules } from './notifier-rules.ts';
import { notifierSites } from './notifier-sites.ts';
import { overcommit } from './overcommit.ts';
import { pinReclaim } from './pin-reclaim.ts';
import { skeletonRace } from './skeleton-race.ts';

export const experiments: readonly Experiment[] = [
  pinReclaim,
  mlock,
  overcommit,
  notifierRules,
  notifierSites,
  skeletonRace,
  exitRelease,
];
