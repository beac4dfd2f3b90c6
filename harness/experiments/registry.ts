/**
 * Every experiment that ships, in the order in which `faultline experiment` lists them.
 */

import { exitRelease } from './exit-release.ts';
import type { Experiment } from './experiment.ts';
import { gruFlush } from './gru-flush.ts';
import { implicit } from './implicit.ts';
import { kvmInvalidate } from './kvm-invalidate.ts';
import { liveCopy } from './live-copy.ts';
import { migrate } from './migrate.ts';
import { mlock } from './mlock.ts';
import { noHole } from './no-hole.ts';
import { notifierRules } from './notifier-rules.ts';
import { notifierSites } from './notifier-sites.ts';
import { overcommit } from './overcommit.ts';
import { perfRing } from './perf-ring.ts';
import { pinReclaim } from './pin-reclaim.ts';
import { postponedInvalidation } from './postponed-invalidation.ts';
import { registrationCache } from './registration-cache.ts';
import { revocation } from './revocation.ts';
import { skeletonRace } from './skeleton-race.ts';
import { ummunotify } from './ummunotify.ts';
import { workingSet } from './working-set.ts';
import { xpmemRecall } from './xpmem-recall.ts';

export const experiments: readonly Experiment[] = [
  pinReclaim,
  mlock,
  migrate,
  liveCopy,
  noHole,
  implicit,
  overcommit,
  workingSet,
  notifierRules,
  notifierSites,
  skeletonRace,
  exitRelease,
  registrationCache,
  ummunotify,
  perfRing,
  postponedInvalidation,
  gruFlush,
  kvmInvalidate,
  revocation,
  xpmemRecall,
];
